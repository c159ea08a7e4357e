//! Clients and servers that speak different versions, by script: what each side is sent, byte by byte.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use serde_json::json;
use wsgate::handshake::hixie::Numbers;
use wsgate::handshake::{Field, Key};

use crate::backend::Backend;
use crate::harness::{Gateway, PATIENCE, connect, finish, read_answer, read_exactly, read_head, status, upgrade};

/// The first sample of draft-hixie-thewebsocketprotocol-76 §1.2, and what answers it.
const HIXIE_76: &str = "GET /demo HTTP/1.1\r\nHost: example.com\r\nConnection: Upgrade\r\n\
                        Sec-WebSocket-Key2: 12998 5 Y3 1  .P00\r\nSec-WebSocket-Protocol: sample\r\n\
                        Upgrade: WebSocket\r\nSec-WebSocket-Key1: 4 @1  46546xW%0l 1 5\r\nOrigin: http://example.com\r\n\r\n";
const KEY3: &[u8] = b"^n:ds[4U";
const SWITCHING_76: &str = "HTTP/1.1 101 WebSocket Protocol Handshake\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\n\
                            Sec-WebSocket-Origin: http://example.com\r\nSec-WebSocket-Location: ws://example.com/demo\r\n\
                            Sec-WebSocket-Protocol: sample\r\n\r\n8jKS'y:G*Co,Wxa-";
const HIXIE_75: &str = "GET /demo HTTP/1.1\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\nHost: example.com\r\n\
                        Origin: http://example.com\r\nWebSocket-Protocol: sample\r\n\r\n";
const SWITCHING_75: &str = "HTTP/1.1 101 Web Socket Protocol Handshake\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\n\
                            WebSocket-Origin: http://example.com\r\nWebSocket-Location: ws://example.com/demo\r\n\
                            WebSocket-Protocol: sample\r\n\r\n";
const ZERO_KEY: [u8; 4] = [0; 4];

/// A gateway in front of a server whose accepts the test makes itself.
struct Bridge {
    gateway: Gateway,
    server: TcpListener,
}

impl Bridge {
    /// What clients may speak, and what the server does.
    fn new(accept: &str, spoken: &str) -> Bridge {
        Bridge::with("", accept, spoken, "")
    }

    fn with(listener: &str, accept: &str, spoken: &str, route: &str) -> Bridge {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        socket2::SockRef::from(&server).set_read_timeout(Some(PATIENCE)).unwrap();
        let rest = routed(server.local_addr().unwrap(), accept, spoken, route);
        Bridge { gateway: Gateway::start_with("[gateway.drain]\nspread = '0s'", listener, &rest), server }
    }

    fn accept(&self) -> TcpStream {
        let (stream, _) = self.server.accept().unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// A client of version 0, and the server of 13 behind it.
    fn open_from_76(&self) -> (TcpStream, TcpStream) {
        let mut client = self.gateway.connect();
        client.write_all(HIXIE_76.as_bytes()).unwrap();
        client.write_all(KEY3).unwrap();
        let mut server = self.accept();
        let head = read_head(&mut server);
        server.write_all(switching(&head, "Sec-WebSocket-Protocol: sample\r\n").as_bytes()).unwrap();
        read_exactly(&mut client, SWITCHING_76.as_bytes());
        (client, server)
    }

    /// A client of 13, and the server of version 0 behind it.
    fn open_to_76(&self) -> (TcpStream, TcpStream) {
        let mut client = self.gateway.connect();
        client.write_all(upgrade("").as_bytes()).unwrap();
        let mut server = self.accept();
        let (head, key3) = read_76(&mut server);
        server.write_all(&switching_76(&head, key3)).unwrap();
        assert_eq!(status(&read_head(&mut client)), 101);
        (client, server)
    }
}

fn routed(server: SocketAddr, accept: &str, spoken: &str, route: &str) -> String {
    format!(
        "[[upstream]]\nname = 'u'\nversions = {spoken}\nservers = ['{server}']\n\
         [[route]]\nname = 'r'\nupstream = 'u'\nversions = {{ accept = {accept} }}\n{route}"
    )
}

fn line<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    let start = format!("{}: ", name.to_ascii_lowercase());
    head.lines().find(|line| line.to_ascii_lowercase().starts_with(&start)).map(|line| &line[start.len()..])
}

/// What a server of 7, 8 or 13 answers.
fn switching(head: &str, more: &str) -> String {
    let key = [Field { name: "Sec-WebSocket-Key", value: line(head, "Sec-WebSocket-Key").unwrap().as_bytes() }];
    let accept = Key::read(&key).unwrap().accept();
    let accept = std::str::from_utf8(accept.as_bytes()).unwrap();
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n{more}\r\n"
    )
}

/// A head of version 0 and its third key, which come in one piece.
fn read_76(server: &mut TcpStream) -> (String, [u8; 8]) {
    let mut piece = [0; 4096];
    let length = server.read(&mut piece).unwrap();
    let (head, key3) = piece[..length].split_at(length - 8);
    let head = String::from_utf8(head.to_vec()).unwrap();
    assert!(head.ends_with("\r\n\r\n"), "{head}");
    (head, key3.try_into().unwrap())
}

fn switching_76(head: &str, key3: [u8; 8]) -> Vec<u8> {
    let fields = ["Sec-WebSocket-Key1", "Sec-WebSocket-Key2"]
        .map(|name| Field { name, value: line(head, name).unwrap().as_bytes() });
    let digest = Numbers::read(&fields).unwrap().digest(&key3);
    let mut answer = b"HTTP/1.1 101 WebSocket Protocol Handshake\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\n\
                       Sec-WebSocket-Origin: x\r\nSec-WebSocket-Location: ws://theirs/\r\n\r\n"
        .to_vec();
    answer.extend(digest);
    answer
}

/// A frame of RFC 6455 as a client sends it.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    [&[first, 0x80 | short(payload)][..], &ZERO_KEY, payload].concat()
}

fn bare(first: u8, payload: &[u8]) -> Vec<u8> {
    [&[first, short(payload)][..], payload].concat()
}

fn short(payload: &[u8]) -> u8 {
    u8::try_from(payload.len()).ok().filter(|length| *length < 126).unwrap()
}

/// The next frame that a server hears, without its mask.
fn hear_masked(server: &mut TcpStream) -> (u8, Vec<u8>) {
    let mut header = [0; 6];
    server.read_exact(&mut header).unwrap();
    assert!(header[1] & 0x80 != 0 && header[1] & 0x7F < 126, "{header:?}");
    let mut payload = vec![0; usize::from(header[1] & 0x7F)];
    server.read_exact(&mut payload).unwrap();
    payload.iter_mut().enumerate().for_each(|(at, byte)| *byte ^= header[2 + at % 4]);
    (header[0], payload)
}

fn ends(stream: &mut TcpStream) {
    assert_eq!(stream.read(&mut [0; 16]).unwrap(), 0);
}

#[test]
fn a_client_of_version_0_talks_to_a_server_of_13() {
    let bridge = Bridge::new("[13, 0]", "[13]");
    let mut client = bridge.gateway.connect();
    // The third key may come late, and the first text right behind it.
    client.write_all(HIXIE_76.as_bytes()).unwrap();
    client.write_all(&KEY3[..3]).unwrap();
    client.write_all(&[&KEY3[3..], b"\0early\xFF"].concat()).unwrap();
    let mut server = bridge.accept();
    let head = read_head(&mut server);
    for (name, expected) in [
        ("Upgrade", Some("websocket")),
        ("Connection", Some("Upgrade")),
        ("Host", Some("example.com")),
        ("Sec-WebSocket-Version", Some("13")),
        ("Sec-WebSocket-Protocol", Some("sample")),
        ("Origin", Some("http://example.com")),
        ("Sec-WebSocket-Key1", None),
        ("Content-Length", None),
    ] {
        assert_eq!(line(&head, name), expected, "{name} in {head}");
    }
    server.write_all(switching(&head, "Sec-WebSocket-Protocol: sample\r\nSet-Cookie: a=b\r\n").as_bytes()).unwrap();
    let expected = SWITCHING_76.replace("sample\r\n", "sample\r\nSet-Cookie: a=b\r\n");
    read_exactly(&mut client, expected.as_bytes());
    assert_eq!(hear_masked(&mut server), (0x81, b"early".to_vec()));
    server.write_all(&[bare(0x01, b"h\xC3"), bare(0x89, b"!"), bare(0x80, b"\xA9")].concat()).unwrap();
    assert_eq!(hear_masked(&mut server), (0x8A, b"!".to_vec()));
    read_exactly(&mut client, b"\0h\xC3\xA9\xFF");
    client.write_all(b"\xFF\0").unwrap();
    assert_eq!(hear_masked(&mut server), (0x88, vec![3, 0xE8]));
    server.write_all(&bare(0x88, &[3, 0xE8])).unwrap();
    drop(server);
    read_exactly(&mut client, b"\xFF\0");
    ends(&mut client);
    let opened = bridge.gateway.wait_for_access(|line| line["event"] == "opened");
    assert_eq!((&opened["version"], &opened["backend_version"]), (&json!("0"), &json!("13")));
    let closed = bridge.gateway.wait_for_access(|line| line["event"] == "closed");
    assert_eq!((&closed["reason"], &closed["client_code"]), (&json!("client-closed"), &json!(1000)));
    assert_eq!((&closed["messages_to_backend"], &closed["messages_to_client"]), (&json!(1), &json!(1)));
    let series = "wsgate_tunnels_total{backend_version=\"13\",route=\"r\",upstream=\"u\",version=\"0\"}";
    bridge.gateway.wait_for_metric(series, 1.0);
}

#[test]
fn a_third_key_may_be_called_a_body() {
    let bridge = Bridge::new("[0]", "[13]");
    let mut client = bridge.gateway.connect();
    let request = HIXIE_76.replace("Upgrade: WebSocket", "Content-Length: 8\r\nUpgrade: WebSocket");
    client.write_all(&[request.as_bytes(), KEY3, b"\0early\xFF"].concat()).unwrap();
    let mut server = bridge.accept();
    let head = read_head(&mut server);
    server.write_all(switching(&head, "Sec-WebSocket-Protocol: sample\r\n").as_bytes()).unwrap();
    read_exactly(&mut client, SWITCHING_76.as_bytes());
    assert_eq!(hear_masked(&mut server), (0x81, b"early".to_vec()));
    let other = request.replace("Content-Length: 8", "Content-Length: 9");
    assert_eq!(status(&bridge.gateway.ask(other)), 400);
}

#[test]
fn a_client_of_13_talks_to_a_server_of_version_0() {
    let bridge = Bridge::new("[13]", "[0]");
    let mut client = bridge.gateway.connect();
    let offer = "Sec-WebSocket-Protocol: one, two\r\nSec-WebSocket-Extensions: permessage-deflate\r\nCookie: a=b\r\n";
    client.write_all(upgrade(offer).as_bytes()).unwrap();
    let mut server = bridge.accept();
    let (head, key3) = read_76(&mut server);
    assert!(
        head.starts_with("GET /ws HTTP/1.1\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\nHost: a.example\r\n"),
        "{head}"
    );
    for (name, expected) in [
        ("Origin", Some("null")),
        ("Sec-WebSocket-Protocol", Some("one")),
        ("Cookie", Some("a=b")),
        ("Sec-WebSocket-Version", None),
        ("Sec-WebSocket-Key", None),
        ("Sec-WebSocket-Extensions", None),
        ("Content-Length", None),
    ] {
        assert_eq!(line(&head, name), expected, "{name} in {head}");
    }
    // The digest may come in a segment of its own, and a text with it.
    let answer = switching_76(&head, key3);
    let (answer, digest) = answer.split_at(answer.len() - 16);
    server.write_all(answer).unwrap();
    server.write_all(&[digest, b"\0first\xFF"].concat()).unwrap();
    let answer = read_head(&mut client);
    assert!(answer.contains("\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{answer}");
    assert!(!answer.contains("Location") && !answer.contains("Protocol:"), "{answer}");
    read_exactly(&mut client, b"\x81\x05first");
    client.write_all(&[masked(0x01, b"h\xC3"), masked(0x89, b"?"), masked(0x80, b"\xA9")].concat()).unwrap();
    read_exactly(&mut server, b"\0h\xC3\xA9\xFF");
    read_exactly(&mut client, b"\x8A\x01?");
    server.write_all(b"\x80\x02xx\0after\xFF").unwrap();
    read_exactly(&mut client, b"\x81\x05after");
    client.write_all(&masked(0x88, &[0x0F, 0xA0, b'o', b'k'])).unwrap();
    read_exactly(&mut server, b"\xFF\0");
    // At once, though the server has not answered.
    read_exactly(&mut client, b"\x88\x02\x0F\xA0");
    drop(server);
    ends(&mut client);
}

#[test]
fn a_wrong_digest_is_502() {
    let bridge = Bridge::new("[13]", "[0]");
    let mut client = bridge.gateway.connect();
    client.write_all(upgrade("").as_bytes()).unwrap();
    let mut server = bridge.accept();
    let (head, _) = read_76(&mut server);
    server.write_all(&switching_76(&head, *b"12345678")).unwrap();
    assert_eq!(status(&read_answer(&mut client)), 502);
    let refused = bridge.gateway.wait_for_access(|line| line["event"] == "refused");
    assert_eq!((&refused["reason"], &refused["detail"]), (&json!("backend-handshake-wrong"), &json!("digest")));
}

#[test]
fn what_a_server_refuses_an_old_client_reads() {
    let refuses = Backend::answering("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno");
    let gateway = Gateway::start(&routed(refuses.address(), "[0, 'hixie-75']", "[13]", ""));
    for request in [[HIXIE_76.as_bytes(), KEY3].concat(), HIXIE_75.as_bytes().to_vec()] {
        let answer = gateway.ask(request);
        assert!(answer.starts_with("HTTP/1.1 403 Forbidden\r\n") && answer.ends_with("no"), "{answer}");
    }
}

#[test]
fn a_binary_message_to_version_0_is_1003_or_base64() {
    let bridge = Bridge::new("[13]", "[0]");
    let (mut client, mut server) = bridge.open_to_76();
    client.write_all(&masked(0x82, b"\0\xFF\x80")).unwrap();
    read_exactly(&mut server, b"\xFF\0");
    read_exactly(&mut client, b"\x88\x0F\x03\xEBclient-binary");
    let bridge = Bridge::with("", "[13]", "[0]", "bridge.binary = 'base64'");
    let (mut client, mut server) = bridge.open_to_76();
    client.write_all(&masked(0x82, b"\0\xFF\x80")).unwrap();
    read_exactly(&mut server, b"\0AP+A\xFF");
    server.write_all(b"\0AP+A\xFF").unwrap();
    read_exactly(&mut client, b"\x82\x03\0\xFF\x80");
}

#[test]
fn a_text_that_would_end_early_ends_the_tunnel() {
    let bridge = Bridge::new("[13]", "[0]");
    let (mut client, mut server) = bridge.open_to_76();
    client.write_all(&masked(0x81, b"a\xFF\0injected\xFF")).unwrap();
    read_exactly(&mut server, b"\xFF\0");
    read_exactly(&mut client, b"\x88\x15\x03\xEFclient-text-invalid");
    let closed = bridge.gateway.wait_for_access(|line| line["event"] == "closed");
    assert_eq!(closed["reason"], "client-text-invalid");
}

#[test]
fn hixie_75_on_either_side_closes_with_fin() {
    let bridge = Bridge::new("[13, 'hixie-75']", "['hixie-75']");
    let mut client = bridge.gateway.connect();
    client.write_all(upgrade("").as_bytes()).unwrap();
    let mut server = bridge.accept();
    let head = read_head(&mut server);
    assert!(!head.contains("Sec-WebSocket"), "{head}");
    server.write_all(SWITCHING_75.as_bytes()).unwrap();
    assert_eq!(status(&read_head(&mut client)), 101);
    client.write_all(&masked(0x81, b"hi")).unwrap();
    read_exactly(&mut server, b"\0hi\xFF");
    client.write_all(&masked(0x88, &[3, 0xE8])).unwrap();
    read_exactly(&mut client, b"\x88\x02\x03\xE8");
    ends(&mut server);

    let bridge = Bridge::new("['hixie-75']", "[8]");
    let mut client = bridge.gateway.connect();
    client.write_all(HIXIE_75.as_bytes()).unwrap();
    let mut server = bridge.accept();
    let head = read_head(&mut server);
    assert_eq!(line(&head, "Sec-WebSocket-Version"), Some("8"));
    assert_eq!(line(&head, "Sec-WebSocket-Origin"), Some("http://example.com"));
    assert_eq!(line(&head, "Sec-WebSocket-Protocol"), Some("sample"));
    server.write_all(switching(&head, "Sec-WebSocket-Protocol: sample\r\n").as_bytes()).unwrap();
    read_exactly(&mut client, SWITCHING_75.as_bytes());
    client.write_all(b"\0hi\xFF").unwrap();
    assert_eq!(hear_masked(&mut server), (0x81, b"hi".to_vec()));
    finish(&client);
    assert_eq!(hear_masked(&mut server), (0x88, vec![3, 0xE8]));
}

#[test]
fn versions_7_and_8_keep_their_frames_and_lose_their_oddities() {
    let bridge = Bridge::new("[7]", "[13]");
    let mut client = bridge.gateway.connect();
    let old = upgrade("Sec-WebSocket-Origin: http://a\r\nSec-WebSocket-Extensions: deflate-stream\r\n")
        .replace("Version: 13", "Version: 7")
        .replace("dGhlIHNhbXBsZSBub25jZQ==", "AAAAAAAAAAAAAAAAAAAA");
    client.write_all(old.as_bytes()).unwrap();
    let mut server = bridge.accept();
    let head = read_head(&mut server);
    assert_eq!(line(&head, "Sec-WebSocket-Version"), Some("13"));
    assert_eq!(line(&head, "Origin"), Some("http://a"));
    assert_eq!(line(&head, "Sec-WebSocket-Extensions"), None);
    assert_eq!(line(&head, "Sec-WebSocket-Key").unwrap().len(), 24);
    server.write_all(switching(&head, "Sec-WebSocket-Version: 13\r\n").as_bytes()).unwrap();
    let answer = read_head(&mut client);
    assert_eq!(line(&answer, "Sec-WebSocket-Accept"), Some("/3M+5HFywElctYU7s1JYO+XV104="));
    assert_eq!(line(&answer, "Sec-WebSocket-Version"), None);
    // A length that takes more bytes than it needs.
    client.write_all(&[&b"\x81\xFE\0\x02"[..], &ZERO_KEY, b"hi"].concat()).unwrap();
    assert_eq!(hear_masked(&mut server), (0x81, b"hi".to_vec()));
    client.write_all(&masked(0x88, &[3, 0xEC])).unwrap();
    assert_eq!(hear_masked(&mut server), (0x88, vec![3, 0xF1]));
}

#[test]
fn the_location_is_where_the_client_believes_to_be() {
    let bridge = Bridge::with("trusted_proxies = ['127.0.0.0/8']", "[0]", "[13]", "");
    let mut client = bridge.gateway.connect();
    let proxied = "X-Forwarded-Proto: https\r\nX-Forwarded-Host: outside.example\r\nUpgrade: WebSocket";
    client.write_all(HIXIE_76.replace("Upgrade: WebSocket", proxied).as_bytes()).unwrap();
    client.write_all(KEY3).unwrap();
    let mut server = bridge.accept();
    let head = read_head(&mut server);
    server.write_all(switching(&head, "").as_bytes()).unwrap();
    let answer = read_head(&mut client);
    assert_eq!(line(&answer, "Sec-WebSocket-Location"), Some("wss://outside.example/demo"));
}

#[test]
fn a_drain_says_close_in_each_version() {
    let bridge = Bridge::new("[0]", "[13]");
    let (mut client, mut server) = bridge.open_from_76();
    let mut gateway = bridge.gateway;
    gateway.signal(rustix::process::Signal::TERM);
    read_exactly(&mut client, b"\xFF\0");
    assert_eq!(hear_masked(&mut server), (0x88, b"\x03\xE9drained".to_vec()));
    client.write_all(b"\xFF\0").unwrap();
    server.write_all(&bare(0x88, &[3, 0xE9])).unwrap();
    drop(server);
    ends(&mut client);
    assert_eq!(gateway.wait(), 0);
}

#[test]
fn hostile_frames_of_version_0_end_their_tunnel_and_are_counted() {
    let limits = "bridge.max_message = '64KiB'\ntunnel.close_timeout = '50ms'";
    let bridge = Bridge::with("", "[0]", "[13]", limits);
    let endless_text = [&b"\0"[..], &[b'a'; 1 << 20]].concat();
    let endless_unknown = [&b"\x01"[..], &[b'a'; 1 << 20]].concat();
    let cases: [(&[u8], &str, u16); 5] = [
        (&[0x80; 64], "client-frame-broken", 1002),
        (&[0xFF; 64], "client-frame-broken", 1002),
        (b"\x80\xBF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x7F", "client-frame-broken", 1002),
        (&endless_unknown, "client-frame-broken", 1002),
        (&endless_text, "client-message-too-big", 1001),
    ];
    let mut memory = Vec::new();
    for _ in 0..8 {
        for (bytes, reason, code) in cases {
            let (mut client, mut server) = bridge.open_from_76();
            // It may be cut off before all of it is sent.
            let _ = client.write_all(bytes);
            assert_eq!(hear_close_beyond_texts(&mut server), code, "{reason}");
        }
        bridge.gateway.wait_for_metric("wsgate_tunnels{route=\"r\",upstream=\"u\",version=\"0\"}", 0.0);
        memory.push(bridge.gateway.resident_kib());
    }
    assert!(memory[7] < memory[1] + 2048, "{memory:?}");
    for (reason, count) in [("client-frame-broken", 32), ("client-message-too-big", 8)] {
        let closed =
            bridge.gateway.wait_for_accesses(count, |line| line["event"] == "closed" && line["reason"] == reason);
        assert!(closed.iter().all(|line| line["by"] == "client"));
    }
}

/// The code of the Close that a server hears at last.
fn hear_close_beyond_texts(server: &mut TcpStream) -> u16 {
    loop {
        let mut first = [0; 4];
        server.read_exact(&mut first[..2]).unwrap();
        let length = match first[1] & 0x7F {
            126 => {
                server.read_exact(&mut first[2..]).unwrap();
                usize::from(u16::from_be_bytes([first[2], first[3]]))
            }
            127 => {
                let mut length = [0; 8];
                server.read_exact(&mut length).unwrap();
                usize::try_from(u64::from_be_bytes(length)).unwrap()
            }
            short => usize::from(short),
        };
        let mut rest = vec![0; 4 + length];
        server.read_exact(&mut rest).unwrap();
        if first[0] == 0x88 {
            return u16::from_be_bytes([rest[4] ^ rest[0], rest[5] ^ rest[1]]);
        }
    }
}

#[test]
fn a_server_is_asked_for_its_versions_once() {
    let bridge = Bridge::new("[13]", "'auto'");
    let server = bridge.server.local_addr().unwrap();
    let first = std::thread::scope(|scope| {
        let client = scope.spawn(|| {
            let mut client = bridge.gateway.connect();
            client.write_all(upgrade("").as_bytes()).unwrap();
            let head = read_head(&mut client);
            (client, head)
        });
        let mut asked = bridge.accept();
        assert_eq!(line(&read_head(&mut asked), "Sec-WebSocket-Version"), Some("13"));
        let list = "HTTP/1.1 400 Bad Request\r\nSec-WebSocket-Version: 0, 7\r\nSec-WebSocket-Version: 99, 8\r\nContent-Length: 0\r\n\r\n";
        asked.write_all(list.as_bytes()).unwrap();
        let mut again = bridge.accept();
        let head = read_head(&mut again);
        assert_eq!(line(&head, "Sec-WebSocket-Version"), Some("8"));
        again.write_all(switching(&head, "").as_bytes()).unwrap();
        (client.join().unwrap(), again)
    });
    assert_eq!(status(&first.0.1), 101);
    let learned =
        |version| format!("wsgate_backend_versions{{server=\"{server}\",upstream=\"u\",version=\"{version}\"}}");
    bridge.gateway.wait_for_metric(&learned("8"), 1.0);
    bridge.gateway.wait_for_metric(&learned("7"), 1.0);
    assert_eq!(bridge.gateway.status()["upstreams"][0]["servers"][0]["versions"], json!([8, 7, 0]));
    // The next client asks for nothing that was refused.
    let mut client = bridge.gateway.connect();
    client.write_all(upgrade("").as_bytes()).unwrap();
    let mut asked = bridge.accept();
    let head = read_head(&mut asked);
    assert_eq!(line(&head, "Sec-WebSocket-Version"), Some("8"));
    asked.write_all(switching(&head, "").as_bytes()).unwrap();
    assert_eq!(status(&read_head(&mut client)), 101);
    // A dial that fails takes back what was learned.
    let mut client = bridge.gateway.connect();
    client.write_all(upgrade("").as_bytes()).unwrap();
    drop(bridge.accept());
    assert_eq!(status(&read_answer(&mut client)), 502);
    assert_eq!(bridge.gateway.status()["upstreams"][0]["servers"][0]["versions"], json!(null));
}

#[test]
fn a_server_that_takes_13_was_heard_to_speak_it() {
    let echo = Backend::echo();
    let gateway = Gateway::start(&routed(echo.address(), "[13]", "'auto'", ""));
    assert_eq!(gateway.status()["upstreams"][0]["versions"], "auto");
    let _tunnel = gateway.open();
    assert_eq!(gateway.status()["upstreams"][0]["servers"][0]["versions"], json!([13]));
}

#[test]
fn a_server_that_was_replaced_is_asked_as_if_nothing_were_known() {
    let bridge = Bridge::new("[13]", "'auto'");
    let listing = "HTTP/1.1 426 Upgrade Required\r\nSec-WebSocket-Version: 8\r\nContent-Length: 0\r\n\r\n";
    let bare = "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n";
    // What each dial is asked for and answers, and what the client then hears.
    for (dials, expected) in
        [(&[("13", listing), ("8", "")][..], 101), (&[("8", bare), ("13", "")], 101), (&[("13", bare)], 400)]
    {
        let mut client = bridge.gateway.connect();
        client.write_all(upgrade("").as_bytes()).unwrap();
        for (version, answer) in dials {
            let mut server = bridge.accept();
            let head = read_head(&mut server);
            assert_eq!(line(&head, "Sec-WebSocket-Version"), Some(*version));
            let answer = if answer.is_empty() { switching(&head, "") } else { (*answer).to_owned() };
            server.write_all(answer.as_bytes()).unwrap();
        }
        assert_eq!(status(&read_answer(&mut client)), expected, "{dials:?}");
    }
}

#[test]
fn a_wrong_101_teaches_nothing() {
    let wrong = Backend::answering("HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n");
    let gateway = Gateway::start(&routed(wrong.address(), "[13]", "'auto'", ""));
    assert_eq!(status(&gateway.ask(upgrade(""))), 502);
    assert_eq!(gateway.status()["upstreams"][0]["servers"][0]["versions"], json!(null));
}

#[test]
fn keys_without_numbers_are_refused_before_any_server_is_asked() {
    let echo = Backend::echo();
    let relaxed = "handshake.relax = ['key-malformed', 'key-missing']";
    let gateway = Gateway::start(&routed(echo.address(), "[0]", "[13]", relaxed));
    for bad in [HIXIE_76.replace("4 @1  46546xW%0l 1 5", "1 2 3"), HIXIE_76.replace("Sec-WebSocket-Key1", "X-Key1")] {
        let answer = gateway.ask([bad.as_bytes(), KEY3].concat());
        assert_eq!(status(&answer), 400, "{answer}");
    }
    assert_eq!(echo.connections(), 0);
}

#[test]
fn bytes_behind_what_was_no_text_do_no_harm() {
    let bridge = Bridge::with("", "[0]", "[13]", "tunnel.close_timeout = '100ms'");
    let (mut client, mut server) = bridge.open_from_76();
    client.write_all(b"\0\xF0\x9F\x98").unwrap();
    assert_eq!(hear_masked(&mut server), (0x01, b"\xF0\x9F\x98".to_vec()));
    client.write_all(b"a").unwrap();
    assert_eq!(hear_masked(&mut server), (0x88, b"\x03\xE9client-text-invalid".to_vec()));
    client.write_all(b"b\xFF\0more\xFF").unwrap();
    read_exactly(&mut client, b"\xFF\0");
    let closed = bridge.gateway.wait_for_access(|line| line["event"] == "closed");
    assert_eq!(closed["reason"], "client-text-invalid");
}

#[test]
fn messages_that_are_not_collected_are_held_to_the_limit_of_tunnels_alone() {
    let bridge = Bridge::with("", "[8]", "[13]", "bridge.max_message = '125B'");
    let mut client = bridge.gateway.connect();
    client.write_all(upgrade("").replace("Version: 13", "Version: 8").as_bytes()).unwrap();
    let mut server = bridge.accept();
    let head = read_head(&mut server);
    server.write_all(switching(&head, "").as_bytes()).unwrap();
    assert_eq!(status(&read_head(&mut client)), 101);
    client.write_all(&[masked(0x02, &[7; 100]), masked(0x80, &[7; 100])].concat()).unwrap();
    assert_eq!(hear_masked(&mut server), (0x02, vec![7; 100]));
    assert_eq!(hear_masked(&mut server), (0x80, vec![7; 100]));
}

#[test]
fn a_server_that_lists_nothing_is_not_asked_twice() {
    let refuses = Backend::answering("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
    let gateway = Gateway::start(&routed(refuses.address(), "[13]", "'auto'", ""));
    assert_eq!(status(&gateway.ask(upgrade(""))), 400);
    assert_eq!(refuses.connections(), 1);
}

#[test]
fn a_servers_list_never_reaches_the_client() {
    let refuses = Backend::answering(
        "HTTP/1.1 426 Upgrade Required\r\nSec-WebSocket-Version: 6, 99\r\nContent-Length: 0\r\n\r\n",
    );
    let gateway = Gateway::start(&routed(refuses.address(), "[8, 0, 'hixie-75']", "[13]", ""));
    let answer = gateway.ask(upgrade("").replace("Version: 13", "Version: 8"));
    assert_eq!(status(&answer), 426);
    assert_eq!(line(&answer, "Sec-WebSocket-Version"), Some("8, 0"));
}

#[test]
fn obsolete_versions_are_refused_in_observe_mode_too() {
    let echo = Backend::echo();
    let observe = "versions.mode = 'observe'";
    let gateway = Gateway::start(&format!(
        "[[upstream]]\nname = 'u'\nservers = ['{}']\n[[route]]\nname = 'r'\nupstream = 'u'\n{observe}",
        echo.address()
    ));
    for version in (1..=6).chain(9..=12) {
        let answer = gateway.ask(upgrade("").replace("Version: 13", &format!("Version: {version}")));
        assert_eq!((status(&answer), line(&answer, "Sec-WebSocket-Version")), (426, Some("13")), "{version}");
    }
    let draft = upgrade("Sec-WebSocket-Draft: 2\r\n").replace("Sec-WebSocket-Version: 13\r\n", "");
    let draft = draft.replace("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Key1: 1 2");
    assert_eq!(status(&gateway.ask(draft)), 426);
    assert_eq!(echo.connections(), 0);
    gateway.wait_for_metric("wsgate_refusals_total{reason=\"version-obsolete\",route=\"r\"}", 11.0);
    let mut client = connect(gateway.address());
    client.write_all(upgrade("").replace("Version: 13", "Version: 99").as_bytes()).unwrap();
    assert_eq!(status(&read_head(&mut client)), 101);
}

#[test]
fn the_gateways_own_ends_are_said_in_each_version() {
    for (rule, reason) in [("idle_timeout = '100ms'", "idle-timeout"), ("max_age = '100ms'", "max-age")] {
        let bridge = Bridge::with("", "[0]", "[13]", &format!("tunnel.{rule}"));
        let (mut client, mut server) = bridge.open_from_76();
        read_exactly(&mut client, b"\xFF\0");
        assert_eq!(hear_masked(&mut server), (0x88, [b"\x03\xE9", reason.as_bytes()].concat()));
        client.write_all(b"\xFF\0").unwrap();
        server.write_all(&bare(0x88, &[3, 0xE9])).unwrap();
        drop(server);
        ends(&mut client);
        let closed = bridge.gateway.wait_for_access(|line| line["event"] == "closed");
        assert_eq!((&closed["reason"], &closed["client_code"]), (&json!(reason), &json!(1000)));
    }
}

#[test]
fn an_old_server_that_never_answers_a_close_is_waited_for_no_longer_than_allowed() {
    let bridge = Bridge::with("", "[13]", "[0]", "tunnel.close_timeout = '200ms'");
    let (mut client, mut server) = bridge.open_to_76();
    client.write_all(&masked(0x88, &[3, 0xE8])).unwrap();
    read_exactly(&mut client, b"\x88\x02\x03\xE8");
    read_exactly(&mut server, b"\xFF\0");
    ends(&mut client);
    ends(&mut server);
    let closed = bridge.gateway.wait_for_access(|line| line["event"] == "closed");
    assert_eq!(closed["reason"], "client-closed");
}

#[test]
fn a_side_that_vanishes_is_told_of_in_each_version() {
    let bridge = Bridge::new("[0]", "[13]");
    let (mut client, server) = bridge.open_from_76();
    socket2::SockRef::from(&server).set_linger(Some(Duration::ZERO)).unwrap();
    drop(server);
    read_exactly(&mut client, b"\xFF\0");
    let (client, mut server) = bridge.open_from_76();
    socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    assert_eq!(hear_masked(&mut server), (0x88, b"\x03\xE9client-lost".to_vec()));
    // In the middle of a text, its end is a loss too.
    let (mut client, mut server) = bridge.open_from_76();
    client.write_all(b"\0half").unwrap();
    assert_eq!(hear_masked(&mut server), (0x01, b"half".to_vec()));
    finish(&client);
    assert_eq!(hear_masked(&mut server), (0x88, b"\x03\xE9client-lost".to_vec()));
}

#[test]
fn a_side_without_pings_is_kept_alive_by_tcp() {
    let bridge = Bridge::with("", "[0]", "[13]", "tunnel.ping_interval = '1m'");
    let (client, server) = bridge.open_from_76();
    let timer = |near: &TcpStream| {
        // What the gateway holds of it: the far end of this one.
        let (far, near) = (near.peer_addr().unwrap().port(), near.local_addr().unwrap().port());
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let ends_with = |field: &str, port: u16| field.ends_with(&format!(":{port:04X}"));
        let mut rows = table.lines().skip(1).map(|row| row.split_whitespace().collect::<Vec<_>>());
        let row = rows.find(|row| ends_with(row[1], far) && ends_with(row[2], near)).unwrap();
        row[5][..2].to_owned()
    };
    // 02 is the keep-alive timer, 00 none (Linux, proc_net_tcp).
    let until = Instant::now() + PATIENCE;
    while (timer(&client), timer(&server)) != ("02".to_owned(), "00".to_owned()) {
        // 01 is that of bytes whose arrival was not confirmed yet.
        assert!(Instant::now() < until, "{} {}", timer(&client), timer(&server));
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_reload_asks_servers_anew() {
    let echo = Backend::echo();
    let gateway = Gateway::start(&routed(echo.address(), "[13]", "'auto'", ""));
    let _tunnel = gateway.open();
    let learned = || gateway.status()["upstreams"][0]["servers"][0]["versions"].clone();
    assert_eq!(learned(), json!([13]));
    gateway.signal(rustix::process::Signal::HUP);
    gateway.wait_for_message("configuration reloaded");
    assert_eq!(learned(), json!(null));
}

#[test]
fn a_client_may_offer_what_the_route_welcomes_and_an_old_server_gets_one() {
    let bridge = Bridge::with("", "[13]", "[0]", "handshake.subprotocols = ['two', 'three']");
    let mut client = bridge.gateway.connect();
    client.write_all(upgrade("Sec-WebSocket-Protocol: one, two, three\r\n").as_bytes()).unwrap();
    let mut server = bridge.accept();
    let (head, key3) = read_76(&mut server);
    assert_eq!(line(&head, "Sec-WebSocket-Protocol"), Some("two"));
    let mut answer = switching_76(&head, key3);
    let at = answer.windows(4).position(|end| end == b"\r\n\r\n").unwrap();
    answer.splice(at..at, *b"\r\nSec-WebSocket-Protocol: two");
    server.write_all(&answer).unwrap();
    assert_eq!(line(&read_head(&mut client), "Sec-WebSocket-Protocol"), Some("two"));
}
