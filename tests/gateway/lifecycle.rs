//! Signals: how the gateway goes away, and what it does not do on the way.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::backend::{Backend, route_to};
use crate::harness::{Gateway, finish, read_exactly, read_to_end, status, upgrade};

const PATIENT: &str = "[gateway.drain]\ndelay = '300ms'\nspread = '0s'\ntimeout = '20s'";

#[test]
fn a_drain_fails_readiness_first_then_stops_accepting_and_ends_with_the_last_tunnel() {
    let backend = Backend::echo();
    let mut gateway = Gateway::start_with(PATIENT, "", &route_to(&[backend.address()], "", ""));
    assert_eq!(gateway.admin("/readyz", "").0, 200);
    let (mut stream, _) = gateway.open();
    gateway.signal(Signal::TERM);
    gateway.wait_for_log(|line| line["message"] == "draining");
    assert_eq!(gateway.admin("/readyz", "").0, 503);
    assert_eq!(gateway.admin("/healthz", "").0, 200);
    // A load balancer that has not yet looked sends clients here, and they are served.
    let (mut late, _) = gateway.open();
    wait_until_refused(&gateway);
    assert!(gateway.metric("wsgate_drain_remaining") >= 1.0);
    for stream in [&mut stream, &mut late] {
        read_exactly(stream, b"\x88\x09\x03\xE9drained");
    }
    let last = Instant::now();
    drop((stream, late));
    assert_eq!(gateway.wait(), 0);
    assert!(last.elapsed() < Duration::from_secs(10), "it waits for nothing after the last tunnel");
}

#[test]
fn a_kept_connection_gets_no_tunnel_once_listeners_are_closed() {
    let backend = Backend::echo();
    let mut gateway = Gateway::start_with(PATIENT, "", &route_to(&[backend.address()], "", ""));
    // Does not answer its Close, so the gateway stays for a while.
    let _tunnel = gateway.open();
    let mut stream = gateway.connect();
    // A head that is on its way when the listener closes is still answered.
    stream.write_all(&upgrade("").as_bytes()[..30]).unwrap();
    gateway.signal(Signal::TERM);
    wait_until_refused(&gateway);
    stream.write_all(&upgrade("").as_bytes()[30..]).unwrap();
    let answer = read_to_end(&mut stream);
    assert_eq!(status(&answer), 503, "{answer}");
    assert!(answer.contains("Retry-After: "), "{answer}");
    assert_eq!(gateway.wait(), 0);
}

fn wait_until_refused(gateway: &Gateway) {
    let until = Instant::now() + crate::harness::PATIENCE;
    while TcpStream::connect(gateway.address()).is_ok() {
        assert!(Instant::now() < until, "the listener stays open");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn an_idle_gateway_is_gone_at_once() {
    let backend = Backend::echo();
    let mut gateway = Gateway::start(&route_to(&[backend.address()], "", ""));
    // A connection that waits for its next request does not hold it up.
    let idle = gateway.connect();
    let start = Instant::now();
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.wait(), 0);
    assert!(start.elapsed() < Duration::from_secs(3));
    drop(idle);
}

#[test]
fn a_drain_ends_at_its_timeout() {
    let backend = Backend::echo();
    let drain = "[gateway.drain]\nspread = '0s'\ntimeout = '300ms'";
    let mut gateway = Gateway::start_with(drain, "", &route_to(&[backend.address()], "", ""));
    let (mut stream, _) = gateway.open();
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.wait(), 0);
    let mut heard = [0; 11];
    stream.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"\x88\x09\x03\xE9drained");
    assert_eq!(read_to_end(&mut stream), "", "one Close and no more");
    gateway.wait_for_log(|line| line["message"] == "drain timed out" && line["left"] == 1);
    gateway.wait_for_access(|line| line["event"] == "closed" && line["reason"] == "drain-timeout");
}

#[test]
fn a_second_signal_and_an_interrupt_end_at_once() {
    // What is cut leaves its record all the same.
    let is_cut = |line: &serde_json::Value| line["event"] == "closed" && line["reason"] == "drain-timeout";
    for signals in [[Signal::TERM, Signal::TERM], [Signal::TERM, Signal::INT]] {
        let backend = Backend::echo();
        let mut gateway = Gateway::start_with(PATIENT, "", &route_to(&[backend.address()], "", ""));
        let _tunnel = gateway.open();
        gateway.signal(signals[0]);
        gateway.wait_for_log(|line| line["message"] == "draining");
        gateway.signal(signals[1]);
        let start = Instant::now();
        gateway.wait();
        assert!(start.elapsed() < Duration::from_secs(5));
        gateway.wait_for_access(is_cut);
    }
    let backend = Backend::echo();
    let mut gateway = Gateway::start_with(PATIENT, "", &route_to(&[backend.address()], "", ""));
    let _tunnel = gateway.open();
    gateway.signal(Signal::INT);
    gateway.wait();
    gateway.wait_for_access(is_cut);
}

#[test]
fn every_tunnel_that_is_cut_has_its_record() {
    const TUNNELS: usize = 50;
    for (timeout, signals) in
        [("20s", &[Signal::TERM, Signal::TERM][..]), ("20s", &[Signal::INT]), ("300ms", &[Signal::TERM])]
    {
        let backend = Backend::echo();
        let drain = format!("[gateway.drain]\nspread = '0s'\ntimeout = '{timeout}'");
        let mut gateway = Gateway::start_with(&drain, "", &route_to(&[backend.address()], "", ""));
        // None of them answers a Close.
        let _tunnels: Vec<_> = (0..TUNNELS).map(|_| gateway.open()).collect();
        gateway.wait_for_accesses(TUNNELS, |line| line["event"] == "opened");
        for &signal in signals {
            gateway.signal(signal);
            if signal == Signal::TERM {
                gateway.wait_for_log(|line| line["message"] == "draining");
            }
        }
        assert_eq!(gateway.wait(), 0);
        let is_cut = |line: &serde_json::Value| line["event"] == "closed" && line["reason"] == "drain-timeout";
        assert_eq!(gateway.wait_for_accesses(TUNNELS, is_cut).len(), TUNNELS);
    }
}

#[test]
fn a_plain_request_in_flight_finishes() {
    let slow = Backend::start(|mut served| {
        served.head();
        std::thread::sleep(Duration::from_millis(700));
        served.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate");
    });
    let mut gateway = Gateway::start(&route_to(&[slow.address()], "", ""));
    let mut stream = gateway.connect();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let until = Instant::now() + crate::harness::PATIENCE;
    while slow.connections() == 0 {
        assert!(Instant::now() < until, "the request does not reach the backend");
        std::thread::sleep(Duration::from_millis(5));
    }
    gateway.signal(Signal::TERM);
    let answer = read_to_end(&mut stream);
    assert!(answer.ends_with("late"), "{answer}");
    assert_eq!(gateway.wait(), 0);
}

#[test]
fn log_files_are_reopened_on_a_signal() {
    let backend = Backend::echo();
    let gateway = Gateway::start(&route_to(&[backend.address()], "", ""));
    gateway.signal(Signal::USR1);
    gateway.wait_for_log(|line| line["message"] == "access log reopened");
    drop(gateway.open());
}

#[test]
fn a_taken_address_is_an_error_with_a_name() {
    let backend = Backend::echo();
    let gateway = Gateway::start(&route_to(&[backend.address()], "", ""));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("taken.toml");
    let text = format!(
        "[admin]\nlisten = 'off'\n[[listener]]\nname = 'public'\nlisten = '{}'\n{}\n",
        gateway.address(),
        route_to(&[backend.address()], "", "")
    );
    std::fs::write(&path, text).unwrap();
    let output =
        std::process::Command::new(env!("CARGO_BIN_EXE_wsgate")).args(["run", "-c"]).arg(&path).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains(&gateway.address().to_string()) && said.contains("`public`"), "{said}");
}

#[test]
fn a_handshake_in_progress_finishes_and_its_tunnel_is_drained() {
    let slow = Backend::start(|mut served| {
        served.head();
        std::thread::sleep(Duration::from_millis(700));
        served.send(crate::backend::switching("") + "late");
    });
    let mut gateway = Gateway::start(&route_to(&[slow.address()], "", ""));
    let mut stream = gateway.connect();
    stream.write_all(upgrade("").as_bytes()).unwrap();
    let until = Instant::now() + crate::harness::PATIENCE;
    while slow.connections() == 0 {
        assert!(Instant::now() < until, "the handshake does not reach the backend");
        std::thread::sleep(Duration::from_millis(5));
    }
    gateway.signal(Signal::TERM);
    assert_eq!(status(&crate::harness::read_head(&mut stream)), 101);
    read_exactly(&mut stream, b"late");
    finish(&stream);
    assert_eq!(gateway.wait(), 0);
}
