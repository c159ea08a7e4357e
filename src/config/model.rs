//! What the gateway runs on: every key resolved, every default filled in, every reference checked. A value of [`Config`]
//! exists only if the whole file was right. It does not know TOML, spans or how problems are shown.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;

use crate::address::Address;
use crate::dialect::Dialect;

use super::bounds;
pub use super::location::Location;
use super::pattern::{HostPattern, OriginPattern, PathPattern};

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
    /// Keys that are understood and checked, but whose feature this release does not have.
    pub not_in_force: Vec<NotInForce>,
}

/// A key that the file sets and that has no effect in this release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotInForce {
    /// The key's full path, such as `route.chat.tunnel.max_age`.
    pub key: String,
    /// What happens instead, in half a sentence.
    pub meanwhile: &'static str,
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
pub struct Listener {
    pub name: String,
    pub listen: Address,
    /// Of the file of a Unix socket: who may connect.
    pub socket_mode: u32,
    /// Open client connections, tunnels included, at most.
    pub max_connections: usize,
    /// Of one client, as the limit of all.
    pub connections_per_client: Option<u32>,
    /// From the first byte of a request head (or the accept) to its end.
    pub header_timeout: Duration,
    /// Bytes of a request head, at most.
    pub header_limit: usize,
    /// Each wait for more of a plain request's body, and for the client to take more of an answer.
    pub body_timeout: Duration,
    /// How long a connection may stay without a request.
    pub keepalive_timeout: Duration,
    /// Where the client's address is taken from.
    pub client_address: ClientAddress,
    /// The field that is read where that is [`ClientAddress::Forwarded`].
    pub forwarded_field: ForwardedField,
    /// Peers whose `Forwarded` and `X-Forwarded-*` are believed and extended instead of dropped, and whose PROXY header is.
    /// Never empty where the client's address is not the peer's.
    pub trusted_proxies: Vec<TrustedProxy>,
    /// Whether HTTP/2 is served beside HTTP/1.1.
    pub http2: bool,
    /// Streams that a client may have open on one connection, at most.
    pub http2_streams: u32,
    /// `None` where clients speak plainly.
    pub tls: Option<ListenerTls>,
}

/// TLS to clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerTls {
    /// Never empty; the first is shown to clients that ask for no name that any of them has.
    pub certificates: Vec<Pair>,
    pub min_version: TlsVersion,
    pub client_certificates: ClientCertificates,
    /// There is one unless client certificates are off.
    pub client_ca: Option<PathBuf>,
    /// The field that tells a backend whose certificate it was.
    pub client_certificate_header: Option<String>,
    /// From the accept to the end of the TLS handshake.
    pub handshake_timeout: Duration,
    /// Whether the listener serves HTTP/2, so that it is offered (ALPN, RFC 9113 §3.2).
    pub offers_http2: bool,
}

/// A certificate with what signs in its name. Files in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The certificate, and behind it those that lead to its root.
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// The oldest version that is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsVersion {
    V1_2,
    V1_3,
}

/// Whether clients show certificates of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientCertificates {
    Off,
    /// One that is shown has to be right.
    Optional,
    Required,
}

/// What tells who a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAddress {
    Peer,
    /// The header that begins each connection.
    ProxyProtocol,
    /// A field of each request.
    Forwarded,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForwardedField {
    XForwardedFor,
    /// RFC 7239.
    Forwarded,
}

/// Peers whose word on their clients counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrustedProxy {
    Network(IpNet),
    /// Whoever comes over a Unix socket.
    Unix,
}

impl FromStr for TrustedProxy {
    type Err = ipnet::AddrParseError;

    fn from_str(text: &str) -> Result<TrustedProxy, ipnet::AddrParseError> {
        match text {
            "unix" => Ok(TrustedProxy::Unix),
            text => text.parse().map(TrustedProxy::Network),
        }
    }
}

impl fmt::Display for TrustedProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TrustedProxy::Network(network) => write!(f, "{network}"),
            TrustedProxy::Unix => f.write_str("unix"),
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

#[derive(Clone, Debug, PartialEq)]
pub struct Upstream {
    pub name: String,
    pub versions: Spoken,
    /// Never empty.
    pub servers: Vec<Server>,
    pub balance: Balance,
    /// What [`Balance::HeaderHash`] hashes; always set with it, and without effect otherwise.
    pub hash_header: Option<String>,
    /// Over which time a server that comes up gets its whole share.
    pub slow_start: Option<Duration>,
    /// Handshakes that may wait for a server with room; 0: none.
    pub queue: usize,
    pub queue_timeout: Duration,
    pub sticky: Option<Sticky>,
    pub connect_timeout: Duration,
    /// From the connection to the end of the backend's answer head.
    pub handshake_timeout: Duration,
    /// Each wait for more of the answer to a plain request.
    pub response_timeout: Duration,
    /// Bytes of the backend's answer head, at most.
    pub header_limit: usize,
    /// Servers tried before the client gets an answer; at least 1.
    pub tries: usize,
    pub proxy_protocol: ProxyProtocol,
    pub health: Health,
    /// `None` where servers are spoken to plainly.
    pub tls: Option<UpstreamTls>,
}

/// TLS to servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamTls {
    /// A host name or an IP address: whom the servers' certificates have to be for.
    pub server_name: String,
    /// Who signs them; the system's own list where it is `None`.
    pub ca: Option<PathBuf>,
    /// What the gateway shows of itself.
    pub identity: Option<Pair>,
    pub min_version: TlsVersion,
}

/// Which header of the PROXY protocol begins a connection to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyProtocol {
    Off,
    V1,
    V2,
}

/// What the servers of an upstream speak.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Spoken {
    /// Never empty; the one that is asked for first comes first.
    Listed(Vec<Dialect>),
    /// Each server is asked (RFC 6455 §4.4).
    Auto,
}

/// The largest weight of a server, also of one that a name stands for.
pub const SERVER_WEIGHT_MAX: u32 = bounds::WEIGHT.bounds.max;

#[derive(Clone, Debug, PartialEq)]
pub struct Server {
    pub address: Location,
    /// At least 1.
    pub weight: u32,
    pub max_tunnels: Option<usize>,
    /// Gets nothing new. What is open stays.
    pub drain: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Balance {
    LeastTunnels,
    RoundRobin,
    ClientHash,
    HeaderHash,
}

/// A cookie by which a client comes back to its server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sticky {
    /// Its name: a token.
    pub cookie: String,
    /// `None`: as long as the browser runs.
    pub max_age: Option<Duration>,
    /// Always, if `same_site` is [`SameSite::None`].
    pub secure: bool,
    pub http_only: bool,
    pub same_site: SameSite,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SameSite {
    Strict,
    Lax,
    None,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Health {
    pub check: HealthCheck,
    pub path: String,
    /// What a check says in `Host`; `None`: the server's address.
    pub host: Option<String>,
    pub interval: Duration,
    /// For a check as a whole.
    pub timeout: Duration,
    /// Good checks in a row that take a server in again; at least 1.
    pub rise: u32,
    /// Failures in a row that take a server out, of checks or of dials; at least 1.
    pub fall: u32,
    /// How long a server stays out after failed dials before it is tried again, for the first time.
    pub eject_time: Duration,
    /// The same after many times; at least `eject_time`.
    pub eject_time_max: Duration,
    /// In percent. With fewer servers up, all are used.
    pub panic_threshold: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthCheck {
    WebSocket,
    Http,
    Tcp,
    Off,
}
