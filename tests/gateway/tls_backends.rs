//! TLS to backends: who is believed and who is not, on the way of upgrades and on that of plain requests.

use std::net::SocketAddr;

use tokio_rustls::rustls::version;

use crate::backend::{Backend, route_to};
use crate::harness::{Gateway, read_exactly, status};
use crate::pki::{Authority, Files, Signed, self_signed};
use crate::tls_peers::{BOTH, TlsBackend};
use std::io::Write;

const PLAIN: &str = "GET /x HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n";

fn start(servers: &[SocketAddr], upstream: &str) -> Gateway {
    Gateway::start(&route_to(servers, &format!("balance = 'round-robin'\n{upstream}"), ""))
}

#[test]
fn both_ways_go_through_tls_and_resume_sessions() {
    let (ca, clients, files) = (Authority::new("ca"), Authority::new("clients"), Files::new());
    let backend = TlsBackend::start(&ca.server(&["app.example"]), Some(&clients.pem), &BOTH);
    let ca_file = files.write("ca.pem", &ca.pem);
    let identity = files.pair("gateway", &clients.client("gateway"));
    let tls = format!("tls = {{ server_name = 'app.example', ca = '{}', {identity} }}", ca_file.display());
    let gateway = start(&[backend.address()], &tls);
    for _ in 0..2 {
        let (mut stream, _) = gateway.open();
        stream.write_all(b"hello").unwrap();
        read_exactly(&mut stream, b"hello");
        let answer = gateway.ask(PLAIN);
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("ok"), "{answer}");
    }
    let seen = backend.seen();
    assert_eq!(seen.len(), 4, "{seen:?}");
    assert!(seen.iter().all(|seen| seen.name.as_deref() == Some("app.example") && seen.has_certificate), "{seen:?}");
    // A session of either way is resumed by the other, and the first began it.
    assert!(!seen[0].is_resumed && seen[1..].iter().all(|seen| seen.is_resumed), "{seen:?}");
    assert!(seen[1].head.to_ascii_lowercase().contains("x-forwarded-proto: http\r\n"), "{:?}", seen[1]);
    let series = |path: &str| format!("wsgate_tls_certificate_not_after_timestamp_seconds{{certificate=\"{path}\"}}");
    let path = ca_file.with_file_name("gateway.pem");
    assert!(gateway.metric(&series(&path.display().to_string())) > 1.6e9);
}

/// A server that is not believed is none: not on either way, and not even the head of a request reaches it.
fn check_refused(backend: &TlsBackend, ca: &str, said: &str) {
    let (good_ca, files) = (Authority::new("good"), Files::new());
    let _ = good_ca;
    let ca = files.write("ca.pem", ca);
    let tls = format!("tls = {{ server_name = 'app.example', ca = '{}' }}\nhealth.fall = 100", ca.display());
    let gateway = start(&[backend.address()], &tls);
    for request in [crate::harness::upgrade(""), PLAIN.to_owned()] {
        let answer = gateway.ask(request);
        assert_eq!(status(&answer), 502, "{answer}");
        assert!(answer.ends_with("No TLS can be agreed on with the backend.\n"), "{answer}");
    }
    gateway.wait_for_log(|line| line["error"].as_str().is_some_and(|error| error.contains(said)));
    let server = backend.address();
    let series = format!("wsgate_backend_failures_total{{reason=\"backend-tls\",server=\"{server}\",upstream=\"u\"}}");
    gateway.wait_for_metric(&series, 2.0);
    assert!(backend.seen().is_empty(), "{:?}", backend.seen());
}

fn with(signed: &Signed) -> TlsBackend {
    TlsBackend::start(signed, None, &BOTH)
}

#[test]
fn a_certificate_that_is_expired_is_not_believed() {
    let ca = Authority::new("ca");
    check_refused(&with(&ca.expired(&["app.example"])), &ca.pem, "expired");
}

#[test]
fn a_certificate_for_another_name_is_not_believed() {
    let ca = Authority::new("ca");
    check_refused(&with(&ca.server(&["other.example", "127.0.0.1"])), &ca.pem, "not valid for name");
}

#[test]
fn a_certificate_of_another_authority_is_not_believed() {
    let (ca, other) = (Authority::new("ca"), Authority::new("ca"));
    check_refused(&with(&other.server(&["app.example"])), &ca.pem, "invalid peer certificate");
}

#[test]
fn a_certificate_that_nobody_else_signed_is_not_believed() {
    let ca = Authority::new("ca");
    check_refused(&with(&self_signed(&["app.example"])), &ca.pem, "UnknownIssuer");
}

#[test]
fn a_server_that_is_too_old_is_not_spoken_to() {
    let (ca, files) = (Authority::new("ca"), Files::new());
    let old = TlsBackend::start(&ca.server(&["app.example"]), None, &[&version::TLS12]);
    let ca = files.write("ca.pem", &ca.pem);
    let tls = format!("tls = {{ server_name = 'app.example', ca = '{}', min_version = '1.3' }}", ca.display());
    let gateway = start(&[old.address()], &tls);
    for request in [crate::harness::upgrade(""), PLAIN.to_owned()] {
        assert_eq!(status(&gateway.ask(request)), 502);
    }
    assert!(old.seen().is_empty());
}

#[test]
fn a_server_that_does_not_believe_us_is_told_from_one_that_is_gone() {
    let (ca, clients, files) = (Authority::new("ca"), Authority::new("clients"), Files::new());
    let backend = TlsBackend::start(&ca.server(&["app.example"]), Some(&clients.pem), &BOTH);
    let ca = files.write("ca.pem", &ca.pem);
    let gateway =
        start(&[backend.address()], &format!("tls = {{ server_name = 'app.example', ca = '{}' }}", ca.display()));
    assert_eq!(status(&gateway.ask(crate::harness::upgrade(""))), 502);
    gateway.wait_for_access(|line| line["event"] == "refused" && line["reason"] == "backend-tls");
}

#[test]
fn a_server_that_speaks_plainly_is_never_fallen_back_to_and_the_next_one_is_tried() {
    let (ca, files) = (Authority::new("ca"), Files::new());
    let plain = Backend::echo();
    let (expired, good) = (with(&ca.expired(&["10.0.0.7"])), with(&ca.server(&["10.0.0.7"])));
    let ca = files.write("ca.pem", &ca.pem);
    let tls = format!(
        "tls = {{ server_name = '10.0.0.7', ca = '{}' }}\ntries = 3\nconnect_timeout = '300ms'\nhealth.fall = 100",
        ca.display()
    );
    let gateway = start(&[plain.address(), expired.address(), good.address()], &tls);
    for _ in 0..3 {
        gateway.open();
        assert_eq!(status(&gateway.ask(PLAIN)), 200);
    }
    assert_eq!(good.seen().len(), 6);
    assert!(!plain.recorded().contains("HTTP"), "{}", plain.recorded());
}
