//! What a server is asked: a handshake for each version, and three that no server should take. Each as the clients of its time
//! wrote it, because old servers compare byte for byte. It does not know how an answer is judged.

use super::target::{Line, Target};
use crate::dialect::Dialect;
use crate::handshake::Field;
use crate::handshake::ask::Ask;

/// One handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    Version(Dialect),
    /// As version 13, with a number that means nothing.
    Unknown,
    /// As version 13, without a version.
    Missing,
    /// As version 13, with a version that is no number.
    Malformed,
}

impl Question {
    /// In the order in which they are asked and shown.
    pub const ALL: [Question; 8] = [
        Question::Version(Dialect::Rfc6455),
        Question::Version(Dialect::Hybi8),
        Question::Version(Dialect::Hybi7),
        Question::Version(Dialect::Hixie76),
        Question::Version(Dialect::Hixie75),
        Question::Unknown,
        Question::Missing,
        Question::Malformed,
    ];

    /// The value of `Sec-WebSocket-Version`, where it is one that no client has.
    fn odd_version(self) -> Option<&'static str> {
        match self {
            Question::Unknown => Some("99"),
            Question::Malformed => Some("13x"),
            Question::Missing | Question::Version(_) => None,
        }
    }

    /// In a report.
    pub fn name(self) -> &'static str {
        match self {
            Question::Version(dialect) => dialect.name(),
            Question::Unknown => "99",
            Question::Missing => "missing",
            Question::Malformed => "13x",
        }
    }

    /// What a server speaks that takes it.
    pub fn dialect(self) -> Dialect {
        match self {
            Question::Version(dialect) => dialect,
            Question::Unknown | Question::Missing | Question::Malformed => Dialect::Rfc6455,
        }
    }
}

/// What all requests of one probe have in common.
#[derive(Clone, Debug)]
pub struct Common {
    pub target: Target,
    pub origin: String,
    pub lines: Vec<Line>,
}

impl Common {
    /// The operator's own lines, which an answer may refer to.
    pub fn offer(&self) -> Vec<Field<'_>> {
        self.lines.iter().map(|line| Field { name: &line.name, value: line.value.as_bytes() }).collect()
    }
}

/// A request.
#[derive(Clone, Debug)]
pub struct Request {
    /// Head and what stands behind it. To be sent in one write: servers exist that take key3 from the head's segment only.
    pub bytes: Vec<u8>,
    /// What only a server that understood it can answer.
    pub ask: Ask,
}

impl Request {
    /// As the gateway asks it itself, in the order that the drafts of hixie prescribe.
    pub fn new(question: Question, common: &Common, chance: &mut fastrand::Rng) -> Request {
        let ask = Ask::new(question.dialect(), chance);
        let mut head = start(common);
        line(&mut head, "Upgrade", ask.upgrade());
        line(&mut head, "Connection", "Upgrade");
        line(&mut head, "Host", host(common));
        line(&mut head, ask.origin_field(), &common.origin);
        for (name, value) in ask.lines() {
            match question {
                Question::Missing | Question::Unknown | Question::Malformed if name == VERSION => {}
                _ => line(&mut head, name, &value),
            }
        }
        if let Some(version) = question.odd_version() {
            line(&mut head, VERSION, version);
        }
        more(&mut head, common);
        let bytes = [end(head).as_bytes(), ask.behind_head()].concat();
        Request { bytes, ask }
    }
}

const VERSION: &str = "Sec-WebSocket-Version";

fn start(common: &Common) -> String {
    format!("GET {} HTTP/1.1\r\n", common.target.path_and_query)
}

/// The operator's, where there is one: a server may have several names.
fn host(common: &Common) -> &str {
    let own = common.lines.iter().find(|line| line.name.eq_ignore_ascii_case("Host"));
    own.map_or(&common.target.authority, |line| &line.value)
}

fn more(head: &mut String, common: &Common) {
    for own in common.lines.iter().filter(|line| !line.name.eq_ignore_ascii_case("Host")) {
        line(head, &own.name, &own.value);
    }
}

fn line(head: &mut String, name: &str, value: &str) {
    head.extend([name, ": ", value, "\r\n"]);
}

fn end(head: String) -> String {
    head + "\r\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handshake::hixie::{KEY3_BYTES, Numbers};
    use crate::handshake::request::Head;
    use crate::handshake::{Asked, Key};

    fn common(lines: &[&str]) -> Common {
        Common {
            target: "ws://a.example:8080/ws?x=1".parse().unwrap(),
            origin: "http://a.example:8080".to_owned(),
            lines: lines.iter().map(|line| line.parse().unwrap()).collect(),
        }
    }

    fn check(question: Question, expected: &str) {
        let common = common(&["Cookie: a=b"]);
        let request = Request::new(question, &common, &mut fastrand::Rng::with_seed(7));
        let head = String::from_utf8_lossy(&request.bytes).into_owned();
        let head: Vec<&str> = head.split_once("\r\n\r\n").unwrap().0.lines().collect();
        let hidden = |line: &&str| {
            if line.starts_with("Sec-WebSocket-Key") {
                line.split(':').next().unwrap().to_owned()
            } else {
                (*line).to_owned()
            }
        };
        assert_eq!(head.iter().map(hidden).collect::<Vec<_>>(), expected.lines().collect::<Vec<_>>(), "{question:?}");
    }

    #[test]
    fn each_version_is_asked_for_as_its_clients_did() {
        let start = "GET /ws?x=1 HTTP/1.1\n";
        let hybi = |origin: &str, version: Option<&str>| {
            let version = version.map(|version| format!("Sec-WebSocket-Version: {version}\n")).unwrap_or_default();
            let (before, behind) =
                if version.contains("99") || version.contains("13x") { ("", &*version) } else { (&*version, "") };
            format!(
                "{start}Upgrade: websocket\nConnection: Upgrade\nHost: a.example:8080\n{origin}: http://a.example:8080\n\
                 {before}Sec-WebSocket-Key\n{behind}Cookie: a=b\n"
            )
        };
        let version = |number: &str, origin: &str| hybi(origin, Some(number));
        check(Question::Version(Dialect::Rfc6455), &version("13", "Origin"));
        check(Question::Version(Dialect::Hybi8), &version("8", "Sec-WebSocket-Origin"));
        check(Question::Version(Dialect::Hybi7), &version("7", "Sec-WebSocket-Origin"));
        check(Question::Unknown, &version("99", "Origin"));
        check(Question::Malformed, &version("13x", "Origin"));
        check(Question::Missing, &hybi("Origin", None));
        let hixie = format!(
            "{start}Upgrade: WebSocket\nConnection: Upgrade\nHost: a.example:8080\nOrigin: http://a.example:8080\n"
        );
        check(Question::Version(Dialect::Hixie75), &format!("{hixie}Cookie: a=b\n"));
        check(
            Question::Version(Dialect::Hixie76),
            &format!("{hixie}Sec-WebSocket-Key1\nSec-WebSocket-Key2\nCookie: a=b\n"),
        );
    }

    #[test]
    fn the_gateways_own_reading_finds_what_was_meant() {
        for question in Question::ALL {
            let request = Request::new(question, &common(&[]), &mut fastrand::Rng::with_seed(7));
            let end = request.bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
            let head = Head::parse(&request.bytes[..end]).unwrap();
            let behind = &request.bytes[end..];
            let label = Asked::read(&head.fields).label();
            let expected = match question {
                Question::Unknown => "other",
                Question::Missing => "missing",
                Question::Malformed => "malformed",
                Question::Version(dialect) => dialect.name(),
            };
            assert_eq!(label, expected, "{question:?}");
            if let Some(accept) = request.ask.accept() {
                assert_eq!(Key::read(&head.fields).unwrap().accept(), accept);
            }
            if let Some(digest) = request.ask.digest() {
                let key3 = <&[u8; KEY3_BYTES]>::try_from(behind).unwrap();
                assert_eq!(Numbers::read(&head.fields).unwrap().digest(key3), digest);
            } else {
                assert_eq!(behind, b"");
            }
        }
    }

    #[test]
    fn a_name_of_the_operators_takes_the_place_of_the_urls() {
        let request = Request::new(Question::Missing, &common(&["host: b.example"]), &mut fastrand::Rng::with_seed(7));
        let head = String::from_utf8(request.bytes).unwrap();
        assert!(head.contains("\r\nHost: b.example\r\n") && !head.contains("a.example\r\n"), "{head}");
        assert_eq!(head.matches("b.example").count(), 1);
    }

    #[test]
    fn no_two_requests_have_the_same_key() {
        let mut chance = fastrand::Rng::with_seed(7);
        for question in Question::ALL.into_iter().filter(|question| question.name() != "hixie-75") {
            let pair = [(); 2].map(|()| Request::new(question, &common(&[]), &mut chance).bytes);
            assert_ne!(pair[0], pair[1]);
        }
    }
}
