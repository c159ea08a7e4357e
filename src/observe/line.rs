//! The lines of the access log: one JSON object a fact, ASCII only. It does not know where they go, and time is an
//! argument.

use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Serialize, Serializer};
use serde_json::ser::Formatter;

use super::event::{Answered, Closed, Opened, Refused, Request, RequestId};
use crate::address::{Address, ClientAddr};
use crate::reason::Reason;

/// One line without its line feed. Fields that a fact does not have are left out.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub(super) enum Line<'e> {
    Refused {
        #[serde(flatten)]
        request: RequestFields<'e>,
        reason: &'static str,
        status: u16,
        #[serde(skip_serializing_if = "Option::is_none")]
        detail: Option<&'e str>,
    },
    Opened {
        #[serde(flatten)]
        request: RequestFields<'e>,
        backend_version: &'static str,
        upstream: &'e str,
        server: &'e Address,
        #[serde(skip_serializing_if = "Option::is_none")]
        subprotocol: Option<&'e str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        extensions: Option<&'e str>,
        handshake_seconds: Seconds,
        #[serde(skip_serializing_if = "Codes::is_empty")]
        would_refuse: Codes<'e>,
    },
    Closed {
        time: Time,
        id: Id,
        route: &'e str,
        reason: &'static str,
        by: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        client_code: Option<u16>,
        #[serde(skip_serializing_if = "Option::is_none")]
        backend_code: Option<u16>,
        duration_seconds: Seconds,
        bytes_to_backend: u64,
        bytes_to_client: u64,
        messages_to_backend: u64,
        messages_to_client: u64,
    },
    #[serde(rename = "request")]
    Answered {
        #[serde(flatten)]
        request: RequestFields<'e>,
        status: u16,
        #[serde(skip_serializing_if = "Option::is_none")]
        server: Option<&'e Address>,
        bytes: u64,
        duration_seconds: Seconds,
    },
}

/// What `refused`, `opened` and `request` lines have in common.
#[derive(Serialize)]
pub(super) struct RequestFields<'e> {
    time: Time,
    id: Id,
    listener: &'e str,
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<&'e str>,
    client: ClientAddr,
    http: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<ClientAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_certificate: Option<&'e str>,
    method: &'e str,
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<&'e str>,
    path: &'e str,
    #[serde(skip_serializing_if = "Option::is_none")]
    origin: Option<&'e str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_agent: Option<&'e str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'static str>,
}

impl<'e> Line<'e> {
    pub fn refused(event: &Refused<'e>, now: SystemTime) -> Line<'e> {
        Line::Refused {
            request: RequestFields::new(&event.request, now),
            reason: event.reason.code(),
            status: event.status,
            detail: event.detail,
        }
    }

    pub fn opened(event: &Opened<'e>, now: SystemTime) -> Line<'e> {
        Line::Opened {
            request: RequestFields::new(&event.request, now),
            backend_version: event.spoken,
            upstream: event.upstream,
            server: event.server,
            subprotocol: event.subprotocol,
            extensions: event.extensions,
            handshake_seconds: Seconds(event.handshake),
            would_refuse: Codes(event.would_refuse),
        }
    }

    pub fn closed(event: &Closed<'e>, now: SystemTime) -> Line<'e> {
        Line::Closed {
            time: Time(now),
            id: Id(event.id),
            route: event.route,
            reason: event.reason.code(),
            by: event.reason.by().as_str(),
            client_code: event.from_client.close_code,
            backend_code: event.from_backend.close_code,
            duration_seconds: Seconds(event.duration),
            bytes_to_backend: event.from_client.bytes,
            bytes_to_client: event.from_backend.bytes,
            messages_to_backend: event.from_client.messages,
            messages_to_client: event.from_backend.messages,
        }
    }

    pub fn answered(event: &Answered<'e>, now: SystemTime) -> Line<'e> {
        Line::Answered {
            request: RequestFields::new(&event.request, now),
            status: event.status,
            server: event.server,
            bytes: event.bytes,
            duration_seconds: Seconds(event.duration),
        }
    }

    /// The line with its line feed.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(512);
        let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, Ascii);
        self.serialize(&mut serializer).expect("every field has a JSON form and a vector takes all bytes");
        bytes.push(b'\n');
        bytes
    }
}

impl<'e> RequestFields<'e> {
    fn new(request: &Request<'e>, now: SystemTime) -> RequestFields<'e> {
        RequestFields {
            time: Time(now),
            id: Id(request.id),
            listener: request.listener,
            route: request.route,
            client: request.client,
            peer: (request.peer != request.client).then_some(request.peer),
            http: request.http,
            client_certificate: request.client_certificate,
            method: request.method,
            host: request.host,
            path: request.path,
            origin: request.origin,
            user_agent: request.user_agent,
            version: request.asked,
        }
    }
}

/// RFC 3339, UTC, milliseconds.
pub(super) struct Time(SystemTime);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // A clock before 1970 has no such form.
        serializer.collect_str(&humantime::format_rfc3339_millis(self.0.max(UNIX_EPOCH)))
    }
}

pub(super) struct Id(RequestId);

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// Microseconds are the finest that means anything here.
pub(super) struct Seconds(Duration);

impl Serialize for Seconds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64((self.0.as_secs_f64() * 1e6).round() / 1e6)
    }
}

pub(super) struct Codes<'e>(&'e [Reason]);

impl Codes<'_> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for Codes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|reason| reason.code()))
    }
}

/// JSON leaves DEL, the C1 controls and marks that turn the direction of text as they are, and a terminal obeys them.
/// So whatever is not printable ASCII is escaped.
struct Ascii;

impl Formatter for Ascii {
    fn write_string_fragment<W: io::Write + ?Sized>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let printable = |byte: u8| (b' '..=b'~').contains(&byte);
        if fragment.bytes().all(printable) {
            return writer.write_all(fragment.as_bytes());
        }
        for character in fragment.chars() {
            match u8::try_from(character) {
                Ok(byte) if printable(byte) => writer.write_all(&[byte])?,
                Ok(_) | Err(_) => {
                    for unit in character.encode_utf16(&mut [0; 2]) {
                        write!(writer, "\\u{unit:04x}")?;
                    }
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::observe::event::Passed;

    pub fn request() -> Request<'static> {
        Request {
            id: RequestId(0xab),
            listener: "public",
            route: Some("chat"),
            client: "192.0.2.1:5555".parse::<std::net::SocketAddr>().unwrap().into(),
            peer: "192.0.2.1:5555".parse::<std::net::SocketAddr>().unwrap().into(),
            http: "1.1",
            client_certificate: None,
            method: "GET",
            host: Some("example.com"),
            path: "/chat",
            origin: None,
            user_agent: None,
            asked: Some("8"),
        }
    }

    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(1_700_000_000_123)
    }

    fn check(line: &Line<'_>, expected: &str) {
        assert_eq!(String::from_utf8(line.to_bytes()).unwrap(), format!("{expected}\n"));
    }

    #[test]
    fn a_refusal_says_who_asked_for_what_and_why_not() {
        let event = Refused { request: request(), reason: Reason::VersionUnsupported, status: 426, detail: None };
        check(
            &Line::refused(&event, now()),
            r#"{"event":"refused","time":"2023-11-14T22:13:20.123Z","id":"00000000000000ab","listener":"public","route":"chat","client":"192.0.2.1:5555","http":"1.1","method":"GET","host":"example.com","path":"/chat","version":"8","reason":"version-unsupported","status":426}"#,
        );
    }

    #[test]
    fn an_opening_says_what_was_agreed_with_whom() {
        let event = Opened {
            request: Request { origin: Some("https://a.example"), user_agent: Some("Mozilla/5.0"), ..request() },
            upstream: "chat",
            server: &"[::1]:9001".parse().unwrap(),
            spoken: "8",
            subprotocol: Some("chat.v2"),
            extensions: Some("permessage-deflate"),
            handshake: Duration::from_nanos(1_234_567),
            would_refuse: &[Reason::VersionUnsupported],
        };
        check(
            &Line::opened(&event, now()),
            r#"{"event":"opened","time":"2023-11-14T22:13:20.123Z","id":"00000000000000ab","listener":"public","route":"chat","client":"192.0.2.1:5555","http":"1.1","method":"GET","host":"example.com","path":"/chat","origin":"https://a.example","user_agent":"Mozilla/5.0","version":"8","backend_version":"8","upstream":"chat","server":"[::1]:9001","subprotocol":"chat.v2","extensions":"permessage-deflate","handshake_seconds":0.001235,"would_refuse":["version-unsupported"]}"#,
        );
    }

    #[test]
    fn an_end_says_who_ended_it() {
        let event = Closed {
            id: RequestId(u64::MAX),
            route: "chat",
            reason: Reason::IdleTimeout,
            code: "1001",
            duration: Duration::from_secs(90),
            from_client: Passed { bytes: 1, messages: 3, close_code: Some(1001) },
            from_backend: Passed { bytes: 2, messages: 4, close_code: None },
        };
        check(
            &Line::closed(&event, now()),
            r#"{"event":"closed","time":"2023-11-14T22:13:20.123Z","id":"ffffffffffffffff","route":"chat","reason":"idle-timeout","by":"gateway","client_code":1001,"duration_seconds":90.0,"bytes_to_backend":1,"bytes_to_client":2,"messages_to_backend":3,"messages_to_client":4}"#,
        );
    }

    #[test]
    fn a_plain_request_is_one_line() {
        let event = Answered {
            request: Request { route: None, host: None, asked: None, ..request() },
            status: 200,
            server: Some(&"10.0.0.1:80".parse().unwrap()),
            bytes: 5,
            duration: Duration::from_millis(2),
        };
        check(
            &Line::answered(&event, now()),
            r#"{"event":"request","time":"2023-11-14T22:13:20.123Z","id":"00000000000000ab","listener":"public","client":"192.0.2.1:5555","http":"1.1","method":"GET","path":"/chat","status":200,"server":"10.0.0.1:80","bytes":5,"duration_seconds":0.002}"#,
        );
    }

    #[test]
    fn a_clock_before_1970_does_not_panic() {
        let event = Refused { request: request(), reason: Reason::NoRoute, status: 404, detail: None };
        let line = Line::refused(&event, UNIX_EPOCH - Duration::from_secs(1)).to_bytes();
        assert!(String::from_utf8(line).unwrap().contains("1970-01-01T00:00:00.000Z"));
    }

    proptest! {
        #[test]
        fn no_text_leaves_its_field(text in any::<String>()) {
            let request = Request { path: &text, user_agent: Some(&text), ..request() };
            let event = Refused { request, reason: Reason::NoRoute, status: 404, detail: Some(&text) };
            let line = Line::refused(&event, now()).to_bytes();
            let (end, body) = line.split_last().unwrap();
            prop_assert_eq!(*end, b'\n');
            prop_assert!(body.iter().all(|byte| (b' '..=b'~').contains(byte)));
            let parsed: serde_json::Value = serde_json::from_slice(body).unwrap();
            for field in ["path", "user_agent", "detail"] {
                prop_assert_eq!(parsed[field].as_str(), Some(text.as_str()));
            }
        }
    }

    #[test]
    fn controls_that_json_would_keep_are_escaped() {
        let request = Request { user_agent: Some("\u{7f}\u{9b}31m\u{202e}\u{1f600}\r\n\"\\"), ..request() };
        let event = Refused { request, reason: Reason::NoRoute, status: 404, detail: None };
        let line = String::from_utf8(Line::refused(&event, now()).to_bytes()).unwrap();
        assert!(line.contains(r#""user_agent":"\u007f\u009b31m\u202e\ud83d\ude00\r\n\"\\""#), "{line}");
    }
}
