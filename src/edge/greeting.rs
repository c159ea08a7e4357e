//! The 101 in the gateway's own name, in any version. Old clients compare it byte for byte with what their draft says. It does
//! not know what the backend speaks.

use super::relayed;
use crate::dial::head::{Scheme, Trust, field};
use crate::dialect::Dialect;
use crate::handshake::ask::REASON_OF_HIXIE_75;
use crate::handshake::header_list::elements;
use crate::handshake::hixie::{self, DIGEST_BYTES};
use crate::handshake::origin::Stated;
use crate::handshake::request::{Head, Host};
use crate::handshake::response::Answer;
use crate::handshake::{Key, subprotocol};

/// A client that gets its 101.
pub struct Greeted<'a> {
    pub dialect: Dialect,
    pub head: &'a Head<'a>,
    /// The proof of a version-0 handshake.
    pub digest: Option<[u8; DIGEST_BYTES]>,
    /// Whether its word on how its own client sees the gateway counts.
    pub trust: Trust,
    /// How it speaks to the gateway itself.
    pub scheme: Scheme,
    /// One of the gateway's own.
    pub cookie: Option<&'a str>,
}

impl Greeted<'_> {
    /// Head and proof, for one write. Of the backend's answer goes along what belongs to no handshake, such as a cookie.
    pub fn switching(&self, answer: &Answer<'_>, subprotocol: Option<&[u8]>) -> Vec<u8> {
        let mut out = Vec::with_capacity(512);
        match self.dialect {
            Dialect::Rfc6455 | Dialect::Hybi8 | Dialect::Hybi7 => self.framed(&mut out),
            Dialect::Hixie76 => self.hixie(&mut out, hixie::REASON, "Sec-WebSocket"),
            Dialect::Hixie75 => self.hixie(&mut out, REASON_OF_HIXIE_75, "WebSocket"),
        }
        if let Some(name) = subprotocol {
            field(&mut out, subprotocol::field(self.dialect), name);
        }
        relayed::set_cookie(&mut out, self.cookie);
        relayed::fields_of_no_handshake(&mut out, answer);
        out.extend(self.digest.iter().flatten());
        out
    }

    fn framed(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n");
        if let Some(key) = Key::as_it_stands(&self.head.fields) {
            field(out, "Sec-WebSocket-Accept", key.accept().as_bytes());
        }
    }

    fn hixie(&self, out: &mut Vec<u8>, reason: &str, prefix: &str) {
        out.extend_from_slice(format!("HTTP/1.1 101 {reason}\r\n").as_bytes());
        out.extend_from_slice(b"Upgrade: WebSocket\r\nConnection: Upgrade\r\n");
        let origin = match self.head.origin() {
            Stated::One(origin) => origin,
            Stated::None | Stated::Ambiguous => b"null",
        };
        field(out, &format!("{prefix}-Origin"), origin);
        field(out, &format!("{prefix}-Location"), self.location().as_bytes());
    }

    /// Where the client believes to be.
    fn location(&self) -> String {
        // Of several proxies, the first is the one that the client sees.
        let said = |name| match self.trust {
            Trust::Proxy => elements(&self.head.fields, name).next(),
            Trust::Client => None,
        };
        let proto = said("X-Forwarded-Proto").unwrap_or(self.scheme.as_str().as_bytes());
        let is_secure = ["https", "wss"].iter().any(|one| proto.eq_ignore_ascii_case(one.as_bytes()));
        let (scheme, default_port) = if is_secure { ("wss", ":443") } else { ("ws", ":80") };
        let named = self.head.host.map_or("", |host| host.authority);
        let authority = said("X-Forwarded-Host").and_then(Host::parse).map_or(named, |host| host.authority);
        let authority = authority.strip_suffix(default_port).unwrap_or(authority);
        format!("{scheme}://{authority}{}", self.head.path_and_query)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &str = "HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: theirs\r\n\
                          WebSocket-Location: theirs\r\nSet-Cookie: a=b\r\n\r\n";

    fn check(dialect: Dialect, lines: &str, digest: Option<[u8; DIGEST_BYTES]>, trust: Trust, expected: &str) {
        let bytes = format!("GET /demo?x=1 HTTP/1.1\nHost: example.com\n{lines}\n").replace('\n', "\r\n");
        let head = Head::parse(bytes.as_bytes()).unwrap();
        let answer = Answer::parse(ANSWER.as_bytes()).unwrap();
        let greeted = Greeted { dialect, head: &head, digest, trust, scheme: Scheme::Http, cookie: None };
        let sent = greeted.switching(&answer, Some(b"sample"));
        assert_eq!(String::from_utf8(sent).unwrap().replace("\r\n", "\n"), expected);
    }

    #[test]
    fn a_client_over_tls_is_told_where_it_believes_to_be() {
        let bytes = b"GET /demo HTTP/1.1\r\nHost: example.com:443\r\nOrigin: https://example.com\r\n\r\n";
        let head = Head::parse(bytes).unwrap();
        let answer = Answer::parse(ANSWER.as_bytes()).unwrap();
        for (dialect, name) in [(Dialect::Hixie76, "Sec-WebSocket-Location"), (Dialect::Hixie75, "WebSocket-Location")]
        {
            let greeted = Greeted {
                dialect,
                head: &head,
                digest: None,
                trust: Trust::Client,
                scheme: Scheme::Https,
                cookie: None,
            };
            let sent = String::from_utf8(greeted.switching(&answer, None)).unwrap();
            assert!(sent.contains(&format!("\r\n{name}: wss://example.com/demo\r\n")), "{sent}");
        }
    }

    #[test]
    fn version_0_hears_what_its_draft_shows() {
        let keys = "Sec-WebSocket-Key1: 4 @1  46546xW%0l 1 5\nSec-WebSocket-Key2: 12998 5 Y3 1  .P00\n";
        check(
            Dialect::Hixie76,
            &format!("{keys}Origin: http://example.com\n"),
            Some(*b"8jKS'y:G*Co,Wxa-"),
            Trust::Client,
            "HTTP/1.1 101 WebSocket Protocol Handshake\nUpgrade: WebSocket\nConnection: Upgrade\n\
             Sec-WebSocket-Origin: http://example.com\nSec-WebSocket-Location: ws://example.com/demo?x=1\n\
             Sec-WebSocket-Protocol: sample\nSet-Cookie: a=b\n\n8jKS'y:G*Co,Wxa-",
        );
    }

    #[test]
    fn the_scheme_and_the_host_are_those_that_the_client_sees() {
        check(
            Dialect::Hixie75,
            "Origin: http://example.com\nX-Forwarded-Proto: https, http\nX-Forwarded-Host: outside.example:443\n",
            None,
            Trust::Proxy,
            "HTTP/1.1 101 Web Socket Protocol Handshake\nUpgrade: WebSocket\nConnection: Upgrade\n\
             WebSocket-Origin: http://example.com\nWebSocket-Location: wss://outside.example/demo?x=1\n\
             WebSocket-Protocol: sample\nSet-Cookie: a=b\n\n",
        );
        check(
            Dialect::Hixie75,
            "X-Forwarded-Proto: https\nX-Forwarded-Host: outside.example\n",
            None,
            Trust::Client,
            "HTTP/1.1 101 Web Socket Protocol Handshake\nUpgrade: WebSocket\nConnection: Upgrade\n\
             WebSocket-Origin: null\nWebSocket-Location: ws://example.com/demo?x=1\nWebSocket-Protocol: sample\n\
             Set-Cookie: a=b\n\n",
        );
    }

    #[test]
    fn a_version_with_frames_gets_an_accept_of_its_own_key() {
        check(
            Dialect::Hybi8,
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\n",
            None,
            Trust::Client,
            "HTTP/1.1 101 Switching Protocols\nUpgrade: websocket\nConnection: Upgrade\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\nSec-WebSocket-Protocol: sample\nSet-Cookie: a=b\n\n",
        );
    }
}
