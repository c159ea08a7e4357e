//! An upgrade from its head to its tunnel, readable top to bottom: decide, admit, pick, dial, verify, open. Each step that
//! fails answers the client and ends the connection.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::admission;
use super::arrival::Arrival;
use super::greeting::Greeted;
use super::question::Wish;
use super::reach::{self, Failure, Reached, Switching};
use super::refusal::{self, About, Client};
use super::relayed;
use super::waiting::Caller;
use crate::answer;
use crate::bridge::Bridge;
use crate::dial::Reply;
use crate::dialect::Dialect;
use crate::generation::RouteHandle;
use crate::handshake::hixie::{DIGEST_BYTES, KEY3_BYTES, Numbers};
use crate::handshake::request::Head;
use crate::handshake::response::{Answer, AnswerBody};
use crate::handshake::{Asked, extension};
use crate::limits::Occupied;
use crate::observe::event::{Opened, Refused};
use crate::policy::{Decision, Permit};
use crate::reason::Reason;
use crate::relay::{Account, Early, Held, Parting, Relay, Talk};
use crate::stream::Stream;
use crate::tunnel::{Frames, Session, Side, Speech};
use crate::wire::Reserved;

/// An upgrade as it arrived.
pub struct Request<'a> {
    pub head: Head<'a>,
    /// What came behind the head, in the same reads.
    pub early: &'a [u8],
    pub decision: Decision,
    /// None on a connection that carries more than this.
    pub connection: Option<Occupied>,
}

/// An upgrade that may pass.
struct Admitted<'a> {
    head: Head<'a>,
    early: Vec<u8>,
    /// Of a version-0 handshake, once it is read.
    key3: Option<[u8; KEY3_BYTES]>,
    /// What answers it, where the gateway does.
    digest: Option<[u8; DIGEST_BYTES]>,
    decision: Decision,
    permit: Permit,
    connection: Option<Occupied>,
    route: Occupied,
    /// A drain waits for the handshake as it does for the tunnel.
    alive: TaskTrackerToken,
}

pub async fn serve(arrival: &Arrival<'_>, mut stream: Stream, request: Request<'_>) {
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
    let alive = arrival.edge.lifecycle.work();
    let route = match admission::tunnel(arrival, &permit).await {
        Ok(occupied) => occupied,
        Err(why) => {
            let about = About { head: &head, decision: &decision };
            return refusal::refuse_for(Client::Unread(&mut stream), arrival, Some(about), why).await;
        }
    };
    let mut admitted =
        Admitted { head, early: early.to_vec(), key3: None, digest: None, decision, permit, connection, route, alive };
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

/// The third key of a version-0 handshake, which may come late.
async fn read_key3(arrival: &Arrival<'_>, stream: &mut Stream, admitted: &mut Admitted<'_>) -> Result<(), Reason> {
    if admitted.permit.asked() != Some(Asked::Known(Dialect::Hixie76)) {
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
        Ok(Ok(())) => {}
        Ok(Err(_)) => return Err(Reason::HeadMalformed),
        Err(_) => return Err(Reason::HeadTimeout),
    }
    let Some(key3) = admitted.early.first_chunk().copied() else { return Err(Reason::HeadMalformed) };
    admitted.early.drain(..KEY3_BYTES);
    admitted.key3 = Some(key3);
    if admitted.permit.speaks().is_some() {
        // Without its numbers it cannot be answered, whatever its route relaxes.
        let numbers = Numbers::read(&admitted.head.fields).map_err(|_| Reason::KeyMalformed)?;
        admitted.digest = Some(numbers.digest(&key3));
    }
    Ok(())
}

async fn connect(arrival: &Arrival<'_>, mut client: Stream, mut admitted: Admitted<'_>) {
    let wish = Wish::new(arrival, &admitted.permit, &admitted.head, admitted.key3);
    let mut caller = Caller { stream: &mut client, early: &mut admitted.early };
    match reach::reach(arrival, &admitted.permit, &wish, &mut admitted.decision.noted, &mut caller).await {
        Ok(Reached::Switching(reached)) => open(arrival, client, admitted, reached).await,
        Ok(Reached::Refused { reply, framing }) => relay_refusal(arrival, &mut client, admitted, reply, framing).await,
        Err(Failure { reason: Reason::ClientLost, .. }) => lost(arrival, &admitted),
        Err(failure) => {
            // There will be no tunnel, and a client that knows may ask again before it is done with this answer.
            drop(admitted.route);
            let about = About { head: &admitted.head, decision: &admitted.decision };
            let detail = failure.detail.as_deref();
            refusal::refuse(Client::Unread(&mut client), arrival, Some(about), failure.reason, detail).await;
        }
    }
}

/// The client left before its answer.
fn lost(arrival: &Arrival<'_>, admitted: &Admitted<'_>) {
    let request = arrival.event(Some(&admitted.head), admitted.decision.route);
    let (reason, status) = (Reason::ClientLost, answer::CLIENT_GONE);
    arrival.edge.current.observer().refused(&Refused { request, reason, status, detail: None });
}

/// The 101 for the client: the backend's own, or one in the gateway's name.
fn greeting(arrival: &Arrival<'_>, admitted: &Admitted<'_>, reached: &Switching) -> Vec<u8> {
    let (answer, cookie) = (reached.reply.answer(), reached.cookie.as_deref());
    match (admitted.permit.speaks(), reached.question.own_dialect()) {
        (Some(dialect), Some(_)) => {
            let (head, digest) = (&admitted.head, admitted.digest);
            let (trust, scheme) = (arrival.trust(), arrival.scheme());
            let greeted = Greeted { dialect, head, digest, trust, scheme, cookie };
            greeted.switching(&answer, reached.question.chosen(&answer))
        }
        (Some(_) | None, _) => relayed::switching(&answer, cookie),
    }
}

/// Writes the 101 and leaves the rest to a small task of its own.
async fn open(arrival: &Arrival<'_>, mut client: Stream, admitted: Admitted<'_>, mut reached: Switching) {
    let generation = arrival.generation;
    let route = Arc::clone(generation.route(&admitted.permit));
    let upstream = generation.upstream(&admitted.permit);
    let upstream = upstream.cluster.rules();
    let observer = Arc::clone(arrival.edge.current.observer());
    let switching = greeting(arrival, &admitted, &reached);
    reached.reply.deadline.restart(upstream.handshake_timeout);
    let greet = async {
        client.write_all(&switching).await?;
        client.flush().await
    };
    if !matches!(reached.reply.deadline.hold(greet).await, Ok(Ok(()))) {
        return lost(arrival, &admitted);
    }
    let answer = reached.reply.answer();
    let opened_at = Instant::now();
    let asked = admitted.permit.asked().map_or("missing", Asked::label);
    let gauge = observer.opened(&Opened {
        request: arrival.event(Some(&admitted.head), admitted.decision.route),
        upstream: &upstream.name,
        server: &reached.server,
        spoken: reached.question.own_dialect().map_or(asked, Dialect::name),
        subprotocol: reached.question.chosen(&answer).and_then(|name| std::str::from_utf8(name).ok()),
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
    let behind = &reached.reply.behind_head()[reached.question.proof_bytes()..];
    let early = Early { from_client: admitted.early, from_backend: behind.to_vec() };
    let speech = speech(&admitted.permit, reached.question.own_dialect(), &account.route, &answer);
    let parting = parting(&client, &reached.reply.stream);
    let talk = talk(speech, &account.route, parting, opened_at);
    keep_alive(speech, &account.route, &client, &reached.reply.stream);
    let Reply { stream: backend, deadline, .. } = reached.reply;
    tokio::spawn(Relay::new(client, backend, early, talk, account, deadline.into_timer()));
}

/// What the two sides speak from here on. An unknown version that is only observed may frame its messages in any way.
fn speech(permit: &Permit, own: Option<Dialect>, route: &RouteHandle, answer: &Answer<'_>) -> Speech {
    match (permit.asked().and_then(Asked::dialect), permit.speaks(), own) {
        (_, Some(client), Some(backend)) if client == backend && route.rules.frames == Frames::Blind => Speech::Opaque,
        (_, Some(client), Some(backend)) => Speech::Bridged { client, backend },
        (Some(dialect), _, _) if dialect.has_frames() => {
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

fn parting(client: &Stream, backend: &Stream) -> Parting {
    if client.is_tls() || backend.is_tls() { Parting::ByWord } else { Parting::BySocket }
}

fn talk(speech: Speech, route: &RouteHandle, parting: Parting, now: Instant) -> Talk {
    let (rules, bridge) = match speech {
        Speech::Bridged { client, backend } => {
            let is_collected = !client.has_frames() || !backend.has_frames();
            let rules = if is_collected { &route.bridged_rules } else { &route.rules };
            (rules, Some(Box::new(Bridge::between(client, backend, route.terms, fastrand::u64(..)))))
        }
        Speech::Frames(_) | Speech::Opaque => (&route.rules, None),
    };
    Talk { session: Session::new(Arc::clone(rules), speech, fastrand::u64(..), now), bridge, parting }
}

/// A side that knows no Ping is asked by TCP.
fn keep_alive(speech: Speech, route: &RouteHandle, client: &Stream, backend: &Stream) {
    let (Speech::Bridged { client: of_client, backend: of_backend }, Some(ping)) = (speech, route.rules.ping) else {
        return;
    };
    for (stream, dialect, side) in [(client, of_client, Side::Client), (backend, of_backend, Side::Backend)] {
        if dialect.has_frames() {
            continue;
        }
        let probes = TcpKeepalive::new()
            .with_time(ping.interval)
            .with_interval((ping.timeout / PROBES).max(Duration::from_secs(1)))
            .with_retries(PROBES);
        // One that others share is for their connection to keep, and a Unix socket's peer cannot be lost.
        let (Some(socket), false) = (stream.socket(), matches!(stream, Stream::Unix(_))) else { continue };
        if let Err(error) = SockRef::from(&socket).set_tcp_keepalive(&probes) {
            tracing::debug!(side = side.as_str(), %error, "no TCP keep-alive");
        }
    }
}

/// Of TCP, before a side is taken for dead.
const PROBES: u32 = 3;

async fn relay_refusal(
    arrival: &Arrival<'_>,
    client: &mut Stream,
    admitted: Admitted<'_>,
    reply: Reply,
    framing: AnswerBody,
) {
    // As with any other answer that is no 101.
    drop(admitted.route);
    let answer = reply.answer();
    let request = arrival.event(Some(&admitted.head), admitted.decision.route);
    let (reason, status) = (Reason::BackendRefused, arrival.carrier.status(answer.status));
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
