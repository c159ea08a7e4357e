//! Where everything meets: a configuration in, a running Pingora server out. It decides nothing.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::IntoRawFd;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use async_trait::async_trait;
use parking_lot::Mutex;
use pingora::apps::ServerApp;
use pingora::apps::http_app::HttpServer;
use pingora::listeners::ListenerConfig;
use pingora::protocols::l4::stream::L4BufferSettings;
use pingora::server::configuration::ServerConf;
use pingora::server::{Fds, ListenFds, RunArgs, Server, ShutdownWatch};
use pingora::services::Service as PingoraService;
use pingora::services::listening::Service;
use pingora_proxy::http_proxy;
use socket2::{Domain, Protocol, Socket, Type};
use tracing::{error, info, warn};

use crate::admin::Admin;
use crate::config::Config;
use crate::edge::Edge;
use crate::generation::{Current, Lasting};
use crate::lifecycle::{Lifecycle, Signals};
use crate::observe::{AccessLog, Metrics, Observer};
use crate::proxy::PlainProxy;

/// Connections that the kernel holds for a listener before they are accepted.
const BACKLOG: i32 = 4096;

/// Why the gateway did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot listen on `{address}` for listener `{name}`: {source}")]
    Listen { name: String, address: SocketAddr, source: io::Error },
    #[error("cannot open the access log: {0}")]
    AccessLog(io::Error),
}

/// Serves until a signal ends it.
///
/// # Errors
/// When an address is taken or the access log cannot be opened; nothing has been served then.
pub fn run(config: Config) -> Result<ExitCode, StartError> {
    let started = Instant::now();
    for pending in &config.not_in_force {
        warn!(key = pending.key, "not in force in this release: {}", pending.meanwhile);
    }
    let metrics = Arc::new(Metrics::new());
    let access_log =
        AccessLog::open(&config.log.access, metrics.access_log_dropped.clone()).map_err(StartError::AccessLog)?;
    let observer = Arc::new(Observer::new(metrics, access_log));
    let sockets = Sockets::bind(&config)?;
    observer.metrics().apply(&config);
    let current = Arc::new(Current::new(config, Lasting::new(Arc::clone(&observer))));
    observer.metrics().reload_succeeded(SystemTime::now());
    let lifecycle = Arc::new(Lifecycle::default());

    let mut server = Server::new_with_opt_and_conf(None, server_conf(&current));
    server.bootstrap();
    add_services(&mut server, sockets, &current, &lifecycle, started);
    let signals = Signals::new(Arc::clone(&lifecycle), current);
    server.run(RunArgs { shutdown_signal: Box::new(signals) });
    observer.access_log().close();
    Ok(ExitCode::SUCCESS)
}

/// What Pingora is told. Its own timers for going away stay unused: [`Signals`] returns when it is time.
fn server_conf(current: &Current) -> ServerConf {
    ServerConf {
        threads: current.load().config.gateway.threads,
        work_stealing: true,
        grace_period_seconds: Some(0),
        graceful_shutdown_timeout_seconds: Some(0),
        max_retries: MAX_RETRIES,
        ..ServerConf::default()
    }
}

/// Servers that pingora-proxy may try for one request; an upstream's own `tries` is the limit that counts.
const MAX_RETRIES: usize = 64;

fn add_services(
    server: &mut Server,
    sockets: Sockets,
    current: &Arc<Current>,
    lifecycle: &Arc<Lifecycle>,
    started: Instant,
) {
    let conf = Arc::clone(&server.configuration);
    let proxy = Arc::new(http_proxy(&conf, PlainProxy::new(Arc::clone(current))));
    for (index, socket) in sockets.listeners.into_iter().enumerate() {
        let edge = Edge::new(index, Arc::clone(current), Arc::clone(lifecycle), Arc::clone(&proxy));
        server.add_service(Listening::new(edge, socket, Some(lifecycle.watch_accepting())));
    }
    if let Some(socket) = sockets.admin {
        let admin = Admin::new(Arc::clone(current), Arc::clone(lifecycle), started);
        let mut service = Listening::new(HttpServer::new_app(admin), socket, None);
        service.inner.threads = Some(1);
        server.add_service(service);
    }
}

/// The listening sockets, bound before anything else starts, so that a taken address is an error and not a panic.
struct Sockets {
    listeners: Vec<Bound>,
    admin: Option<Bound>,
}

struct Bound {
    name: String,
    address: SocketAddr,
    socket: TcpListener,
}

impl Sockets {
    fn bind(config: &Config) -> Result<Sockets, StartError> {
        let listeners = config.listeners.iter().map(|listener| Bound::new(&listener.name, listener.listen));
        Ok(Sockets {
            listeners: listeners.collect::<Result<_, _>>()?,
            admin: config.admin.listen.map(|address| Bound::new("admin", address)).transpose()?,
        })
    }
}

impl Bound {
    /// Says where it listens: with port 0 nobody else knows.
    fn new(name: &str, address: SocketAddr) -> Result<Bound, StartError> {
        let bound = listen(address).and_then(|socket| Ok((socket.local_addr()?, socket)));
        match bound {
            Ok((address, socket)) => {
                info!(listener = name, %address, "listening");
                Ok(Bound { name: name.to_owned(), address, socket })
            }
            Err(source) => Err(StartError::Listen { name: name.to_owned(), address, source }),
        }
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// A Pingora listening service on a socket of ours, which stops accepting when we say so rather than when Pingora does.
struct Listening<A> {
    inner: Service<A>,
    name: String,
    address: SocketAddr,
    /// Taken when the service starts.
    socket: Option<TcpListener>,
    accepting: Option<ShutdownWatch>,
}

impl<A> Listening<A> {
    fn new(app: A, bound: Bound, accepting: Option<ShutdownWatch>) -> Listening<A> {
        let mut inner = Service::new(bound.name.clone(), app);
        let endpoint = ListenerConfig::tcp(bound.address.to_string()).l4_buffer(L4BufferSettings::unbuffered());
        inner.add_listener(endpoint);
        Listening { inner, name: bound.name, address: bound.address, socket: Some(bound.socket), accepting }
    }
}

#[async_trait]
impl<A: ServerApp + Send + Sync + 'static> PingoraService for Listening<A> {
    async fn start_service(&mut self, _: Option<ListenFds>, shutdown: ShutdownWatch, listeners_per_fd: usize) {
        let Some(socket) = self.socket.take() else {
            error!(listener = self.name, "a service starts only once");
            return;
        };
        let mut sockets = Fds::new();
        sockets.add(self.address.to_string(), socket.into_raw_fd());
        let accepting = self.accepting.clone().unwrap_or(shutdown);
        self.inner.start_service(Some(Arc::new(Mutex::new(sockets))), accepting, listeners_per_fd).await;
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn threads(&self) -> Option<usize> {
        self.inner.threads
    }
}
