//! What the edge does with a connection: deadlines, caps, one head after the other.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use crate::backend::{Backend, route_to};
use crate::harness::{Gateway, finish, read_answer, read_exactly, read_head, read_to_end, status, upgrade};

#[test]
fn a_trickled_head_is_408_at_the_total_deadline() {
    let backend = Backend::echo();
    let gateway = Gateway::start_with("", "header_timeout = '500ms'", &route_to(&[backend.address()], "", ""));
    let mut stream = gateway.connect();
    let start = Instant::now();
    let mut writer = stream.try_clone().unwrap();
    let trickle = std::thread::spawn(move || {
        for byte in upgrade("").bytes() {
            if writer.write_all(&[byte]).is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    let answer = read_head(&mut stream);
    assert_eq!(status(&answer), 408, "{answer}");
    assert!(start.elapsed() >= Duration::from_millis(500));
    drop(stream);
    trickle.join().unwrap();
    gateway.wait_for_metric("wsgate_refusals_total{reason=\"head-timeout\",route=\"-\"}", 1.0);
}

#[test]
fn a_client_that_never_asks_is_let_go() {
    let backend = Backend::echo();
    let gateway = Gateway::start_with("", "header_timeout = '200ms'", &route_to(&[backend.address()], "", ""));
    assert_eq!(read_to_end(&mut gateway.connect()), "");
}

#[test]
fn a_head_over_the_cap_is_431() {
    let backend = Backend::echo();
    let gateway = Gateway::start_with("", "header_limit = '2KiB'", &route_to(&[backend.address()], "", ""));
    let large = format!("X-Large: {}\r\n", "a".repeat(2048));
    assert_eq!(status(&gateway.ask(upgrade(&large))), 431);
    assert_eq!(status(&gateway.ask(format!("GET / HTTP/1.1\r\nHost: a\r\n{large}\r\n"))), 431);
    let many = "A: b\r\n".repeat(101);
    assert_eq!(status(&gateway.ask(format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n"))), 431);
    gateway.wait_for_metric("wsgate_refusals_total{reason=\"head-too-large\",route=\"-\"}", 3.0);
}

#[test]
fn connections_over_the_cap_are_503_and_a_place_comes_back() {
    let backend = Backend::echo();
    let gateway = Gateway::start_with("", "max_connections = 2", &route_to(&[backend.address()], "", ""));
    let (first, _) = gateway.open();
    let (_second, _) = gateway.open();
    gateway.wait_for_metric("wsgate_connections{listener=\"public\"}", 2.0);
    let answer = gateway.ask(upgrade(""));
    assert_eq!(status(&answer), 503, "{answer}");
    assert!(answer.contains("Retry-After: "), "{answer}");
    drop(first);
    gateway.wait_for_metric("wsgate_connections{listener=\"public\"}", 1.0);
    drop(gateway.open());
}

#[test]
fn an_upgrade_may_be_the_second_request_of_a_connection() {
    let tunnel = Backend::echo();
    let plain = Backend::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi");
    let routes = format!(
        "[[upstream]]\nname = 'plain'\nservers = ['{}']\n[[route]]\nname = 'plain'\nupstream = 'plain'\npaths = ['/plain']\n{}",
        plain.address(),
        route_to(&[tunnel.address()], "", "")
    );
    let gateway = Gateway::start(&routes);
    let mut stream = gateway.connect();
    for _ in 0..2 {
        stream.write_all(b"GET /plain HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        let answer = read_answer(&mut stream);
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("hi"), "{answer}");
    }
    stream.write_all(upgrade("").as_bytes()).unwrap();
    assert_eq!(status(&read_head(&mut stream)), 101);
    stream.write_all(b"through").unwrap();
    read_exactly(&mut stream, b"through");
    gateway.wait_for_metric("wsgate_connections{listener=\"public\"}", 1.0);
}

#[test]
fn a_head_in_pieces_is_the_same_head() {
    let backend = Backend::echo();
    let gateway = Gateway::start(&route_to(&[backend.address()], "", ""));
    let request = upgrade("");
    for cut in [1, 17, 40, request.len() - 1] {
        let mut stream = gateway.connect();
        stream.write_all(&request.as_bytes()[..cut]).unwrap();
        std::thread::sleep(Duration::from_millis(20));
        stream.write_all(&request.as_bytes()[cut..]).unwrap();
        assert_eq!(status(&read_head(&mut stream)), 101);
    }
}

#[test]
fn bytes_behind_an_upgrade_are_tunnel_bytes_and_nothing_else() {
    let backend = Backend::echo();
    let gateway = Gateway::start(&route_to(&[backend.address()], "", ""));
    let mut stream = gateway.connect();
    let behind = upgrade("").replace("/ws", "/smuggled");
    stream.write_all((upgrade("") + &behind).as_bytes()).unwrap();
    assert_eq!(status(&read_head(&mut stream)), 101);
    read_exactly(&mut stream, behind.as_bytes());
    assert_eq!(backend.connections(), 1);
    assert!(!backend.recorded().contains("smuggled"));
}

#[test]
fn ambiguous_plain_requests_are_400_and_end_the_connection() {
    let backend = Backend::answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let gateway = Gateway::start(&route_to(&[backend.address()], "", ""));
    for request in [
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcd",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +4\r\n\r\nabcd",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n",
        "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        "GET / HTTP/1.1\nHost: a\n\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: b\rc\r\n\r\n",
        "GET /%2e%2e/admin HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "CONNECT b:443 HTTP/1.1\r\nHost: b:443\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        let answer = gateway.ask(request.to_owned() + "GET /second HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(status(&answer), 400, "{request:?} {answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{request:?} {answer}");
    }
    assert_eq!(backend.recorded(), "");
}

#[test]
fn no_bytes_at_all_bring_it_down() {
    let backend = Backend::echo();
    let gateway = Gateway::start_with("", "header_timeout = '300ms'", &route_to(&[backend.address()], "", ""));
    let mut seed: u64 = 42;
    for _ in 0..200 {
        let garbage: Vec<u8> = (0..64)
            .map(|_| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                seed.to_be_bytes()[0]
            })
            .collect();
        let mut stream = gateway.connect();
        let _ = stream.write_all(&garbage);
        finish(&stream);
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
    }
    drop(gateway.open());
}
