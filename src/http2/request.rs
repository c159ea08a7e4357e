//! A request of HTTP/2 in the words of HTTP/1.1, so that the very same parser and checks read it. An extended CONNECT to
//! `websocket` (RFC 8441 §5) becomes an upgrade with a key of the gateway's own. It does not know whether it is welcome.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use h2::ext::Protocol;
use http::header::{CONTENT_LENGTH, COOKIE, HOST, HeaderMap, HeaderName, HeaderValue, TE};
use http::{Method, request};

use crate::reason::Reason;

/// What follows a head on its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// Bytes of a tunnel, both ways.
    Tunnel,
    /// Nothing, and the answer has no body either.
    OfHead,
    /// A body of the length that its head tells, or none.
    Plain,
    /// A body whose length nobody told.
    Chunked,
}

/// A head of HTTP/1.1 and what follows it.
#[derive(Debug)]
pub struct Translated {
    pub head: Vec<u8>,
    pub framing: Framing,
}

/// Whether the head was all there is of a request (END_STREAM).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    None,
    Follows,
}

/// `nonce` is what no other request got. What HTTP/2 forbids never gets here: h2 resets a stream with `Connection`, `Upgrade` or
/// `Transfer-Encoding` (RFC 9113 §8.2.2).
///
/// # Errors
/// For a CONNECT to anything but a WebSocket, and for bytes that no head of HTTP/1.1 can hold.
pub fn translate(parts: &request::Parts, rest: Rest, nonce: u128) -> Result<Translated, Reason> {
    let is_tunnel = parts.method == Method::CONNECT;
    if is_tunnel && parts.extensions.get::<Protocol>().is_none_or(|protocol| protocol.as_str() != "websocket") {
        return Err(Reason::ConnectRefused);
    }
    let framing = match (is_tunnel, rest) {
        (true, _) => Framing::Tunnel,
        (false, _) if parts.method == Method::HEAD => Framing::OfHead,
        (false, Rest::Follows) if !parts.headers.contains_key(CONTENT_LENGTH) => Framing::Chunked,
        (false, Rest::None | Rest::Follows) => Framing::Plain,
    };
    let mut head = start(parts, is_tunnel)?;
    host(&mut head, parts);
    match framing {
        Framing::Tunnel => {
            line(&mut head, "Upgrade", b"websocket");
            line(&mut head, "Connection", b"Upgrade");
            line(&mut head, "Sec-WebSocket-Key", STANDARD.encode(nonce.to_ne_bytes()).as_bytes());
        }
        Framing::Chunked => {
            line(&mut head, "Transfer-Encoding", b"chunked");
            line(&mut head, "Connection", b"close");
        }
        // A stream carries one request.
        Framing::Plain | Framing::OfHead => line(&mut head, "Connection", b"close"),
    }
    for (name, value) in &parts.headers {
        if goes_on(name, is_tunnel) {
            line(&mut head, name.as_str(), value.as_bytes());
        }
    }
    cookies(&mut head, &parts.headers);
    head.extend_from_slice(b"\r\n");
    Ok(Translated { head, framing })
}

/// The target is checked here, because a line feed in it would begin a line of its own.
fn start(parts: &request::Parts, is_tunnel: bool) -> Result<Vec<u8>, Reason> {
    let method = if is_tunnel { "GET" } else { parts.method.as_str() };
    let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
    if !target.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Reason::HeadMalformed);
    }
    let mut head = Vec::with_capacity(1024);
    for piece in [method, " ", target, " HTTP/1.1\r\n"] {
        head.extend_from_slice(piece.as_bytes());
    }
    Ok(head)
}

/// `:authority` is the host (RFC 9113 §8.3.1). A `Host` beside it that says something else makes a second line, which is refused.
fn host(head: &mut Vec<u8>, parts: &request::Parts) {
    let authority = parts.uri.authority().map(|authority| authority.as_str().as_bytes());
    if let Some(authority) = authority {
        line(head, "Host", authority);
    }
    for host in parts.headers.get_all(HOST) {
        if Some(host.as_bytes()) != authority {
            line(head, "Host", host.as_bytes());
        }
    }
}

/// Of a tunnel, keys of the client's own go nowhere: HTTP/2 needs none (RFC 8441 §5), and nobody could answer those of version 0.
fn goes_on(name: &HeaderName, is_tunnel: bool) -> bool {
    let is_key = name.as_str().starts_with("sec-websocket-key");
    *name != HOST && *name != COOKIE && *name != TE && !(is_tunnel && is_key)
}

/// HTTP/2 may have them in crumbs, which are one line anywhere else (RFC 9113 §8.2.3).
fn cookies(head: &mut Vec<u8>, headers: &HeaderMap) {
    let crumbs: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if !crumbs.is_empty() {
        line(head, "Cookie", &crumbs.join(&b"; "[..]));
    }
}

fn line(head: &mut Vec<u8>, name: &str, value: &[u8]) {
    for piece in [name.as_bytes(), b": ", value, b"\r\n"] {
        head.extend_from_slice(piece);
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;
    use crate::handshake::{Head, HeadError};

    fn parts(method: &str, uri: &str, fields: &[(&str, &str)]) -> request::Parts {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn connect(protocol: &'static str, fields: &[(&str, &str)]) -> request::Parts {
        let mut parts = parts("CONNECT", "https://a.example/ws?x=1", fields);
        parts.extensions.insert(Protocol::from(protocol));
        parts
    }

    fn check(parts: &request::Parts, rest: Rest, framing: Framing, expected: &str) {
        let translated = translate(parts, rest, 0).unwrap();
        assert_eq!(String::from_utf8(translated.head.clone()).unwrap().replace("\r\n", "\n"), expected);
        assert_eq!(translated.framing, framing);
        Head::parse(&translated.head).unwrap();
    }

    #[test]
    fn an_extended_connect_becomes_an_upgrade_with_a_key_of_ours() {
        check(
            &connect(
                "websocket",
                &[
                    ("sec-websocket-version", "13"),
                    ("sec-websocket-key", "theirs"),
                    ("sec-websocket-key1", "1 2"),
                    ("origin", "https://a.example"),
                    ("cookie", "a=1"),
                    ("cookie", "b=2"),
                ],
            ),
            Rest::Follows,
            Framing::Tunnel,
            "GET /ws?x=1 HTTP/1.1\nHost: a.example\nUpgrade: websocket\nConnection: Upgrade\n\
             Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\nsec-websocket-version: 13\norigin: https://a.example\n\
             Cookie: a=1; b=2\n\n",
        );
    }

    #[test]
    fn a_body_has_its_length_or_comes_in_chunks() {
        let start = |method: &str| format!("{method} /x HTTP/1.1\nHost: a\n");
        let get = parts("GET", "http://a/x", &[("te", "trailers")]);
        check(&get, Rest::None, Framing::Plain, &format!("{}Connection: close\n\n", start("GET")));
        let post = parts("POST", "http://a/x", &[("content-length", "3"), ("host", "a")]);
        let expected = format!("{}Connection: close\ncontent-length: 3\n\n", start("POST"));
        check(&post, Rest::Follows, Framing::Plain, &expected);
        let expected = format!("{}Transfer-Encoding: chunked\nConnection: close\n\n", start("POST"));
        check(&parts("POST", "http://a/x", &[]), Rest::Follows, Framing::Chunked, &expected);
        let expected = format!("{}Connection: close\n\n", start("HEAD"));
        check(&parts("HEAD", "http://a/x", &[]), Rest::None, Framing::OfHead, &expected);
    }

    #[test]
    fn a_connect_to_anything_else_is_refused() {
        for parts in [connect("connect-udp", &[]), connect("WebSocket", &[]), parts("CONNECT", "a.example:443", &[])] {
            assert_eq!(translate(&parts, Rest::Follows, 0).unwrap_err(), Reason::ConnectRefused, "{parts:?}");
        }
    }

    #[test]
    fn a_second_host_that_differs_is_refused_with_the_head() {
        let translated = translate(&parts("GET", "http://a/", &[("host", "b")]), Rest::None, 0).unwrap();
        assert_eq!(Head::parse(&translated.head).unwrap_err(), HeadError::Host);
    }
}
