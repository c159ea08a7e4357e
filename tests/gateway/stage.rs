//! Two scripted sides of a tunnel with the gateway between them: what each says and hears, frame by frame, in one thread. It
//! shares no code with the gateway, so that the two can disagree on what a frame is.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use crate::backend::{route_to, switching};
use crate::harness::{Gateway, PATIENCE, finish, read_head, upgrade};

pub const TEXT: u8 = 0x81;
pub const BINARY: u8 = 0x82;
pub const CLOSE: u8 = 0x88;
pub const PING: u8 = 0x89;
pub const PONG: u8 = 0x8A;

/// What may go by before something that has to happen has happened, on a machine that does other things as well.
pub const SLACK: Duration = Duration::from_secs(3);

const KEY: [u8; 4] = [0x9C, 0x01, 0xFE, 0x35];

/// A gateway in front of a scripted backend: one route, of which one tunnel may be open.
pub struct Stage {
    pub gateway: Gateway,
    listener: TcpListener,
    opened_at: Instant,
}

/// One side of a tunnel.
pub struct Peer {
    pub stream: TcpStream,
    /// What masks its frames (RFC 6455 §5.1): a client has it, a server has not.
    key: Option<[u8; 4]>,
    name: &'static str,
}

/// How a tunnel ended, as the gateway tells it.
#[derive(Debug)]
pub struct End {
    pub reason: &'static str,
    pub by: &'static str,
    /// The label.
    pub code: &'static str,
    /// What each side closed with.
    pub client_code: Option<u16>,
    pub backend_code: Option<u16>,
    /// To the backend and to the client.
    pub bytes: [u64; 2],
    pub messages: [u64; 2],
}

impl Stage {
    /// `tunnel` are keys of `[route.tunnel]`.
    pub fn new(tunnel: &str) -> Stage {
        Stage::with("", tunnel)
    }

    /// As [`Stage::new`], with more keys of `[gateway]`, tables included.
    pub fn with(gateway: &str, tunnel: &str) -> Stage {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        // Of a listener it is how long an accept waits.
        socket2::SockRef::from(&listener).set_read_timeout(Some(PATIENCE)).unwrap();
        let route = format!("[route.limits]\ntunnels = 1\n[route.tunnel]\n{tunnel}");
        let route = route_to(&[listener.local_addr().unwrap()], "", &route);
        Stage { gateway: Gateway::start_with(gateway, "", &route), listener, opened_at: Instant::now() }
    }

    /// Opens a tunnel: the client and the backend.
    pub fn open(&mut self) -> (Peer, Peer) {
        let mut client = Peer { stream: self.gateway.connect(), key: Some(KEY), name: "client" };
        client.send(upgrade("").as_bytes());
        let (stream, _) = self.listener.accept().unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        let mut backend = Peer { stream, key: None, name: "backend" };
        read_head(&mut backend.stream);
        backend.send(switching("").as_bytes());
        let head = read_head(&mut client.stream);
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        self.opened_at = Instant::now();
        (client, backend)
    }

    /// Opens a tunnel in which each side has said something, [`TALK_BYTES`] and one message each way.
    pub fn open_and_talk(&mut self) -> (Peer, Peer) {
        let (mut client, mut backend) = self.open();
        client.say(TEXT, b"question");
        backend.hears(TEXT, b"question");
        backend.say(TEXT, b"answer");
        client.hears(TEXT, b"answer");
        (client, backend)
    }

    /// Checks everything that the gateway tells of the end of the only tunnel so far, and that nothing of it is left. How long
    /// it lived by the log, in seconds.
    pub fn check(&mut self, end: &End) -> f64 {
        let closed = self.gateway.wait_for_access(|line| line["event"] == "closed");
        let lived = self.opened_at.elapsed().as_secs_f64();
        let code = |code: Option<u16>| code.map_or(serde_json::Value::Null, Into::into);
        for (field, expected) in [
            ("reason", end.reason.into()),
            ("by", end.by.into()),
            ("client_code", code(end.client_code)),
            ("backend_code", code(end.backend_code)),
            ("bytes_to_backend", end.bytes[0].into()),
            ("bytes_to_client", end.bytes[1].into()),
            ("messages_to_backend", end.messages[0].into()),
            ("messages_to_client", end.messages[1].into()),
        ] {
            assert_eq!(closed[field], expected, "{field} in {closed}, expected {end:?}");
        }
        let duration = closed["duration_seconds"].as_f64().unwrap();
        assert!(duration > 0.0 && duration <= lived + 0.1, "{duration} s of {lived} s");
        let labels = format!("by=\"{}\",code=\"{}\",route=\"r\"", end.by, end.code);
        self.gateway.wait_for_metric(&format!("wsgate_tunnel_closes_total{{{labels}}}"), 1.0);
        for (direction, bytes) in [("to_backend", end.bytes[0]), ("to_client", end.bytes[1])] {
            let series = format!("wsgate_tunnel_bytes_total{{direction=\"{direction}\",route=\"r\"}}");
            assert!((self.gateway.metric(&series) - bytes as f64).abs() < 0.5, "{series} and the log disagree");
        }
        self.check_empty();
        drop(self.open());
        duration
    }

    /// Nothing is open, and nothing of what was open is still counted.
    pub fn check_empty(&self) {
        let server = self.listener.local_addr().unwrap();
        self.gateway.wait_for_metric("wsgate_tunnels{route=\"r\",upstream=\"u\",version=\"13\"}", 0.0);
        self.gateway.wait_for_metric(&format!("wsgate_backend_tunnels{{server=\"{server}\",upstream=\"u\"}}"), 0.0);
        self.gateway.wait_for_metric("wsgate_connections{listener=\"public\"}", 0.0);
    }

    /// How long the tunnel has been open.
    pub fn age(&self) -> Duration {
        self.opened_at.elapsed()
    }
}

impl Peer {
    /// A frame as this side sends it; `first` is its first byte.
    pub fn frame(&self, first: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![first];
        let mask_bit = if self.key.is_some() { 0x80 } else { 0 };
        match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
            (Ok(length @ ..126), _) => bytes.push(mask_bit | length),
            (_, Ok(length)) => {
                bytes.push(mask_bit | 126);
                bytes.extend_from_slice(&length.to_be_bytes());
            }
            _ => {
                bytes.push(mask_bit | 127);
                bytes.extend_from_slice(&(payload.len() as u64).to_be_bytes());
            }
        }
        bytes.extend_from_slice(self.key.as_ref().map_or(&[][..], |key| &key[..]));
        bytes.extend_from_slice(&masked(payload, self.key));
        bytes
    }

    pub fn say(&mut self, first: u8, payload: &[u8]) {
        let frame = self.frame(first, payload);
        self.send(&frame);
    }

    pub fn say_close(&mut self, code: u16) {
        self.say(CLOSE, &code.to_be_bytes());
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap_or_else(|error| panic!("the {} cannot send: {error}", self.name));
    }

    /// The next frame: its first byte and its payload.
    pub fn hear(&mut self) -> (u8, Vec<u8>) {
        let [first, second] = self.read::<2>();
        // What this side masks, it gets bare, and the other way round.
        assert_eq!(second & 0x80 != 0, self.key.is_none(), "a wrong mask for the {}", self.name);
        let length = match second & 0x7F {
            126 => u64::from(u16::from_be_bytes(self.read())),
            127 => u64::from_be_bytes(self.read()),
            length => u64::from(length),
        };
        let key = (second & 0x80 != 0).then(|| self.read::<4>());
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        self.stream.read_exact(&mut payload).unwrap();
        (first, masked(&payload, key))
    }

    fn read<const LENGTH: usize>(&mut self) -> [u8; LENGTH] {
        let mut bytes = [0; LENGTH];
        self.stream.read_exact(&mut bytes).unwrap_or_else(|error| panic!("the {} hears nothing: {error}", self.name));
        bytes
    }

    pub fn hears(&mut self, first: u8, payload: &[u8]) {
        let (heard, said) = self.hear();
        assert_eq!((heard, String::from_utf8_lossy(&said)), (first, String::from_utf8_lossy(payload)), "{}", self.name);
    }

    /// A Close of the gateway's own.
    pub fn hears_close(&mut self, code: u16, text: &str) {
        self.hears(CLOSE, &[&code.to_be_bytes(), text.as_bytes()].concat());
    }

    /// Answers Pings until the gateway's own Close comes.
    pub fn hears_close_beyond_pings(&mut self, code: u16, text: &str) {
        loop {
            let (first, payload) = self.hear();
            if first != PING {
                assert_eq!((first, payload), (CLOSE, [&code.to_be_bytes(), text.as_bytes()].concat()));
                return;
            }
            self.say(PONG, &payload);
        }
    }

    /// Nothing more, up to the end of the connection; a reset counts as an end.
    pub fn hears_the_end(&mut self) {
        let mut rest = Vec::new();
        if let Err(error) = self.stream.read_to_end(&mut rest) {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "the {} is not let go", self.name);
        }
        assert_eq!(String::from_utf8_lossy(&rest), "", "the {} hears more", self.name);
    }

    /// Sends nothing more.
    pub fn finish(&self) {
        finish(&self.stream);
    }

    /// Vanishes with a reset instead of an end.
    pub fn reset(self) {
        socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).unwrap();
    }
}

/// The backend closes first, as RFC 6455 §7.1.1 has it of servers; then the client goes.
pub fn part(mut client: Peer, mut backend: Peer) {
    backend.finish();
    client.hears_the_end();
    drop(client);
    backend.hears_the_end();
}

/// Bytes of a conversation of [`Stage::open_and_talk`]: to the backend and to the client.
pub const TALK_BYTES: [u64; 2] = [2 + 4 + 8, 2 + 6];

/// As [`TALK_BYTES`]: a Close frame with a code and nothing else, from a client and from a backend.
pub const CLOSE_BYTES: [u64; 2] = [8, 4];

/// As [`TALK_BYTES`].
pub const TALK_MESSAGES: [u64; 2] = [1, 1];

/// An end after both sides talked, in which nothing more was passed on.
pub const AFTER_TALK: End = End {
    reason: "",
    by: "",
    code: "none",
    client_code: None,
    backend_code: None,
    bytes: TALK_BYTES,
    messages: TALK_MESSAGES,
};

fn masked(payload: &[u8], key: Option<[u8; 4]>) -> Vec<u8> {
    let key = key.unwrap_or_default();
    payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key).collect()
}
