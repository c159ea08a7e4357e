//! Hands a plain request over to pingora-proxy, with the decision already made and all bytes read so far, and takes the
//! connection back.

use bytes::BytesMut;
use pingora::apps::HttpServerApp;
use pingora::protocols::http::ServerSession;
use pingora::server::ShutdownWatch;

use super::arrival::Arrival;
use super::lent;
use crate::handshake::request::{Body, Head, Http};
use crate::policy::Permit;
use crate::proxy::{Next, Ticket};
use crate::stream::Stream;

/// What pingora-proxy's hooks need to know of a request. They read nothing of it a second time.
/// `behind` counts the bytes read behind the head.
pub fn ticket(arrival: &Arrival<'_>, head: &Head<'_>, permit: Permit, behind: usize) -> Ticket {
    let upstream = arrival.generation.upstream(&permit);
    let is_last = arrival.edge.lifecycle.is_draining() || head.http == Http::V1_0 || is_pipelined(head, behind);
    Ticket {
        generation: std::sync::Arc::clone(arrival.generation),
        affinity: upstream.cluster.affinity(arrival.client, &head.fields),
        upstream,
        permit,
        id: arrival.id,
        listener: arrival.edge.listener,
        client: arrival.client,
        caller: arrival.caller,
        carrier: arrival.carrier,
        trust: arrival.trust(),
        scheme: arrival.scheme(),
        certificate: arrival.met.and_then(|met| met.subject.clone()),
        at: arrival.at,
        method: head.method.to_owned(),
        host: head.host.map(|host| host.authority.to_owned()),
        path: head.path.to_owned(),
        path_and_query: head.path_and_query.to_owned(),
        next: if is_last { Next::Closes } else { Next::MayCome },
        origin: head.text("Origin").map(str::to_owned),
        user_agent: head.text("User-Agent").map(str::to_owned),
        work: arrival.edge.lifecycle.work(),
    }
}

/// Whether another request was sent before this one was answered. Pingora drops its bytes, so the client has to be told
/// that the connection ends (RFC 9112 §9.6). Behind a chunked body only Pingora could tell.
fn is_pipelined(head: &Head<'_>, behind: usize) -> bool {
    match head.body {
        Body::None => behind > 0,
        Body::Length(length) => behind as u64 > length,
        Body::Chunked => false,
    }
}

/// The connection, if it may carry another request.
pub async fn hand_over(
    arrival: &Arrival<'_>,
    stream: Stream,
    bytes: BytesMut,
    ticket: Ticket,
    shutdown: &ShutdownWatch,
) -> Option<Stream> {
    let mut session = ServerSession::new_http1(lent::lend(stream));
    session.set_pipelined_prefix(bytes);
    session.set_connection_user_context(Some(Box::new(ticket)));
    let back = arrival.edge.proxy.process_new_http(session, shutdown).await?;
    // Bytes of a next request that came with this one end the connection, so the settings hold nothing to keep.
    let (stream, _settings) = back.consume();
    lent::take_back(stream)
}
