//! Why a connection was refused or a tunnel ended: one closed list whose codes are the log field, the metric label and
//! the heading in `docs/reasons.md`. It does not know how a reason is found, sent or counted.

use std::fmt;

use crate::wire::CloseCode;

const GOING_AWAY: CloseCode = CloseCode(1001);
const PROTOCOL_ERROR: CloseCode = CloseCode(1002);
const UNSUPPORTED_DATA: CloseCode = CloseCode(1003);
const INVALID_PAYLOAD: CloseCode = CloseCode(1007);
const MESSAGE_TOO_BIG: CloseCode = CloseCode(1009);
const INTERNAL_ERROR: CloseCode = CloseCode(1011);

/// Every way a request or a tunnel can end other than well, and the ways a tunnel ends well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    // The PROXY header in front of it.
    ProxyPeerUnlisted,
    ProxyHeaderMissing,
    ProxyHeaderMalformed,
    ProxyHeaderTimeout,
    // The head as such.
    HeadMalformed,
    HeadTooLarge,
    HeadTimeout,
    // RFC 6455 §4.2.1 and §4.4: what an upgrade must say.
    VersionUnsupported,
    VersionObsolete,
    VersionMissing,
    VersionMalformed,
    MethodNotGet,
    HttpVersionTooOld,
    HostMissing,
    BodyOnUpgrade,
    ConnectionTokenMissing,
    UpgradeTokenMissing,
    UpgradeTokenAmbiguous,
    HeaderNominated,
    KeyMissing,
    KeyMalformed,
    // RFC 8441 §4, RFC 9110 §9.3.6.
    ConnectRefused,
    // The route's own rules.
    NoRoute,
    PlainHttpRefused,
    OriginRefused,
    SubprotocolRefused,
    ExtensionRefused,
    // Limits and the gateway's own life.
    LimitConnections,
    LimitTunnels,
    LimitBackendTunnels,
    LimitClientConnections,
    LimitClientTunnels,
    LimitClientHandshakes,
    Draining,
    // The backend, before its 101.
    BackendUnavailable,
    BackendTimeout,
    BackendTls,
    BackendHandshakeWrong,
    BackendRefused,
    // The end of a tunnel.
    ClientClosed,
    BackendClosed,
    ClientLost,
    BackendLost,
    ClientUnresponsive,
    BackendUnresponsive,
    ClientFrameBroken,
    BackendFrameBroken,
    ClientTextInvalid,
    BackendTextInvalid,
    ClientBinary,
    BackendBinary,
    ClientMessageTooBig,
    BackendMessageTooBig,
    IdleTimeout,
    MaxAge,
    RouteRemoved,
    Drained,
    DrainTimeout,
}

/// Whose doing an end is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum By {
    Client,
    Backend,
    Gateway,
    Operator,
}

impl By {
    pub const ALL: [By; 4] = [By::Client, By::Backend, By::Gateway, By::Operator];

    pub fn as_str(self) -> &'static str {
        match self {
            By::Client => "client",
            By::Backend => "backend",
            By::Gateway => "gateway",
            By::Operator => "operator",
        }
    }
}

/// What one reason means. A table rather than five matches, so that a reason is read in one line.
struct Facts {
    code: &'static str,
    /// The answer before a 101; `None` where a tunnel ends, or where the backend's own answer is relayed.
    status: Option<u16>,
    by: By,
    /// With which codes the gateway closes, where it says Close.
    tells: Tells,
}

/// The close codes that each side gets; none for a side that is gone.
#[derive(Clone, Copy)]
struct Tells {
    client: Option<CloseCode>,
    backend: Option<CloseCode>,
}

impl Tells {
    const NOBODY: Tells = Tells { client: None, backend: None };
    /// To a backend the gateway is the client, and that has gone.
    const THE_BACKEND: Tells = Tells { client: None, backend: Some(GOING_AWAY) };
    /// To a client the gateway is the server, and that has failed.
    const THE_CLIENT: Tells = Tells { client: Some(INTERNAL_ERROR), backend: None };

    const fn each(client: CloseCode, backend: CloseCode) -> Tells {
        Tells { client: Some(client), backend: Some(backend) }
    }

    const fn both(code: CloseCode) -> Tells {
        Tells::each(code, code)
    }
}

const fn refusal(code: &'static str, status: u16, by: By) -> Facts {
    Facts { code, status: Some(status), by, tells: Tells::NOBODY }
}

const fn ending(code: &'static str, by: By) -> Facts {
    Facts { code, status: None, by, tells: Tells::NOBODY }
}

const fn closing(code: &'static str, by: By, tells: Tells) -> Facts {
    Facts { code, status: None, by, tells }
}

impl Reason {
    pub const ALL: [Reason; 58] = [
        Reason::ProxyPeerUnlisted,
        Reason::ProxyHeaderMissing,
        Reason::ProxyHeaderMalformed,
        Reason::ProxyHeaderTimeout,
        Reason::HeadMalformed,
        Reason::HeadTooLarge,
        Reason::HeadTimeout,
        Reason::VersionUnsupported,
        Reason::VersionObsolete,
        Reason::VersionMissing,
        Reason::VersionMalformed,
        Reason::MethodNotGet,
        Reason::HttpVersionTooOld,
        Reason::HostMissing,
        Reason::BodyOnUpgrade,
        Reason::ConnectionTokenMissing,
        Reason::UpgradeTokenMissing,
        Reason::UpgradeTokenAmbiguous,
        Reason::HeaderNominated,
        Reason::KeyMissing,
        Reason::KeyMalformed,
        Reason::ConnectRefused,
        Reason::NoRoute,
        Reason::PlainHttpRefused,
        Reason::OriginRefused,
        Reason::SubprotocolRefused,
        Reason::ExtensionRefused,
        Reason::LimitConnections,
        Reason::LimitTunnels,
        Reason::LimitBackendTunnels,
        Reason::LimitClientConnections,
        Reason::LimitClientTunnels,
        Reason::LimitClientHandshakes,
        Reason::Draining,
        Reason::BackendUnavailable,
        Reason::BackendTimeout,
        Reason::BackendTls,
        Reason::BackendHandshakeWrong,
        Reason::BackendRefused,
        Reason::ClientClosed,
        Reason::BackendClosed,
        Reason::ClientLost,
        Reason::BackendLost,
        Reason::ClientUnresponsive,
        Reason::BackendUnresponsive,
        Reason::ClientFrameBroken,
        Reason::BackendFrameBroken,
        Reason::ClientTextInvalid,
        Reason::BackendTextInvalid,
        Reason::ClientBinary,
        Reason::BackendBinary,
        Reason::ClientMessageTooBig,
        Reason::BackendMessageTooBig,
        Reason::IdleTimeout,
        Reason::MaxAge,
        Reason::RouteRemoved,
        Reason::Drained,
        Reason::DrainTimeout,
    ];

    fn facts(self) -> Facts {
        match self {
            Reason::ProxyPeerUnlisted => refusal("proxy-peer-unlisted", 403, By::Client),
            Reason::ProxyHeaderMissing => refusal("proxy-header-missing", 400, By::Client),
            Reason::ProxyHeaderMalformed => refusal("proxy-header-malformed", 400, By::Client),
            Reason::ProxyHeaderTimeout => refusal("proxy-header-timeout", 408, By::Client),
            Reason::HeadMalformed => refusal("head-malformed", 400, By::Client),
            Reason::HeadTooLarge => refusal("head-too-large", 431, By::Client),
            Reason::HeadTimeout => refusal("head-timeout", 408, By::Client),
            Reason::VersionUnsupported => refusal("version-unsupported", 426, By::Client),
            Reason::VersionObsolete => refusal("version-obsolete", 426, By::Client),
            Reason::VersionMissing => refusal("version-missing", 426, By::Client),
            Reason::VersionMalformed => refusal("version-malformed", 400, By::Client),
            Reason::MethodNotGet => refusal("method-not-get", 400, By::Client),
            Reason::HttpVersionTooOld => refusal("http-version-too-old", 400, By::Client),
            Reason::HostMissing => refusal("host-missing", 400, By::Client),
            Reason::BodyOnUpgrade => refusal("body-on-upgrade", 400, By::Client),
            Reason::ConnectionTokenMissing => refusal("connection-token-missing", 400, By::Client),
            Reason::UpgradeTokenMissing => refusal("upgrade-token-missing", 400, By::Client),
            Reason::UpgradeTokenAmbiguous => refusal("upgrade-token-ambiguous", 400, By::Client),
            Reason::HeaderNominated => refusal("header-nominated", 400, By::Client),
            Reason::KeyMissing => refusal("key-missing", 400, By::Client),
            Reason::KeyMalformed => refusal("key-malformed", 400, By::Client),
            Reason::ConnectRefused => refusal("connect-refused", 501, By::Client),
            Reason::NoRoute => refusal("no-route", 404, By::Client),
            Reason::PlainHttpRefused => refusal("plain-http-refused", 426, By::Client),
            Reason::OriginRefused => refusal("origin-refused", 403, By::Client),
            Reason::SubprotocolRefused => refusal("subprotocol-refused", 400, By::Client),
            Reason::ExtensionRefused => refusal("extension-refused", 400, By::Client),
            Reason::LimitConnections => refusal("limit-connections", 503, By::Gateway),
            Reason::LimitTunnels => refusal("limit-tunnels", 503, By::Gateway),
            Reason::LimitBackendTunnels => refusal("limit-backend-tunnels", 503, By::Gateway),
            Reason::LimitClientConnections => refusal("limit-client-connections", 429, By::Client),
            Reason::LimitClientTunnels => refusal("limit-client-tunnels", 429, By::Client),
            Reason::LimitClientHandshakes => refusal("limit-client-handshakes", 429, By::Client),
            Reason::Draining => refusal("draining", 503, By::Operator),
            Reason::BackendUnavailable => refusal("backend-unavailable", 503, By::Backend),
            Reason::BackendTimeout => refusal("backend-timeout", 504, By::Backend),
            Reason::BackendTls => refusal("backend-tls", 502, By::Backend),
            Reason::BackendHandshakeWrong => refusal("backend-handshake-wrong", 502, By::Backend),
            Reason::BackendRefused => ending("backend-refused", By::Backend),
            Reason::ClientClosed => ending("client-closed", By::Client),
            Reason::BackendClosed => ending("backend-closed", By::Backend),
            Reason::ClientLost => closing("client-lost", By::Client, Tells::THE_BACKEND),
            Reason::BackendLost => closing("backend-lost", By::Backend, Tells::THE_CLIENT),
            Reason::ClientUnresponsive => closing("client-unresponsive", By::Client, Tells::THE_BACKEND),
            Reason::BackendUnresponsive => closing("backend-unresponsive", By::Backend, Tells::THE_CLIENT),
            Reason::ClientFrameBroken => closing("client-frame-broken", By::Client, Tells::both(PROTOCOL_ERROR)),
            Reason::BackendFrameBroken => closing("backend-frame-broken", By::Backend, Tells::both(PROTOCOL_ERROR)),
            Reason::ClientTextInvalid => {
                closing("client-text-invalid", By::Client, Tells::each(INVALID_PAYLOAD, GOING_AWAY))
            }
            Reason::BackendTextInvalid => {
                closing("backend-text-invalid", By::Backend, Tells::each(INTERNAL_ERROR, INVALID_PAYLOAD))
            }
            Reason::ClientBinary => closing("client-binary", By::Client, Tells::each(UNSUPPORTED_DATA, GOING_AWAY)),
            Reason::BackendBinary => {
                closing("backend-binary", By::Backend, Tells::each(INTERNAL_ERROR, UNSUPPORTED_DATA))
            }
            Reason::ClientMessageTooBig => {
                closing("client-message-too-big", By::Client, Tells::each(MESSAGE_TOO_BIG, GOING_AWAY))
            }
            Reason::BackendMessageTooBig => {
                closing("backend-message-too-big", By::Backend, Tells::each(GOING_AWAY, MESSAGE_TOO_BIG))
            }
            Reason::IdleTimeout => closing("idle-timeout", By::Gateway, Tells::both(GOING_AWAY)),
            Reason::MaxAge => closing("max-age", By::Gateway, Tells::both(GOING_AWAY)),
            Reason::RouteRemoved => closing("route-removed", By::Operator, Tells::both(GOING_AWAY)),
            Reason::Drained => closing("drained", By::Operator, Tells::both(GOING_AWAY)),
            Reason::DrainTimeout => ending("drain-timeout", By::Operator),
        }
    }

    /// Kebab case, stable, part of the product's contract.
    pub fn code(self) -> &'static str {
        self.facts().code
    }

    /// The HTTP status of the gateway's answer, where the gateway answers.
    pub fn status(self) -> Option<u16> {
        self.facts().status
    }

    pub fn by(self) -> By {
        self.facts().by
    }

    /// The code of the Close frame with which the gateway tells the client, where it tells it (RFC 6455 §7.4).
    pub fn code_to_client(self) -> Option<CloseCode> {
        self.facts().tells.client
    }

    /// As [`Reason::code_to_client`], for the backend.
    pub fn code_to_backend(self) -> Option<CloseCode> {
        self.facts().tells.backend
    }

    /// Whether the answer tells the client the versions it could use (RFC 6455 §4.4).
    pub fn lists_versions(self) -> bool {
        matches!(
            self,
            Reason::VersionUnsupported
                | Reason::VersionObsolete
                | Reason::VersionMissing
                | Reason::VersionMalformed
                | Reason::PlainHttpRefused
        )
    }

    /// Whether the same request may well pass a little later.
    pub fn is_temporary(self) -> bool {
        matches!(self.status(), Some(429 | 503))
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_reason_has_a_code_of_its_own() {
        let codes: HashSet<&str> = Reason::ALL.iter().map(|reason| reason.code()).collect();
        assert_eq!(codes.len(), Reason::ALL.len());
        let kebab = |code: &&str| code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-');
        assert!(codes.iter().all(kebab));
    }

    #[test]
    fn only_version_answers_list_versions() {
        for reason in Reason::ALL {
            assert!(!reason.lists_versions() || matches!(reason.status(), Some(426 | 400)), "{reason}");
            assert_eq!(reason.status() == Some(426), reason.lists_versions() && reason != Reason::VersionMalformed);
        }
    }
}
