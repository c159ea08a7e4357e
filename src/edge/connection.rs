//! The life of one client connection: a head, what becomes of it, and the next head if the connection comes back.

use std::sync::Arc;

use bytes::BytesMut;
use pingora::server::ShutdownWatch;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::arrival::Arrival;
use super::head_reader::{self, Patience, Received};
use super::refusal::{self, About, Client};
use super::secure::{self, Secured};
use super::{Edge, admission, plain, upgrade};
use crate::address::ClientAddr;
use crate::generation::Generation;
use crate::handshake::request::{Body, Head, HeadError, Intent};
use crate::limits::Occupied;
use crate::reason::Reason;
use crate::stream::Stream;

/// What a dispatched head left of the connection.
enum Next {
    Head(Stream),
    Nothing,
}

/// Ends when the connection does, or when a tunnel of its own goes on with it.
pub async fn serve(
    edge: Arc<Edge>,
    stream: Stream,
    client: ClientAddr,
    shutdown: ShutdownWatch,
    arriving: TaskTrackerToken,
) {
    let edge = &*edge;
    // Until the first head is dealt with.
    let mut arriving = Some(arriving);
    let mut generation = edge.current.load();
    let arrival = Arrival::new(edge, &generation, client, None);
    // Counted from here on, so that whoever does not come to an end is counted too; and told, if there is still room for that.
    let (mut connection, refused) = match admission::connection(&arrival) {
        Ok(occupied) => (Some(occupied), None),
        Err(reason) => (None, Some((reason, edge.turned_away.take()))),
    };
    if matches!(refused, Some((_, None))) {
        return;
    }
    // What comes before TLS, such as the PROXY protocol, has its place above this line.
    let Some(Secured { mut stream, met }) = secure::secure(edge, &generation, stream).await else { return };
    let met = met.as_ref();
    if let Some((reason, _told)) = refused {
        let arrival = Arrival::new(edge, &generation, client, met);
        return refusal::refuse(Client::Unread(&mut stream), &arrival, None, reason, None).await;
    }
    let mut patience = first_patience(edge, &generation);
    let mut buffer = BytesMut::new();
    loop {
        let received = match wait_for_head(edge, &generation, &mut stream, &mut buffer, patience, &shutdown).await {
            Some(received) => received,
            // Its client came when this process had the sockets, and no other can serve it.
            None if arriving.is_some() && edge.lifecycle.is_handed_over() => {
                let limit = generation.listener(edge.listener).header_limit;
                head_reader::read(&mut stream, &mut buffer, limit, patience).await
            }
            None => return,
        };
        generation = edge.current.load();
        let arrival = Arrival::new(edge, &generation, client, met);
        match received {
            Received::Gone => return,
            Received::Refused(reason) => {
                refusal::refuse(Client::Unread(&mut stream), &arrival, None, reason, None).await;
                return;
            }
            Received::Head(length) => {
                let bytes = std::mem::take(&mut buffer);
                match dispatch(&arrival, stream, bytes, length, &mut connection, &shutdown).await {
                    Next::Head(back) => stream = back,
                    Next::Nothing => return,
                }
            }
        }
        arriving = None;
        let rules = generation.listener(edge.listener);
        patience = Patience { first_byte: rules.keepalive_timeout, whole_head: rules.header_timeout };
    }
}

/// `None` when the gateway stops and the client is not in the middle of a head.
async fn wait_for_head(
    edge: &Edge,
    generation: &Generation,
    stream: &mut Stream,
    buffer: &mut BytesMut,
    patience: Patience,
    shutdown: &ShutdownWatch,
) -> Option<Received> {
    let limit = generation.listener(edge.listener).header_limit;
    let mut shutdown = shutdown.clone();
    tokio::select! {
        biased;
        received = head_reader::read(stream, buffer, limit, patience) => return Some(received),
        _ = shutdown.wait_for(|stopping| *stopping) => {}
    }
    if buffer.is_empty() {
        return None;
    }
    Some(head_reader::read(stream, buffer, limit, patience).await)
}

async fn dispatch(
    arrival: &Arrival<'_>,
    mut stream: Stream,
    bytes: BytesMut,
    length: usize,
    connection: &mut Option<Occupied>,
    shutdown: &ShutdownWatch,
) -> Next {
    let head = match Head::parse(&bytes[..length]) {
        Ok(head) => head,
        Err(error) => {
            let reason = reason_of(error);
            refusal::refuse(Client::Unread(&mut stream), arrival, None, reason, None).await;
            return Next::Nothing;
        }
    };
    let mut decision = arrival.generation.policy.decide(arrival.edge.listener, &head);
    match head.intent() {
        Intent::Upgrade => {
            let connection =
                connection.take().expect("a connection keeps its slot until its upgrade, which is its last");
            upgrade::serve(arrival, stream, upgrade::Request { head, early: &bytes[length..], decision, connection })
                .await;
            Next::Nothing
        }
        Intent::Plain => match decision.take_verdict() {
            Ok(permit) => {
                let ticket = plain::ticket(arrival, &head, permit, bytes.len() - length);
                drop(head);
                plain::hand_over(arrival, stream, bytes, ticket, shutdown).await.map_or(Next::Nothing, Next::Head)
            }
            Err(reason) => {
                let unread = length < bytes.len() || head.body != Body::None;
                let client = if unread { Client::Unread(&mut stream) } else { Client::Read(&mut stream) };
                let about = About { head: &head, decision: &decision };
                refusal::refuse(client, arrival, Some(about), reason, None).await;
                Next::Nothing
            }
        },
    }
}

fn first_patience(edge: &Edge, generation: &Generation) -> Patience {
    let rules = generation.listener(edge.listener);
    Patience { first_byte: rules.header_timeout, whole_head: rules.header_timeout }
}

fn reason_of(error: HeadError) -> Reason {
    match error {
        HeadError::TooManyFields => Reason::HeadTooLarge,
        HeadError::Host => Reason::HostMissing,
        HeadError::Syntax | HeadError::ContentLength | HeadError::TransferEncoding | HeadError::Target => {
            Reason::HeadMalformed
        }
    }
}
