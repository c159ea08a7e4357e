//! An upgrade from its head to its tunnel, readable top to bottom: decide, admit, pick, dial, verify, open. Each step that
//! fails answers the client and ends the connection.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::arrival::Arrival;
use super::reach::{self, Reached};
use super::refusal::{self, About, Client};
use super::relayed;
use crate::answer;
use crate::config::model::Extensions;
use crate::dial::head::{Offers, Origin};
use crate::dial::{self, Reply};
use crate::handshake::extension;
use crate::handshake::request::Head;
use crate::handshake::response::{Answer, AnswerBody};
use crate::handshake::{Asked, Version};
use crate::limits::Slot;
use crate::observe::event::{Opened, Refused};
use crate::policy::{Decision, Permit};
use crate::reason::Reason;
use crate::relay::{Account, Early, Held, Relay};
use crate::tunnel::{Session, Speech};
use crate::wire::Reserved;

/// Bytes of the third key that a version-0 client sends behind its head.
const KEY3_BYTES: usize = 8;

/// An upgrade as it arrived.
pub struct Request<'a> {
    pub head: Head<'a>,
    /// What came behind the head, in the same reads.
    pub early: &'a [u8],
    pub decision: Decision,
    pub connection: Slot,
}

/// An upgrade that may pass.
struct Admitted<'a> {
    head: Head<'a>,
    early: Vec<u8>,
    decision: Decision,
    permit: Permit,
    connection: Slot,
    route: Slot,
    /// A drain waits for the handshake as it does for the tunnel.
    alive: TaskTrackerToken,
}

pub async fn serve(arrival: &Arrival<'_>, mut stream: TcpStream, request: Request<'_>) {
    let Request { head, early, mut decision, connection } = request;
    tell(arrival, &head, &decision);
    let permit = match take_verdict(arrival, &mut decision) {
        Ok(permit) => permit,
        Err(reason) => {
            let client = if early.is_empty() { Client::Read(&mut stream) } else { Client::Unread(&mut stream) };
            let about = About { head: &head, decision: &decision };
            return refusal::refuse(client, arrival, Some(about), reason, None).await;
        }
    };
    let Some(route) = arrival.generation.route(&permit).tunnels.take() else {
        let client = Client::Unread(&mut stream);
        let about = About { head: &head, decision: &decision };
        return refusal::refuse(client, arrival, Some(about), Reason::LimitTunnels, None).await;
    };
    let alive = arrival.edge.lifecycle.work();
    let mut admitted = Admitted { head, early: early.to_vec(), decision, permit, connection, route, alive };
    if let Err(reason) = read_key3(arrival, &mut stream, &mut admitted).await {
        let client = Client::Unread(&mut stream);
        let about = About { head: &admitted.head, decision: &admitted.decision };
        return refusal::refuse(client, arrival, Some(about), reason, None).await;
    }
    connect(arrival, stream, admitted).await;
}

/// Counts the request and what a stricter route would have refused.
fn tell(arrival: &Arrival<'_>, head: &Head<'_>, decision: &Decision) {
    let observer = arrival.edge.current.observer();
    let route = decision.route.map(|route| arrival.generation.routes[route].name.as_str());
    observer.upgrade_requested(arrival.listener(), route, head.asked().label());
    for &reason in &decision.noted {
        observer.would_refuse(route.unwrap_or_default(), reason);
    }
}

fn take_verdict(arrival: &Arrival<'_>, decision: &mut Decision) -> Result<Permit, Reason> {
    let verdict = decision.take_verdict();
    if verdict.is_ok() && arrival.edge.lifecycle.refuses_tunnels() { Err(Reason::Draining) } else { verdict }
}

/// A version-0 handshake that is only observed goes on as one piece with its third key, which may come late.
async fn read_key3(arrival: &Arrival<'_>, stream: &mut TcpStream, admitted: &mut Admitted<'_>) -> Result<(), Reason> {
    if admitted.permit.asked() != Some(Asked::Version(Version::HIXIE_76)) {
        return Ok(());
    }
    let limit = arrival.generation.listener(arrival.edge.listener).header_timeout;
    let read = timeout(limit, async {
        while admitted.early.len() < KEY3_BYTES {
            if stream.read_buf(&mut admitted.early).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        io::Result::Ok(())
    });
    match read.await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(Reason::HeadMalformed),
        Err(_) => Err(Reason::HeadTimeout),
    }
}

async fn connect(arrival: &Arrival<'_>, mut client: TcpStream, mut admitted: Admitted<'_>) {
    let rules = arrival.generation.policy.route(admitted.permit.route()).rules();
    let offers = match rules.handshake.extensions {
        Extensions::Strip => Offers::Strip,
        Extensions::Pass | Extensions::Refuse => Offers::Forward,
    };
    let origin = Origin { client: arrival.client, trust: arrival.trust() };
    let mut request = dial::head::upgrade(&admitted.head, origin, offers);
    if admitted.permit.asked() == Some(Asked::Version(Version::HIXIE_76)) {
        request.append(&mut admitted.early);
    }
    let offer = reach::Offer { head: &admitted.head, request: &request, offers };
    match reach::reach(arrival, &admitted.permit, offer, &mut admitted.decision.noted).await {
        Ok(Reached::Switching(picked)) => open(arrival, client, admitted, picked).await,
        Ok(Reached::Refused { reply, framing }) => relay_refusal(arrival, &mut client, &admitted, reply, framing).await,
        Err(failure) => {
            let about = About { head: &admitted.head, decision: &admitted.decision };
            let detail = failure.detail.as_deref();
            refusal::refuse(Client::Unread(&mut client), arrival, Some(about), failure.reason, detail).await;
        }
    }
}

/// Writes the 101 and leaves the rest to a small task of its own.
async fn open(arrival: &Arrival<'_>, mut client: TcpStream, admitted: Admitted<'_>, mut reached: reach::Switching) {
    let generation = arrival.generation;
    let route = Arc::clone(generation.route(&admitted.permit));
    let upstream = generation.upstream(&admitted.permit).cluster.rules();
    let observer = Arc::clone(arrival.edge.current.observer());
    let switching = relayed::switching(&reached.reply.answer());
    reached.reply.deadline.restart(upstream.handshake_timeout);
    if !matches!(reached.reply.deadline.hold(client.write_all(&switching)).await, Ok(Ok(()))) {
        let request = arrival.event(Some(&admitted.head), admitted.decision.route);
        let (reason, status) = (Reason::ClientLost, answer::CLIENT_GONE);
        return arrival.edge.current.observer().refused(&Refused { request, reason, status, detail: None });
    }
    let answer = reached.reply.answer();
    let opened_at = Instant::now();
    let asked = admitted.permit.asked().map_or("missing", Asked::label);
    let gauge = observer.opened(&Opened {
        request: arrival.event(Some(&admitted.head), admitted.decision.route),
        upstream: &upstream.name,
        server: reached.server,
        spoken: asked,
        subprotocol: answer.text("Sec-WebSocket-Protocol"),
        extensions: answer.text("Sec-WebSocket-Extensions"),
        handshake: opened_at.saturating_duration_since(arrival.at),
        would_refuse: &admitted.decision.noted,
    });
    let account = Account {
        id: arrival.id,
        opened_at,
        observer,
        held: Held {
            connection: admitted.connection,
            route: admitted.route,
            server: reached.slot,
            gauge,
            membership: route.roster.join(),
            alive: admitted.alive,
        },
        route,
    };
    let early = Early { from_client: admitted.early, from_backend: reached.reply.behind_head().to_vec() };
    let speech = speech(admitted.permit.asked(), &answer);
    let session = Session::new(Arc::clone(&account.route.rules), speech, fastrand::u64(..), opened_at);
    let Reply { stream: backend, deadline, .. } = reached.reply;
    tokio::spawn(Relay::new(client, backend, early, session, account, deadline.into_timer()));
}

/// What the two sides speak from here on. An unknown version that is only observed may frame its messages in any way.
fn speech(asked: Option<Asked>, answer: &Answer<'_>) -> Speech {
    match asked {
        Some(Asked::Version(version)) if version.has_frames() => {
            let mut extensions = extension::names(&answer.fields);
            Speech::Frames(match (extensions.next(), extensions.next()) {
                (None, _) => Reserved::None,
                (Some(b"permessage-deflate"), None) => Reserved::Compressed,
                _ => Reserved::Any,
            })
        }
        _ => Speech::Opaque,
    }
}

async fn relay_refusal(
    arrival: &Arrival<'_>,
    client: &mut TcpStream,
    admitted: &Admitted<'_>,
    reply: Reply,
    framing: AnswerBody,
) {
    let answer = reply.answer();
    let request = arrival.event(Some(&admitted.head), admitted.decision.route);
    let (reason, status) = (Reason::BackendRefused, answer.status);
    arrival.edge.current.observer().refused(&Refused { request, reason, status, detail: None });
    let versions = arrival.generation.policy.route(admitted.permit.route()).versions();
    let head = relayed::head(&answer, versions);
    let idle = arrival.generation.upstream(&admitted.permit).cluster.rules().handshake_timeout;
    let relayed = async {
        client.write_all(&head).await?;
        relayed::body(client, reply, framing, idle).await
    };
    match relayed.await {
        Ok(()) => refusal::send(Client::Unread(client), b"").await,
        Err(error) => tracing::debug!(id = %arrival.id, %error, "a backend's refusal was not relayed whole"),
    }
}
