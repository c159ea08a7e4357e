//! What the gateway runs on: every key resolved, every default filled in, every reference checked. A value of [`Config`]
//! exists only if the whole file was right. It does not know TOML, spans or how problems are shown.

mod listener;
mod upstream;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use crate::dialect::Dialect;

use super::bounds;
pub use super::location::Location;
use super::pattern::{HostPattern, OriginPattern, PathPattern};
pub use listener::{
    ClientAddress, ClientCertificates, ForwardedField, Listener, ListenerTls, Pair, TlsVersion, TrustedProxy,
};
pub use upstream::{
    Balance, Health, HealthCheck, ProxyProtocol, SERVER_WEIGHT_MAX, SameSite, Server, Spoken, Sticky, Upstream,
    UpstreamTls,
};

/// A whole configuration. Indices between the lists (`Route::upstream`, `Route::listeners`) are always in range.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub gateway: Gateway,
    pub admin: Admin,
    pub log: Log,
    pub limits: Limits,
    pub dns: Dns,
    pub listeners: Vec<Listener>,
    /// In file order: the first route that matches a request is the one that decides.
    pub routes: Vec<Route>,
    pub upstreams: Vec<Upstream>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Gateway {
    /// Worker threads of each listener; 0 in the file became the number of cores here, so this is at least 1.
    pub threads: usize,
    pub upgrade_socket: PathBuf,
    pub reload_on_change: bool,
    pub drain: Drain,
}

/// How the gateway goes away on SIGTERM.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Drain {
    /// How long it still accepts connections after readiness turned 503.
    pub delay: Duration,
    /// Over which time the tunnels are asked to end.
    pub spread: Duration,
    /// After which time it ends whatever is still open.
    pub timeout: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Admin {
    /// `None` when the file says `listen = "off"`.
    pub listen: Option<SocketAddr>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Log {
    pub level: LogLevel,
    pub format: LogFormat,
    pub access: AccessLog,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessLog {
    Stdout,
    Off,
    File(PathBuf),
}

/// What holds for the limits of single clients, wherever they are set.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// How much of an IPv6 address says who it is; 32 to 128.
    pub ipv6_prefix: u8,
    /// Clients whose rate is known at once, for each route that limits it.
    pub clients: usize,
    /// Clients without limits of their own.
    pub exempt: Vec<IpNet>,
    pub shared: SharedLimits,
}

/// Where a fleet of gateways counts its clients together.
#[derive(Clone, PartialEq)]
pub struct SharedLimits {
    /// The URL, which the crate `redis` can read; it may have a password. `None`: each gateway counts for itself.
    pub redis: Option<String>,
    pub password_file: Option<PathBuf>,
    /// How long a handshake waits for an answer.
    pub timeout: Duration,
    /// How long after a failure it is tried again.
    pub retry: Duration,
    /// How long the tunnels of a gateway count that is not heard of any more.
    pub lease: Duration,
    /// What every key there begins with.
    pub prefix: String,
}

/// Without the password.
impl fmt::Debug for SharedLimits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedLimits").field("is_set", &self.redis.is_some()).field("prefix", &self.prefix).finish()
    }
}

/// How names of servers are resolved.
#[derive(Clone, Debug, PartialEq)]
pub struct Dns {
    /// Those of `resolv_conf` when empty.
    pub servers: Vec<SocketAddr>,
    pub resolv_conf: PathBuf,
    /// For an answer of the name servers, each time they are asked.
    pub timeout: Duration,
    /// How often they are asked before it counts as a failure; at least 1.
    pub attempts: usize,
    /// An answer holds for its TTL, and for neither less nor more than these. `min_ttl <= max_ttl`.
    pub min_ttl: Duration,
    pub max_ttl: Duration,
    /// How long servers are kept of which name servers say that nobody is there.
    pub empty_after: Duration,
}

impl Default for Dns {
    fn default() -> Dns {
        Dns {
            servers: Vec::new(),
            resolv_conf: bounds::RESOLV_CONF_DEFAULT.into(),
            timeout: bounds::DNS_TIMEOUT.default,
            attempts: bounds::DNS_ATTEMPTS.default,
            min_ttl: bounds::DNS_MIN_TTL.default,
            max_ttl: bounds::DNS_MAX_TTL.default,
            empty_after: bounds::DNS_EMPTY_AFTER.default,
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    pub name: String,
    /// Indices into [`Config::listeners`]; never empty.
    pub listeners: Vec<usize>,
    /// Any host when empty.
    pub hosts: Vec<HostPattern>,
    /// Never empty; `/` by default.
    pub paths: Vec<PathPattern>,
    /// Index into [`Config::upstreams`].
    pub upstream: usize,
    pub plain_http: PlainHttp,
    pub versions: Versions,
    pub handshake: Handshake,
    pub bridge: Bridge,
    pub tunnel: Tunnel,
    pub limits: RouteLimits,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlainHttp {
    Forward,
    Refuse,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Versions {
    /// As the file lists them: the order in which a client is told; never empty. What the upstream does not speak is
    /// translated.
    pub accept: Vec<Dialect>,
    pub mode: Mode,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Enforce,
    /// A version that the route does not accept is counted and let through.
    Observe,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Handshake {
    /// Any origin, and none, when empty.
    pub origins: Vec<OriginPattern>,
    /// Any subprotocol when empty.
    pub subprotocols: Vec<String>,
    pub extensions: Extensions,
    /// Checks that are counted but do not refuse.
    pub relax: Vec<Check>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extensions {
    Pass,
    /// Offers are not forwarded, so the backend can accept none.
    Strip,
    /// An upgrade that offers an extension is refused.
    Refuse,
}

/// A strictness check of the handshake that a route may relax. Its name in the file is the reason's code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Check {
    MethodNotGet,
    HttpVersionTooOld,
    ConnectionTokenMissing,
    UpgradeTokenMissing,
    UpgradeTokenAmbiguous,
    HeaderNominated,
    KeyMissing,
    KeyMalformed,
    OriginRefused,
    SubprotocolRefused,
    ExtensionRefused,
    BackendHandshakeWrong,
}

impl Check {
    pub const ALL: [Check; 12] = [
        Check::MethodNotGet,
        Check::HttpVersionTooOld,
        Check::ConnectionTokenMissing,
        Check::UpgradeTokenMissing,
        Check::UpgradeTokenAmbiguous,
        Check::HeaderNominated,
        Check::KeyMissing,
        Check::KeyMalformed,
        Check::OriginRefused,
        Check::SubprotocolRefused,
        Check::ExtensionRefused,
        Check::BackendHandshakeWrong,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Check::MethodNotGet => "method-not-get",
            Check::HttpVersionTooOld => "http-version-too-old",
            Check::ConnectionTokenMissing => "connection-token-missing",
            Check::UpgradeTokenMissing => "upgrade-token-missing",
            Check::UpgradeTokenAmbiguous => "upgrade-token-ambiguous",
            Check::HeaderNominated => "header-nominated",
            Check::KeyMissing => "key-missing",
            Check::KeyMalformed => "key-malformed",
            Check::OriginRefused => "origin-refused",
            Check::SubprotocolRefused => "subprotocol-refused",
            Check::ExtensionRefused => "extension-refused",
            Check::BackendHandshakeWrong => "backend-handshake-wrong",
        }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What holds for a tunnel whose sides speak different versions, or one without frames.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bridge {
    pub binary: Binary,
    /// A message that has to be collected before it goes on.
    pub max_message_bytes: u64,
}

/// What becomes of binary messages where the other side knows only texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binary {
    Refuse,
    /// Every text of the side without frames is base64 of a binary message of the other.
    Base64,
}

/// What holds for a tunnel after its 101.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tunnel {
    pub frames: Frames,
    /// Without a message in either direction, Pings and Pongs not counted. `None` when the file says `"off"`.
    pub idle_timeout: Option<Duration>,
    pub ping_interval: Option<Duration>,
    pub ping_timeout: Duration,
    pub max_age: Option<Duration>,
    /// How long a closing tunnel may stand still.
    pub close_timeout: Duration,
    /// Payload as it is on the wire.
    pub max_frame_bytes: Option<u64>,
    pub max_message_bytes: Option<u64>,
    pub on_remove: OnRemove,
}

/// How much is known of the frames that pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frames {
    /// A broken frame is counted and passes; from there on the tunnel is blind.
    Track,
    /// A broken frame ends the tunnel.
    Enforce,
    /// Nothing is known.
    Blind,
}

/// What becomes of the open tunnels of a route that a reload takes away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnRemove {
    Keep,
    Close,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RouteLimits {
    /// Open tunnels of the route.
    pub tunnels: Option<usize>,
    pub tunnels_per_client: Option<u32>,
    pub handshakes_per_client: Option<Rate>,
}

/// So many in so long: `"20/s"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    pub count: u32,
    pub per: Duration,
}
