//! The life of one client connection: a head, what becomes of it, and the next head if the connection comes back.

use std::sync::Arc;

use bytes::BytesMut;
use pingora::server::ShutdownWatch;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::admission::Room;
use super::arrival::Arrival;
use super::caller::{self, Stop};
use super::head_reader::{self, Patience, Received};
use super::refusal::{self, About, Client};
use super::secure::{self, Secured};
use super::{Edge, http2, plain, upgrade};
use crate::address::ClientAddr;
use crate::answer::Carrier;
use crate::caller::Caller;
use crate::generation::Generation;
use crate::handshake::request::{Body, Head, HeadError, Intent};
use crate::limits::Occupied;
use crate::reason::Reason;
use crate::stream::Stream;
use crate::tls::Met;

/// What a dispatched head left of the connection.
pub enum Next {
    Head(Stream),
    Nothing,
}

/// A client connection on its way through the steps below.
struct Connection {
    edge: Arc<Edge>,
    caller: Caller,
    /// What came of the TLS handshake; `None` where the client speaks plainly.
    met: Option<Met>,
    /// Until an upgrade takes it along.
    slot: Option<Occupied>,
    /// Until the first head is dealt with.
    arriving: Option<TaskTrackerToken>,
    stopping: ShutdownWatch,
}

/// Ends when the connection does, or when a tunnel of its own goes on with it. The steps, each of which may be the last: room for one
/// more; who is at the other end, by the socket and by a PROXY header; room for one more of that client; TLS; then heads.
pub async fn serve(
    shared: Arc<Edge>,
    mut stream: Stream,
    peer: ClientAddr,
    stopping: ShutdownWatch,
    arriving: TaskTrackerToken,
) {
    let edge = &*shared;
    let generation = edge.current.load();
    let socket = Caller::of_socket(peer, stream.local_address());
    let Some(room) = Room::of_all(edge, &generation) else { return };
    let rules = generation.listener(edge.listener);
    let caller = match caller::find(edge, rules, &mut stream, socket, &stopping).await {
        Ok(caller) => caller,
        Err(Stop::Refused(reason)) => {
            let arrival = Arrival::new(edge, &generation, socket, None);
            return match rules.tls {
                Some(_) => refusal::note(&arrival, reason),
                None => turn_away(&arrival, &mut stream, reason).await,
            };
        }
        Err(Stop::Gone) => return,
    };
    let Some(room) = room.of_client(&Arrival::new(edge, &generation, caller, None)) else { return };
    // Whoever is turned away is told in TLS too, and counted until then.
    let Some(Secured { mut stream, met }) = secure::secure(edge, &generation, stream).await else { return };
    match room {
        Room::Taken(occupied) => {
            let (slot, arriving) = (Some(occupied), Some(arriving));
            let connection = Connection { edge: Arc::clone(&shared), caller, met, slot, arriving, stopping };
            connection.serve_heads(stream, generation).await;
        }
        Room::Full { why, .. } => {
            let arrival = Arrival::new(edge, &generation, caller, met.as_ref());
            if http2::is_expected(rules, &stream).await {
                refusal::note(&Arrival { carrier: Carrier::Http2, ..arrival }, why);
                refusal::send(Client::Unread(&mut stream), http2::TURNED_AWAY).await;
            } else {
                turn_away(&arrival, &mut stream, why).await;
            }
        }
    }
}

/// Answers before any head was read.
async fn turn_away(arrival: &Arrival<'_>, stream: &mut Stream, reason: Reason) {
    refusal::refuse(Client::Unread(stream), arrival, None, reason, None).await;
}

impl Connection {
    async fn serve_heads(self, mut stream: Stream, mut generation: Arc<Generation>) {
        let Connection { edge: shared, caller, met, mut slot, mut arriving, stopping } = self;
        let edge = &*shared;
        let mut patience = first_patience(edge, &generation);
        let mut buffer = BytesMut::new();
        loop {
            let waited = wait_for_head(edge, &generation, &mut stream, &mut buffer, patience, &stopping).await;
            let received = match waited {
                Some(received) => received,
                // Its client came when this process had the sockets, and no other can serve it.
                None if arriving.is_some() && edge.lifecycle.is_handed_over() => {
                    let limit = generation.listener(edge.listener).header_limit;
                    head_reader::read(&mut stream, &mut buffer, limit, patience).await
                }
                None => return,
            };
            generation = edge.current.load();
            match received {
                Received::Gone => return,
                Received::Refused(reason) => {
                    let arrival = Arrival::new(edge, &generation, caller, met.as_ref());
                    return turn_away(&arrival, &mut stream, reason).await;
                }
                Received::Head(_) if arriving.is_some() && http2::is_spoken(edge, &generation, &buffer) => {
                    let begun = http2::Begun { stream, first: buffer, caller, met, connection: slot, arriving };
                    // Boxed, because a connection of HTTP/1.1 need not have the room for it.
                    return Box::pin(http2::serve(Arc::clone(&shared), begun, stopping)).await;
                }
                Received::Head(length) => {
                    let arrival = Arrival::new(edge, &generation, caller, met.as_ref());
                    let bytes = std::mem::take(&mut buffer);
                    match dispatch(arrival, stream, bytes, length, &mut slot, &stopping).await {
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

/// `connection` is what an upgrade takes along, because the connection is then its own.
pub async fn dispatch(
    arrival: Arrival<'_>,
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
            refusal::refuse(Client::Unread(&mut stream), &arrival, None, reason, None).await;
            return Next::Nothing;
        }
    };
    let arrival = &arrival.with_head(&head);
    let mut decision = arrival.generation.policy.decide(arrival.edge.listener, &head);
    match head.intent() {
        Intent::Upgrade => {
            let connection = connection.take();
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
