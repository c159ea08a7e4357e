//! The gateway's own answers: a reason in, the bytes of an HTTP/1.1 answer out. It does not know when they are sent.

use std::time::Duration;

use crate::handshake::VersionList;
use crate::reason::Reason;

/// Seconds after which a client may try again, where a refusal is temporary.
pub const RETRY_AFTER_S: u32 = 5;

/// What nginx made customary for a client that left before its answer. It never goes on the wire.
pub const CLIENT_GONE: u16 = 499;

/// What carries an answer to its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    Http1,
    Http2,
}

impl Carrier {
    /// As the access log calls it.
    pub fn as_str(self) -> &'static str {
        match self {
            Carrier::Http1 => "1.1",
            Carrier::Http2 => "2",
        }
    }

    /// The status that a client sees. A 426 has to have `Upgrade` (RFC 9110 §15.5.22), which HTTP/2 forbids (RFC 9113 §8.2.2).
    pub fn status(self, status: u16) -> u16 {
        match (self, status) {
            (Carrier::Http2, 426) => 400,
            (Carrier::Http1 | Carrier::Http2, status) => status,
        }
    }
}

/// The whole answer. `versions` is what client and route could use, for the reasons that tell it (RFC 6455 §4.4).
pub fn refusal(reason: Reason, versions: Option<&VersionList>) -> Vec<u8> {
    let retry_after_s = reason.is_temporary().then_some(u64::from(RETRY_AFTER_S));
    written(reason, versions, retry_after_s)
}

/// As [`refusal`], where it is known how long the client has to wait.
pub fn refusal_until(reason: Reason, wait: Duration) -> Vec<u8> {
    let part = u64::from(wait.subsec_nanos() > 0);
    written(reason, None, Some((wait.as_secs() + part).max(1)))
}

fn written(reason: Reason, versions: Option<&VersionList>, retry_after_s: Option<u64>) -> Vec<u8> {
    let status = status(reason);
    let body = sentence(reason, versions);
    let mut head = format!("HTTP/1.1 {status} {}\r\n", phrase(status));
    // RFC 9110 §15.5.22 asks a 426 for `Upgrade`, and §7.8 asks whoever sends that to name it in `Connection`.
    if status == 426 {
        head += "Upgrade: websocket\r\nConnection: Upgrade, close\r\n";
    } else {
        head += "Connection: close\r\n";
    }
    if let Some(numbers) = versions.and_then(VersionList::numbers) {
        head += &format!("Sec-WebSocket-Version: {numbers}\r\n");
    }
    if let Some(seconds) = retry_after_s {
        head += &format!("Retry-After: {seconds}\r\n");
    }
    head += &format!(
        "Cache-Control: no-store\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    head.into_bytes()
}

/// For a client that speaks plain HTTP where TLS is spoken, as nginx answers it.
pub fn not_tls() -> Vec<u8> {
    let body = "The plain HTTP request was sent to an HTTPS port.\n";
    let length = body.len();
    format!(
        "HTTP/1.1 400 Bad Request\r\nConnection: close\r\nCache-Control: no-store\r\n\
         Content-Type: text/plain; charset=utf-8\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

/// Status and text of an answer that somebody else frames.
pub fn parts(reason: Reason) -> (u16, String) {
    (status(reason), sentence(reason, None))
}

/// The status of the answer; a reason that only ends tunnels is never answered.
pub fn status(reason: Reason) -> u16 {
    reason.status().unwrap_or(502)
}

fn sentence(reason: Reason, versions: Option<&VersionList>) -> String {
    let said = match reason {
        Reason::ProxyPeerUnlisted => "Only listed proxies are served here.",
        Reason::ProxyHeaderMissing => "The connection does not begin with a PROXY header.",
        Reason::ProxyHeaderMalformed => "The PROXY header is malformed.",
        Reason::ProxyHeaderTimeout => "The PROXY header took too long.",
        Reason::HeadMalformed => "The request head is malformed.",
        Reason::HeadTooLarge => "The request head is too large.",
        Reason::HeadTimeout => "The request head took too long.",
        Reason::VersionUnsupported => "This WebSocket version is not served here.",
        Reason::VersionObsolete => "This WebSocket version was a draft that nobody serves.",
        Reason::VersionMissing => "The upgrade names no WebSocket version.",
        Reason::VersionMalformed => "Sec-WebSocket-Version must be one number from 0 to 255.",
        Reason::MethodNotGet => "A WebSocket is opened with GET.",
        Reason::HttpVersionTooOld => "A WebSocket is opened over HTTP/1.1 or later.",
        Reason::HostMissing => "Exactly one valid Host is needed.",
        Reason::BodyOnUpgrade => "An upgrade has no body.",
        Reason::ConnectionTokenMissing => "Connection does not name Upgrade.",
        Reason::UpgradeTokenMissing => "Upgrade does not name websocket.",
        Reason::UpgradeTokenAmbiguous => "Upgrade names more than websocket.",
        Reason::HeaderNominated => "Connection names a field that the handshake needs.",
        Reason::KeyMissing => "Sec-WebSocket-Key is missing.",
        Reason::KeyMalformed => {
            "Sec-WebSocket-Key must be 16 bytes in base64, once; in version 0, Key1 and Key2 hide a number each."
        }
        Reason::ConnectRefused => "CONNECT opens WebSockets here, and nothing else.",
        Reason::NoRoute => "Nothing is served here.",
        Reason::PlainHttpRefused => "Only WebSockets are served here.",
        Reason::OriginRefused => "This origin is not welcome here.",
        Reason::SubprotocolRefused => "None of the subprotocols offered is served here.",
        Reason::ExtensionRefused => "The extensions offered are not served here.",
        Reason::LimitConnections | Reason::LimitTunnels | Reason::LimitBackendTunnels => {
            "Too many connections at the moment."
        }
        Reason::LimitClientConnections | Reason::LimitClientTunnels => "You have too many connections.",
        Reason::LimitClientHandshakes => "You connect too often.",
        Reason::Draining => "The gateway is shutting down.",
        Reason::BackendUnavailable => "No backend can be reached.",
        Reason::BackendTimeout => "The backend did not answer in time.",
        Reason::BackendTls => "No TLS can be agreed on with the backend.",
        Reason::BackendHandshakeWrong => "The backend's answer is not a valid handshake.",
        Reason::BackendRefused
        | Reason::ClientClosed
        | Reason::BackendClosed
        | Reason::ClientLost
        | Reason::BackendLost
        | Reason::ClientUnresponsive
        | Reason::BackendUnresponsive
        | Reason::ClientFrameBroken
        | Reason::BackendFrameBroken
        | Reason::ClientTextInvalid
        | Reason::BackendTextInvalid
        | Reason::ClientBinary
        | Reason::BackendBinary
        | Reason::ClientMessageTooBig
        | Reason::BackendMessageTooBig
        | Reason::IdleTimeout
        | Reason::MaxAge
        | Reason::RouteRemoved
        | Reason::Drained
        | Reason::DrainTimeout => "The connection ended.",
    };
    match versions {
        Some(versions) => format!("{said} Served: {}.\n", versions.names()),
        None => format!("{said}\n"),
    }
}

fn phrase(status: u16) -> &'static str {
    http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or("Refused")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::Dialect;

    fn check(reason: Reason, expected: &str) {
        let versions = VersionList::new(&[Dialect::Rfc6455, Dialect::Hybi8]);
        let answer = refusal(reason, reason.lists_versions().then_some(&versions));
        assert_eq!(String::from_utf8(answer).unwrap().replace("\r\n", "\n"), expected);
    }

    #[test]
    fn an_unsupported_version_gets_426_with_the_list_upgrade_and_connection() {
        check(
            Reason::VersionUnsupported,
            "HTTP/1.1 426 Upgrade Required\nUpgrade: websocket\nConnection: Upgrade, close\n\
             Sec-WebSocket-Version: 13, 8\nCache-Control: no-store\nContent-Type: text/plain; charset=utf-8\n\
             Content-Length: 58\n\nThis WebSocket version is not served here. Served: 13, 8.\n",
        );
    }

    #[test]
    fn a_malformed_version_gets_400_with_the_list() {
        check(
            Reason::VersionMalformed,
            "HTTP/1.1 400 Bad Request\nConnection: close\nSec-WebSocket-Version: 13, 8\nCache-Control: no-store\n\
             Content-Type: text/plain; charset=utf-8\nContent-Length: 71\n\n\
             Sec-WebSocket-Version must be one number from 0 to 255. Served: 13, 8.\n",
        );
    }

    #[test]
    fn a_temporary_refusal_says_when_to_come_back() {
        check(
            Reason::Draining,
            "HTTP/1.1 503 Service Unavailable\nConnection: close\nRetry-After: 5\nCache-Control: no-store\n\
             Content-Type: text/plain; charset=utf-8\nContent-Length: 30\n\nThe gateway is shutting down.\n",
        );
    }

    #[test]
    fn a_wait_that_is_known_is_told_in_whole_seconds() {
        for (wait_ms, expected) in [(0, 1), (1, 1), (1_000, 1), (1_001, 2), (59_500, 60)] {
            let answer = refusal_until(Reason::LimitClientHandshakes, Duration::from_millis(wait_ms));
            let answer = String::from_utf8(answer).unwrap();
            assert!(answer.starts_with("HTTP/1.1 429 Too Many Requests\r\n"), "{answer}");
            assert!(answer.contains(&format!("\r\nRetry-After: {expected}\r\n")), "{wait_ms} ms: {answer}");
        }
    }

    #[test]
    fn every_refusal_is_a_whole_answer_that_ends_the_connection() {
        for reason in Reason::ALL.into_iter().filter(|reason| reason.status().is_some()) {
            let answer = String::from_utf8(refusal(reason, None)).unwrap();
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            assert!(head.contains(&format!("Content-Length: {}", body.len())), "{reason}");
            assert!(head.contains("close\r\n") && head.contains("no-store"), "{reason}");
        }
    }
}
