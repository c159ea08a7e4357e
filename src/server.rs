//! Where everything meets: a configuration in, a running Pingora server out. It decides nothing.

mod socket_file;
mod sockets;

use std::io;
use std::os::fd::IntoRawFd;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use async_trait::async_trait;
use parking_lot::Mutex;
use pingora::apps::http_app::HttpServer;
use pingora::server::configuration::ServerConf;
use pingora::server::{Fds, ListenFds, RunArgs, Server, ShutdownWatch};
use pingora::services::Service as PingoraService;
use pingora::services::listening::Service;
use pingora_proxy::http_proxy;
use tracing::error;

use crate::address::Address;
use crate::admin::Admin;
use crate::config::Config;
use crate::discover::{self, Discovery};
use crate::edge::Edge;
use crate::fleet::Fleet;
use crate::generation::{Current, Lasting};
use crate::health::Checker;
use crate::lifecycle::handover::{self, Handed, Predecessor, TakeError};
use crate::lifecycle::{Accepting, Lifecycle, Notifier, Signals};
use crate::logging::Diagnostics;
use crate::observe::{AccessLog, Metrics, Observer};
use crate::proxy::PlainProxy;
use crate::reload::{self, Fixed, Reloader};
use crate::source::Source;
use crate::stream::Listener;
use crate::tls::{self, Files, Known, Loaded};
use socket_file::{ListenError, SocketFile};
use sockets::{Bound, Sockets};

/// Where the listening sockets come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// They are bound.
    Fresh,
    /// A running process hands them over (SIGQUIT); what it does not have is bound.
    TakeOver,
}

/// Why the gateway did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot listen on `{address}` for listener `{name}`: {source}")]
    Listen { name: String, address: Address, source: ListenError },
    #[error("cannot open the access log: {0}")]
    AccessLog(io::Error),
    #[error("{0} of the files for TLS cannot be used; `wsgate check` names them too")]
    Files(usize),
    #[error(transparent)]
    TakeOver(#[from] TakeError),
}

/// Serves until a signal ends it. The configuration is read again from `source`, if there is one.
///
/// # Errors
/// When a file for TLS cannot be used, an address is taken, the access log cannot be opened, or no sockets are handed over; nothing has been served then,
/// and a process that handed its sockets over serves on.
pub fn run(
    asked: Config,
    source: Option<Source>,
    diagnostics: Diagnostics,
    start: Start,
) -> Result<ExitCode, StartError> {
    let started = Instant::now();
    let files = Files::read(&asked);
    let loaded = load(&asked, &files)?;
    let metrics = Arc::new(Metrics::new());
    let access_log =
        AccessLog::open(&asked.log.access, metrics.access_log_dropped.clone()).map_err(StartError::AccessLog)?;
    let observer = Arc::new(Observer::new(metrics, access_log));
    let notifier = Notifier::from_environment();
    let (handed, predecessor) = match start {
        Start::Fresh => (Handed::default(), None),
        Start::TakeOver => take_over(&asked, &observer, &notifier)?,
    };
    let sockets = Sockets::open(&asked, handed)?;
    let config = sockets.tell(asked.clone());
    let fixed = Fixed::new(&asked, &config);
    drop(asked);
    let lasting = Lasting::new(Arc::clone(&observer));
    discover::ask_at_start(&config, &lasting);
    let current = Arc::new(Current::new(config, loaded, lasting));
    let discovery = Arc::new(Discovery::new(Arc::clone(&current)));
    observer.metrics().reload_succeeded(SystemTime::now());
    let lifecycle = Arc::new(Lifecycle::new(notifier));

    let mut server = Server::new_with_opt_and_conf(None, server_conf(&current));
    server.bootstrap();
    let accept_loops = sockets.count();
    let socket_files = sockets.files();
    add_services(&mut server, sockets, &current, &lifecycle, started);
    let reloader = source.map(|source| {
        let reloader = Reloader::new(source, fixed, Arc::clone(&discovery), diagnostics, files);
        Arc::new(reloader)
    });
    server.add_service(DiscoveryService { discovery });
    server.add_service(ReloadService { reloader, lifecycle: Arc::clone(&lifecycle) });
    server.add_service(HealthService { current: Arc::clone(&current), lifecycle: Arc::clone(&lifecycle) });
    let signals = Signals::new(Arc::clone(&lifecycle), current, accept_loops, predecessor);
    server.run(RunArgs { shutdown_signal: Box::new(signals) });
    if !lifecycle.is_handed_over() {
        socket_files.iter().for_each(SocketFile::remove);
    }
    observer.access_log().close();
    Ok(if lifecycle.has_failed() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Before anything is bound or taken over.
fn load(config: &Config, files: &Files) -> Result<Loaded, StartError> {
    let loaded = tls::load(config, files, &Known::default()).map_err(|problems| {
        reload::tell_files(&problems);
        StartError::Files(problems.len())
    })?;
    reload::tell_expired(loaded.certificates());
    Ok(loaded)
}

/// Until this process serves, the one before speaks for the service.
fn take_over(
    config: &Config,
    observer: &Observer,
    notifier: &Notifier,
) -> Result<(Handed, Option<Predecessor>), StartError> {
    notifier.hush();
    let (handed, predecessor) = handover::take(&config.gateway.upgrade_socket, handover::WAIT_MAX)?;
    observer.metrics().taken_over(SystemTime::now());
    Ok((handed, Some(predecessor)))
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
    let fleet = Arc::new(Fleet::new(Arc::clone(current)));
    for (index, socket) in sockets.listeners.into_iter().enumerate() {
        let (proxy, fleet) = (Arc::clone(&proxy), Arc::clone(&fleet));
        let edge = Edge::new(index, Arc::clone(current), Arc::clone(lifecycle), proxy, fleet);
        server.add_service(EdgeService { edge: Arc::new(edge), bound: Some(socket), lifecycle: Arc::clone(lifecycle) });
    }
    server.add_service(FleetService { fleet });
    if let Some(socket) = sockets.admin {
        let admin = Admin::new(Arc::clone(current), Arc::clone(lifecycle), started);
        server.add_service(AdminService::new(admin, socket, Arc::clone(lifecycle)));
    }
}

/// A listener's edge as a Pingora service. It stops accepting when the drain says so, not when Pingora does.
struct EdgeService {
    edge: Arc<Edge>,
    /// Taken when the service starts.
    bound: Option<Bound>,
    lifecycle: Arc<Lifecycle>,
}

#[async_trait]
impl PingoraService for EdgeService {
    async fn start_service(&mut self, _: Option<ListenFds>, _: ShutdownWatch, _: usize) {
        let Some(bound) = self.bound.take() else { return };
        let place = bound.place();
        let listener = match Listener::new(bound.socket, &bound.address) {
            Ok(listener) => Arc::new(listener),
            Err(error) => return error!(listener = bound.name, %error, "cannot serve"),
        };
        self.lifecycle.accepts(Accepting::new(place, &listener));
        Arc::clone(&self.edge).accept(&listener, self.lifecycle.watch_accepting()).await;
    }

    fn name(&self) -> &str {
        "edge"
    }
}

/// What the gateways of a fleet tell each other, on a thread of its own: no client waits for it.
struct FleetService {
    fleet: Arc<Fleet>,
}

#[async_trait]
impl PingoraService for FleetService {
    async fn start_service(&mut self, _: Option<ListenFds>, _: ShutdownWatch, _: usize) {
        self.fleet.serve().await;
    }

    fn name(&self) -> &str {
        "fleet"
    }

    fn threads(&self) -> Option<usize> {
        Some(1)
    }
}

/// Asks for names of servers, on a thread of its own.
struct DiscoveryService {
    discovery: Arc<Discovery>,
}

#[async_trait]
impl PingoraService for DiscoveryService {
    async fn start_service(&mut self, _: Option<ListenFds>, _: ShutdownWatch, _: usize) {
        self.discovery.serve().await;
    }

    fn name(&self) -> &str {
        "discovery"
    }

    fn threads(&self) -> Option<usize> {
        Some(1)
    }
}

/// Reads the configuration again when it is asked for, on a thread of its own.
struct ReloadService {
    /// `None` where the configuration is built in.
    reloader: Option<Arc<Reloader>>,
    lifecycle: Arc<Lifecycle>,
}

#[async_trait]
impl PingoraService for ReloadService {
    async fn start_service(&mut self, _: Option<ListenFds>, _: ShutdownWatch, _: usize) {
        match &self.reloader {
            Some(reloader) => Arc::clone(reloader).serve(&self.lifecycle).await,
            None => reload::decline(&self.lifecycle).await,
        }
    }

    fn name(&self) -> &str {
        "reload"
    }

    fn threads(&self) -> Option<usize> {
        Some(1)
    }
}

/// Checks servers, on a thread of its own.
struct HealthService {
    current: Arc<Current>,
    lifecycle: Arc<Lifecycle>,
}

#[async_trait]
impl PingoraService for HealthService {
    async fn start_service(&mut self, _: Option<ListenFds>, _: ShutdownWatch, _: usize) {
        Checker::new(Arc::clone(&self.current)).serve(&self.lifecycle).await;
    }

    fn name(&self) -> &str {
        "health"
    }

    fn threads(&self) -> Option<usize> {
        Some(1)
    }
}

/// The admin listener: an ordinary Pingora HTTP service on a socket of ours. It answers through a drain to the end, unless a
/// successor answers at the same address.
struct AdminService {
    inner: Service<HttpServer<Admin>>,
    /// Taken when the service starts.
    bound: Option<Bound>,
    lifecycle: Arc<Lifecycle>,
}

impl AdminService {
    fn new(admin: Admin, bound: Bound, lifecycle: Arc<Lifecycle>) -> AdminService {
        let mut inner = Service::new(bound.name.clone(), HttpServer::new_app(admin));
        inner.add_tcp(&bound.address.to_string());
        AdminService { inner, bound: Some(bound), lifecycle }
    }
}

#[async_trait]
impl PingoraService for AdminService {
    async fn start_service(&mut self, _: Option<ListenFds>, _: ShutdownWatch, listeners_per_fd: usize) {
        let Some(bound) = self.bound.take() else { return };
        // Pingora keeps the descriptor to itself, so a second one stands for it.
        let stand_in = match bound.socket.try_clone() {
            Ok(socket) => Arc::new(socket),
            Err(error) => return error!(listener = bound.name, %error, "cannot serve"),
        };
        self.lifecycle.accepts(Accepting::new(bound.place(), &stand_in));
        let mut sockets = Fds::new();
        sockets.add(bound.address.to_string(), bound.socket.into_raw_fd());
        let handed_over = self.lifecycle.watch_handed_over();
        self.inner.start_service(Some(Arc::new(Mutex::new(sockets))), handed_over, listeners_per_fd).await;
    }

    fn name(&self) -> &str {
        self.inner.name()
    }

    fn threads(&self) -> Option<usize> {
        Some(1)
    }
}
