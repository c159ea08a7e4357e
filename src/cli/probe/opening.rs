//! What the head of an answer amounts to (RFC 6455 §4.1, draft-hixie-thewebsocketprotocol-76 §4.1, -75 §3.1). A 101 without a
//! proof proves nothing: there are servers that answer so to anything. It does not know what is made of it.

use super::question::Question;
use crate::dialect::Dialect;
use crate::handshake::Field;
use crate::handshake::ask::Ask;
use crate::handshake::header_list::{elements, lines};
use crate::handshake::hixie::DIGEST_BYTES;
use crate::handshake::response::{Answer, NotAnAnswer, Wrong};

/// Texts of the server that are kept, and characters of each, at most.
const ADVERTISED_MAX: usize = 32;
const TEXT_CHARS_MAX: usize = 200;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opening {
    /// 1xx other than 101: another head follows.
    Interim,
    /// Any other final answer than 101.
    Refused(Refusal),
    Wrong(Flaw),
    Right,
    /// Right if these bytes are next.
    RightBefore([u8; DIGEST_BYTES]),
}

/// A server that said no.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub status: u16,
    /// The elements of `Sec-WebSocket-Version`, over all of its lines.
    pub advertised: Vec<String>,
    /// Where it sends the client instead.
    pub location: Option<String>,
}

/// What is wrong with a 101.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// The checks of version 13, a wrong Accept among them.
    Handshake(Wrong),
    AcceptMissing,
    DigestMissing,
    Digest,
    /// The answer of a hixie-75 server, to a question for another version.
    Hixie75,
}

impl Flaw {
    /// In a report, for programs.
    pub fn code(self) -> &'static str {
        match self {
            Flaw::Handshake(wrong) => wrong.as_str(),
            Flaw::AcceptMissing => "accept-missing",
            Flaw::DigestMissing => "digest-missing",
            Flaw::Digest => "digest",
            Flaw::Hixie75 => "hixie-75",
        }
    }
}

/// # Errors
/// When the head is none of HTTP/1.x.
pub fn judge(question: Question, ask: &Ask, offer: &[Field<'_>], head: &[u8]) -> Result<Opening, NotAnAnswer> {
    let answer = Answer::parse(head)?;
    if answer.is_interim() {
        return Ok(Opening::Interim);
    }
    if answer.status != 101 {
        return Ok(Opening::Refused(Refusal::read(&answer)));
    }
    let of_75 = Ask::new(Dialect::Hixie75, &mut fastrand::Rng::with_seed(0));
    Ok(match check(&answer, ask, offer) {
        Err(_) if question.dialect() != Dialect::Hixie75 && of_75.check(&answer, &[], &[]).is_ok() => {
            Opening::Wrong(Flaw::Hixie75)
        }
        Err(flaw) => Opening::Wrong(flaw),
        Ok(()) => ask.digest().map_or(Opening::Right, Opening::RightBefore),
    })
}

/// As the gateway in front of it would check it.
fn check(answer: &Answer<'_>, ask: &Ask, offer: &[Field<'_>]) -> Result<(), Flaw> {
    // The proof of version 0 stands behind the head.
    let checked = if ask.digest().is_some() { answer.check_switch() } else { ask.check(answer, offer, &[]) };
    match checked {
        Err(Wrong::Accept) if !has(answer, "Sec-WebSocket-Accept") => Err(Flaw::AcceptMissing),
        checked => checked.map_err(Flaw::Handshake),
    }
}

fn has(answer: &Answer<'_>, name: &str) -> bool {
    lines(&answer.fields, name).next().is_some()
}

impl Refusal {
    fn read(answer: &Answer<'_>) -> Refusal {
        let advertised = elements(&answer.fields, "Sec-WebSocket-Version").take(ADVERTISED_MAX).map(printable);
        let location = lines(&answer.fields, "Location").next().map(printable);
        Refusal { status: answer.status, advertised: advertised.collect(), location }
    }
}

/// What a server wrote, made fit for a terminal.
fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.chars().map(|char| if char.is_control() { '\u{FFFD}' } else { char }).take(TEXT_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cli::probe::question::{Common, Request};

    const HYBI: Question = Question::Version(Dialect::Rfc6455);
    const HIXIE_76: Question = Question::Version(Dialect::Hixie76);
    const HIXIE_75: Question = Question::Version(Dialect::Hixie75);
    const RIGHT_75: &str = "HTTP/1.1 101 Web Socket Protocol Handshake\nUpgrade: WebSocket\nConnection: Upgrade\n\
                            WebSocket-Origin: http://a.example\nWebSocket-Location: ws://a.example/\n\n";

    fn request(question: Question) -> Request {
        let common = Common {
            target: "ws://a.example/".parse().unwrap(),
            origin: "http://a.example".to_owned(),
            lines: Vec::new(),
        };
        Request::new(question, &common, &mut fastrand::Rng::with_seed(7))
    }

    /// `ACCEPT` in the head stands for the right one.
    fn judged(question: Question, head: &str) -> Opening {
        let ask = request(question).ask;
        let accept = ask.accept().map(|accept| String::from_utf8(accept.as_bytes().to_vec()).unwrap());
        let accept = accept.unwrap_or_default();
        judge(question, &ask, &[], head.replace('\n', "\r\n").replace("ACCEPT", &accept).as_bytes()).unwrap()
    }

    fn check(question: Question, head: &str, expected: &Opening) {
        assert_eq!(judged(question, head), *expected, "{question:?} {head}");
    }

    #[test]
    fn a_101_is_right_with_its_proof_only() {
        let start = "HTTP/1.1 101 x\nUpgrade: WebSocket\nConnection: Upgrade\n";
        check(HYBI, &format!("{start}Sec-WebSocket-Accept: ACCEPT\n\n"), &Opening::Right);
        check(Question::Unknown, &format!("{start}Sec-WebSocket-Accept: ACCEPT\n\n"), &Opening::Right);
        let wrong = |flaw| Opening::Wrong(Flaw::Handshake(flaw));
        check(HYBI, &format!("{start}Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\n\n"), &wrong(Wrong::Accept));
        check(HYBI, &format!("{start}\n"), &Opening::Wrong(Flaw::AcceptMissing));
        check(HYBI, "HTTP/1.1 101 x\n\n", &wrong(Wrong::Upgrade));
        check(
            HYBI,
            &format!("{start}Sec-WebSocket-Accept: ACCEPT\nSec-WebSocket-Protocol: x\n\n"),
            &wrong(Wrong::Subprotocol),
        );
    }

    #[test]
    fn hixie_76_has_its_proof_behind_the_head() {
        let digest = request(HIXIE_76).ask.digest().unwrap();
        let start = "HTTP/1.1 101 x\nUpgrade: WebSocket\nConnection: Upgrade\n";
        check(HIXIE_76, &format!("{start}\n"), &Opening::RightBefore(digest));
        check(HIXIE_76, &format!("{start}Sec-WebSocket-Protocol: None\n\n"), &Opening::RightBefore(digest));
        check(HIXIE_76, "HTTP/1.1 101 x\nUpgrade: WebSocket\n\n", &Opening::Wrong(Flaw::Handshake(Wrong::Connection)));
    }

    #[test]
    fn hixie_75_has_nothing_but_a_few_lines() {
        check(HIXIE_75, RIGHT_75, &Opening::Right);
        for (from, to, wrong) in [
            ("Web Socket Protocol Handshake", "Switching Protocols", Wrong::StatusLine),
            ("Upgrade: WebSocket", "Upgrade: other", Wrong::Upgrade),
            ("WebSocket-Origin", "Sec-WebSocket-Origin", Wrong::Location),
            ("WebSocket-Location", "X-Location", Wrong::Location),
        ] {
            let flaw = Flaw::Handshake(wrong);
            check(HIXIE_75, &RIGHT_75.replace(from, to), &Opening::Wrong(flaw));
        }
    }

    #[test]
    fn an_answer_of_hixie_75_to_anything_else_is_called_by_its_name() {
        check(Question::Missing, RIGHT_75, &Opening::Wrong(Flaw::Hixie75));
        check(HYBI, RIGHT_75, &Opening::Wrong(Flaw::Hixie75));
    }

    #[test]
    fn a_refusal_tells_what_would_do_over_all_of_its_lines() {
        let refusal = Refusal {
            status: 400,
            advertised: ["13", "8", "7"].map(str::to_owned).to_vec(),
            location: Some("/other".to_owned()),
        };
        let head =
            "HTTP/1.1 400 Bad Request\nSec-WebSocket-Version: 13\nLocation: /other\nsec-websocket-version: 8, 7\n\n";
        check(Question::Unknown, head, &Opening::Refused(refusal));
        check(HYBI, "HTTP/1.1 103 Early Hints\n\n", &Opening::Interim);
        let long = format!("HTTP/1.1 426 x\nSec-WebSocket-Version: \u{9b}{}{}\n\n", "1".repeat(300), ",2".repeat(99));
        let Opening::Refused(Refusal { advertised, .. }) = judged(HYBI, &long) else { panic!() };
        assert_eq!((advertised.len(), advertised[0].chars().count()), (ADVERTISED_MAX, TEXT_CHARS_MAX));
        assert!(advertised[0].starts_with("\u{FFFD}1"));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..200),
            "HTTP/1.1 (101|200|426) [ -~]{0,20}\r\n((Upgrade|Connection|Sec-WebSocket-(Accept|Version)): [ -~]{0,30}\r\n){0,5}\r\n"
                .prop_map(String::into_bytes),
        ]) {
            for question in Question::ALL {
                let _ = judge(question, &request(question).ask, &[], &bytes);
            }
        }
    }
}
