//! What the gateway tells of itself: metrics in two formats, health, readiness, status, and the access log.

use std::collections::BTreeMap;
use std::io::Write;

use serde_json::{Value, json};

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
    let mut stream = std::net::TcpStream::connect(gateway.listens("admin")).unwrap();
    stream.write_all(b"POST /status HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 0\r\n\r\n").unwrap();
    assert!(crate::harness::read_to_end(&mut stream).starts_with("HTTP/1.1 405 "));
}

fn admin_address(gateway: &Gateway) -> String {
    let line = gateway.wait_for_log(|line| line["message"] == "listening" && line["listener"] == "admin");
    line["address"].as_str().unwrap().to_owned()
}

#[test]
fn the_page_is_served_by_the_program_alone_and_may_do_nothing_else() {
    let backend = Backend::echo();
    let gateway = Gateway::start(&route_to(&[backend.address()], "", ""));
    for (path, content_type, part) in [
        ("/", "text/html; charset=utf-8", "<!doctype html>"),
        ("/page.css", "text/css; charset=utf-8", "prefers-color-scheme: dark"),
        ("/page.js", "text/javascript; charset=utf-8", "\"use strict\""),
    ] {
        let (status, answer) = gateway.admin(path, "");
        assert_eq!(status, 200, "{path}");
        assert!(answer.contains(part), "{answer}");
        let policy = header(&answer, "content-security-policy");
        assert!(policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self';"), "{policy}");
        assert!(!policy.contains("unsafe") && policy.contains("frame-ancestors 'none'"), "{policy}");
        assert_eq!(header(&answer, "content-type"), content_type);
        assert_eq!(header(&answer, "x-content-type-options"), "nosniff");
        assert_eq!(header(&answer, "referrer-policy"), "no-referrer");
        assert_eq!(header(&answer, "cache-control"), "no-store");
    }
    for path in ["/status", "/metrics", "/healthz", "/nothing"] {
        assert_eq!(header(&gateway.admin(path, "").1, "x-content-type-options"), "nosniff", "{path}");
    }
    assert_eq!(gateway.admin("/?query", "").0, 200);
    assert_eq!(gateway.admin("/page.html", "").0, 404);
}

/// The value of a field that an answer has once.
fn header<'a>(answer: &'a str, name: &str) -> &'a str {
    let (head, _) = answer.split_once("\n\n").unwrap();
    let fields = head.lines().filter_map(|line| line.split_once(": "));
    let values: Vec<&str> = fields.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value).collect();
    assert_eq!(values.len(), 1, "{name} in {head}");
    values[0]
}

#[test]
fn a_head_request_for_the_page_gets_no_body() {
    let backend = Backend::echo();
    let gateway = Gateway::start(&route_to(&[backend.address()], "", ""));
    let mut stream = std::net::TcpStream::connect(admin_address(&gateway)).unwrap();
    stream.write_all(b"HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    let answer = crate::harness::read_to_end(&mut stream);
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\n"), "{answer}");
}

#[test]
fn status_counts_what_metrics_count() {
    let backend = Backend::echo();
    let nobody = Backend::nobody();
    let servers = "[[upstream]]\nname = 'down'\nservers = ['{nobody}']\ntries = 1\nhealth = { fall = 1 }\n\
                   [[route]]\nname = 'd'\npaths = ['/down']\nupstream = 'down'\n";
    let servers = servers.replace("{nobody}", &nobody.to_string());
    let rest = servers + &route_to(&[backend.address()], "", "paths = ['/ws']\nlimits = { tunnels = 9 }");
    let gateway = Gateway::start(&rest);
    let _tunnel = gateway.open();
    gateway.ask(upgrade("").replace("Version: 13", "Version: 8"));
    gateway.ask(upgrade("").replace("/ws", "/elsewhere"));
    gateway.ask(upgrade("").replace("/ws", "/down"));
    gateway.wait_for_metric("wsgate_tunnels{route=\"r\",upstream=\"u\",version=\"13\"}", 1.0);
    let status = gateway.status();
    let (down, route) = (&status["routes"][0], &status["routes"][1]);
    assert_eq!((&status["tunnels"], &route["tunnels"], &route["max_tunnels"]), (&json!(1), &json!(1), &json!(9)));
    assert_eq!((&route["asked"]["13"], &route["asked"]["8"], &route["asked"]["7"]), (&json!(1), &json!(1), &json!(0)));
    assert_eq!(route["refusals"], json!({ "version-unsupported": 1 }));
    assert_eq!(down["refusals"], json!({ "backend-unavailable": 1 }));
    assert_eq!(status["unrouted"], json!({ "asked": { "13": 1 }, "refusals": { "no-route": 1 } }));
    let server = &status["upstreams"][0]["servers"][0];
    assert_eq!((&server["up"], &server["failures"]), (&json!(false), &json!({ "backend-unavailable": 1 })));
    assert_eq!(status["reload"]["last_successful"], true);
    assert!(status["reload"]["last_success_time"].as_u64().is_some_and(|time| time > 1_700_000_000), "{status}");
}

#[test]
fn status_has_the_fields_that_are_documented() {
    let backend = Backend::echo();
    let rest = route_to(&[backend.address()], "health.check = 'tcp'", "");
    let gateway = Gateway::start(&rest.replace("servers = [", "servers = ['localhost:9001', "));
    let documented = documented_fields();
    let mut found = BTreeMap::new();
    collect(&gateway.status(), "", &documented, &mut found);
    assert_eq!(found.keys().collect::<Vec<_>>(), documented.keys().collect::<Vec<_>>());
    for (field, kind) in &documented {
        let value = &found[field];
        let right = match kind.as_str() {
            "text" => value.is_string(),
            "number" => value.is_number(),
            "text or null" => value.is_string() || value.is_null(),
            "number or null" => value.is_number() || value.is_null(),
            "yes or no" => value.is_boolean(),
            "list" => value.is_array(),
            "list or null" => value.is_array() || value.is_null(),
            "list or text" => value.is_array() || value.is_string(),
            "counts" => value.as_object().is_some_and(|counts| counts.values().all(Value::is_u64)),
            other => panic!("unknown kind: `{other}`"),
        };
        assert!(right, "{field} is documented as {kind} and is {value}");
    }
}

/// The table of the section of `docs/operating.md`: a kind for each field.
fn documented_fields() -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operating.md")).unwrap();
    let (_, rest) = text.split_once("\n## Status\n").unwrap();
    let (section, _) = rest.split_once("\n## ").unwrap();
    let mut fields = BTreeMap::new();
    for line in section.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        for field in cells[1].split(", ") {
            let before = fields.insert(field.trim_matches('`').to_owned(), cells[2].to_owned());
            assert_eq!(before, None, "{field} is documented twice");
        }
    }
    fields
}

/// Every field with its path, down to what is documented as a whole, or to what is no object.
fn collect(value: &Value, path: &str, documented: &BTreeMap<String, String>, found: &mut BTreeMap<String, Value>) {
    match value {
        _ if documented.contains_key(path) => drop(found.insert(path.to_owned(), value.clone())),
        Value::Object(fields) => {
            for (name, value) in fields {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                collect(value, &path, documented, found);
            }
        }
        Value::Array(items) if items.iter().any(Value::is_object) => {
            items.iter().for_each(|item| collect(item, &format!("{path}[]"), documented, found));
        }
        _ => drop(found.insert(path.to_owned(), value.clone())),
    }
}

#[test]
fn status_shows_what_is_configured_and_what_is_happening() {
    let backend = Backend::echo();
    let gateway = Gateway::start(&route_to(&[backend.address()], "health.check = 'tcp'", ""));
    let _tunnel = gateway.open();
    gateway.wait_for_metric("wsgate_tunnels{route=\"r\",upstream=\"u\",version=\"13\"}", 1.0);
    let status = gateway.status();
    assert_eq!(status["phase"], "ready");
    assert_eq!(status["routes"][0]["tunnels"], 1);
    assert_eq!(status["listeners"][0]["connections"], 1);
    assert_eq!(status["upstreams"][0]["servers"][0]["tunnels"], 1);
    assert_eq!(status["upstreams"][0]["servers"][0]["up"], true);
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
