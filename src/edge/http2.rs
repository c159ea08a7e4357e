//! A connection of HTTP/2: its streams are accepted here, and each is dispatched as a connection of HTTP/1.1 would be, by a task of
//! its own. It does not know what becomes of them, only how many are open.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use h2::RecvStream;
use h2::server::{Builder, Connection, SendResponse};
use http::Request;
use pingora::server::ShutdownWatch;
use prometheus::IntGauge;
use tokio::time::timeout;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::arrival::Arrival;
use super::refusal::{self, Client};
use super::{Edge, connection};
use crate::answer::Carrier;
use crate::caller::Caller;
use crate::config::model::Listener;
use crate::generation::Generation;
use crate::http2::meter::{Exhausted, Metered, PREFACE, PREFACE_HEAD_BYTES};
use crate::http2::request::{Rest, Translated, translate};
use crate::http2::{Carried, Framing, OpenStream, SEND_BYTES_MAX, Streams, WINDOW_BYTES};
use crate::limits::Occupied;
use crate::stream::Stream;
use crate::tls::Met;

/// How long a connection that nobody needs any more may take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(5);

/// How long a stream may wait for the place of one that was taken back, whose end takes a moment to be noticed.
const PLACE_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a client without TLS that is turned away has to show what it speaks.
const PEEK_TIMEOUT: Duration = Duration::from_millis(200);

/// Empty SETTINGS, then GOAWAY with ENHANCE_YOUR_CALM before any stream (RFC 9113 §3.4, §6.8).
pub const TURNED_AWAY: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 11];

/// What small DATA frames that nobody has read yet may take, by h2's reckoning of about 256 bytes each. Many small messages for a
/// server that does not read are no attack, but they cost more than their windows say.
const SMALL_FRAMES_BYTES: usize = 8 * 1024 * 1024;

/// A connection whose client began with HTTP/2.
pub struct Begun {
    pub stream: Stream,
    /// What was read of it.
    pub first: BytesMut,
    pub caller: Caller,
    /// `None` where the client speaks plainly.
    pub met: Option<Met>,
    pub connection: Option<Occupied>,
    /// Kept to the end, because requests may arrive until then.
    pub arriving: Option<TaskTrackerToken>,
}

/// Whether these first bytes of a connection begin HTTP/2, and the listener serves it.
pub fn is_spoken(edge: &Edge, generation: &Generation, first: &[u8]) -> bool {
    generation.listener(edge.listener).http2 && first.starts_with(&PREFACE[..PREFACE_HEAD_BYTES])
}

/// Whether a client of which nothing was read will understand [`TURNED_AWAY`] rather than words. Nothing is taken from the stream.
pub async fn is_expected(rules: &Listener, stream: &Stream) -> bool {
    if stream.is_tls() || !rules.http2 {
        return stream.alpn() == Some(b"h2");
    }
    let mut first = [0; 3];
    matches!(timeout(PEEK_TIMEOUT, stream.peek(&mut first)).await, Ok(Ok(3))) && PREFACE.starts_with(&first)
}

/// Ends with the last stream, or when nobody needs the connection. Streams that are still open then learn it from h2.
pub async fn serve(edge: Arc<Edge>, begun: Begun, shutdown: ShutdownWatch) {
    let Begun { stream, first, caller, met, connection: slot, arriving: _arriving } = begun;
    let Some(served) = shake_hands(&edge, stream, first).await else { return };
    let Served { mut connection, exhausted, keepalive_timeout, places, _counted } = served;
    let met = met.map(Arc::new);
    let (streams, mut stopping) = (Streams::new(places, slot), shutdown.clone());
    let mut phase = Phase::Untried;
    loop {
        let patience = if phase < Phase::LastChance { keepalive_timeout } else { GOODBYE };
        let next = tokio::select! {
            biased;
            next = next(&mut connection, &exhausted) => next,
            () = stop(&mut stopping), if phase < Phase::LastChance => Next::Stopping,
            () = idle(&streams, patience) => Next::Idle,
        };
        match next {
            Next::Stream(request, respond) => {
                let from = From { edge: Arc::clone(&edge), caller, met: met.clone(), shutdown: shutdown.clone() };
                tokio::spawn(serve_stream(from, *request, respond, streams.open()));
                match phase {
                    Phase::Untried => phase = Phase::Serving,
                    Phase::LastChance => leave(&mut connection, &mut phase),
                    Phase::Serving | Phase::Leaving => {}
                }
            }
            Next::Stopping if phase == Phase::Untried && edge.lifecycle.is_handed_over() => phase = Phase::LastChance,
            Next::Idle if phase == Phase::Leaving => return,
            Next::Stopping | Next::Idle => leave(&mut connection, &mut phase),
            Next::Gone => return,
            Next::TooMuchOfNothing => {
                tracing::debug!(client = %caller.peer(), "ended a connection of HTTP/2 for frames that carry nothing");
                connection.abrupt_shutdown(h2::Reason::ENHANCE_YOUR_CALM);
                // It may not be read either; the connection ends now.
                let _ = timeout(GOODBYE, poll_fn(|cx| connection.poll_closed(cx))).await;
                return;
            }
        }
    }
}

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    /// No stream so far.
    Untried,
    Serving,
    /// Its client came when this process had the sockets, and no other can serve it: its first stream is awaited.
    LastChance,
    /// The client was told to open no more streams (RFC 9113 §6.8).
    Leaving,
}

fn leave(connection: &mut Connection<Metered<Stream>, Bytes>, phase: &mut Phase) {
    *phase = Phase::Leaving;
    connection.graceful_shutdown();
}

/// A connection that has begun, by the rules of its time.
struct Served {
    connection: Connection<Metered<Stream>, Bytes>,
    exhausted: Exhausted,
    keepalive_timeout: Duration,
    places: usize,
    _counted: Counted,
}

/// `None` where the client does not begin in time, or not with HTTP/2.
async fn shake_hands(edge: &Edge, stream: Stream, first: BytesMut) -> Option<Served> {
    let generation = edge.current.load();
    let rules = generation.listener(edge.listener);
    let _counted = Counted::new(&generation.listeners[edge.listener].metrics().http2_connections);
    let metered = Metered::new(stream, first, rules.http2_streams);
    let exhausted = metered.watch();
    let handshake = timeout(rules.header_timeout, builder(rules).handshake(metered));
    let connection = handshake.await.ok()?.ok()?;
    let (keepalive_timeout, places) = (rules.keepalive_timeout, rules.http2_streams as usize);
    Some(Served { connection, exhausted, keepalive_timeout, places, _counted })
}

fn builder(rules: &Listener) -> Builder {
    let streams = rules.http2_streams;
    let mut builder = Builder::new();
    builder
        .enable_connect_protocol()
        .max_concurrent_streams(streams)
        .max_header_list_size(u32::try_from(rules.header_limit).unwrap_or(u32::MAX))
        .initial_window_size(WINDOW_BYTES)
        // One that nobody reads takes nothing from the others.
        .initial_connection_window_size(WINDOW_BYTES.saturating_mul(streams).min(i32::MAX as u32))
        .max_send_buffer_size(SEND_BYTES_MAX)
        .data_frame_budget(SMALL_FRAMES_BYTES)
        // All may be taken back before this task has its turn.
        .max_pending_accept_reset_streams(streams as usize);
    builder
}

/// Counts the connection while it is open.
struct Counted(IntGauge);

impl Counted {
    fn new(gauge: &IntGauge) -> Counted {
        gauge.inc();
        Counted(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// What a connection comes up with.
enum Next {
    Stream(Box<Request<RecvStream>>, SendResponse<Bytes>),
    TooMuchOfNothing,
    /// No stream has been open for a while.
    Idle,
    /// The gateway takes no more connections.
    Stopping,
    Gone,
}

/// Moves every stream of the connection on until there is something to do about it.
async fn next(connection: &mut Connection<Metered<Stream>, Bytes>, exhausted: &Exhausted) -> Next {
    poll_fn(|cx| match connection.poll_accept(cx) {
        _ if exhausted.is() => Poll::Ready(Next::TooMuchOfNothing),
        Poll::Ready(Some(Ok((request, respond)))) => Poll::Ready(Next::Stream(Box::new(request), respond)),
        Poll::Ready(Some(Err(_)) | None) => Poll::Ready(Next::Gone),
        Poll::Pending => Poll::Pending,
    })
    .await
}

async fn stop(stopping: &mut ShutdownWatch) {
    // Nobody is left to say so where it fails.
    let _ = stopping.wait_for(|stopping| *stopping).await;
}

/// Until no stream was open for so long.
async fn idle(streams: &Streams, patience: Duration) {
    loop {
        streams.until_none().await;
        tokio::time::sleep(patience).await;
        if streams.are_none() {
            return;
        }
    }
}

/// Where a stream comes from.
struct From {
    edge: Arc<Edge>,
    caller: Caller,
    met: Option<Arc<Met>>,
    shutdown: ShutdownWatch,
}

/// Whether there is a place for the stream. One that was taken back meanwhile needs none.
async fn has_place(respond: &mut SendResponse<Bytes>, open: &mut OpenStream) -> bool {
    tokio::select! {
        biased;
        _ = poll_fn(|cx| respond.poll_reset(cx)) => return false,
        placed = timeout(PLACE_TIMEOUT, open.take_place()) => if placed.is_ok() { return true },
    }
    respond.send_reset(h2::Reason::REFUSED_STREAM);
    false
}

async fn serve_stream(
    from: From,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    mut open: OpenStream,
) {
    if !has_place(&mut respond, &mut open).await {
        return;
    }
    let From { edge, caller, met, shutdown } = from;
    let generation = edge.current.load();
    let arrival = Arrival { carrier: Carrier::Http2, ..Arrival::new(&edge, &generation, caller, met.as_deref()) };
    let (parts, body) = request.into_parts();
    let rest = if body.is_end_stream() { Rest::None } else { Rest::Follows };
    match translate(&parts, rest, fastrand::u128(..)) {
        Ok(Translated { head, framing }) => {
            drop(parts);
            let stream = Carried::new(body, respond, framing, open).into();
            let (bytes, length) = (BytesMut::from(&head[..]), head.len());
            connection::dispatch(arrival, stream, bytes, length, &mut None, &shutdown).await;
        }
        Err(reason) => {
            let mut stream = Carried::new(body, respond, Framing::Plain, open).into();
            refusal::refuse(Client::Read(&mut stream), &arrival, None, reason, None).await;
        }
    }
}
