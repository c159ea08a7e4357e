//! What the file says, key by key: every key optional, every leaf with its place in the text, nothing checked but its
//! type. The fields of these structs are the grammar: the lists of known keys are read off them (`shape.rs`), and so are
//! the tests that hold `conf/` and `docs/configuration.md` complete. It does not know defaults or limits.
//!
//! Leaves are text, whole numbers and switches; `shape.rs` knows no others.

use serde::Deserialize;
use toml::Spanned;

// Aliases and no newtypes: every leaf is an option with a place, and only the name keeps the structs below readable.
pub type Text = Option<Spanned<String>>;
pub type Whole = Option<Spanned<i64>>;
pub type Switch = Option<Spanned<bool>>;
pub type Texts = Option<Spanned<Vec<Spanned<String>>>>;
/// An array of tables.
pub type Tables<T> = Option<Spanned<Vec<Spanned<T>>>>;

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct File {
    pub gateway: Gateway,
    pub admin: Admin,
    pub log: Log,
    pub limits: ClientLimits,
    pub dns: Dns,
    pub listener: Tables<Listener>,
    pub route: Tables<Route>,
    pub upstream: Tables<Upstream>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Gateway {
    pub threads: Whole,
    pub upgrade_socket: Text,
    pub reload_on_change: Switch,
    pub drain: Drain,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Drain {
    pub delay: Text,
    pub spread: Text,
    pub timeout: Text,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Admin {
    pub listen: Text,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    pub level: Text,
    pub format: Text,
    pub access: Text,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClientLimits {
    pub ipv6_prefix: Whole,
    pub clients: Whole,
    pub exempt: Texts,
    pub shared: SharedLimits,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SharedLimits {
    pub redis: Text,
    pub password_file: Text,
    pub timeout: Text,
    pub retry: Text,
    pub lease: Text,
    pub prefix: Text,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Dns {
    pub servers: Texts,
    pub resolv_conf: Text,
    pub timeout: Text,
    pub attempts: Whole,
    pub min_ttl: Text,
    pub max_ttl: Text,
    pub empty_after: Text,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Listener {
    pub name: Text,
    pub listen: Text,
    pub socket_mode: Text,
    pub max_connections: Whole,
    pub connections_per_client: Whole,
    pub header_timeout: Text,
    pub header_limit: Text,
    pub body_timeout: Text,
    pub keepalive_timeout: Text,
    pub client_address: Text,
    pub forwarded_field: Text,
    pub trusted_proxies: Texts,
    pub http2: Switch,
    pub http2_streams: Whole,
    pub tls: Option<Spanned<ListenerTls>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ListenerTls {
    pub certificates: Tables<Pair>,
    pub min_version: Text,
    pub client_certificates: Text,
    pub client_ca: Text,
    pub client_certificate_header: Text,
    pub handshake_timeout: Text,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Pair {
    pub certificate: Text,
    pub key: Text,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Route {
    pub name: Text,
    pub listeners: Texts,
    pub hosts: Texts,
    pub paths: Texts,
    pub upstream: Text,
    pub plain_http: Text,
    pub versions: Versions,
    pub handshake: Handshake,
    pub bridge: Bridge,
    pub tunnel: Tunnel,
    pub limits: Limits,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Versions {
    /// The file gives the numbers as such; `read.rs` makes texts of them.
    pub accept: Texts,
    pub mode: Text,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Handshake {
    pub origins: Texts,
    pub subprotocols: Texts,
    pub extensions: Text,
    pub relax: Texts,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Bridge {
    pub binary: Text,
    pub max_message: Text,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tunnel {
    pub frames: Text,
    pub idle_timeout: Text,
    pub ping_interval: Text,
    pub ping_timeout: Text,
    pub max_age: Text,
    pub close_timeout: Text,
    pub max_frame: Text,
    pub max_message: Text,
    pub on_remove: Text,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    pub tunnels: Whole,
    pub tunnels_per_client: Whole,
    pub handshakes_per_client: Text,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Upstream {
    pub name: Text,
    /// As `Versions::accept`, or one word; `read.rs` makes a list of it.
    pub versions: Texts,
    pub servers: Tables<Server>,
    pub balance: Text,
    pub hash_header: Text,
    pub slow_start: Text,
    pub queue: Whole,
    pub queue_timeout: Text,
    pub connect_timeout: Text,
    pub handshake_timeout: Text,
    pub response_timeout: Text,
    pub header_limit: Text,
    pub tries: Whole,
    pub proxy_protocol: Text,
    pub sticky: Sticky,
    pub health: Health,
    pub tls: Option<Spanned<UpstreamTls>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UpstreamTls {
    pub server_name: Text,
    pub ca: Text,
    pub certificate: Text,
    pub key: Text,
    pub min_version: Text,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sticky {
    pub cookie: Text,
    pub max_age: Text,
    pub secure: Switch,
    pub http_only: Switch,
    pub same_site: Text,
}

/// The file may also give a server as its address alone; `read.rs` makes a table of it.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Server {
    pub address: Text,
    pub weight: Whole,
    pub max_tunnels: Whole,
    pub drain: Switch,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Health {
    pub check: Text,
    pub path: Text,
    pub host: Text,
    pub interval: Text,
    pub timeout: Text,
    pub rise: Whole,
    pub fall: Whole,
    pub eject_time: Text,
    pub eject_time_max: Text,
    pub panic_threshold: Whole,
}
