//! What an upgrade must say before it may pass, one check a line, in the order in which they are made. The first one that
//! fails and is not relaxed decides.

use super::Route;
use crate::config::model::Extensions;
use crate::dialect::Dialect;
use crate::handshake::header_list::has_token;
use crate::handshake::key::KeyError;
use crate::handshake::origin::{self, Stated};
use crate::handshake::request::{Body, Head, Http, nominates_protected_field};
use crate::handshake::{Asked, Key, extension, hixie, subprotocol};
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
    Check { name: "no body, but a third key of version 0", source: "RFC 9112 §6", test: body },
    Check { name: "Upgrade names websocket", source: "RFC 6455 §4.2.1", test: upgrade_token },
    Check { name: "Upgrade names nothing else", source: "RFC 9110 §7.8", test: upgrade_alone },
    Check { name: "Connection names Upgrade", source: "RFC 6455 §4.2.1", test: connection_token },
    Check { name: "Connection nominates no field of the handshake", source: "RFC 9110 §7.6.1", test: nominated },
    Check { name: "version is served", source: "RFC 6455 §4.2.2, §4.4", test: version },
    Check { name: "key is what the version has", source: "RFC 6455 §4.2.1, hixie-76 §5.2", test: key },
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
/// Some clients of version 0 call their third key one.
fn body(_: &Route, asked: Asked, head: &Head<'_>) -> Result<(), Reason> {
    let is_key3 = asked == Asked::Known(Dialect::Hixie76) && head.body == Body::Length(hixie::KEY3_BYTES as u64);
    require(head.body == Body::None || is_key3, Reason::BodyOnUpgrade)
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
        Asked::Known(Dialect::Hixie75) => require(route.accepts(Dialect::Hixie75), Reason::VersionMissing),
        Asked::Known(dialect) => require(route.accepts(dialect), Reason::VersionUnsupported),
        Asked::Other(version) if version.is_obsolete() => Err(Reason::VersionObsolete),
        Asked::Other(_) => Err(Reason::VersionUnsupported),
        Asked::Draft => Err(Reason::VersionObsolete),
        Asked::Missing => Err(Reason::VersionMissing),
        Asked::Malformed => Err(Reason::VersionMalformed),
    }
}

/// A version-0 handshake proves itself with Key1, Key2 and eight bytes instead, and hixie-75 with nothing. Clients of 7 and 8
/// send keys of other lengths, which their servers never minded.
fn key(_: &Route, asked: Asked, head: &Head<'_>) -> Result<(), Reason> {
    let read = match asked {
        Asked::Known(Dialect::Hixie75) => Ok(()),
        Asked::Known(Dialect::Hixie76) => hixie::Numbers::read(&head.fields).map(|_| ()),
        Asked::Known(Dialect::Hybi8 | Dialect::Hybi7) => Key::read_of_a_draft(&head.fields).map(|_| ()),
        Asked::Known(Dialect::Rfc6455) | Asked::Other(_) | Asked::Draft | Asked::Missing | Asked::Malformed => {
            Key::read(&head.fields).map(|_| ())
        }
    };
    read.map_err(|error| match error {
        KeyError::Missing => Reason::KeyMissing,
        KeyError::Malformed => Reason::KeyMalformed,
    })
}

/// Drafts before 11 carry the origin as `Sec-WebSocket-Origin`, and whoever states two may not mean two.
fn origin(route: &Route, asked: Asked, head: &Head<'_>) -> Result<(), Reason> {
    let welcome = &route.rules().handshake.origins;
    let stated = origin::stated(&head.fields, asked);
    if welcome.is_empty() {
        return require(stated != Stated::Ambiguous, Reason::OriginRefused);
    }
    let origin = match stated {
        Stated::One(value) => std::str::from_utf8(value).ok(),
        Stated::None | Stated::Ambiguous => None,
    };
    require(origin.is_some_and(|origin| welcome.iter().any(|pattern| pattern.matches(origin))), Reason::OriginRefused)
}

/// An offer passes if it is well formed and holds a welcome name; no offer passes too, because RFC 6455 §4.2.2 lets a
/// server go on without a subprotocol.
fn subprotocol(route: &Route, asked: Asked, head: &Head<'_>) -> Result<(), Reason> {
    let welcome = &route.rules().handshake.subprotocols;
    let field = asked.dialect().map_or(subprotocol::FIELD, subprotocol::field);
    let mut offered = subprotocol::offered(&head.fields, field).peekable();
    let one_is_welcome = welcome.is_empty()
        || offered.peek().is_none()
        || offered.any(|name| welcome.iter().any(|welcome| welcome.as_bytes() == name));
    require(one_is_welcome && subprotocol::is_well_formed(&head.fields, field), Reason::SubprotocolRefused)
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
