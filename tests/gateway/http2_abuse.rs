//! Clients of HTTP/2 that mean harm, frame by frame, by hand: each costs itself its connection, and neither memory nor the tunnels
//! of others.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::backend::{Backend, route_to};
use crate::harness::{Gateway, PATIENCE, connect, read_to_end};
use crate::http2_client::{A_MOMENT, Client, echo, patient};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

const PROTOCOL_ERROR: u32 = 1;
const ENHANCE_YOUR_CALM: u32 = 11;

/// A client that can say anything.
struct Raw(TcpStream);

impl Raw {
    /// With the preface and SETTINGS of its own, those of the gateway acknowledged.
    fn connect(address: SocketAddr, settings: &[u8]) -> Raw {
        let mut raw = Raw(connect(address));
        let first = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &frame(SETTINGS, 0, 0, settings)[..]].concat();
        raw.0.write_all(&first).unwrap();
        raw.send(&frame(SETTINGS, 1, 0, b""));
        raw
    }

    fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).unwrap();
    }

    /// Until the gateway has enough of it.
    fn flood(mut self, bytes: &[u8], times: usize) -> Option<u32> {
        let mut writing = self.0.try_clone().unwrap();
        let bytes = bytes.to_vec();
        let flood = std::thread::spawn(move || (0..times).any(|_| writing.write_all(&bytes).is_err()));
        let goaway = self.goaway();
        // Cut off in the middle, as a rule.
        let _ = self.0.shutdown(std::net::Shutdown::Both);
        flood.join().unwrap();
        goaway
    }

    /// A frame: its kind, flags, stream and payload; `None` at the end.
    fn read(&mut self) -> Option<(u8, u8, u32, Vec<u8>)> {
        let mut head = [0; 9];
        let read = self.0.read_exact(&mut head);
        if let Err(error) = read {
            let is_end = matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset);
            assert!(is_end, "the connection is still open after {PATIENCE:?}: {error}");
            return None;
        }
        let mut payload = vec![0; usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2])];
        self.0.read_exact(&mut payload).ok()?;
        Some((head[3], head[4], u32::from_be_bytes([head[5], head[6], head[7], head[8]]), payload))
    }

    /// Reads to the end; the code of the last GOAWAY, which a reset may have overtaken.
    fn goaway(&mut self) -> Option<u32> {
        let mut code = None;
        while let Some((kind, _, _, payload)) = self.read() {
            if kind == GOAWAY {
                code = Some(u32::from_be_bytes(payload[4..8].try_into().unwrap()));
            }
        }
        code
    }

    /// Until this kind of frame comes on this stream.
    fn until(&mut self, kind: u8, stream: u32) -> Vec<u8> {
        loop {
            let (found, _, on, payload) = self.read().expect("the connection ended");
            if (found, on) == (kind, stream) {
                return payload;
            }
        }
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    bytes.extend_from_slice(&[kind, flags]);
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// Fields by name, none of which is remembered (RFC 7541 §6.2.2).
fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.push(0);
        for text in [name, value] {
            bytes.push(u8::try_from(text.len()).ok().filter(|length| *length < 127).expect("a short text"));
            bytes.extend_from_slice(text.as_bytes());
        }
    }
    bytes
}

fn extended_connect() -> Vec<u8> {
    block(&[
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "http"),
        (":authority", "a.example"),
        (":path", "/ws"),
        ("sec-websocket-version", "13"),
    ])
}

fn get(more: &[(&str, &str)]) -> Vec<u8> {
    let mut fields = vec![(":method", "GET"), (":scheme", "http"), (":authority", "a.example"), (":path", "/")];
    fields.extend_from_slice(more);
    block(&fields)
}

fn gateway(backend: &Backend, listener: &str, route: &str) -> Gateway {
    Gateway::start_with("", &format!("http2 = true\n{listener}"), &route_to(&[backend.address()], "", route))
}

/// Somebody else is served meanwhile, and memory is as it was.
async fn check(codes: &[u32], abuse: impl Fn(SocketAddr) -> Option<u32> + Send + Sync + Copy + 'static) {
    let backend = echo("");
    let gateway = gateway(&backend, "", "");
    let address = gateway.address();
    let client = Client::connect(address).await;
    let mut tunnel = client.open(&[]).await;
    let mut memory = Vec::new();
    for _ in 0..6 {
        let abuse = tokio::task::spawn_blocking(move || abuse(address));
        tunnel.echoes(b"meanwhile").await;
        // The answer may be lost where the client wrote on into a closed socket.
        if let Some(code) = abuse.await.unwrap() {
            assert!(codes.contains(&code), "ended with code {code}");
        }
        tunnel.echoes(b"afterwards").await;
        gateway.wait_for_metric("wsgate_http2_connections{listener=\"public\"}", 1.0);
        memory.push(gateway.resident_kib());
    }
    assert!(memory[5] < memory[1] + 2048, "{memory:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_pings_ends_the_connection() {
    check(&[ENHANCE_YOUR_CALM], |address| {
        Raw::connect(address, b"").flood(&frame(PING, 0, 0, b"12345678").repeat(100), 10_000)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_settings_ends_the_connection() {
    check(&[ENHANCE_YOUR_CALM], |address| {
        Raw::connect(address, b"").flood(&frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0xFF, 0xFF]).repeat(100), 10_000)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_priorities_ends_the_connection() {
    check(&[ENHANCE_YOUR_CALM], |address| {
        Raw::connect(address, b"").flood(&frame(PRIORITY, 0, 9, &[0, 0, 0, 0, 1]).repeat(100), 10_000)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_empty_data_ends_the_connection() {
    check(&[ENHANCE_YOUR_CALM], |address| {
        let mut raw = Raw::connect(address, b"");
        raw.send(&frame(HEADERS, END_HEADERS, 1, &extended_connect()));
        raw.flood(&frame(DATA, 0, 1, b"").repeat(100), 10_000)
    })
    .await;
}

/// CVE-2023-44487.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rapid_resets_end_the_connection() {
    check(&[ENHANCE_YOUR_CALM], |address| {
        let mut raw = Raw::connect(address, b"");
        let pair = |stream| {
            let head = frame(HEADERS, END_HEADERS, stream, &extended_connect());
            [head, frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])].concat()
        };
        let mut writing = raw.0.try_clone().unwrap();
        let flood = std::thread::spawn(move || {
            let _ = (0..100_000).try_for_each(|number| writing.write_all(&pair(number * 2 + 1)));
        });
        let code = raw.goaway();
        let _ = raw.0.shutdown(std::net::Shutdown::Both);
        flood.join().unwrap();
        code
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_continuations_ends_the_connection() {
    check(&[ENHANCE_YOUR_CALM, PROTOCOL_ERROR], |address| {
        let mut raw = Raw::connect(address, b"");
        raw.send(&frame(HEADERS, 0, 1, &get(&[])));
        raw.flood(&frame(CONTINUATION, 0, 1, &block(&[("x", "y")])).repeat(100), 10_000)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn empty_continuations_end_the_connection() {
    check(&[ENHANCE_YOUR_CALM, PROTOCOL_ERROR], |address| {
        let mut raw = Raw::connect(address, b"");
        raw.send(&frame(HEADERS, 0, 1, &get(&[])));
        raw.flood(&frame(CONTINUATION, 0, 1, b"").repeat(100), 10_000)
    })
    .await;
}

/// A few bytes that unfold to very many: one large field that is remembered, and named over and over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bomb_of_fields_is_refused() {
    check(&[ENHANCE_YOUR_CALM, PROTOCOL_ERROR], |address| {
        let mut raw = Raw::connect(address, b"");
        let mut bomb = get(&[]);
        // RFC 7541 §6.2.1, with a value of 3,000 bytes, then the same by its index (§6.1).
        bomb.extend_from_slice(&[0x40, 1, b'x', 0x7F, 0xB9, 0x16]);
        bomb.extend_from_slice(&[b'y'; 3000]);
        bomb.extend_from_slice(&[0xBE; 10_000]);
        raw.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &bomb));
        loop {
            match raw.read() {
                Some((HEADERS, _, 1, _) | (RST_STREAM, _, 1, _)) => return None,
                Some((GOAWAY, _, _, payload)) => return Some(u32::from_be_bytes(payload[4..8].try_into().unwrap())),
                Some(_) => {}
                None => return None,
            }
        }
    })
    .await;
}

/// A few bytes in a frame each, for servers that read none of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_frames_that_nobody_reads_fill_no_memory() {
    let backend = Backend::start(|mut served| {
        socket2::SockRef::from(&served.stream).set_recv_buffer_size(4096).unwrap();
        crate::http2_client::switch(&mut served, "");
        // Until the test is over.
        std::thread::park_timeout(PATIENCE * 2);
    });
    let gateway = gateway(&backend, "", "");
    let mut memory = Vec::new();
    for _ in 0..4 {
        let mut raw = Raw::connect(gateway.address(), b"");
        for stream in 0..10 {
            raw.send(&frame(HEADERS, END_HEADERS, stream * 2 + 1, &extended_connect()));
        }
        let mut writing = raw.0.try_clone().unwrap();
        let flood = std::thread::spawn(move || {
            // A message begins on each, and never ends.
            let begun = |stream: u32| frame(DATA, 0, stream * 2 + 1, b"\x82\xFF\0\0\0\0\x7F\0\0\0\0\0\0\0");
            let small = |stream: u32| frame(DATA, 0, stream * 2 + 1, b"12345678").repeat(20);
            let begin: Vec<u8> = (0..10).flat_map(begun).collect();
            let go_on: Vec<u8> = (0..10).flat_map(small).collect();
            let mut left = 200_000;
            let mut sent = writing.write_all(&begin);
            while sent.is_ok() && left > 0 {
                sent = writing.write_all(&go_on);
                left -= 1;
            }
            left
        });
        let code = raw.goaway();
        let _ = raw.0.shutdown(std::net::Shutdown::Both);
        assert!(flood.join().unwrap() > 0, "all of it was taken");
        // Too many frames that nobody has read, or more than the window of a stream.
        assert!(matches!(code, None | Some(ENHANCE_YOUR_CALM | 3 | 5)), "{code:?}");
        gateway.wait_for_metric("wsgate_http2_connections{listener=\"public\"}", 0.0);
        memory.push(gateway.resident_kib());
    }
    // What h2 lets wait, at some hundred bytes a frame.
    assert!(memory.iter().all(|after| *after < memory[0] + 24 * 1024), "{memory:?}");
}

/// Handshakes that are taken back while their server is awaited are bounded by `http2_streams` like all streams, and the connection counts
/// until the last of them is over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handshakes_that_are_taken_back_still_count() {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (of_backend, most_of_backend) = (Arc::clone(&now), Arc::clone(&most));
    let backend = Backend::start(move |mut served| {
        most_of_backend.fetch_max(of_backend.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        served.until_end();
        of_backend.fetch_sub(1, Ordering::SeqCst);
    });
    let gateway = gateway(&backend, "http2_streams = 10\nmax_connections = 2", "");
    let client = Client::connect(gateway.address()).await;
    let other = Client::connect(gateway.address()).await;
    for _ in 0..6 {
        let mut taken_back = Vec::new();
        for _ in 0..10 {
            taken_back.push(client.send(crate::http2_client::connect("websocket", &[]), false).await);
        }
        tokio::time::sleep(A_MOMENT).await;
        drop(taken_back);
        let elsewhere = http::Request::builder().method("CONNECT").uri("a.example:443");
        let answer = other.ask(elsewhere, None).await;
        assert_eq!(answer.status, 501, "{answer:?}");
    }
    assert_eq!(most.load(Ordering::SeqCst), 10);
    // One that waits in vain is told that nothing was done for it.
    let (response, _send) = client.send(crate::http2_client::connect("websocket", &[]), false).await;
    let refused = patient(response).await.unwrap_err();
    assert_eq!(refused.reason(), Some(h2::Reason::REFUSED_STREAM), "{refused:?}");
    drop(other);
    gateway.wait_for_metric("wsgate_http2_connections{listener=\"public\"}", 1.0);
    client.connection.abort();
    gateway.wait_for_metric("wsgate_http2_connections{listener=\"public\"}", 0.0);
    assert_eq!(now.load(Ordering::SeqCst), 10, "the handshakes go on");
    gateway.wait_for_metric("wsgate_connections{listener=\"public\"}", 1.0);
}

#[test]
fn a_client_that_takes_nothing_is_let_go_like_any_other() {
    let backend = echo("");
    let tunnel = "[route.tunnel]\nping_interval = '200ms'\nping_timeout = '300ms'\nclose_timeout = '200ms'";
    let gateway = gateway(&backend, "keepalive_timeout = '500ms'", tunnel);
    // INITIAL_WINDOW_SIZE is 0, for ever.
    let mut raw = Raw::connect(gateway.address(), &[0, 4, 0, 0, 0, 0]);
    raw.send(&frame(HEADERS, END_HEADERS, 1, &extended_connect()));
    let ended = raw.until(RST_STREAM, 1);
    assert_eq!(ended, [0, 0, 0, 8], "CANCEL");
    let closed = gateway.wait_for_access(|line| line["event"] == "closed");
    assert_eq!(closed["reason"], "client-unresponsive", "{closed}");
    raw.goaway();
    gateway.wait_for_metric("wsgate_connections{listener=\"public\"}", 0.0);
}

#[test]
fn a_head_that_never_ends_is_not_waited_for() {
    let gateway = gateway(&echo(""), "keepalive_timeout = '300ms'", "");
    let mut raw = Raw::connect(gateway.address(), b"");
    raw.send(&frame(HEADERS, 0, 1, &get(&[])));
    read_to_end(&mut raw.0);
    gateway.wait_for_metric("wsgate_connections{listener=\"public\"}", 0.0);
}

#[test]
fn fields_of_another_protocol_reset_their_stream_alone() {
    let gateway = gateway(&echo(""), "", "");
    let mut raw = Raw::connect(gateway.address(), b"");
    let mut stream = 1;
    let forbidden = ["connection", "upgrade", "transfer-encoding", "keep-alive", "proxy-connection"];
    for name in forbidden {
        raw.send(&frame(HEADERS, END_HEADERS | END_STREAM, stream, &get(&[(name, "x")])));
        let code = raw.until(RST_STREAM, stream);
        assert_eq!(code, PROTOCOL_ERROR.to_be_bytes(), "{name}");
        stream += 2;
    }
    for path in ["/ x", "/\r\nX: y", "/\0"] {
        let fields = [(":method", "GET"), (":scheme", "http"), (":authority", "a.example"), (":path", path)];
        raw.send(&frame(HEADERS, END_HEADERS | END_STREAM, stream, &block(&fields)));
        loop {
            match raw.read().expect("the connection ended") {
                (RST_STREAM, _, on, _) | (HEADERS, _, on, _) if on == stream => break,
                _ => {}
            }
        }
        stream += 2;
    }
    raw.send(&frame(HEADERS, END_HEADERS, stream, &extended_connect()));
    raw.until(HEADERS, stream);
}
