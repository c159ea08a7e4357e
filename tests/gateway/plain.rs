//! Plain HTTP through the ordinary proxy: pools, streaming, forwarding fields, refusal.

use std::io::{Read, Write};
use std::sync::mpsc::channel;

use crate::backend::{Backend, route_to};
use crate::harness::{Gateway, PATIENCE, read_answer, read_head, status};

/// Answers each request of a connection, so that the gateway can keep it.
fn keeping() -> Backend {
    Backend::start(|mut served| {
        loop {
            let mut peeked = [0];
            if !matches!(served.stream.peek(&mut peeked), Ok(1)) {
                return;
            }
            let head = served.head();
            let length =
                head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
            let mut body = vec![0; length.unwrap_or(0)];
            served.stream.read_exact(&mut body).unwrap();
            served.send(format!("HTTP/1.1 200 OK\r\nKeep-Alive: timeout=5\r\nContent-Length: {}\r\n\r\n", body.len()));
            served.send(body);
        }
    })
}

#[test]
fn connections_to_both_sides_are_kept() {
    let backend = keeping();
    let gateway = Gateway::start(&route_to(&[backend.address()], "", ""));
    let mut stream = gateway.connect();
    for _ in 0..5 {
        stream.write_all(b"POST /a?b HTTP/1.1\r\nHost: a.example\r\nContent-Length: 4\r\n\r\nbody").unwrap();
        let answer = read_answer(&mut stream);
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nbody"), "{answer}");
        assert!(!answer.contains("Keep-Alive: "), "a field of the backend's own hop: {answer}");
    }
    assert_eq!(backend.connections(), 1);
    gateway.wait_for_metric("wsgate_http_requests_total{route=\"r\",status=\"200\"}", 5.0);
    gateway.wait_for_access(|line| line["event"] == "request" && line["path"] == "/a" && line["status"] == 200);
}

#[test]
fn a_request_says_where_it_came_from_and_a_client_cannot_say_otherwise() {
    let backend = keeping();
    let request = "GET / HTTP/1.1\r\nHost: a.example\r\nX-Forwarded-For: 198.51.100.7\r\nForwarded: for=198.51.100.7\r\n\
                   X-Real-IP: 198.51.100.7\r\nX-Forwarded-Proto: https\r\nUpgrade: h2c\r\nConnection: close, Upgrade\r\n\r\n";
    let gateway = Gateway::start(&route_to(&[backend.address()], "", ""));
    assert_eq!(status(&gateway.ask(request)), 200);
    let seen = backend.recorded().to_ascii_lowercase();
    assert!(seen.contains("x-forwarded-for: 127.0.0.1\r\n") && seen.contains("x-forwarded-proto: http\r\n"), "{seen}");
    assert!(!seen.contains("198.51.100.7") && !seen.contains("upgrade"), "{seen}");
    assert!(seen.contains("x-forwarded-host: a.example\r\n"), "{seen}");

    let backend = keeping();
    let trusting = "trusted_proxies = ['127.0.0.0/8']";
    let gateway = Gateway::start_with("", trusting, &route_to(&[backend.address()], "", ""));
    assert_eq!(status(&gateway.ask(request)), 200);
    let seen = backend.recorded().to_ascii_lowercase();
    assert!(seen.contains("x-forwarded-for: 198.51.100.7, 127.0.0.1\r\n"), "{seen}");
    assert!(seen.contains("x-forwarded-proto: https\r\n") && seen.contains("x-real-ip: 198.51.100.7\r\n"), "{seen}");
}

#[test]
fn bodies_stream_before_they_are_whole() {
    let (first_part, seen) = channel();
    let first_part = std::sync::Mutex::new(first_part);
    let backend = Backend::start(move |mut served| {
        served.head();
        let mut chunk = [0; 8];
        served.stream.read_exact(&mut chunk).unwrap();
        first_part.lock().unwrap().send(chunk).unwrap();
        served.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n");
        served.until_end();
    });
    let gateway = Gateway::start(&route_to(&[backend.address()], "", ""));
    let mut stream = gateway.connect();
    stream.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n").unwrap();
    assert_eq!(&seen.recv_timeout(PATIENCE).unwrap(), b"3\r\nabc\r\n");
    assert_eq!(status(&read_head(&mut stream)), 200);
    crate::harness::read_exactly(&mut stream, b"3\r\none\r\n");
}

#[test]
fn a_dead_backend_is_503_and_the_next_one_is_asked() {
    let dead = Backend::nobody();
    let gateway = Gateway::start(&route_to(&[dead], "", ""));
    let answer = gateway.ask("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert_eq!(status(&answer), 503, "{answer}");
    assert!(answer.contains("Retry-After: 5\r\n"), "{answer}");
    let good = keeping();
    let gateway = Gateway::start(&route_to(&[dead, good.address()], "balance = 'round-robin'", ""));
    for _ in 0..3 {
        assert_eq!(status(&gateway.ask("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")), 200);
    }
}

#[test]
fn a_backend_that_does_not_answer_is_504_and_garbage_is_502() {
    let hangs = Backend::start(|mut served| {
        served.head();
        served.until_end();
    });
    let gateway = Gateway::start(&route_to(&[hangs.address()], "response_timeout = '200ms'", ""));
    assert_eq!(status(&gateway.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n")), 504);
    let failures = format!(
        "wsgate_backend_failures_total{{reason=\"backend-timeout\",server=\"{}\",upstream=\"u\"}}",
        hangs.address()
    );
    gateway.wait_for_metric(&failures, 1.0);
    let garbage = Backend::answering("hello\r\n\r\n");
    let gateway = Gateway::start(&route_to(&[garbage.address()], "", ""));
    assert_eq!(status(&gateway.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n")), 502);
}

#[test]
fn a_route_without_plain_http_tells_the_versions() {
    let backend = keeping();
    let gateway = Gateway::start(&route_to(&[backend.address()], "", "plain_http = 'refuse'"));
    let answer = gateway.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(status(&answer), 426);
    assert!(answer.contains("Sec-WebSocket-Version: 13\r\n"), "{answer}");
    gateway.wait_for_metric("wsgate_http_requests_total{route=\"r\",status=\"426\"}", 1.0);
    assert_eq!(backend.connections(), 0);
}

#[test]
fn a_request_of_http_1_0_goes_on_with_a_host() {
    let backend = keeping();
    let gateway = Gateway::start(&route_to(&[backend.address()], "", ""));
    assert_eq!(status(&gateway.ask("GET / HTTP/1.0\r\n\r\n")), 200);
    let seen = backend.recorded().to_ascii_lowercase();
    assert!(seen.contains(&format!("host: {}\r\n", backend.address())), "{seen}");
}

#[test]
fn a_kept_connection_that_the_backend_closed_is_replaced() {
    // Answers one request and closes when the next one comes.
    let backend = Backend::start(|mut served| {
        served.head();
        served.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        let mut next = [0];
        let _ = served.stream.peek(&mut next);
    });
    let gateway = Gateway::start(&route_to(&[backend.address()], "", ""));
    let mut stream = gateway.connect();
    for _ in 0..6 {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        let answer = read_answer(&mut stream);
        assert!(answer.ends_with("ok"), "{answer}");
    }
    assert_eq!(backend.connections(), 6);
}

#[test]
fn an_http_1_0_client_gets_no_chunks() {
    let backend = Backend::start(|mut served| {
        served.head();
        served.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n");
        served.until_end();
    });
    let gateway = Gateway::start(&route_to(&[backend.address()], "", ""));
    let answer = gateway.ask("GET / HTTP/1.0\r\nHost: a\r\n\r\n");
    assert!(answer.ends_with("\r\n\r\nhello") && !answer.contains("chunked"), "{answer}");
}

#[test]
fn a_pipelined_request_is_told_that_the_connection_ends() {
    let backend = keeping();
    let gateway = Gateway::start(&route_to(&[backend.address()], "", ""));
    let get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let answer = gateway.ask(get.to_owned() + get);
    assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 1, "{answer}");
    assert!(answer.to_ascii_lowercase().contains("connection: close\r\n"), "{answer}");
}

#[test]
fn a_plain_request_that_breaks_the_rules_is_400() {
    let backend = keeping();
    let gateway = Gateway::start(&route_to(&[backend.address()], "", ""));
    let nominates = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close, X-Forwarded-For\r\n\r\n";
    assert_eq!(status(&gateway.ask(nominates)), 400);
    assert_eq!(backend.connections(), 0);
    let bad_chunk = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n";
    assert_eq!(status(&gateway.ask(bad_chunk)), 400);
}

#[test]
fn the_backend_gets_the_path_that_the_route_was_decided_on() {
    let backend = keeping();
    let gateway = Gateway::start(&route_to(&[backend.address()], "", "paths = ['/x']"));
    assert_eq!(status(&gateway.ask("GET http://a/x?y HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")), 200);
    assert!(backend.recorded().starts_with("GET /x?y HTTP/1.1\r\n"), "{}", backend.recorded());
}

#[test]
fn a_client_that_stalls_in_its_body_is_408_and_one_that_waits_for_its_answer_is_not_hurried() {
    let slow = Backend::start(|mut served| {
        if served.head().starts_with("GET") {
            std::thread::sleep(std::time::Duration::from_millis(700));
            served.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate");
        }
        served.until_end();
    });
    let gateway = Gateway::start_with("", "body_timeout = '300ms'", &route_to(&[slow.address()], "", ""));
    let answer = gateway.ask("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert!(answer.ends_with("late"), "{answer}");
    let stalled = gateway.ask("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nab");
    assert_eq!(status(&stalled), 408);
    let (_, metrics) = gateway.admin("/metrics", "");
    assert!(
        !metrics.contains("wsgate_backend_failures_total{"),
        "the client's fault is counted as a server's: {metrics}"
    );
}
