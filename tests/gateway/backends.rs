//! Backends that refuse, hang, reset, answer garbage or lie: the stated answer, the next server where one is left, and the
//! right metric.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use crate::backend::{Backend, route_to, switching};
use crate::harness::{Gateway, PATIENCE, read_answer, read_exactly, read_head, status, upgrade};

const SHORT: &str = "connect_timeout = '300ms'\nhandshake_timeout = '300ms'\ntries = 1";

/// One bad server alone: what the client gets, and under which reason it is counted.
fn check(backend: &Backend, expected: u16, reason: &str) {
    let gateway = Gateway::start(&route_to(&[backend.address()], SHORT, ""));
    let answer = gateway.ask(upgrade(""));
    assert_eq!(status(&answer), expected, "{answer}");
    let server = backend.address();
    let failures = format!("wsgate_backend_failures_total{{reason=\"{reason}\",server=\"{server}\",upstream=\"u\"}}");
    gateway.wait_for_metric(&failures, 1.0);
    gateway.wait_for_metric(&format!("wsgate_refusals_total{{reason=\"{reason}\",route=\"r\"}}"), 1.0);
    gateway
        .wait_for_access(|line| line["event"] == "refused" && line["reason"] == reason && line["detail"].is_string());
    gateway.wait_for_metric("wsgate_tunnels{route=\"r\",upstream=\"u\",version=\"13\"}", 0.0);
    gateway.wait_for_metric(&format!("wsgate_backend_tunnels{{server=\"{server}\",upstream=\"u\"}}"), 0.0);
}

/// A bad server first and a good one second: the client does not notice.
fn check_next(bad: &Backend) {
    let good = Backend::echo();
    let short = SHORT.replace("tries = 1", "tries = 2\nbalance = 'round-robin'");
    let gateway = Gateway::start(&route_to(&[bad.address(), good.address()], &short, ""));
    for _ in 0..2 {
        let (mut stream, _) = gateway.open();
        stream.write_all(b"x").unwrap();
        read_exactly(&mut stream, b"x");
    }
    assert!(bad.connections() >= 1 && good.connections() == 2);
}

#[test]
fn nobody_there_is_503_and_the_next_server_is_tried() {
    let address = Backend::nobody();
    let gateway = Gateway::start(&route_to(&[address], SHORT, ""));
    let answer = gateway.ask(upgrade(""));
    assert_eq!(status(&answer), 503);
    assert!(answer.contains("Retry-After: 5\r\n"), "{answer}");
    let failures =
        format!("wsgate_backend_failures_total{{reason=\"backend-unavailable\",server=\"{address}\",upstream=\"u\"}}");
    gateway.wait_for_metric(&failures, 1.0);

    let good = Backend::echo();
    let gateway = Gateway::start(&route_to(&[address, good.address()], "balance = 'round-robin'", ""));
    (0..4).for_each(|_| drop(gateway.open()));
}

#[test]
fn a_server_that_hangs_is_504() {
    let hangs = Backend::start(|mut served| {
        served.head();
        served.until_end();
    });
    check(&hangs, 504, "backend-timeout");
    check_next(&hangs);
}

#[test]
fn a_server_that_resets_or_leaves_is_502() {
    let leaves = Backend::start(|mut served| drop(served.head()));
    check(&leaves, 502, "backend-handshake-wrong");
    check_next(&leaves);
    // Reset before the head, the connection may count as never made.
    let resets = Backend::start(|mut served| {
        served.head();
        let linger = Some(Duration::ZERO);
        socket2::SockRef::from(&served.stream).set_linger(linger).unwrap();
    });
    check(&resets, 502, "backend-handshake-wrong");
    check_next(&resets);
}

#[test]
fn garbage_is_502() {
    for garbage in
        ["hello\r\n\r\n", "HTTP/1.1 101 x\nUpgrade: websocket\n\n", "HTTP/2 200\r\n\r\n", "\u{1}\u{2}\r\n\r\n"]
    {
        check(&Backend::answering(garbage), 502, "backend-handshake-wrong");
    }
    check_next(&Backend::answering("hello\r\n\r\n"));
}

#[test]
fn a_wrong_101_is_502_and_its_connection_is_cut() {
    const WRONG: [&str; 7] = [
        "HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n\r\n",
        "HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        "HTTP/1.1 101 x\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
        "HTTP/1.1 101 x\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
        "HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: chat\r\n\r\n",
        "HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n",
    ];
    for wrong in WRONG {
        check(&Backend::answering(wrong), 502, "backend-handshake-wrong");
    }
    check_next(&Backend::answering(WRONG[0]));

    let (ended, was_cut) = std::sync::mpsc::channel();
    let ended = std::sync::Mutex::new(ended);
    let patient = Backend::start(move |mut served| {
        served.head();
        served.send(WRONG[0]);
        served.until_end();
        ended.lock().unwrap().send(()).unwrap();
    });
    let gateway = Gateway::start(&route_to(&[patient.address()], SHORT, ""));
    assert_eq!(status(&gateway.ask(upgrade(""))), 502);
    was_cut.recv_timeout(PATIENCE).unwrap();
}

#[test]
fn a_choice_within_the_offer_passes_and_one_outside_the_routes_list_does_not() {
    let chooses = Backend::start(|mut served| {
        served.switch("Sec-WebSocket-Protocol: other\r\nSet-Cookie: a=b\r\n");
        served.until_end();
    });
    let offer = upgrade("Sec-WebSocket-Protocol: chat, other\r\n");
    let gateway = Gateway::start(&route_to(&[chooses.address()], SHORT, ""));
    let mut stream = gateway.connect();
    stream.write_all(offer.as_bytes()).unwrap();
    let head = read_head(&mut stream);
    assert!(head.contains("Sec-WebSocket-Protocol: other\r\n") && head.contains("Set-Cookie: a=b\r\n"), "{head}");
    gateway.wait_for_access(|line| line["event"] == "opened" && line["subprotocol"] == "other");

    let strict = "[route.handshake]\nsubprotocols = ['chat']";
    let gateway = Gateway::start(&route_to(&[chooses.address()], SHORT, strict));
    assert_eq!(status(&gateway.ask(offer)), 502);
}

#[test]
fn a_stripped_offer_does_not_reach_the_backend_and_cannot_be_accepted() {
    let accepts = Backend::start(|mut served| {
        served.switch("Sec-WebSocket-Extensions: permessage-deflate\r\n");
    });
    let gateway = Gateway::start(&route_to(&[accepts.address()], SHORT, "[route.handshake]\nextensions = 'strip'"));
    let answer = gateway.ask(upgrade("Sec-WebSocket-Extensions: permessage-deflate\r\n"));
    assert_eq!(status(&answer), 502);
    assert!(!accepts.recorded().contains("Sec-WebSocket-Extensions"));
}

#[test]
fn interim_answers_are_skipped() {
    let hints = Backend::start(|mut served| {
        served.head();
        served.send("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n");
        served.send(switching(""));
        served.until_end();
    });
    let gateway = Gateway::start(&route_to(&[hints.address()], SHORT, ""));
    let (_, head) = gateway.open();
    assert!(!head.contains("Link"), "{head}");
}

#[test]
fn other_answers_are_relayed_with_their_bodies() {
    let check = |answer: &'static str, expected_head: &str, expected_body: &str| {
        let backend = Backend::answering(answer);
        let gateway = Gateway::start(&route_to(&[backend.address()], SHORT, ""));
        let relayed = gateway.ask(upgrade(""));
        let (head, body) = relayed.split_once("\r\n\r\n").unwrap();
        assert_eq!((head.replace("\r\n", "\n").as_str(), body), (expected_head, expected_body));
        gateway.wait_for_metric("wsgate_refusals_total{reason=\"backend-refused\",route=\"r\"}", 1.0);
    };
    check(
        "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\nlogin",
        "HTTP/1.1 401 Unauthorized\nConnection: close\nWWW-Authenticate: Basic\nContent-Length: 5",
        "login",
    );
    check(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\nConnection: close\nTransfer-Encoding: chunked",
        "5\r\nhello\r\n0\r\n\r\n",
    );
    check("HTTP/1.0 403 No\r\n\r\nuntil the end", "HTTP/1.1 403 No\nConnection: close", "until the end");
    check(
        "HTTP/1.1 426 Upgrade Required\r\nSec-WebSocket-Version: 8, 7\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 426 Upgrade Required\nUpgrade: websocket\nConnection: Upgrade, close\nSec-WebSocket-Version: 13\n\
         Content-Length: 0",
        "",
    );
}

#[test]
fn a_101_to_a_plain_request_is_502() {
    let lies = Backend::start(|mut served| {
        served.head();
        served.send(switching(""));
        served.send("tunnel bytes");
        served.until_end();
    });
    let gateway = Gateway::start(&route_to(&[lies.address()], "", ""));
    for more in ["", "Upgrade: foo\r\nConnection: Upgrade\r\n"] {
        let mut stream = gateway.connect();
        stream.write_all(format!("GET / HTTP/1.1\r\nHost: a\r\n{more}\r\n").as_bytes()).unwrap();
        let answer = read_answer(&mut stream);
        assert_eq!(status(&answer), 502, "{answer}");
        let mut rest = String::new();
        let _ = stream.read_to_string(&mut rest);
        assert_eq!(rest, "");
    }
    assert!(!lies.recorded().contains("pgrade"), "{}", lies.recorded());
    gateway.wait_for_metric("wsgate_http_requests_total{route=\"r\",status=\"502\"}", 2.0);
}

#[test]
fn failed_dials_take_a_server_out_until_it_is_back() {
    let address = Backend::nobody();
    let good = Backend::echo();
    let health = "balance = 'round-robin'\n[upstream.health]\nfall = 2\neject_time = '300ms'";
    let gateway = Gateway::start(&route_to(&[address, good.address()], health, ""));
    let up = format!("wsgate_backend_up{{server=\"{address}\",upstream=\"u\"}}");
    assert!((gateway.metric(&up) - 1.0).abs() < f64::EPSILON);
    (0..8).for_each(|_| drop(gateway.open()));
    gateway.wait_for_log(|line| line["message"] == "backend is out after failed dials");
    // Time alone does not bring it back.
    std::thread::sleep(Duration::from_millis(350));
    assert!(gateway.metric(&up).abs() < f64::EPSILON);
    // It comes back to life at the same address, and its trial brings it back in.
    let listener = std::net::TcpListener::bind(address).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut stream = stream;
            read_head(&mut stream);
            let _ = stream.write_all(switching("").as_bytes());
        }
    });
    let until = Instant::now() + PATIENCE;
    while !gateway.has_logged(|line| line["message"] == "backend is back") {
        assert!(Instant::now() < until, "it does not come back");
        drop(gateway.open());
    }
    assert!((gateway.metric(&up) - 1.0).abs() < f64::EPSILON);
}

#[test]
fn max_tunnels_of_a_server_and_tunnels_of_a_route_are_held() {
    let (first, second) = (Backend::echo(), Backend::echo());
    let servers = format!("{{ address = '{}', max_tunnels = 1 }}, '{}'", first.address(), second.address());
    let rest = format!(
        "[[upstream]]\nname = 'u'\nservers = [{servers}]\n[[route]]\nname = 'r'\nupstream = 'u'\n[route.limits]\ntunnels = 4"
    );
    let gateway = Gateway::start(&rest);
    let tunnels: Vec<_> = (0..4).map(|_| gateway.open()).collect();
    assert_eq!((first.connections(), second.connections()), (1, 3));
    let answer = gateway.ask(upgrade(""));
    assert_eq!(status(&answer), 503);
    gateway.wait_for_metric("wsgate_refusals_total{reason=\"limit-tunnels\",route=\"r\"}", 1.0);
    drop(tunnels);
    gateway.wait_for_metric("wsgate_tunnels{route=\"r\",upstream=\"u\",version=\"13\"}", 0.0);
    drop(gateway.open());

    let full = format!(
        "[[upstream]]\nname = 'u'\nservers = [{{ address = '{}', max_tunnels = 1 }}]\n[[route]]\nname = 'r'\nupstream = 'u'",
        first.address()
    );
    let gateway = Gateway::start(&full);
    let _open = gateway.open();
    assert_eq!(status(&gateway.ask(upgrade(""))), 503);
    gateway.wait_for_metric("wsgate_refusals_total{reason=\"limit-backend-tunnels\",route=\"r\"}", 1.0);
}

#[test]
fn live_tunnels_are_spread_by_weight() {
    let (light, heavy) = (Backend::echo(), Backend::echo());
    let servers = format!("'{}', {{ address = '{}', weight = 3 }}", light.address(), heavy.address());
    let rest = format!("[[upstream]]\nname = 'u'\nservers = [{servers}]\n[[route]]\nname = 'r'\nupstream = 'u'");
    let gateway = Gateway::start(&rest);
    let _tunnels: Vec<_> = (0..40).map(|_| gateway.open()).collect();
    assert_eq!((light.connections(), heavy.connections()), (10, 30));
    gateway.wait_for_metric(&format!("wsgate_backend_tunnels{{server=\"{}\",upstream=\"u\"}}", heavy.address()), 30.0);
}
