//! What is refused never reaches a backend: every row of the table, each with a request behind it in the same write and one
//! that comes 200 ms later.

use std::io::{Read, Write};
use std::time::Duration;

use crate::backend::{Backend, route_to};
use crate::harness::{Gateway, KEY, read_head, status};

/// Lines of a refused request, and its answer.
struct Row {
    request: &'static str,
    status: u16,
    reason: &'static str,
}

const fn row(request: &'static str, status: u16, reason: &'static str) -> Row {
    Row { request, status, reason }
}

const GOOD: &str = "GET /ws HTTP/1.1|Host: a.example|Upgrade: websocket|Connection: Upgrade|\
                    Sec-WebSocket-Version: 13|Sec-WebSocket-Key: KEY";

/// `|` ends a line. An empty first part means the good request with the rest in place of lines of the same name.
const ROWS: [Row; 40] = [
    row("Sec-WebSocket-Version: 8", 426, "version-unsupported"),
    row("Sec-WebSocket-Version: 99", 426, "version-unsupported"),
    row(
        "-Sec-WebSocket-Version|-Sec-WebSocket-Key|Sec-WebSocket-Key1: 1 2|Sec-WebSocket-Key2: 3 4",
        426,
        "version-unsupported",
    ),
    row("-Sec-WebSocket-Version", 426, "version-missing"),
    row("Sec-WebSocket-Version: ", 400, "version-malformed"),
    row("Sec-WebSocket-Version: 013", 400, "version-malformed"),
    row("Sec-WebSocket-Version: +13", 400, "version-malformed"),
    row("Sec-WebSocket-Version: 13.0", 400, "version-malformed"),
    row("Sec-WebSocket-Version: 256", 400, "version-malformed"),
    row("Sec-WebSocket-Version: thirteen", 400, "version-malformed"),
    row("Sec-WebSocket-Version: 13|Sec-WebSocket-Version: 8", 400, "version-malformed"),
    row("Sec-WebSocket-Version: 13, 8", 400, "version-malformed"),
    row("POST /ws HTTP/1.1", 400, "method-not-get"),
    row("GET /ws HTTP/1.0", 400, "http-version-too-old"),
    row("-Host", 400, "host-missing"),
    row("Host: a.example|Host: b.example", 400, "host-missing"),
    row("Content-Length: 4", 400, "body-on-upgrade"),
    row("Transfer-Encoding: chunked", 400, "body-on-upgrade"),
    row("-Connection", 400, "connection-token-missing"),
    row("Connection: not-upgrade", 400, "connection-token-missing"),
    row("-Upgrade", 400, "upgrade-token-missing"),
    row("Upgrade: websocket, h2c", 400, "upgrade-token-ambiguous"),
    row("Connection: Upgrade, Sec-WebSocket-Key", 400, "header-nominated"),
    row("Connection: Upgrade, Host", 400, "header-nominated"),
    row("-Sec-WebSocket-Key", 400, "key-missing"),
    row("Sec-WebSocket-Key: short", 400, "key-malformed"),
    row("Sec-WebSocket-Key: KEY|Sec-WebSocket-Key: KEY", 400, "key-malformed"),
    row("Origin: https://evil.example", 403, "origin-refused"),
    row("Sec-WebSocket-Protocol: other", 400, "subprotocol-refused"),
    row("Sec-WebSocket-Extensions: x", 400, "extension-refused"),
    row("GET /elsewhere HTTP/1.1", 404, "no-route"),
    row("Content-Length: 4|Content-Length: 4", 400, "head-malformed"),
    row("Content-Length: 4|Transfer-Encoding: chunked", 400, "head-malformed"),
    row("Transfer-Encoding: gzip, chunked", 400, "head-malformed"),
    row("X-Folded: a\r\n b", 400, "head-malformed"),
    row("X-Bare: a\nX-Hidden: b", 400, "head-malformed"),
    row("X-Space : a", 400, "head-malformed"),
    row("X-Control: \u{1}", 400, "head-malformed"),
    row("GET /ws/../admin HTTP/1.1", 400, "head-malformed"),
    row("-Upgrade|-Connection|-Sec-WebSocket-Version|-Sec-WebSocket-Key", 426, "plain-http-refused"),
];

const ROUTE: &str = "paths = ['/ws']\nplain_http = 'refuse'\n[route.handshake]\norigins = ['https://a.example']\n\
                     subprotocols = ['chat']\nextensions = 'refuse'";

fn request(changes: &str) -> String {
    let name = |line: &str| line.split([':', '\r', '\n']).next().unwrap().trim_start_matches('-').trim().to_owned();
    let changes: Vec<&str> = changes.split('|').filter(|line| !line.is_empty()).collect();
    let first = changes.first().copied().filter(|line| line.contains(" HTTP/1."));
    let kept = GOOD.split('|').enumerate().filter(|(at, line)| {
        let replaced = changes.iter().any(|change| name(change) == name(line));
        if *at == 0 { first.is_none() } else { !replaced }
    });
    let mut lines: Vec<&str> = first.into_iter().chain(kept.map(|(_, line)| line)).collect();
    let origin_is_stated = changes.iter().any(|change| change.starts_with("Origin"));
    lines.extend(changes.iter().filter(|line| !line.starts_with('-') && Some(**line) != first));
    if !origin_is_stated {
        lines.push("Origin: https://a.example");
    }
    (lines.join("\r\n") + "\r\n\r\n").replace("KEY", KEY)
}

/// A request that the gateway would forward if it ever read it as one.
fn follower() -> String {
    request("").replace("/ws HTTP", "/ws/smuggled HTTP")
}

#[test]
fn nothing_of_a_refused_request_reaches_a_backend() {
    let backend = Backend::echo();
    let gateway = Gateway::start(&route_to(&[backend.address()], "", ROUTE));
    for row in &ROWS {
        check(&gateway, row);
    }
    assert_eq!(backend.recorded(), "");
    assert_eq!(backend.connections(), 0);
    // The follower alone does pass, so the check above can fail.
    let mut stream = gateway.connect();
    stream.write_all(follower().as_bytes()).unwrap();
    assert_eq!(status(&read_head(&mut stream)), 101);
    assert!(backend.recorded().contains("/ws/smuggled"));
}

/// The refused request with a second one in the same write, and a third 200 ms later.
fn check(gateway: &Gateway, row: &Row) {
    let request = request(row.request);
    let mut stream = gateway.connect();
    stream.write_all((request.clone() + &follower()).as_bytes()).unwrap();
    let answer = read_head(&mut stream);
    assert_eq!(status(&answer), row.status, "{request:?}");
    let lower = answer.to_ascii_lowercase();
    assert!(lower.contains("close\r\n"), "{request:?} {answer}");
    let lists =
        matches!(row.reason, "version-unsupported" | "version-missing" | "version-malformed" | "plain-http-refused");
    assert_eq!(answer.contains("Sec-WebSocket-Version: 13\r\n"), lists, "{request:?} {answer}");
    assert_eq!(answer.contains("Upgrade: websocket\r\nConnection: Upgrade, close\r\n"), row.status == 426, "{answer}");
    let reason = row.reason;
    gateway.wait_for_access(|line| line["event"] == "refused" && line["reason"] == reason);
    std::thread::sleep(Duration::from_millis(200));
    // The gateway has closed its side, so this may fail, and nothing may come back but the rest of the one answer.
    let _ = stream.write_all(follower().as_bytes());
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    let rest = String::from_utf8_lossy(&rest);
    let second_answer =
        ["HTTP/1.1 1", "HTTP/1.1 2", "HTTP/1.1 4", "HTTP/1.1 5"].iter().any(|start| rest.contains(start));
    assert!(!second_answer, "{request:?}: a second answer: {rest:?}");
}

#[test]
fn every_refusal_is_counted_under_its_reason() {
    let backend = Backend::echo();
    let gateway = Gateway::start(&route_to(&[backend.address()], "", ROUTE));
    gateway.ask(request("Sec-WebSocket-Version: 8"));
    gateway.ask(request("Sec-WebSocket-Version: 8"));
    gateway.ask(request("Origin: null"));
    gateway.wait_for_metric("wsgate_refusals_total{reason=\"version-unsupported\",route=\"r\"}", 2.0);
    gateway.wait_for_metric("wsgate_refusals_total{reason=\"origin-refused\",route=\"r\"}", 1.0);
    gateway.wait_for_metric("wsgate_upgrade_requests_total{listener=\"public\",route=\"r\",version=\"8\"}", 2.0);
    gateway.wait_for_metric("wsgate_upgrade_requests_total{listener=\"public\",route=\"r\",version=\"13\"}", 1.0);
}

#[test]
fn a_426_is_answered_byte_for_byte() {
    let backend = Backend::echo();
    let gateway =
        Gateway::start(&route_to(&[backend.address()], "versions = [13, 8, 7]", "[route.versions]\naccept = [13, 7]"));
    assert_eq!(
        gateway.ask(request("Sec-WebSocket-Version: 8")).replace("\r\n", "\n"),
        "HTTP/1.1 426 Upgrade Required\nUpgrade: websocket\nConnection: Upgrade, close\nSec-WebSocket-Version: 13, 7\n\
         Cache-Control: no-store\nContent-Type: text/plain; charset=utf-8\nContent-Length: 58\n\n\
         This WebSocket version is not served here. Served: 13, 7.\n"
    );
}

#[test]
fn an_observed_version_passes_and_is_counted() {
    let backend = Backend::echo();
    let gateway = Gateway::start(&route_to(&[backend.address()], "", "[route.versions]\nmode = 'observe'"));
    let mut stream = gateway.connect();
    stream.write_all(request("Sec-WebSocket-Version: 8").as_bytes()).unwrap();
    assert_eq!(status(&read_head(&mut stream)), 101);
    assert!(backend.recorded().contains("Sec-WebSocket-Version: 8\r\n"));
    gateway.wait_for_metric("wsgate_would_refuse_total{reason=\"version-unsupported\",route=\"r\"}", 1.0);
    gateway.wait_for_access(|line| line["event"] == "opened" && line["would_refuse"][0] == "version-unsupported");
}

#[test]
fn an_observed_version_0_handshake_goes_on_with_its_third_key() {
    let backend = Backend::start(|mut served| {
        let head = served.head();
        assert!(head.contains("Upgrade: WebSocket\r\n") && head.contains("Sec-WebSocket-Key1: 1  2\r\n"), "{head}");
        let mut key3 = [0; 8];
        served.stream.read_exact(&mut key3).unwrap();
        served.send("HTTP/1.1 101 WebSocket Protocol Handshake\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\n\r\n");
        served.send([&key3[..], b"digest.."].concat());
        served.until_end();
    });
    let gateway = Gateway::start(&route_to(&[backend.address()], "", "[route.versions]\nmode = 'observe'"));
    let mut stream = gateway.connect();
    let head = request(
        "-Sec-WebSocket-Version|-Sec-WebSocket-Key|Upgrade: WebSocket|Sec-WebSocket-Key1: 1  2|Sec-WebSocket-Key2: 3 4",
    );
    stream.write_all(head.as_bytes()).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    stream.write_all(b"^n:ds[4U").unwrap();
    assert!(read_head(&mut stream).starts_with("HTTP/1.1 101 WebSocket Protocol Handshake\r\nUpgrade: WebSocket\r\n"));
    crate::harness::read_exactly(&mut stream, b"^n:ds[4Udigest..");
}

#[test]
fn a_relaxed_check_lets_through_and_counts() {
    let backend = Backend::echo();
    let relaxed = "[route.handshake]\nrelax = ['connection-token-missing', 'key-malformed']";
    let gateway = Gateway::start(&route_to(&[backend.address()], "", relaxed));
    let mut stream = gateway.connect();
    stream.write_all(request("-Connection").as_bytes()).unwrap();
    assert_eq!(status(&read_head(&mut stream)), 101);
    gateway.wait_for_metric("wsgate_would_refuse_total{reason=\"connection-token-missing\",route=\"r\"}", 1.0);
    let answer = gateway.ask(request("-Upgrade"));
    assert_eq!(status(&answer), 400);
}
