//! TLS to clients: what is agreed on, who is let in, what backends hear of it, and what becomes of it when files change.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio_rustls::rustls::version;

use crate::backend::{Backend, route_to};
use crate::harness::{self, Gateway, read_to_end};
use crate::pki::{Authority, Files, Signed};
use crate::tls_peers::{BOTH, ask, client, connect, echo, open, read_head};

const PLAIN: &str = "GET /x HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n";

fn listener(files: &Files, signed: &Signed, more: &str) -> String {
    format!("tls.certificates = [{{ {} }}]\n{more}", files.pair("server", signed))
}

fn start(listener: &str, backend: &Backend) -> Gateway {
    Gateway::start_with("", listener, &route_to(&[backend.address()], "", ""))
}

/// Switches upgrades and sends every byte back; answers everything else.
fn backend() -> Backend {
    Backend::start(|mut served| {
        let head = served.head();
        if head.contains("Upgrade: websocket") {
            served.send(crate::backend::switching(""));
            let mut reader = served.stream.try_clone().unwrap();
            let _ = std::io::copy(&mut reader, &mut served.stream);
            let _ = served.stream.shutdown(std::net::Shutdown::Write);
        } else {
            served.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
        }
    })
}

#[test]
fn upgrades_and_plain_requests_pass_in_both_versions() {
    let (ca, files, backend) = (Authority::new("ca"), Files::new(), backend());
    let gateway = start(&listener(&files, &ca.server(&["a.example"]), ""), &backend);
    for (version, label) in [(&version::TLS12, "1.2"), (&version::TLS13, "1.3")] {
        let config = client(&ca.pem, None, &[version]);
        let mut stream = connect(gateway.address(), &config, "a.example").unwrap();
        open(&mut stream, "");
        echo(&mut stream, b"hello");
        echo(&mut stream, &vec![7; 300_000]);
        // Our end is said, and the other side's is heard.
        stream.conn.send_close_notify();
        stream.flush().unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, b"");
        let full = format!("wsgate_tls_handshakes_total{{kind=\"full\",listener=\"public\",tls=\"{label}\"}}");
        gateway.wait_for_metric(&full, 1.0);
        let mut stream = connect(gateway.address(), &config, "a.example").unwrap();
        let answer = ask(&mut stream, PLAIN).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("ok"), "{answer}");
        gateway.wait_for_metric(&full.replace("full", "resumed"), 1.0);
    }
    let heads = backend.recorded().to_ascii_lowercase();
    assert_eq!(heads.matches("x-forwarded-proto: https\r\n").count(), 4, "{heads}");
    assert_eq!(heads.matches(";proto=https\r\n").count(), 4, "{heads}");
    gateway.wait_for_accesses(2, |line| line["event"] == "closed" && line["reason"] == "client-closed");
}

#[test]
fn a_refusal_is_whole_and_its_end_is_said() {
    let (ca, files, backend) = (Authority::new("ca"), Files::new(), backend());
    let gateway = start(&listener(&files, &ca.server(&["a.example"]), ""), &backend);
    let mut stream = connect(gateway.address(), &client(&ca.pem, None, &BOTH), "a.example").unwrap();
    let request = harness::upgrade("").replace("Version: 13", "Version: 9");
    assert_eq!(harness::status(&ask(&mut stream, &request).unwrap()), 426);
}

#[test]
fn the_certificate_is_that_of_the_name_asked_for() {
    let (ca, files, backend) = (Authority::new("ca"), Files::new(), backend());
    let pairs = [
        files.pair("first", &ca.server(&["first.example"])),
        files.pair("wild", &ca.server(&["*.a.example"])),
        files.pair("exact", &ca.server(&["chat.a.example", "b.example"])),
    ];
    let gateway = start(&format!("tls.certificates = [{{ {} }}]", pairs.join(" }, { ")), &backend);
    let config = client(&ca.pem, None, &BOTH);
    for name in ["first.example", "x.a.example", "chat.a.example", "b.example"] {
        connect(gateway.address(), &config, name).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    let error = connect(gateway.address(), &config, "c.example").err().unwrap();
    assert!(error.contains("not valid for name"), "{error}");
    gateway
        .wait_for_metric(r#"wsgate_tls_handshake_failures_total{listener="public",reason="refused-by-client"}"#, 1.0);
}

#[test]
fn what_is_no_tls_and_what_is_too_old_is_told_so() {
    let (ca, files, backend) = (Authority::new("ca"), Files::new(), backend());
    let gateway = start(&listener(&files, &ca.server(&["a.example"]), "tls.min_version = '1.3'"), &backend);
    let failures = |reason: &str, count: f64| {
        let series = format!("wsgate_tls_handshake_failures_total{{listener=\"public\",reason=\"{reason}\"}}");
        gateway.wait_for_metric(&series, count);
    };
    let answer = gateway.ask(PLAIN);
    assert_eq!(harness::status(&answer), 400);
    assert!(answer.ends_with("The plain HTTP request was sent to an HTTPS port.\n"), "{answer}");
    failures("not-tls", 1.0);
    let error = connect(gateway.address(), &client(&ca.pem, None, &[&version::TLS12]), "a.example").err().unwrap();
    assert!(error.contains("ProtocolVersion"), "{error}");
    failures("incompatible", 1.0);
    connect(gateway.address(), &client(&ca.pem, None, &BOTH), "a.example").unwrap();
    drop(gateway.connect());
    failures("closed", 1.0);
    assert!(!gateway.has_logged(|line| line["level"] == "ERROR"));
}

#[test]
fn a_client_has_so_long_for_the_handshake_and_is_counted_meanwhile() {
    let (ca, files, backend) = (Authority::new("ca"), Files::new(), backend());
    let more = "tls.handshake_timeout = '300ms'\nmax_connections = 1";
    let gateway = start(&listener(&files, &ca.server(&["a.example"]), more), &backend);
    let begun = Instant::now();
    let mut silent = gateway.connect();
    gateway.wait_for_metric(r#"wsgate_connections{listener="public"}"#, 1.0);
    assert_eq!(read_to_end(&mut silent), "");
    assert!(begun.elapsed() >= Duration::from_millis(300), "{:?}", begun.elapsed());
    gateway.wait_for_metric(r#"wsgate_tls_handshake_failures_total{listener="public",reason="timeout"}"#, 1.0);
    gateway.wait_for_metric(r#"wsgate_connections{listener="public"}"#, 0.0);
    let config = client(&ca.pem, None, &BOTH);
    let mut first = connect(gateway.address(), &config, "a.example").unwrap();
    open(&mut first, "");
    let mut second = connect(gateway.address(), &config, "a.example").unwrap();
    assert_eq!(harness::status(&read_head(&mut second)), 503);
}

#[test]
fn an_end_that_is_not_said_is_a_loss() {
    let (ca, files, backend) = (Authority::new("ca"), Files::new(), backend());
    let gateway = start(&listener(&files, &ca.server(&["a.example"]), ""), &backend);
    let mut stream = connect(gateway.address(), &client(&ca.pem, None, &BOTH), "a.example").unwrap();
    open(&mut stream, "");
    echo(&mut stream, b"hello");
    drop(stream);
    gateway.wait_for_access(|line| line["event"] == "closed" && line["reason"] == "client-lost");
}

#[test]
fn whose_certificate_it_is_reaches_log_and_backend_and_nobody_can_make_it_up() {
    let (ca, clients, files, backend) = (Authority::new("ca"), Authority::new("clients"), Files::new(), backend());
    let more = format!(
        "tls.client_certificates = 'optional'\ntls.client_ca = '{}'\n\
         tls.client_certificate_header = 'X-Client-Subject'\ntrusted_proxies = ['127.0.0.0/8']\n\
         [[listener]]\nname = 'inner'\nlisten = '127.0.0.1:0'",
        files.write("clients.pem", &clients.pem).display()
    );
    let gateway = start(&listener(&files, &ca.server(&["a.example"]), &more), &backend);
    let made_up = "X-Client-Subject: CN=root\r\nx_client-SUBJECT: CN=root\r\n";
    let nominated = PLAIN.replace("Connection: close", "Connection: close, X-Client-Subject");
    let plain = nominated.replace("\r\n\r\n", &format!("\r\n{made_up}\r\n"));
    let device = clients.client("device, 1");
    for identity in [Some(&device), None] {
        let config = client(&ca.pem, identity, &BOTH);
        let mut stream = connect(gateway.address(), &config, "a.example").unwrap();
        open(&mut stream, made_up);
        let mut stream = connect(gateway.address(), &config, "a.example").unwrap();
        assert_eq!(harness::status(&ask(&mut stream, &plain).unwrap()), 200);
    }
    // A backend behind both listeners could not tell through which a field came.
    let mut inner = harness::connect(gateway.listens("inner"));
    inner.write_all(plain.as_bytes()).unwrap();
    assert_eq!(harness::status(&read_to_end(&mut inner)), 200);
    let heads = backend.recorded().to_ascii_lowercase();
    assert_eq!(heads.matches("subject").count(), 2, "{heads}");
    assert_eq!(heads.matches("x-client-subject: cn=device\\, 1\r\n").count(), 2, "{heads}");
    let named = gateway.wait_for_accesses(2, |line| line["client_certificate"] == "CN=device\\, 1");
    assert_eq!((named[0]["event"].as_str(), named[1]["event"].as_str()), (Some("opened"), Some("request")));
    gateway.wait_for_accesses(2, |line| line["event"] == "request" && line["client_certificate"].is_null());
}

#[test]
fn who_has_no_right_certificate_is_not_let_in_where_one_is_required() {
    let (ca, clients, files, backend) = (Authority::new("ca"), Authority::new("clients"), Files::new(), backend());
    let more = format!(
        "tls.client_certificates = 'required'\ntls.client_ca = '{}'",
        files.write("clients.pem", &clients.pem).display()
    );
    let gateway = start(&listener(&files, &ca.server(&["a.example"]), &more), &backend);
    let expired = clients.expired(&["device"]);
    let cases = [
        (None, "CertificateRequired", "certificate-missing"),
        (Some(ca.client("device")), "UnknownCA", "certificate-refused"),
        (Some(expired), "CertificateExpired", "certificate-refused"),
    ];
    for (identity, alert, _) in &cases {
        let config = client(&ca.pem, identity.as_ref(), &BOTH);
        let asked = connect(gateway.address(), &config, "a.example").and_then(|mut stream| ask(&mut stream, PLAIN));
        let error = asked.err().unwrap();
        assert!(error.contains(alert), "{error}");
    }
    for (reason, count) in [("certificate-missing", 1.0), ("certificate-refused", 2.0)] {
        let series = format!("wsgate_tls_handshake_failures_total{{listener=\"public\",reason=\"{reason}\"}}");
        gateway.wait_for_metric(&series, count);
    }
    let config = client(&ca.pem, Some(&clients.client("device")), &BOTH);
    let mut stream = connect(gateway.address(), &config, "a.example").unwrap();
    assert_eq!(harness::status(&ask(&mut stream, PLAIN).unwrap()), 200);
    assert_eq!(backend.connections(), 1, "nothing of the refused reached the backend");
}

/// What the gateway shows now, as the end of its certificate.
fn shown(gateway: &Gateway, ca: &str) -> Vec<u8> {
    let stream = connect(gateway.address(), &client(ca, None, &BOTH), "a.example").unwrap();
    stream.conn.peer_certificates().unwrap()[0].to_vec()
}

#[test]
fn a_certificate_is_swapped_under_500_open_tunnels() {
    let (ca, files, backend) = (Authority::new("ca"), Files::new(), backend());
    let gateway = start(&listener(&files, &ca.server(&["a.example"]), ""), &backend);
    let config = client(&ca.pem, None, &BOTH);
    let mut tunnels: Vec<_> = (0..500)
        .map(|_| {
            let mut stream = connect(gateway.address(), &config, "a.example").unwrap();
            open(&mut stream, "");
            stream
        })
        .collect();
    let before = shown(&gateway, &ca.pem);
    // On file change alone.
    files.pair("server", &ca.server(&["a.example"]));
    gateway.wait_for_message("certificates, keys and CAs reloaded");
    let after = shown(&gateway, &ca.pem);
    assert_ne!(before, after);
    // And by a signal, where the watch may have been first.
    files.pair("server", &ca.server(&["a.example"]));
    gateway.signal(Signal::HUP);
    gateway.wait_for_message("configuration reloaded");
    assert_ne!(after, shown(&gateway, &ca.pem));
    for (index, tunnel) in tunnels.iter_mut().enumerate() {
        echo(tunnel, format!("tunnel {index}").as_bytes());
    }
    assert_eq!(gateway.metric(r#"wsgate_tunnels{route="r",upstream="u",version="13"}"#), 500.0);
}

#[test]
fn a_bad_pair_keeps_the_old_one_and_says_so() {
    let (ca, files, backend) = (Authority::new("ca"), Files::new(), backend());
    let (good, other) = (ca.server(&["a.example"]), ca.server(&["a.example"]));
    let gateway = start(&listener(&files, &good, ""), &backend);
    let before = shown(&gateway, &ca.pem);
    let mismatch = |line: &serde_json::Value| line["message"] == "the key is not that of the certificate";
    let successful = "wsgate_config_last_reload_successful";
    files.write("server.key", &other.key);
    let said = gateway.wait_for_log(mismatch);
    assert_eq!(said["key"], "listener.public.tls.certificates");
    assert!(said["file"].as_str().unwrap().ends_with("server.key"), "{said}");
    assert_eq!(shown(&gateway, &ca.pem), before);
    gateway.wait_for_metric(successful, 0.0);
    gateway.signal(Signal::HUP);
    gateway.wait_for_message("reload refused, the configuration in force stays");
    assert_eq!(shown(&gateway, &ca.pem), before);
    // The reload that was refused for its files is tried again once they are good.
    files.write("server.pem", &other.certificate);
    gateway.wait_for_message("configuration reloaded");
    assert_ne!(shown(&gateway, &ca.pem), before);
    gateway.wait_for_metric(successful, 1.0);
}

#[test]
fn who_is_believed_changes_with_the_file() {
    let (ca, files, backend) = (Authority::new("ca"), Files::new(), backend());
    let (old, new) = (Authority::new("clients"), Authority::new("clients"));
    let path = files.write("clients.pem", &old.pem);
    let more = format!("tls.client_certificates = 'required'\ntls.client_ca = '{}'", path.display());
    let gateway = start(&listener(&files, &ca.server(&["a.example"]), &more), &backend);
    // The one session could be resumed, if that did not end with whom the gateway believes.
    let config = client(&ca.pem, Some(&old.client("device")), &BOTH);
    let ask_once = || connect(gateway.address(), &config, "a.example").and_then(|mut stream| ask(&mut stream, PLAIN));
    assert!(ask_once().is_ok());
    files.write("clients.pem", &new.pem);
    gateway.wait_for_message("certificates, keys and CAs reloaded");
    assert!(ask_once().is_err());
    let config = client(&ca.pem, Some(&new.client("device")), &BOTH);
    let mut stream = connect(gateway.address(), &config, "a.example").unwrap();
    assert_eq!(harness::status(&ask(&mut stream, PLAIN).unwrap()), 200);
}

#[test]
fn a_certificate_says_when_it_expires_and_one_that_has_is_shown_with_a_warning() {
    let (ca, files, backend) = (Authority::new("ca"), Files::new(), backend());
    let gateway = start(&listener(&files, &ca.expired(&["a.example"]), ""), &backend);
    let said = gateway.wait_for_message("certificate is expired");
    assert_eq!(said["level"], "WARN");
    let file = said["file"].as_str().unwrap();
    let series = format!("wsgate_tls_certificate_not_after_timestamp_seconds{{certificate=\"{file}\"}}");
    assert_eq!(gateway.metric(&series), 1_609_459_200.0);
    let error = connect(gateway.address(), &client(&ca.pem, None, &BOTH), "a.example").err().unwrap();
    assert!(error.contains("expired"), "{error}");
}

#[test]
fn a_start_and_a_check_name_every_bad_file() {
    let (ca, files) = (Authority::new("ca"), Files::new());
    let (one, two) = (ca.server(&["a.example"]), ca.server(&["a.example"]));
    let mixed = Signed { certificate: one.certificate, key: two.key };
    let rest = route_to(&["127.0.0.1:9".parse().unwrap()], "tls = { server_name = 'b', ca = '/nonexistent.pem' }", "");
    let text = harness::configuration("", &listener(&files, &mixed, ""), &rest);
    let mut gateway = Gateway::launch(&text, &[], &[]);
    assert_eq!(gateway.wait(), 1);
    gateway.wait_for_message("the key is not that of the certificate");
    gateway.wait_for_log(|line| line["key"] == "upstream.u.tls.ca" && line["file"] == "/nonexistent.pem");
    gateway.wait_for_message("2 of the files for TLS cannot be used; `wsgate check` names them too");
    let check = std::process::Command::new(env!("CARGO_BIN_EXE_wsgate"))
        .args(["check", "-c"])
        .arg(gateway.path())
        .output()
        .unwrap();
    assert_eq!(check.status.code(), Some(1));
    let said = String::from_utf8(check.stderr).unwrap();
    assert!(said.contains("listener.public.tls.certificates: the key is not that of the certificate: `"), "{said}");
    assert!(said.contains("upstream.u.tls.ca: cannot be read, entity not found: `/nonexistent.pem`"), "{said}");
    assert_eq!(said.matches("= help: ").count(), 2, "{said}");
}
