//! What an upstream runs on: its servers, how one is chosen, how it is known that they are well. It does not know routes.

use std::path::PathBuf;
use std::time::Duration;

use super::Location;
use super::listener::{Pair, TlsVersion};
use crate::config::bounds;
use crate::dialect::Dialect;

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
