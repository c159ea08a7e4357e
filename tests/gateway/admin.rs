//! What the gateway tells of itself: metrics in two formats, health, readiness, status, and the access log.

use std::io::Write;

use crate::backend::{Backend, route_to};
use crate::harness::{Gateway, upgrade};

#[test]
fn metrics_come_in_the_format_that_is_asked_for() {
    let backend = Backend::echo();
    let gateway = Gateway::start(&route_to(&[backend.address()], "", ""));
    drop(gateway.open());
    let (status, text) = gateway.admin("/metrics", "");
    assert_eq!(status, 200);
    assert!(text.contains("text/plain; version=0.0.4") && text.contains("wsgate_tunnels_total{"), "{text}");
    assert!(text.contains("process_open_fds") && text.contains("wsgate_build_info{"), "{text}");
    let (_, open) = gateway.admin("/metrics", "Accept: application/openmetrics-text;version=1.0.0\r\n");
    assert!(open.contains("application/openmetrics-text; version=1.0.0"), "{open}");
    assert!(open.contains("# TYPE wsgate_tunnel_bytes counter"), "{open}");
    assert!(open.trim_end().ends_with("# EOF"), "{open}");
}

#[test]
fn the_admin_listener_only_reads() {
    let backend = Backend::echo();
    let gateway = Gateway::start(&route_to(&[backend.address()], "", ""));
    assert_eq!(gateway.admin("/healthz", "").0, 200);
    assert_eq!(gateway.admin("/readyz", "").0, 200);
    assert_eq!(gateway.admin("/nothing", "").0, 404);
    let mut stream = std::net::TcpStream::connect(gateway.address_of("admin")).unwrap();
    stream.write_all(b"POST /status HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 0\r\n\r\n").unwrap();
    assert!(crate::harness::read_to_end(&mut stream).starts_with("HTTP/1.1 405 "));
}

#[test]
fn status_shows_what_is_configured_and_what_is_happening() {
    let backend = Backend::echo();
    let gateway = Gateway::start(&route_to(&[backend.address()], "", "[route.limits]\nhandshakes_per_client = '9/s'"));
    let _tunnel = gateway.open();
    let status = gateway.status();
    assert_eq!(status["phase"], "ready");
    assert_eq!(status["routes"][0]["served"], serde_json::json!([13]));
    assert_eq!(status["routes"][0]["tunnels"], 1);
    assert_eq!(status["listeners"][0]["connections"], 1);
    assert_eq!(status["upstreams"][0]["servers"][0]["tunnels"], 1);
    assert_eq!(status["upstreams"][0]["servers"][0]["up"], true);
    assert_eq!(status["not_in_force"], serde_json::json!(["route.r.limits.handshakes_per_client"]));
    gateway.wait_for_log(|line| line["key"] == "route.r.limits.handshakes_per_client");
}

#[test]
fn a_tunnel_has_two_records_with_one_id() {
    let backend = Backend::echo();
    let gateway = Gateway::start(&route_to(&[backend.address()], "", ""));
    let mut stream = gateway.connect();
    stream.write_all(upgrade("Origin: https://a.example\r\nUser-Agent: test \"agent\"\r\n").as_bytes()).unwrap();
    crate::harness::read_head(&mut stream);
    let opened = gateway.wait_for_access(|line| line["event"] == "opened");
    for (field, expected) in [
        ("listener", "public"),
        ("route", "r"),
        ("host", "a.example"),
        ("path", "/ws"),
        ("origin", "https://a.example"),
        ("user_agent", "test \"agent\""),
        ("version", "13"),
        ("backend_version", "13"),
        ("upstream", "u"),
    ] {
        assert_eq!(opened[field], expected, "{field} in {opened}");
    }
    assert!(opened["handshake_seconds"].as_f64().is_some_and(|seconds| seconds > 0.0), "{opened}");
    drop(stream);
    let closed = gateway.wait_for_access(|line| line["event"] == "closed");
    assert_eq!(closed["id"], opened["id"]);
    assert!(closed["duration_seconds"].as_f64().is_some(), "{closed}");
}
