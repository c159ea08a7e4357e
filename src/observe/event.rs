//! What happened, one struct a fact. Each feeds the access log and the metrics together, so that the two cannot disagree.
//! Events are borrowed and short-lived; they do not know who reads them.

use std::fmt;
use std::time::Duration;

use crate::address::{Address, ClientAddr};
use crate::reason::Reason;

/// Names a request or a tunnel in the log: 16 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestId(pub u64);

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// What a client asked for. Texts are as the client sent them and go to the log only, never into a label.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    pub id: RequestId,
    pub listener: &'a str,
    /// `None` before a route is found, and where none matches.
    pub route: Option<&'a str>,
    pub client: ClientAddr,
    /// Who sent it, which is a proxy where it is not the client.
    pub peer: ClientAddr,
    /// What carried it: `1.1` or `2`.
    pub http: &'static str,
    /// The subject of the certificate that the client showed, where it was asked for one.
    pub client_certificate: Option<&'a str>,
    pub method: &'a str,
    pub host: Option<&'a str>,
    /// Without the query, which may hold secrets.
    pub path: &'a str,
    pub origin: Option<&'a str>,
    pub user_agent: Option<&'a str>,
    /// The label of the version asked: `0 7 8 13 other missing malformed`; `None` on a plain request.
    pub asked: Option<&'static str>,
}

/// The gateway answered instead of a backend, or relayed a backend's refusal of an upgrade.
#[derive(Clone, Copy, Debug)]
pub struct Refused<'a> {
    pub request: Request<'a>,
    pub reason: Reason,
    /// What the client was answered.
    pub status: u16,
    /// More than the code says, such as which part of a 101 was wrong.
    pub detail: Option<&'a str>,
}

/// The client got its 101.
#[derive(Clone, Copy, Debug)]
pub struct Opened<'a> {
    pub request: Request<'a>,
    pub upstream: &'a str,
    pub server: &'a Address,
    /// The label of the version spoken to the backend.
    pub spoken: &'static str,
    pub subprotocol: Option<&'a str>,
    pub extensions: Option<&'a str>,
    /// From the end of the request head to the 101.
    pub handshake: Duration,
    /// What would have been refused on a stricter route.
    pub would_refuse: &'a [Reason],
}

/// A tunnel ended.
#[derive(Clone, Copy, Debug)]
pub struct Closed<'a> {
    pub id: RequestId,
    pub route: &'a str,
    pub reason: Reason,
    /// The label of the code of the Close frame that began the end, a side's or the gateway's; `none` where none did.
    pub code: &'static str,
    pub duration: Duration,
    pub from_client: Passed,
    pub from_backend: Passed,
}

/// What went through a tunnel in one direction.
#[derive(Clone, Copy, Debug, Default)]
pub struct Passed {
    pub bytes: u64,
    pub messages: u64,
    /// Of the Close frame that the side sent; 1005 where that had none (RFC 6455 §7.1.5).
    pub close_code: Option<u16>,
}

/// A plain HTTP request was answered, by a backend or by the gateway.
#[derive(Clone, Copy, Debug)]
pub struct Answered<'a> {
    pub request: Request<'a>,
    pub status: u16,
    /// `None` where the gateway answered.
    pub server: Option<&'a Address>,
    /// Body bytes sent to the client.
    pub bytes: u64,
    pub duration: Duration,
}
