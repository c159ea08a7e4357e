//! What a listener runs on: where it listens, whom it believes, what it speaks. It does not know routes.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;

use crate::address::Address;

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
