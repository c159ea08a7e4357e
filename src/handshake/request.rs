//! A request head: parsed by `httparse`, then held to what RFC 9112 and RFC 9110 leave no doubt about, so that no parser
//! behind the gateway reads it differently. It does not decide whether an upgrade is welcome.

use std::mem::MaybeUninit;

use super::header_list::{Single, elements, has_token, lines, single};
use super::origin::{self, Stated};
use super::{Asked, Field};

/// Header lines of a head, at most. Browsers send about 15.
pub const FIELDS_MAX: usize = 100;

/// A request head that every parser reads the same way.
#[derive(Debug)]
pub struct Head<'b> {
    pub method: &'b str,
    /// As it stands in the request line: origin form, absolute form, or `*`.
    pub target: &'b str,
    /// The path, without the query.
    pub path: &'b str,
    /// Path and query: what goes into a request line towards a backend.
    pub path_and_query: &'b str,
    pub http: Http,
    /// The host without its port, or `None` where an HTTP/1.0 request names none.
    pub host: Option<Host<'b>>,
    pub fields: Vec<Field<'b>>,
    pub body: Body,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Http {
    V1_0,
    V1_1,
}

/// The `Host` of a request (RFC 9110 §7.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Host<'b> {
    /// With its port, as the client sent it.
    pub authority: &'b str,
    /// Without its port; an IPv6 address keeps its brackets.
    pub name: &'b str,
}

/// What the head says of a body (RFC 9112 §6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    None,
    Length(u64),
    Chunked,
}

/// Why a head is refused and the connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadError {
    /// Not a request line and header lines as RFC 9112 §3 and §5 write them.
    Syntax,
    TooManyFields,
    /// Missing in HTTP/1.1, repeated, or not `host[:port]` (RFC 9112 §3.2).
    Host,
    /// Repeated, conflicting or not a number (RFC 9112 §6.3).
    ContentLength,
    /// Not one final `chunked`, in HTTP/1.0, or beside a `Content-Length` (RFC 9112 §6.1).
    TransferEncoding,
    /// A target with a fragment, dot segments, a byte outside ASCII, or a form that is for other methods (RFC 9112 §3.2).
    Target,
}

/// What a request wants of the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intent {
    Plain,
    /// An attempt to open a WebSocket, right or wrong.
    Upgrade,
}

impl<'b> Head<'b> {
    /// `bytes` is a head that [`super::HeadScan`] found complete.
    pub fn parse(bytes: &'b [u8]) -> Result<Head<'b>, HeadError> {
        let mut slots = [MaybeUninit::uninit(); FIELDS_MAX];
        let mut request = httparse::Request::new(&mut []);
        match request.parse_with_uninit_headers(bytes, &mut slots) {
            Ok(httparse::Status::Complete(length)) if length == bytes.len() => {}
            Ok(_) => return Err(HeadError::Syntax),
            Err(httparse::Error::TooManyHeaders) => return Err(HeadError::TooManyFields),
            Err(_) => return Err(HeadError::Syntax),
        }
        let (Some(method), Some(target), Some(minor)) = (request.method, request.path, request.version) else {
            return Err(HeadError::Syntax);
        };
        let http = if minor == 0 { Http::V1_0 } else { Http::V1_1 };
        let fields: Vec<Field> = request
            .headers
            .iter()
            .map(|header| Field { name: header.name, value: header.value.trim_ascii() })
            .collect();
        let host = host(&fields, http)?;
        let body = body(&fields, http)?;
        let (path, path_and_query) = split_target(method, target, host)?;
        Ok(Head { method, target, path, path_and_query, http, host, fields, body })
    }

    /// An `Upgrade` field that names `websocket`, or any of the handshake's own fields, makes an attempt to upgrade;
    /// other upgrade tokens are nobody's business here and are stripped.
    pub fn intent(&self) -> Intent {
        let own = |name: &str| {
            ["Sec-WebSocket-Key", "Sec-WebSocket-Key1", "Sec-WebSocket-Version"]
                .iter()
                .any(|field| name.eq_ignore_ascii_case(field))
        };
        if self.names_websocket() || self.fields.iter().any(|field| own(field.name)) {
            Intent::Upgrade
        } else {
            Intent::Plain
        }
    }

    pub fn names_websocket(&self) -> bool {
        has_token(&self.fields, "Upgrade", "websocket")
    }

    /// Whether `Upgrade` names nothing but `websocket`, once.
    pub fn upgrades_to_websocket_alone(&self) -> bool {
        elements(&self.fields, "Upgrade").count() == 1 && self.names_websocket()
    }

    pub fn asked(&self) -> Asked {
        Asked::read(&self.fields)
    }

    /// Where its client says that it comes from.
    pub fn origin(&self) -> Stated<'_> {
        origin::stated(&self.fields, self.asked())
    }

    /// The value of the only line called `name`, if it is text.
    pub fn text(&self, name: &str) -> Option<&str> {
        match single(&self.fields, name) {
            Single::One(value) => std::str::from_utf8(value).ok(),
            Single::None | Single::Repeated => None,
        }
    }
}

fn host<'b>(fields: &[Field<'b>], http: Http) -> Result<Option<Host<'b>>, HeadError> {
    let mut found = fields.iter().filter(|field| field.is("Host")).map(|field| field.value);
    match (found.next(), found.next(), http) {
        (Some(value), None, _) => Host::parse(value).map(Some).ok_or(HeadError::Host),
        (None, _, Http::V1_0) => Ok(None),
        (None, _, Http::V1_1) | (Some(_), Some(_), _) => Err(HeadError::Host),
    }
}

impl<'b> Host<'b> {
    /// `host[:port]`: a registered name, an IPv4 address, or an IPv6 address in brackets (RFC 3986 §3.2).
    pub fn parse(value: &'b [u8]) -> Option<Host<'b>> {
        let authority = std::str::from_utf8(value).ok()?;
        let (name, port) = if authority.starts_with('[') {
            authority.split_at(authority.find(']')? + 1)
        } else {
            authority.split_at(authority.find(':').unwrap_or(authority.len()))
        };
        let port_is_right = match port.strip_prefix(':') {
            None => port.is_empty(),
            Some(digits) => digits.is_empty() || digits.parse::<u16>().is_ok() && !digits.starts_with('+'),
        };
        let inside = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
        let name_is_right = match inside {
            Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
            None => !name.is_empty() && name.bytes().all(is_name_byte),
        };
        (port_is_right && name_is_right).then_some(Host { authority, name })
    }
}

/// `unreserved / sub-delims` of RFC 3986 without percent-encoding, which no host needs, and without the comma, which a
/// list reader would split at.
fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+;=".contains(&byte)
}

fn body(fields: &[Field<'_>], http: Http) -> Result<Body, HeadError> {
    let coding = match single(fields, "Transfer-Encoding") {
        Single::None => None,
        Single::One(value) => Some(value),
        Single::Repeated => return Err(HeadError::TransferEncoding),
    };
    let length = match single(fields, "Content-Length") {
        Single::None => None,
        Single::One(value) => Some(parse_length(value).ok_or(HeadError::ContentLength)?),
        Single::Repeated => return Err(HeadError::ContentLength),
    };
    match (coding, length) {
        (None, None | Some(0)) => Ok(Body::None),
        (None, Some(length)) => Ok(Body::Length(length)),
        (Some(value), None) if http == Http::V1_1 && value.eq_ignore_ascii_case(b"chunked") => Ok(Body::Chunked),
        (Some(_), _) => Err(HeadError::TransferEncoding),
    }
}

/// Digits and nothing else, as RFC 9110 §8.6 has it: no sign, no list.
pub(super) fn parse_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// Path, and path with query, of a target in origin form, in absolute form, or `*`.
fn split_target<'b>(method: &str, target: &'b str, host: Option<Host<'_>>) -> Result<(&'b str, &'b str), HeadError> {
    if !target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#' && byte != b'\\') {
        return Err(HeadError::Target);
    }
    if target == "*" {
        return if method == "OPTIONS" { Ok((target, target)) } else { Err(HeadError::Target) };
    }
    let path_and_query = if target.starts_with('/') { target } else { after_authority(target, host)? };
    let path = path_and_query.split_once('?').map_or(path_and_query, |(path, _)| path);
    if segments(path).any(is_dot_segment) {
        return Err(HeadError::Target);
    }
    Ok((path, path_and_query))
}

/// The path of an absolute form, whose authority must be the one that `Host` names (RFC 9112 §3.2.2).
fn after_authority<'b>(target: &'b str, host: Option<Host<'_>>) -> Result<&'b str, HeadError> {
    let (scheme, rest) = target.split_once("://").ok_or(HeadError::Target)?;
    if !["http", "https", "ws", "wss"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
        return Err(HeadError::Target);
    }
    let (authority, path) = rest.split_at(rest.find('/').ok_or(HeadError::Target)?);
    match host {
        Some(host) if host.authority.eq_ignore_ascii_case(authority) => Ok(path),
        Some(_) | None => Err(HeadError::Target),
    }
}

/// What some backend takes for a segment: between slashes, plain or percent-encoded, without `;` parameters.
fn segments(path: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(path);
    std::iter::from_fn(move || {
        let text = rest?;
        let is_separator = |at: usize| {
            let encoded =
                text.get(at + 1..at + 3).is_some_and(|hex| ["2f", "5c"].iter().any(|s| hex.eq_ignore_ascii_case(s)));
            text.as_bytes()[at] == b'/' || text.as_bytes()[at] == b'%' && encoded
        };
        let end = (0..text.len()).find(|&at| is_separator(at));
        rest = end.map(|at| &text[at + if text.as_bytes()[at] == b'%' { 3 } else { 1 }..]);
        let segment = &text[..end.unwrap_or(text.len())];
        Some(segment.split_once(';').map_or(segment, |(segment, _)| segment))
    })
}

/// `.` and `..`, percent-encoded or not (RFC 3986 §6.2.2.3): a backend would resolve them to a path that no route saw.
fn is_dot_segment(segment: &str) -> bool {
    let mut rest = segment.as_bytes();
    let mut dots = 0;
    while !rest.is_empty() {
        rest = match rest {
            [b'.', rest @ ..] => rest,
            [b'%', b'2', b'e' | b'E', rest @ ..] => rest,
            _ => return false,
        };
        dots += 1;
    }
    dots == 1 || dots == 2
}

/// Whether `Connection` nominates a field that must reach the backend as the client sent it (RFC 9110 §7.6.1).
pub fn nominates_protected_field(fields: &[Field<'_>]) -> bool {
    const PREFIX: &[u8] = b"sec-websocket-";
    elements(fields, "Connection").any(|option| {
        let starts = option.len() >= PREFIX.len() && option[..PREFIX.len()].eq_ignore_ascii_case(PREFIX);
        starts || PROTECTED.iter().any(|name| option.eq_ignore_ascii_case(name))
    })
}

const PROTECTED: [&[u8]; 9] = [
    b"host",
    b"origin",
    b"forwarded",
    b"x-forwarded-for",
    b"x-forwarded-host",
    b"x-forwarded-proto",
    b"content-length",
    b"transfer-encoding",
    b"x-real-ip",
];

/// Whether a field ends at this hop (RFC 9110 §7.6.1): it stands on the list of old, or `Connection` nominates it.
pub fn is_hop_by_hop(fields: &[Field<'_>], name: &str) -> bool {
    const OLD: [&str; 8] = [
        "Connection",
        "Keep-Alive",
        "Proxy-Connection",
        "Proxy-Authenticate",
        "Proxy-Authorization",
        "TE",
        "Trailer",
        "Upgrade",
    ];
    OLD.iter().any(|old| name.eq_ignore_ascii_case(old)) || has_token(fields, "Connection", name)
}

/// Whether a line belongs to the handshake of some version, so that only who made that handshake may send it.
pub fn is_of_a_handshake(name: &str) -> bool {
    const PREFIXES: [&str; 2] = ["Sec-WebSocket-", "WebSocket-"];
    PREFIXES.iter().any(|prefix| name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix)))
}

/// Whether any line of this name is there.
pub fn has(fields: &[Field<'_>], name: &str) -> bool {
    lines(fields, name).next().is_some()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(head: &str) -> Result<Body, HeadError> {
        let bytes = head.replace('\n', "\r\n");
        Head::parse(bytes.as_bytes()).map(|head| head.body)
    }

    fn check(head: &str, expected: Result<Body, HeadError>) {
        assert_eq!(parse(head), expected, "{head:?}");
    }

    fn lines(extra: &str) -> String {
        format!("GET / HTTP/1.1\nHost: a.example\n{extra}\n")
    }

    #[test]
    fn refuses_a_head_that_two_parsers_read_differently() {
        check(&lines(""), Ok(Body::None));
        check(&lines("Host : b\n"), Err(HeadError::Syntax));
        check(&lines("Content-Length : 5\n"), Err(HeadError::Syntax));
        check(&lines("X y: 5\n"), Err(HeadError::Syntax));
        check(&lines(": 5\n"), Err(HeadError::Syntax));
        check(&lines("no colon\n"), Err(HeadError::Syntax));
        check("GET / HTTP/1.2\nHost: a\n\n", Err(HeadError::Syntax));
        check("GET / HTTP/2.0\nHost: a\n\n", Err(HeadError::Syntax));
        check("GET  / HTTP/1.1\nHost: a\n\n", Err(HeadError::Syntax));
        check("GET / x HTTP/1.1\nHost: a\n\n", Err(HeadError::Syntax));
    }

    #[test]
    fn refuses_two_lengths_and_two_framings() {
        check(&lines("Content-Length: 0\n"), Ok(Body::None));
        check(&lines("Content-Length: 5\n"), Ok(Body::Length(5)));
        check(&lines("Transfer-Encoding: Chunked\n"), Ok(Body::Chunked));
        for bad in ["+5", "-1", "5, 5", "0x5", "", "99999999999999999999999", "5 5"] {
            check(&lines(&format!("Content-Length: {bad}\n")), Err(HeadError::ContentLength));
        }
        check(&lines("Content-Length: 5\nContent-Length: 5\n"), Err(HeadError::ContentLength));
        check(&lines("Content-Length: 5\nContent-Length: 6\n"), Err(HeadError::ContentLength));
        check(&lines("Transfer-Encoding: chunked\nContent-Length: 5\n"), Err(HeadError::TransferEncoding));
        check(&lines("Transfer-Encoding: chunked\nContent-Length: 0\n"), Err(HeadError::TransferEncoding));
        for bad in ["gzip", "gzip, chunked", "chunked, gzip", "chunked, chunked", "", "xchunked", "\u{b}chunked"] {
            let refused = parse(&lines(&format!("Transfer-Encoding: {bad}\n")));
            assert!(matches!(refused, Err(HeadError::TransferEncoding | HeadError::Syntax)), "{bad:?} {refused:?}");
        }
        check(&lines("Transfer-Encoding: chunked\nTransfer-Encoding: chunked\n"), Err(HeadError::TransferEncoding));
        check("GET / HTTP/1.0\nTransfer-Encoding: chunked\n\n", Err(HeadError::TransferEncoding));
    }

    #[test]
    fn refuses_a_missing_repeated_or_broken_host() {
        check("GET / HTTP/1.1\n\n", Err(HeadError::Host));
        check("GET / HTTP/1.0\n\n", Ok(Body::None));
        check("GET / HTTP/1.1\nHost: a\nHost: a\n\n", Err(HeadError::Host));
        check("GET / HTTP/1.0\nHost: a\nhost: b\n\n", Err(HeadError::Host));
        for bad in ["", "a b", "a,b", "a/b", "u@a", "a:x", "a:+1", "a:70000", "[::1", "[::1]x", "[x]", "a:1:2", "ä"] {
            check(&format!("GET / HTTP/1.1\nHost: {bad}\n\n"), Err(HeadError::Host));
        }
        for good in ["a", "a:80", "a:", "1.2.3.4:5", "[::1]", "[::1]:80", "a_b"] {
            check(&format!("GET / HTTP/1.1\nHost: {good}\n\n"), Ok(Body::None));
        }
    }

    #[test]
    fn takes_the_forms_of_target_that_are_for_this_method() {
        let target = |method: &str, target: &str| parse(&format!("{method} {target} HTTP/1.1\nHost: a\n\n"));
        for good in ["/", "/ws?x=/../y", "http://a/ws", "HTTP://A/", "/...", "/a%2eb", "/%2e%2e%2e", "//"] {
            assert!(target("GET", good).is_ok(), "{good}");
        }
        assert!(target("OPTIONS", "*").is_ok());
        for bad in [
            "*",
            "a:80",
            "http://b/",
            "http://a",
            "ftp://a/",
            "/ws/..%2fx",
            "/ws/..;/x",
            "/a%5C..%5Cx",
            "/#f",
            "/../x",
            "/x/.",
            "/%2E%2e/x",
            "/a\\b",
            "/ä",
        ] {
            assert_eq!(target("GET", bad), Err(HeadError::Target), "{bad}");
        }
    }

    #[test]
    fn limits_the_number_of_fields() {
        check(&lines(&"a: b\n".repeat(FIELDS_MAX - 1)), Ok(Body::None));
        check(&lines(&"a: b\n".repeat(FIELDS_MAX)), Err(HeadError::TooManyFields));
    }

    #[test]
    fn tells_attempts_to_upgrade_from_plain_requests() {
        let intent = |extra: &str| {
            let bytes = lines(extra).replace('\n', "\r\n");
            Head::parse(bytes.as_bytes()).unwrap().intent()
        };
        for plain in
            ["", "Upgrade: h2c\n", "Connection: Upgrade\n", "Upgrade: websockets\n", "Sec-WebSocket-Protocol: x\n"]
        {
            assert_eq!(intent(plain), Intent::Plain, "{plain:?}");
        }
        for attempt in [
            "Upgrade: WebSocket\n",
            "Upgrade: h2c, websocket\n",
            "Upgrade: h2c\nupgrade: websocket\n",
            "Sec-WebSocket-Key: x\n",
            "sec-websocket-key1: x\n",
            "Sec-WebSocket-Version: 13\n",
        ] {
            assert_eq!(intent(attempt), Intent::Upgrade, "{attempt:?}");
        }
    }

    #[test]
    fn knows_what_connection_may_not_nominate() {
        let nominates =
            |value: &str| nominates_protected_field(&[Field { name: "Connection", value: value.as_bytes() }]);
        assert!(!nominates("Upgrade, keep-alive, X-Mine"));
        for bad in ["Sec-WebSocket-Key", "upgrade, SEC-WEBSOCKET-EXTENSIONS", "host", "X-Forwarded-For", "Origin"] {
            assert!(nominates(bad), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Head::parse(&bytes).map(|head| (head.intent(), head.asked()));
        }
    }
}
