//! The request head that a backend gets: built by us, field by field, so that nothing reaches it that was meant for this
//! hop or that an untrusted client made up. It knows no socket.

use std::io::Write;
use std::net::IpAddr;

use crate::address::ClientAddr;
pub use crate::caller::Trust;
use crate::handshake::ask::Ask;
use crate::handshake::header_list::{elements, has_token, lines};
use crate::handshake::origin::Stated;
use crate::handshake::request::{Head, is_hop_by_hop, is_of_a_handshake, nominates_protected_field};
use crate::handshake::{Field, extension, subprotocol};

/// Whether extension offers go on to the backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offers {
    Forward,
    Strip,
}

/// How the client spoke to the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    Http,
    Https,
}

impl Scheme {
    pub fn as_str(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        }
    }
}

/// What a backend is told of the client's certificate.
#[derive(Clone, Copy, Debug, Default)]
pub struct Certified<'a> {
    /// Names of fields that only the gateway writes, whether or not it does here.
    pub reserved: &'a [String],
    /// A field of them, and the subject.
    pub field: Option<(&'a str, &'a str)>,
}

/// Whether only the gateway writes this field. Many servers hand `-` and `_` on as the same, so both are.
pub fn is_reserved(name: &str, reserved: &[String]) -> bool {
    let plain = |byte: u8| if byte == b'_' { b'-' } else { byte.to_ascii_lowercase() };
    let is_it = |own: &String| own.len() == name.len() && own.bytes().map(plain).eq(name.bytes().map(plain));
    reserved.iter().any(is_it)
}

/// Where a request came from.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    /// Who sent it: the client, or the last of the proxies in front. Each hop adds the one that it saw.
    pub peer: ClientAddr,
    pub trust: Trust,
    pub scheme: Scheme,
    pub certified: Certified<'a>,
}

/// Spellings that old peers compare byte for byte. Other names keep the client's spelling.
const SPELLINGS: [&str; 13] = [
    "Host",
    "Origin",
    "Cookie",
    "User-Agent",
    "Authorization",
    "Sec-WebSocket-Key",
    "Sec-WebSocket-Key1",
    "Sec-WebSocket-Key2",
    "Sec-WebSocket-Version",
    "Sec-WebSocket-Protocol",
    "Sec-WebSocket-Extensions",
    "Sec-WebSocket-Origin",
    "Sec-WebSocket-Accept",
];

/// Written anew for every backend.
const WRITTEN_BY_US: [&str; 5] = ["Host", "Forwarded", "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host"];

/// Passed on from a listed proxy, dropped from anyone else.
pub const BELIEVED_OF_A_PROXY: [&str; 2] = ["X-Forwarded-Port", "X-Real-IP"];

/// The head of an upgrade towards a backend.
pub fn upgrade(head: &Head<'_>, origin: Origin<'_>, offers: Offers) -> Vec<u8> {
    let mut out = Vec::with_capacity(768);
    put(&mut out, &[b"GET ", head.path_and_query.as_bytes(), b" HTTP/1.1\r\n"]);
    if let Some(host) = head.host {
        field(&mut out, "Host", host.authority.as_bytes());
    }
    field(&mut out, "Upgrade", upgrade_value(head));
    field(&mut out, "Connection", b"Upgrade");
    for line in &head.fields {
        if goes_on(head, line, origin, offers) {
            field(&mut out, spelling(line.name), line.value);
        }
    }
    forwarded(&mut out, head, origin);
    out.extend_from_slice(b"\r\n");
    out
}

/// The head of a handshake of the gateway's own, on a client's behalf. The first lines have the order of the drafts, which some
/// servers count on.
pub fn own(head: &Head<'_>, origin: Origin<'_>, ask: &Ask, offered: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(768);
    put(&mut out, &[b"GET ", head.path_and_query.as_bytes(), b" HTTP/1.1\r\n"]);
    field(&mut out, "Upgrade", ask.upgrade().as_bytes());
    field(&mut out, "Connection", b"Upgrade");
    if let Some(host) = head.host {
        field(&mut out, "Host", host.authority.as_bytes());
    }
    match head.origin() {
        Stated::One(origin) => field(&mut out, ask.origin_field(), origin),
        // hixie has no handshake without one.
        Stated::None | Stated::Ambiguous if !ask.dialect().has_frames() => field(&mut out, ask.origin_field(), b"null"),
        Stated::None | Stated::Ambiguous => {}
    }
    for (name, value) in ask.lines() {
        field(&mut out, name, value.as_bytes());
    }
    if !offered.is_empty() {
        field(&mut out, subprotocol::field(ask.dialect()), offered);
    }
    for line in &head.fields {
        let is_written = is_of_a_handshake(line.name) || line.is("Origin");
        if !is_written && goes_on(head, line, origin, Offers::Strip) {
            field(&mut out, spelling(line.name), line.value);
        }
    }
    forwarded(&mut out, head, origin);
    out.extend_from_slice(b"\r\n");
    out
}

/// The client's own writing of `websocket`, which hixie-76 servers compare byte for byte.
fn upgrade_value<'h>(head: &'h Head<'h>) -> &'h [u8] {
    elements(&head.fields, "Upgrade").find(|token| token.eq_ignore_ascii_case(b"websocket")).unwrap_or(b"websocket")
}

fn goes_on(head: &Head<'_>, line: &Field<'_>, origin: Origin<'_>, offers: Offers) -> bool {
    let written_by_us = WRITTEN_BY_US.iter().any(|name| line.is(name));
    let made_up = origin.trust == Trust::Client && BELIEVED_OF_A_PROXY.iter().any(|name| line.is(name));
    // No body is sent, and nothing waits for a 100.
    let about_a_body = line.is("Content-Length") || line.is("Transfer-Encoding") || line.is("Expect");
    let stripped = offers == Offers::Strip && line.is(extension::FIELD);
    let reserved = is_reserved(line.name, origin.certified.reserved);
    !written_by_us && !made_up && !reserved && !about_a_body && !stripped && !ends_here(head, line)
}

/// Hop by hop, unless it is a nomination that a relaxed route let through for a field the handshake needs.
fn ends_here(head: &Head<'_>, line: &Field<'_>) -> bool {
    let nominated_in_vain = nominates_protected_field(&head.fields)
        && has_token(&head.fields, "Connection", line.name)
        && nominates_protected_field(&[Field { name: "Connection", value: line.name.as_bytes() }]);
    is_hop_by_hop(&head.fields, line.name) && !nominated_in_vain
}

/// `X-Forwarded-*` as every server knows them, and `Forwarded` (RFC 7239) beside them.
fn forwarded(out: &mut Vec<u8>, head: &Head<'_>, origin: Origin<'_>) {
    let peer = origin.peer.ip();
    let host = head.host.map(|host| host.authority);
    let before = |name: &str| match origin.trust {
        Trust::Client => None,
        Trust::Proxy => joined(&head.fields, name),
    };
    // Writing into a vector cannot fail.
    let mut list = |name: &str, own: &str| {
        let _ = match before(name) {
            // A proxy on this machine is no step that a backend would know how to pass over.
            Some(before) if peer.is_none() => write!(out, "{name}: {before}\r\n"),
            Some(before) => write!(out, "{name}: {before}, {own}\r\n"),
            None => write!(out, "{name}: {own}\r\n"),
        };
    };
    let (address, node) = names(peer);
    list("X-Forwarded-For", &address);
    let named = host.map(|host| format!("host=\"{host}\";")).unwrap_or_default();
    let scheme = origin.scheme.as_str();
    list("Forwarded", &format!("for={node};{named}proto={scheme}"));
    for (name, own) in [("X-Forwarded-Proto", Some(scheme)), ("X-Forwarded-Host", host)] {
        if let Some(value) = before(name).or_else(|| own.map(str::to_owned)) {
            field(out, name, value.as_bytes());
        }
    }
    if let Some((name, subject)) = origin.certified.field {
        field(out, name, subject.as_bytes());
    }
}

/// A client in `X-Forwarded-For`, and as a node of `Forwarded` (RFC 7239 §6).
pub fn names(client: Option<IpAddr>) -> (String, String) {
    match client {
        Some(IpAddr::V4(address)) => (address.to_string(), address.to_string()),
        Some(IpAddr::V6(address)) => (address.to_string(), format!("\"[{address}]\"")),
        None => ("unknown".to_owned(), "unknown".to_owned()),
    }
}

fn joined(fields: &[Field<'_>], name: &str) -> Option<String> {
    let values: Vec<&str> = lines(fields, name).filter_map(|value| std::str::from_utf8(value).ok()).collect();
    (!values.is_empty()).then(|| values.join(", "))
}

pub fn spelling(name: &str) -> &str {
    SPELLINGS.iter().find(|known| known.eq_ignore_ascii_case(name)).copied().unwrap_or(name)
}

/// One header line.
pub fn field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    put(out, &[name.as_bytes(), b": ", value, b"\r\n"]);
}

fn put(out: &mut Vec<u8>, pieces: &[&[u8]]) {
    pieces.iter().for_each(|piece| out.extend_from_slice(piece));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(trust: Trust) -> Origin<'static> {
        let client = "192.0.2.1:5".parse::<std::net::SocketAddr>().unwrap().into();
        Origin { peer: client, trust, scheme: Scheme::Http, certified: Certified::default() }
    }

    #[test]
    fn what_a_client_says_of_its_certificate_is_dropped_in_every_spelling() {
        let reserved = ["X-Client-Subject".to_owned(), "X-Other".to_owned()];
        let said = "X-Client-Subject: CN=a\nx-client-subject: CN=a\nX_Client_SUBJECT: CN=a\nX-Other: b\nX-Client: c\n";
        let bytes = format!("GET /ws HTTP/1.1\nhost: a\n{said}\n").replace('\n', "\r\n");
        let head = Head::parse(bytes.as_bytes()).unwrap();
        let check = |trust: Trust, field: Option<(&str, &str)>, expected: &str| {
            let certified = Certified { reserved: &reserved, field };
            let origin = Origin { scheme: Scheme::Https, certified, ..origin(trust) };
            for built in [upgrade(&head, origin, Offers::Forward), {
                let ask = Ask::new(crate::dialect::Dialect::Rfc6455, &mut fastrand::Rng::with_seed(1));
                own(&head, origin, &ask, b"")
            }] {
                let built = String::from_utf8(built).unwrap().to_ascii_lowercase();
                let told: Vec<&str> =
                    built.lines().filter(|line| line.contains("client") || line.contains("other")).collect();
                assert_eq!(told.join("|"), format!("x-client: c{expected}"));
                assert!(built.contains("proto=https\r\nx-forwarded-proto: https\r\n"), "{built}");
            }
        };
        for trust in [Trust::Client, Trust::Proxy] {
            check(trust, None, "");
            check(trust, Some(("X-Client-Subject", "CN=device")), "|x-client-subject: cn=device");
        }
    }

    fn check(extra: &str, trust: Trust, offers: Offers, expected: &str) {
        let bytes = format!("GET /ws?x=1 HTTP/1.1\nhost: a.example:8080\n{extra}\n").replace('\n', "\r\n");
        let head = Head::parse(bytes.as_bytes()).unwrap();
        let built = upgrade(&head, origin(trust), offers);
        assert_eq!(String::from_utf8(built).unwrap().replace("\r\n", "\n"), expected);
    }

    #[test]
    fn builds_the_head_that_every_backend_understands() {
        check(
            "upgrade: WebSocket\nconnection: keep-alive, X-Mine, Upgrade\nsec-websocket-key: k\nSEC-WEBSOCKET-VERSION: 13\n\
             x-mine: 1\nKeep-Alive: 5\nTE: trailers\nProxy-Authorization: x\nContent-Length: 0\nExpect: 100-continue\n\
             sec-websocket-extensions: a;  b\nX-Custom:  v w \n",
            Trust::Client,
            Offers::Forward,
            "GET /ws?x=1 HTTP/1.1\nHost: a.example:8080\nUpgrade: WebSocket\nConnection: Upgrade\n\
             Sec-WebSocket-Key: k\nSec-WebSocket-Version: 13\nSec-WebSocket-Extensions: a;  b\nX-Custom: v w\n\
             X-Forwarded-For: 192.0.2.1\nForwarded: for=192.0.2.1;host=\"a.example:8080\";proto=http\n\
             X-Forwarded-Proto: http\nX-Forwarded-Host: a.example:8080\n\n",
        );
    }

    #[test]
    fn drops_what_an_untrusted_client_says_of_its_origin_and_extends_what_a_proxy_says() {
        let said = "X-Forwarded-For: 198.51.100.9\nx-forwarded-for: 10.0.0.1\nForwarded: for=198.51.100.9\n\
                    X-Forwarded-Proto: https\nX-Real-IP: 198.51.100.9\nX-Forwarded-Port: 443\n";
        check(
            said,
            Trust::Client,
            Offers::Forward,
            "GET /ws?x=1 HTTP/1.1\nHost: a.example:8080\nUpgrade: websocket\nConnection: Upgrade\n\
             X-Forwarded-For: 192.0.2.1\nForwarded: for=192.0.2.1;host=\"a.example:8080\";proto=http\n\
             X-Forwarded-Proto: http\nX-Forwarded-Host: a.example:8080\n\n",
        );
        check(
            said,
            Trust::Proxy,
            Offers::Forward,
            "GET /ws?x=1 HTTP/1.1\nHost: a.example:8080\nUpgrade: websocket\nConnection: Upgrade\n\
             X-Real-IP: 198.51.100.9\nX-Forwarded-Port: 443\n\
             X-Forwarded-For: 198.51.100.9, 10.0.0.1, 192.0.2.1\n\
             Forwarded: for=198.51.100.9, for=192.0.2.1;host=\"a.example:8080\";proto=http\n\
             X-Forwarded-Proto: https\nX-Forwarded-Host: a.example:8080\n\n",
        );
    }

    #[test]
    fn strips_offers_where_the_route_says_so() {
        check(
            "Sec-WebSocket-Extensions: permessage-deflate\n",
            Trust::Client,
            Offers::Strip,
            "GET /ws?x=1 HTTP/1.1\nHost: a.example:8080\nUpgrade: websocket\nConnection: Upgrade\n\
             X-Forwarded-For: 192.0.2.1\nForwarded: for=192.0.2.1;host=\"a.example:8080\";proto=http\n\
             X-Forwarded-Proto: http\nX-Forwarded-Host: a.example:8080\n\n",
        );
    }

    #[test]
    fn a_nomination_that_was_let_through_does_not_cost_the_key() {
        check(
            "Connection: Upgrade, Sec-WebSocket-Key, X-Mine\nSec-WebSocket-Key: k\nX-Mine: 1\n",
            Trust::Client,
            Offers::Forward,
            "GET /ws?x=1 HTTP/1.1\nHost: a.example:8080\nUpgrade: websocket\nConnection: Upgrade\n\
             Sec-WebSocket-Key: k\nX-Forwarded-For: 192.0.2.1\n\
             Forwarded: for=192.0.2.1;host=\"a.example:8080\";proto=http\n\
             X-Forwarded-Proto: http\nX-Forwarded-Host: a.example:8080\n\n",
        );
    }
}
