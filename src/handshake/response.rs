//! A backend's answer to an upgrade: parsed by `httparse`, its framing read, and a 101 checked in full (RFC 6455 §4.1,
//! the client's checks, which the gateway makes in the client's stead). It does not know what the client is told.

use std::mem::MaybeUninit;

use super::header_list::{Single, elements, has_token, single};
use super::key::Accept;
use super::request::{FIELDS_MAX, has, parse_length};
use super::subprotocol::Chosen;
use super::{Field, extension, subprotocol};

/// The head of an answer.
#[derive(Debug)]
pub struct Answer<'b> {
    pub status: u16,
    pub reason: &'b str,
    pub minor: u8,
    pub fields: Vec<Field<'b>>,
}

/// The bytes are not an HTTP/1.x answer, or one that two parsers could read differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAnAnswer;

/// How the body of an answer ends (RFC 9112 §6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerBody {
    None,
    Length(u64),
    Chunked,
    UntilClose,
}

/// What is wrong with a 101. RFC 6455 §4.1 has the client fail the connection for each of the last four.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// `Content-Length` or `Transfer-Encoding` on an answer that has no body (RFC 9110 §8.6, RFC 9112 §6.1).
    Framing,
    Upgrade,
    Connection,
    Accept,
    /// Of version 0.
    Digest,
    /// Of hixie-75, which has nothing else to show.
    StatusLine,
    Location,
    /// More than one, no token, or one that was not offered.
    Subprotocol,
    Extension,
}

impl Wrong {
    pub fn as_str(self) -> &'static str {
        match self {
            Wrong::Framing => "framing",
            Wrong::Upgrade => "upgrade",
            Wrong::Connection => "connection",
            Wrong::Accept => "accept",
            Wrong::Digest => "digest",
            Wrong::StatusLine => "status-line",
            Wrong::Location => "location",
            Wrong::Subprotocol => "subprotocol",
            Wrong::Extension => "extension",
        }
    }
}

impl<'b> Answer<'b> {
    /// `bytes` is a head that [`super::HeadScan`] found complete.
    pub fn parse(bytes: &'b [u8]) -> Result<Answer<'b>, NotAnAnswer> {
        let mut slots = [MaybeUninit::uninit(); FIELDS_MAX];
        let mut response = httparse::Response::new(&mut []);
        let config = httparse::ParserConfig::default();
        match config.parse_response_with_uninit_headers(&mut response, bytes, &mut slots) {
            Ok(httparse::Status::Complete(length)) if length == bytes.len() => {}
            Ok(_) | Err(_) => return Err(NotAnAnswer),
        }
        let (Some(status @ 100..=599), Some(minor)) = (response.code, response.version) else {
            return Err(NotAnAnswer);
        };
        let fields = response
            .headers
            .iter()
            .map(|header| Field { name: header.name, value: header.value.trim_ascii() })
            .collect();
        Ok(Answer { status, reason: response.reason.unwrap_or(""), minor, fields })
    }

    /// 1xx other than 101: another head follows (RFC 9110 §15.2).
    pub fn is_interim(&self) -> bool {
        (100..200).contains(&self.status) && self.status != 101
    }

    /// The value of the only line called `name`, if it is text.
    pub fn text(&self, name: &str) -> Option<&str> {
        match single(&self.fields, name) {
            Single::One(value) => std::str::from_utf8(value).ok(),
            Single::None | Single::Repeated => None,
        }
    }

    /// # Errors
    /// When the framing could be read in two ways.
    pub fn body(&self) -> Result<AnswerBody, NotAnAnswer> {
        if matches!(self.status, 204 | 304) {
            return Ok(AnswerBody::None);
        }
        let length = match single(&self.fields, "Content-Length") {
            Single::None => None,
            Single::One(value) => Some(parse_length(value).ok_or(NotAnAnswer)?),
            Single::Repeated => return Err(NotAnAnswer),
        };
        match (single(&self.fields, "Transfer-Encoding"), length) {
            (Single::None, None) => Ok(AnswerBody::UntilClose),
            (Single::None, Some(0)) => Ok(AnswerBody::None),
            (Single::None, Some(length)) => Ok(AnswerBody::Length(length)),
            (Single::One(value), None) if value.eq_ignore_ascii_case(b"chunked") => Ok(AnswerBody::Chunked),
            (Single::One(_) | Single::Repeated, _) => Err(NotAnAnswer),
        }
    }

    /// Checks a 101 against what the gateway sent. `accept` is `None` only where a relaxed route let a request without
    /// a usable key through.
    pub fn check_101(&self, offer: &[Field<'_>], accept: Option<&Accept>) -> Result<(), Wrong> {
        self.check_switch()?;
        if let Some(accept) = accept
            && single(&self.fields, "Sec-WebSocket-Accept") != Single::One(accept.as_bytes())
        {
            return Err(Wrong::Accept);
        }
        let subprotocol_is_right = match subprotocol::chosen(&self.fields, subprotocol::FIELD) {
            Chosen::None => true,
            Chosen::One(name) => subprotocol::offered(offer, subprotocol::FIELD).any(|offered| offered == name),
            Chosen::Malformed => false,
        };
        if !subprotocol_is_right {
            return Err(Wrong::Subprotocol);
        }
        if !extension::within(&self.fields, offer) {
            return Err(Wrong::Extension);
        }
        Ok(())
    }

    /// What a 101 of any version says (RFC 9110 §7.8).
    pub fn check_switch(&self) -> Result<(), Wrong> {
        if has(&self.fields, "Content-Length") || has(&self.fields, "Transfer-Encoding") {
            return Err(Wrong::Framing);
        }
        if elements(&self.fields, "Upgrade").count() != 1 || !has_token(&self.fields, "Upgrade", "websocket") {
            return Err(Wrong::Upgrade);
        }
        if !has_token(&self.fields, "Connection", "upgrade") {
            return Err(Wrong::Connection);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::key::Key;
    use super::*;

    const OFFER: [Field; 3] = [
        Field { name: "Sec-WebSocket-Key", value: b"dGhlIHNhbXBsZSBub25jZQ==" },
        Field { name: "Sec-WebSocket-Protocol", value: b"chat.v2, chat.v1" },
        Field { name: "Sec-WebSocket-Extensions", value: b"permessage-deflate" },
    ];

    fn check(extra: &str, expected: Result<(), Wrong>) {
        let head = format!(
            "HTTP/1.1 101 Switching Protocols\nUpgrade: websocket\nConnection: Upgrade\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\n{extra}\n"
        );
        check_head(&head, expected);
    }

    fn check_head(head: &str, expected: Result<(), Wrong>) {
        let bytes = head.replace('\n', "\r\n");
        let accept = Key::read(&OFFER).unwrap().accept();
        let answer = Answer::parse(bytes.as_bytes()).unwrap();
        assert_eq!(answer.check_101(&OFFER, Some(&accept)), expected, "{head}");
    }

    #[test]
    fn a_right_101_passes() {
        check("", Ok(()));
        check("Sec-WebSocket-Protocol: chat.v1\nSec-WebSocket-Extensions: permessage-deflate\n", Ok(()));
    }

    #[test]
    fn a_101_may_not_frame_a_body_or_choose_what_was_not_offered() {
        check("Content-Length: 0\n", Err(Wrong::Framing));
        check("Transfer-Encoding: chunked\n", Err(Wrong::Framing));
        check("Upgrade: h2c\n", Err(Wrong::Upgrade));
        check("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\n", Err(Wrong::Accept));
        check("Sec-WebSocket-Protocol: chat.v3\n", Err(Wrong::Subprotocol));
        check("Sec-WebSocket-Protocol: chat.v1, chat.v2\n", Err(Wrong::Subprotocol));
        check("Sec-WebSocket-Protocol: chat.v1\nSec-WebSocket-Protocol: chat.v1\n", Err(Wrong::Subprotocol));
        check("Sec-WebSocket-Extensions: x-webkit-deflate-frame\n", Err(Wrong::Extension));
    }

    #[test]
    fn a_101_must_carry_upgrade_connection_and_the_right_proof() {
        let status = "HTTP/1.1 101 Switching Protocols\n";
        let accept = "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\n";
        check_head(&format!("{status}Connection: Upgrade\n{accept}\n"), Err(Wrong::Upgrade));
        check_head(&format!("{status}Upgrade: foo\nConnection: Upgrade\n{accept}\n"), Err(Wrong::Upgrade));
        check_head(&format!("{status}Upgrade: websocket\n{accept}\n"), Err(Wrong::Connection));
        check_head(&format!("{status}Upgrade: websocket\nConnection: close\n{accept}\n"), Err(Wrong::Connection));
        let both = "Upgrade: WebSocket\nConnection: keep-alive, upgrade\n";
        check_head(&format!("{status}{both}\n"), Err(Wrong::Accept));
        check_head(&format!("{status}{both}Sec-WebSocket-Accept: AAAA\n\n"), Err(Wrong::Accept));
        check_head(&format!("{status}{both}{accept}\n"), Ok(()));
    }

    #[test]
    fn reads_how_an_answer_ends() {
        let body = |head: &str| {
            let bytes = head.replace('\n', "\r\n");
            Answer::parse(bytes.as_bytes()).unwrap().body()
        };
        let ok = "HTTP/1.1 200 OK\n";
        assert_eq!(body(&format!("{ok}\n")), Ok(AnswerBody::UntilClose));
        assert_eq!(body(&format!("{ok}Content-Length: 3\n\n")), Ok(AnswerBody::Length(3)));
        assert_eq!(body(&format!("{ok}Content-Length: 0\n\n")), Ok(AnswerBody::None));
        assert_eq!(body(&format!("{ok}Transfer-Encoding: chunked\n\n")), Ok(AnswerBody::Chunked));
        assert_eq!(body("HTTP/1.1 304 Not Modified\nContent-Length: 3\n\n"), Ok(AnswerBody::None));
        for bad in [
            "Content-Length: 3\nContent-Length: 3\n",
            "Content-Length: x\n",
            "Transfer-Encoding: chunked\nContent-Length: 3\n",
            "Transfer-Encoding: gzip\n",
        ] {
            assert_eq!(body(&format!("{ok}{bad}\n")), Err(NotAnAnswer), "{bad}");
        }
    }

    #[test]
    fn garbage_is_no_answer() {
        for bytes in [&b"hello\r\n\r\n"[..], b"HTTP/1.1 20 OK\r\n\r\n", b"HTTP/2 200\r\n\r\n", b"\r\n\r\n"] {
            assert!(Answer::parse(bytes).is_err());
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Answer::parse(&bytes).map(|answer| (answer.body(), answer.check_101(&OFFER, None)));
        }
    }
}
