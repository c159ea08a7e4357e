//! `ProxyHttp` for plain requests: one call a phase, and what a request carries from phase to phase.

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::http::error_resp;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType, Result};
use pingora_proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::connect::Dialled;
use super::{failure, forwarded};
use crate::address::{Address, ClientAddr};
use crate::answer::{self, Carrier};
use crate::caller::{Caller, Trust};
use crate::config::model::ProxyProtocol;
use crate::dial::head::{Certified, Origin, Scheme};
use crate::generation::{Current, Generation, UpstreamHandle};
use crate::observe::event::{Answered, Request, RequestId};
use crate::policy::Permit;
use crate::proxy_header;
use crate::reason::{By, Reason};
use crate::upstream::{Affinity, Server, Tried};

/// The phases.
pub struct PlainProxy {
    current: Arc<Current>,
}

/// What the edge knows of a request that it hands over. Texts are for the log.
pub struct Ticket {
    pub generation: Arc<Generation>,
    /// The servers that it may go to.
    pub upstream: Arc<UpstreamHandle>,
    pub permit: Permit,
    /// Which of them it would rather go to.
    pub affinity: Affinity,
    pub id: RequestId,
    /// Index of the listener.
    pub listener: usize,
    pub client: ClientAddr,
    pub caller: Caller,
    pub carrier: Carrier,
    pub trust: Trust,
    pub scheme: Scheme,
    /// The subject of the client's own, if it showed one.
    pub certificate: Option<Arc<str>>,
    pub at: Instant,
    pub method: String,
    pub host: Option<String>,
    pub path: String,
    /// What goes into the request line, whatever form the client used.
    pub path_and_query: String,
    pub next: Next,
    pub origin: Option<String>,
    pub user_agent: Option<String>,
    /// A drain waits for the request.
    pub work: TaskTrackerToken,
}

/// Whether the connection may carry another request after this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    MayCome,
    Closes,
}

/// One request on its way through the phases.
#[derive(Default)]
pub struct Context {
    /// Set by the edge before the first phase; a request without one gets 500.
    ticket: Option<Box<Ticket>>,
    tried: Tried,
    /// Position of the server that was picked last.
    server: Option<usize>,
    /// What the last server that could not be connected to came to, in case no other is left.
    not_connected: Option<Reason>,
}

impl PlainProxy {
    pub fn new(current: Arc<Current>) -> PlainProxy {
        PlainProxy { current }
    }
}

impl Context {
    fn ticket(&self) -> Result<&Ticket> {
        match &self.ticket {
            Some(ticket) => Ok(ticket),
            None => Error::e_explain(ErrorType::InternalError, "a request came to the proxy past the edge"),
        }
    }

    fn server(&self) -> Option<&Server> {
        let ticket = self.ticket.as_ref()?;
        ticket.upstream.cluster.servers().get(self.server?)
    }
}

#[async_trait]
impl ProxyHttp for PlainProxy {
    type CTX = Context;

    fn new_ctx(&self) -> Context {
        Context::default()
    }

    /// Pingora's way to hand something to a request of an HTTP/1.1 connection: here, from the edge.
    fn on_connection_reuse(&self, _: &mut Session, context: &mut Context, ticket: Box<dyn Any + Send + Sync>) {
        context.ticket = ticket.downcast().ok();
    }

    /// Upgrade tokens that are not `websocket` end here, so that Pingora sees no upgrade on either side.
    async fn request_filter(&self, session: &mut Session, context: &mut Context) -> Result<bool> {
        let ticket = context.ticket()?;
        if ticket.next == Next::Closes {
            session.set_keepalive(None);
        }
        let patience = ticket.generation.listener(ticket.listener).body_timeout;
        session.set_read_timeout(Some(patience));
        session.set_write_timeout(Some(patience));
        session.req_header_mut().remove_header("Upgrade");
        Ok(false)
    }

    async fn upstream_peer(&self, _: &mut Session, context: &mut Context) -> Result<Box<HttpPeer>> {
        let mut tried = std::mem::take(&mut context.tried);
        let ticket = context.ticket()?;
        let cluster = &ticket.upstream.cluster;
        let picked = cluster.pick_for_request(&ticket.permit, &ticket.affinity, &mut tried, Instant::now());
        let (index, server) = picked.or_else(|_| Error::e_explain(ErrorType::HTTPStatus(503), "no server is left"))?;
        let mut peer = peer(server.address())?;
        let rules = cluster.rules();
        let announced = proxy_header::header(rules.proxy_protocol, ticket.client, ticket.caller.reached);
        let connector = ticket.generation.secured.upstream(&rules.name);
        if connector.is_some() || !announced.is_empty() {
            let (address, connect_timeout) = (server.address().clone(), rules.connect_timeout);
            peer.options.custom_l4 = Some(Arc::new(Dialled { address, announced, connector, connect_timeout }));
            // The pool looks connections up by this among others, and no other request has it.
            peer.group_key = fastrand::u64(1..);
        }
        peer.options.connection_timeout = Some(rules.connect_timeout);
        peer.options.total_connection_timeout = Some(rules.connect_timeout);
        peer.options.read_timeout = Some(rules.response_timeout);
        peer.options.write_timeout = Some(rules.response_timeout);
        peer.options.idle_timeout = Some(IDLE_BACKEND_CONNECTION);
        context.tried = tried;
        context.server = Some(index);
        Ok(Box::new(peer))
    }

    async fn upstream_request_filter(
        &self,
        _: &mut Session,
        header: &mut RequestHeader,
        context: &mut Context,
    ) -> Result<()> {
        let ticket = context.ticket()?;
        header.remove_header("Upgrade");
        // The route was decided on the path; an absolute form could name another host (RFC 9112 §3.2.2).
        if header.raw_path() != ticket.path_and_query.as_bytes() {
            header.set_raw_path(ticket.path_and_query.as_bytes())?;
        }
        // An HTTP/1.0 client may leave it out; what goes on is HTTP/1.1, which may not (RFC 9112 §3.2).
        if let (None, Some(server)) = (&ticket.host, context.server()) {
            let host = server.address().ip().map_or("localhost".to_owned(), |address| address.to_string());
            header.insert_header("Host", host)?;
        }
        // No other request will come on a connection that names its client.
        if ticket.upstream.cluster.rules().proxy_protocol != ProxyProtocol::Off {
            header.insert_header("Connection", "close")?;
        }
        forwarded::set(header, ticket.host.as_deref(), ticket.origin())
    }

    /// A 101 to a request that asked for none would turn the connection into a tunnel that nobody decided on.
    async fn upstream_response_filter(
        &self,
        _: &mut Session,
        header: &mut ResponseHeader,
        context: &mut Context,
    ) -> Result<()> {
        if header.status.as_u16() == 101 {
            return Error::e_explain(ErrorType::InvalidHTTPHeader, "101 to a request that is no upgrade");
        }
        if let (Some(server), Ok(ticket)) = (context.server, context.ticket()) {
            ticket.upstream.reached(server, Instant::now());
        }
        Ok(())
    }

    /// What belongs to the backend's own hop ends here, and an HTTP/1.0 client cannot read chunks (RFC 9112 §6.1).
    async fn response_filter(
        &self,
        session: &mut Session,
        header: &mut ResponseHeader,
        context: &mut Context,
    ) -> Result<()> {
        for name in ["Keep-Alive", "Proxy-Connection", "Upgrade"] {
            header.remove_header(name);
        }
        if session.req_header().version == http::Version::HTTP_10 {
            header.remove_header("Transfer-Encoding");
        }
        if let (Some(server), Ok(ticket)) = (context.server, context.ticket())
            && let Some(cookie) = ticket.upstream.cluster.cookie(server, &ticket.affinity)
        {
            header.append_header("Set-Cookie", cookie)?;
        }
        Ok(())
    }

    /// A kept connection that the backend had closed meanwhile says nothing of the server: it is asked once more, afresh.
    fn error_while_proxy(
        &self,
        _: &HttpPeer,
        session: &mut Session,
        mut error: Box<Error>,
        context: &mut Context,
        client_reused: bool,
    ) -> Box<Error> {
        if session.req_header().method.is_idempotent() && !session.as_ref().retry_buffer_truncated() {
            error.retry.decide_reuse(client_reused);
        } else {
            error.set_retry(false);
        }
        if error.retry() {
            context.tried.forget_last();
        }
        error
    }

    /// Nothing was sent yet, so the next server may be asked.
    fn fail_to_connect(
        &self,
        _: &mut Session,
        _: &HttpPeer,
        context: &mut Context,
        mut error: Box<Error>,
    ) -> Box<Error> {
        self.count_failure(context, &error);
        context.not_connected = failure::reason(&error);
        if let (Some(Reason::BackendTls), Ok(ticket)) = (context.not_connected, context.ticket()) {
            let server = context.server().map(|server| server.address().to_string());
            tracing::warn!(id = %ticket.id, server, %error, "a server is not spoken to without TLS");
        }
        let tries = context.ticket().map_or(0, |ticket| ticket.upstream.cluster.rules().tries);
        error.set_retry(context.tried.count() < tries);
        error
    }

    async fn fail_to_proxy(&self, session: &mut Session, error: &Error, context: &mut Context) -> FailToProxy {
        let reason = match error.etype() {
            ErrorType::HTTPStatus(_) => context.not_connected.or(failure::reason(error)),
            _ => failure::reason(error),
        };
        if session.response_written().is_none()
            && let Some(reason) = reason
        {
            if !matches!(error.etype(), ErrorType::HTTPStatus(_)) && !failure::is_of_connecting(error) {
                self.count_failure(context, error);
            }
            respond(session, reason).await;
        }
        FailToProxy { error_code: reason.map_or(0, answer::status), can_reuse_downstream: false }
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, context: &mut Context) {
        let Ok(ticket) = context.ticket() else { return };
        if let Some(error) = error {
            tracing::debug!(id = %ticket.id, %error, "plain request failed");
        }
        let status = session.response_written().map_or(answer::CLIENT_GONE, |header| header.status.as_u16());
        self.current.observer().answered(&Answered {
            request: ticket.request(),
            status: ticket.carrier.status(status),
            server: context.server().map(Server::address),
            bytes: session.body_bytes_sent() as u64,
            duration: ticket.at.elapsed(),
        });
    }

    /// They are told by [`PlainProxy::logging`], at debug: a client that leaves is nobody's error.
    fn suppress_error_log(&self, _: &Session, _: &Context, _: &Error) -> bool {
        true
    }

    fn suppress_proxy_warn_log(&self, _: &Session, _: &Context, _: &Error, _: ProxyWarnLogContext) -> bool {
        true
    }
}

fn peer(address: &Address) -> Result<HttpPeer> {
    match address {
        Address::Ip(address) => Ok(HttpPeer::new(address, false, String::new())),
        Address::Unix(path) => match path.to_str() {
            Some(path) => HttpPeer::new_uds(path, false, String::new()),
            None => Error::e_explain(ErrorType::SocketError, "the path of a Unix socket is text in the configuration"),
        },
    }
}

/// How long an unused connection to a backend is kept for the next request.
const IDLE_BACKEND_CONNECTION: Duration = Duration::from_secs(60);

impl PlainProxy {
    /// A client's own fault is not its server's.
    fn count_failure(&self, context: &Context, error: &Error) {
        let reason = failure::reason(error).filter(|reason| reason.by() == By::Backend);
        let (Some(server), Ok(ticket), Some(reason)) = (context.server, context.ticket(), reason) else { return };
        let upstream = &ticket.upstream;
        if failure::is_of_connecting(error) {
            upstream.not_reached(server, reason, Instant::now());
        } else {
            upstream.not_used(server, reason);
        }
    }
}

impl Ticket {
    fn origin(&self) -> Origin<'_> {
        let rules = self.generation.listener(self.listener).tls.as_ref();
        let name = rules.and_then(|tls| tls.client_certificate_header.as_deref());
        let certified =
            Certified { reserved: self.generation.secured.reserved(), field: name.zip(self.certificate.as_deref()) };
        Origin { peer: self.caller.peer(), trust: self.trust, scheme: self.scheme, certified }
    }

    fn request(&self) -> Request<'_> {
        Request {
            id: self.id,
            listener: &self.generation.listeners[self.listener].name,
            route: Some(&self.generation.route(&self.permit).name),
            client: self.client,
            peer: self.caller.socket,
            http: self.carrier.as_str(),
            client_certificate: self.certificate.as_deref(),
            method: &self.method,
            host: self.host.as_deref(),
            path: &self.path,
            origin: self.origin.as_deref(),
            user_agent: self.user_agent.as_deref(),
            asked: None,
        }
    }
}

/// The same answer that an upgrade gets for this reason, through Pingora's writer.
async fn respond(session: &mut Session, reason: Reason) {
    let (status, body) = answer::parts(reason);
    let mut header = error_resp::gen_error_response(status);
    let built = header
        .insert_header("Content-Type", "text/plain; charset=utf-8")
        .and_then(|()| header.insert_header("Cache-Control", "no-store"))
        .and_then(|()| header.insert_header("Content-Length", body.len().to_string()))
        .and_then(|()| header.remove_header("Server").map_or(Ok(()), |_| Ok(())));
    let retry = if reason.is_temporary() {
        header.insert_header("Retry-After", answer::RETRY_AFTER_S.to_string())
    } else {
        Ok(())
    };
    session.set_keepalive(None);
    let sent = match built.and(retry) {
        Ok(()) => session.write_error_response(header, Bytes::from(body)).await,
        Err(error) => Err(error),
    };
    if let Err(error) = sent {
        tracing::debug!(%error, "an answer was not sent");
    }
}
