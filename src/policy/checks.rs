//! What an upgrade must say before it may pass, one check a line, in the order in which they are made. The first one that
//! fails and is not relaxed decides.

use super::Route;
use crate::config::model::Extensions;
use crate::handshake::header_list::{Single, has_token, single};
use crate::handshake::key::KeyError;
use crate::handshake::request::{Body, Head, Http, nominates_protected_field};
use crate::handshake::{Asked, Key, Version, extension, subprotocol};
use crate::reason::Reason;

/// One thing that is asked of every upgrade.
#[derive(Debug)]
pub struct Check {
    /// As `wsgate explain` shows it.
    pub name: &'static str,
    /// Where it is written.
    pub source: &'static str,
    test: fn(&Route, Asked, &Head<'_>) -> Result<(), Reason>,
}

/// What a check said of one upgrade.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Passed,
    /// It failed, and the route relaxes it or only observes.
    Noted(Reason),
    Refused(Reason),
}

impl Check {
    pub fn run(&self, route: &Route, asked: Asked, head: &Head<'_>) -> Outcome {
        match (self.test)(route, asked, head) {
            Ok(()) => Outcome::Passed,
            Err(reason) if route.relaxes(reason) => Outcome::Noted(reason),
            Err(reason) => Outcome::Refused(reason),
        }
    }
}

/// In this order: what makes the request readable at all, then whether it is a handshake, then the version, so that a
/// client of another version learns the list whatever else its draft wrote differently; the route's own rules come last.
pub const CHECKS: [Check; 13] = [
    Check { name: "method is GET", source: "RFC 6455 §4.2.1", test: method },
    Check { name: "HTTP/1.1 or later", source: "RFC 6455 §4.2.1", test: http_version },
    Check { name: "Host is there", source: "RFC 6455 §4.2.1", test: host },
    Check { name: "no body", source: "RFC 9112 §6", test: body },
    Check { name: "Upgrade names websocket", source: "RFC 6455 §4.2.1", test: upgrade_token },
    Check { name: "Upgrade names nothing else", source: "RFC 9110 §7.8", test: upgrade_alone },
    Check { name: "Connection names Upgrade", source: "RFC 6455 §4.2.1", test: connection_token },
    Check { name: "Connection nominates no field of the handshake", source: "RFC 9110 §7.6.1", test: nominated },
    Check { name: "version is served", source: "RFC 6455 §4.2.2, §4.4", test: version },
    Check { name: "key is 16 bytes in base64", source: "RFC 6455 §4.2.1", test: key },
    Check { name: "origin is welcome", source: "RFC 6455 §10.2", test: origin },
    Check { name: "subprotocol is welcome", source: "RFC 6455 §4.2.2", test: subprotocol },
    Check { name: "extensions are welcome", source: "RFC 6455 §9.1", test: extensions },
];

fn method(_: &Route, _: Asked, head: &Head<'_>) -> Result<(), Reason> {
    require(head.method == "GET", Reason::MethodNotGet)
}

fn http_version(_: &Route, _: Asked, head: &Head<'_>) -> Result<(), Reason> {
    require(head.http == Http::V1_1, Reason::HttpVersionTooOld)
}

fn host(_: &Route, _: Asked, head: &Head<'_>) -> Result<(), Reason> {
    require(head.host.is_some(), Reason::HostMissing)
}

/// A body would leave bytes that one side takes for frames and the other for a request.
fn body(_: &Route, _: Asked, head: &Head<'_>) -> Result<(), Reason> {
    require(head.body == Body::None, Reason::BodyOnUpgrade)
}

fn upgrade_token(_: &Route, _: Asked, head: &Head<'_>) -> Result<(), Reason> {
    require(head.names_websocket(), Reason::UpgradeTokenMissing)
}

fn upgrade_alone(_: &Route, _: Asked, head: &Head<'_>) -> Result<(), Reason> {
    require(!head.names_websocket() || head.upgrades_to_websocket_alone(), Reason::UpgradeTokenAmbiguous)
}

fn connection_token(_: &Route, _: Asked, head: &Head<'_>) -> Result<(), Reason> {
    require(has_token(&head.fields, "Connection", "Upgrade"), Reason::ConnectionTokenMissing)
}

fn nominated(_: &Route, _: Asked, head: &Head<'_>) -> Result<(), Reason> {
    require(!nominates_protected_field(&head.fields), Reason::HeaderNominated)
}

fn version(route: &Route, asked: Asked, _: &Head<'_>) -> Result<(), Reason> {
    match asked {
        Asked::Version(version) => require(route.versions().contains(version), Reason::VersionUnsupported),
        Asked::Missing => Err(Reason::VersionMissing),
        Asked::Malformed => Err(Reason::VersionMalformed),
    }
}

/// A version-0 handshake proves itself with Key1, Key2 and eight bytes instead.
fn key(_: &Route, asked: Asked, head: &Head<'_>) -> Result<(), Reason> {
    if asked == Asked::Version(Version::HIXIE_76) {
        return Ok(());
    }
    match Key::read(&head.fields) {
        Ok(_) => Ok(()),
        Err(KeyError::Missing) => Err(Reason::KeyMissing),
        Err(KeyError::Malformed) => Err(Reason::KeyMalformed),
    }
}

/// Versions before 13 may carry the origin as `Sec-WebSocket-Origin`.
fn origin(route: &Route, asked: Asked, head: &Head<'_>) -> Result<(), Reason> {
    let welcome = &route.rules().handshake.origins;
    if welcome.is_empty() {
        return Ok(());
    }
    let stated = match (single(&head.fields, "Origin"), asked) {
        (Single::None, Asked::Version(version)) if version != Version::STANDARD => {
            single(&head.fields, "Sec-WebSocket-Origin")
        }
        (stated, _) => stated,
    };
    let origin = match stated {
        Single::One(value) => std::str::from_utf8(value).ok(),
        Single::None | Single::Repeated => None,
    };
    require(origin.is_some_and(|origin| welcome.iter().any(|pattern| pattern.matches(origin))), Reason::OriginRefused)
}

/// An offer passes if it is well formed and holds a welcome name; no offer passes too, because RFC 6455 §4.2.2 lets a
/// server go on without a subprotocol.
fn subprotocol(route: &Route, _: Asked, head: &Head<'_>) -> Result<(), Reason> {
    let welcome = &route.rules().handshake.subprotocols;
    let mut offered = subprotocol::offered(&head.fields).peekable();
    let one_is_welcome = welcome.is_empty()
        || offered.peek().is_none()
        || offered.any(|name| welcome.iter().any(|welcome| welcome.as_bytes() == name));
    require(one_is_welcome && subprotocol::is_well_formed(&head.fields), Reason::SubprotocolRefused)
}

fn extensions(route: &Route, _: Asked, head: &Head<'_>) -> Result<(), Reason> {
    let passes = match route.rules().handshake.extensions {
        Extensions::Pass => extension::is_well_formed(&head.fields),
        Extensions::Strip => true,
        Extensions::Refuse => extension::names(&head.fields).next().is_none(),
    };
    require(passes, Reason::ExtensionRefused)
}

fn require(holds: bool, otherwise: Reason) -> Result<(), Reason> {
    if holds { Ok(()) } else { Err(otherwise) }
}
