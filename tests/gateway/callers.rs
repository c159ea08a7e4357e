//! Who the client is: by its connection, by a PROXY header, by what proxies wrote into the request. What the log and backends hear of it,
//! and that nobody else decides it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::backend::{Backend, Served, route_to};
use crate::harness::{Gateway, PATIENCE, read_answer, read_exactly, read_head, read_to_end, status, upgrade};

/// The one that is believed.
const PROXY: &str = "127.0.0.2";
const STRANGER: &str = "127.0.0.3";

const BY_HEADER: &str = "client_address = 'proxy-protocol'\ntrusted_proxies = ['127.0.0.2/32']";
/// For those who let it pass.
const HASTY: &str = "header_timeout = '500ms'";
const BY_FIELD: &str = "client_address = 'forwarded'\ntrusted_proxies = ['127.0.0.2/32', '10.0.0.0/8']";

const VERSION_1: &[u8] = b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n";
/// The same, with what a sender may add.
const VERSION_2: &[u8] =
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x11\xC0\x00\x02\x01\xC6\x33\x64\x02\xDC\x04\x01\xBB\x04\x00\x02hi";
const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00";

/// Says that it is somebody else.
const GET: &str = "GET /a HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 203.0.113.9\r\nConnection: close\r\n\r\n";

pub fn connect_from(ip: &str, to: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(ip.parse().unwrap(), 0).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

pub fn answering() -> Backend {
    Backend::answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
}

fn forwarded_for(backend: &Backend) -> String {
    let seen = backend.recorded();
    let line =
        seen.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("x-forwarded-for: ").map(str::to_owned));
    line.unwrap_or_else(|| panic!("no X-Forwarded-For in {seen}"))
}

/// Sends pieces apart on one connection and reads to its end.
fn ask(gateway: &Gateway, ip: &str, pieces: &[&[u8]]) -> String {
    let mut stream = connect_from(ip, gateway.address());
    for (at, piece) in pieces.iter().enumerate() {
        if at > 0 {
            std::thread::sleep(Duration::from_millis(20));
        }
        stream.write_all(piece).unwrap();
    }
    read_to_end(&mut stream)
}

#[test]
fn a_proxy_header_says_who_the_client_is_however_it_arrives() {
    for header in [VERSION_1, VERSION_2] {
        let whole = [header, GET.as_bytes()].concat();
        let bytes: Vec<&[u8]> = header.chunks(9).collect();
        let trickled: Vec<&[u8]> = [bytes.as_slice(), &[GET.as_bytes()]].concat();
        for pieces in [vec![whole.as_slice()], vec![header, GET.as_bytes()], trickled] {
            let backend = answering();
            let gateway = Gateway::start_with("", BY_HEADER, &route_to(&[backend.address()], "", ""));
            assert_eq!(status(&ask(&gateway, PROXY, &pieces)), 200);
            assert_eq!(forwarded_for(&backend), "192.0.2.1", "and not what the client says");
            let line = gateway.wait_for_access(|line| line["event"] == "request");
            assert_eq!(line["client"], "192.0.2.1:56324");
            assert!(line["peer"].as_str().unwrap().starts_with("127.0.0.2:"), "{line}");
        }
    }
}

#[test]
fn a_tunnel_begins_behind_a_proxy_header() {
    let backend = Backend::echo();
    let gateway = Gateway::start_with("", BY_HEADER, &route_to(&[backend.address()], "", ""));
    let mut stream = connect_from(PROXY, gateway.address());
    stream.write_all(&[VERSION_2, upgrade("").as_bytes(), b"early"].concat()).unwrap();
    assert_eq!(status(&read_head(&mut stream)), 101);
    read_exactly(&mut stream, b"early");
    gateway.wait_for_access(|line| line["event"] == "opened" && line["client"] == "192.0.2.1:56324");
}

#[test]
fn a_proxy_that_speaks_for_itself_is_the_client_and_what_it_passes_on_is_not_believed() {
    for header in [&b"PROXY UNKNOWN\r\n"[..], LOCAL] {
        let backend = answering();
        let gateway = Gateway::start_with("", BY_HEADER, &route_to(&[backend.address()], "", ""));
        assert_eq!(status(&ask(&gateway, PROXY, &[header, GET.as_bytes()])), 200);
        assert_eq!(forwarded_for(&backend), PROXY);
        let line = gateway.wait_for_access(|line| line["event"] == "request");
        assert!(line["client"].as_str().unwrap().starts_with("127.0.0.2:") && line["peer"].is_null(), "{line}");
    }
}

#[test]
fn what_is_no_header_of_a_listed_proxy_is_refused_with_a_reason() {
    let backend = answering();
    let forged = [VERSION_1, GET.as_bytes()].concat();
    let cases: [(&str, &[u8], u16, &str); 6] = [
        (STRANGER, &forged, 403, "proxy-peer-unlisted"),
        (STRANGER, GET.as_bytes(), 403, "proxy-peer-unlisted"),
        (PROXY, GET.as_bytes(), 400, "proxy-header-missing"),
        (
            PROXY,
            b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 44x\r\nGET / HTTP/1.1\r\n\r\n",
            400,
            "proxy-header-malformed",
        ),
        (PROXY, b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xFF\xFF", 400, "proxy-header-malformed"),
        (PROXY, b"PROXY TCP4 192.", 408, "proxy-header-timeout"),
    ];
    for (ip, bytes, expected, reason) in cases {
        let patience = if reason == "proxy-header-timeout" { HASTY } else { "" };
        let rules = format!("{BY_HEADER}\n{patience}");
        let gateway = Gateway::start_with("", &rules, &route_to(&[backend.address()], "", ""));
        let answer = ask(&gateway, ip, &[bytes]);
        assert_eq!(status(&answer), expected, "{answer}");
        let line = gateway.wait_for_access(|line| line["event"] == "refused" && line["reason"] == reason);
        assert!(line["client"].as_str().unwrap().starts_with(&format!("{ip}:")), "its own address: {line}");
        gateway.wait_for_metric("wsgate_connections{listener=\"public\"}", 0.0);
    }
    assert_eq!(backend.connections(), 0);
}

#[test]
fn who_says_nothing_is_let_go_and_who_says_nothing_behind_its_header_too() {
    let backend = answering();
    let rules = format!("{BY_HEADER}\n{HASTY}");
    let gateway = Gateway::start_with("", &rules, &route_to(&[backend.address()], "", ""));
    assert_eq!(ask(&gateway, PROXY, &[b""]), "");
    assert_eq!(ask(&gateway, PROXY, &[VERSION_1]), "");
    assert_eq!(status(&ask(&gateway, PROXY, &[VERSION_1, b"GET / HT"])), 408);
    gateway.wait_for_access(|line| line["reason"] == "head-timeout" && line["client"] == "192.0.2.1:56324");
    // A check by TCP alone.
    drop(connect_from(PROXY, gateway.address()));
    gateway.wait_for_metric("wsgate_connections{listener=\"public\"}", 0.0);
}

#[test]
fn the_client_is_the_last_one_in_the_field_that_is_no_proxy_and_the_next_hop_hears_of_the_peer() {
    let cases = [
        (
            PROXY,
            "X-Forwarded-For: 203.0.113.9, 192.0.2.1, 10.0.0.1",
            "192.0.2.1",
            "203.0.113.9, 192.0.2.1, 10.0.0.1, 127.0.0.2",
        ),
        (PROXY, "X-Forwarded-For: 203.0.113.9, unknown", "127.0.0.2:", "203.0.113.9, unknown, 127.0.0.2"),
        (PROXY, "X-Nothing: 1", "127.0.0.2:", "127.0.0.2"),
        (STRANGER, "X-Forwarded-For: 192.0.2.1", "127.0.0.3:", "127.0.0.3"),
    ];
    for (ip, field, client, passed_on) in cases {
        for request in [
            format!("GET /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{field}\r\n\r\n"),
            upgrade(&format!("{field}\r\n")),
        ] {
            let backend = answering();
            let gateway = Gateway::start_with("", BY_FIELD, &route_to(&[backend.address()], "", ""));
            assert_eq!(status(&ask(&gateway, ip, &[request.as_bytes()])), 200);
            assert_eq!(forwarded_for(&backend), passed_on);
            let line = gateway.wait_for_access(|line| line["client"].is_string());
            assert!(line["client"].as_str().unwrap().starts_with(client), "{line}");
            assert_eq!(line["peer"].is_null(), client.ends_with(':'), "{line}");
        }
    }
}

/// Answers request after request on one connection, for as long as it is asked.
fn keeping() -> Backend {
    Backend::start(|mut served: Served| {
        let mut byte = [0];
        while matches!(served.stream.peek(&mut byte), Ok(1)) {
            served.head();
            served.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        }
    })
}

#[test]
fn a_server_that_asks_for_it_hears_who_the_client_is_and_no_two_requests_share_a_connection() {
    let backend = keeping();
    let gateway = Gateway::start(&route_to(&[backend.address()], "proxy_protocol = 'v1'", ""));
    let mut expected = Vec::new();
    let mut clients: Vec<TcpStream> = [PROXY, STRANGER].map(|ip| connect_from(ip, gateway.address())).into();
    for _ in 0..3 {
        for client in &mut clients {
            client.write_all(b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
            assert_eq!(status(&read_answer(client)), 200);
            let (from, to) = (client.local_addr().unwrap(), gateway.address());
            expected.push(format!("PROXY TCP4 {} {} {} {}", from.ip(), to.ip(), from.port(), to.port()));
        }
    }
    let seen = backend.recorded();
    let lines: Vec<&str> = seen.lines().filter(|line| line.starts_with("PROXY ")).collect();
    assert_eq!(lines, expected);
    assert_eq!(seen.matches("GET /a").count(), 6);
    assert_eq!(backend.connections(), 6, "{seen}");
}

#[test]
fn a_tunnel_to_a_server_begins_with_the_header_and_names_what_a_header_named() {
    let backend = Backend::start(|mut served| {
        let mut header = [0; 28];
        served.stream.read_exact(&mut header).unwrap();
        served.recorded(&header);
        served.switch("");
        served.until_end();
    });
    let route = route_to(&[backend.address()], "proxy_protocol = 'v2'", "");
    let gateway = Gateway::start_with("", BY_HEADER, &route);
    let mut stream = connect_from(PROXY, gateway.address());
    stream.write_all(&[VERSION_1, upgrade("").as_bytes()].concat()).unwrap();
    assert_eq!(status(&read_head(&mut stream)), 101);
    let seen = backend.recorded();
    let expected =
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0C\xC0\x00\x02\x01\xC6\x33\x64\x02\xDC\x04\x01\xBBGET /ws HTTP/1.1\r\n";
    assert!(seen.starts_with(&*String::from_utf8_lossy(expected)), "{seen}");
}

#[test]
fn a_server_that_is_not_there_is_none_with_a_header_either() {
    let gone = Backend::nobody();
    let good = answering();
    let gateway = Gateway::start(&route_to(&[gone], "proxy_protocol = 'v1'", ""));
    assert_eq!(status(&gateway.ask(GET)), 503);
    let both = route_to(&[gone, good.address()], "proxy_protocol = 'v1'\nbalance = 'round-robin'", "");
    let gateway = Gateway::start(&both);
    for _ in 0..3 {
        assert_eq!(status(&gateway.ask(GET)), 200);
    }
}
