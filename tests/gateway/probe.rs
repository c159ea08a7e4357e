//! `wsgate probe` against scripted servers of every kind: what it finds, prints and exits with. The servers share no code with the
//! gateway, so that the two can disagree on what a proof is.

use std::io::{Read, Write};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use md5::Md5;
use serde_json::{Value, json};
use sha1::{Digest, Sha1};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::backend::{Backend, route_to};
use crate::harness::Gateway;

const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// One request, as a server reads it.
struct Ask {
    head: String,
    key3: Vec<u8>,
}

impl Ask {
    fn read(stream: &mut impl Read) -> Ask {
        let (mut head, mut byte) = (Vec::new(), [0]);
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read(&mut byte) {
                Ok(1) => head.push(byte[0]),
                // A connection without a request.
                _ => break,
            }
        }
        let head = String::from_utf8(head).unwrap();
        let mut key3 = vec![0; if head.contains("Sec-WebSocket-Key1: ") { 8 } else { 0 }];
        stream.read_exact(&mut key3).unwrap();
        Ask { head, key3 }
    }

    fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    fn version(&self) -> Option<&str> {
        self.field("Sec-WebSocket-Version")
    }

    /// The 101 of versions 13, 8 and 7.
    fn hybi(&self) -> Vec<u8> {
        let key = self.field("Sec-WebSocket-Key").unwrap();
        let accept = STANDARD.encode(Sha1::digest(format!("{key}{GUID}")));
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {accept}\r\n\r\n"
        )
        .into_bytes()
    }

    /// The 101 of version 0.
    fn hixie_76(&self) -> Vec<u8> {
        let number = |name| {
            let key = self.field(name).unwrap();
            let digits: String = key.chars().filter(char::is_ascii_digit).collect();
            let spaces = key.matches(' ').count() as u64;
            u32::try_from(digits.parse::<u64>().unwrap() / spaces).unwrap().to_be_bytes()
        };
        let numbers = [number("Sec-WebSocket-Key1"), number("Sec-WebSocket-Key2")].concat();
        let digest = Md5::new().chain_update(numbers).chain_update(&self.key3).finalize();
        let head = "HTTP/1.1 101 WebSocket Protocol Handshake\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\n\
                    Sec-WebSocket-Origin: http://a.example\r\nSec-WebSocket-Location: ws://a.example/\r\n\r\n";
        [head.as_bytes(), &digest].concat()
    }
}

const HIXIE_75: &[u8] = b"HTTP/1.1 101 Web Socket Protocol Handshake\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\n\
                          WebSocket-Origin: http://a.example\r\nWebSocket-Location: ws://a.example/\r\n\r\n";

fn refusing(status: &str, lists: &[&str]) -> Vec<u8> {
    let lists: String = lists.iter().map(|list| format!("Sec-WebSocket-Version: {list}\r\n")).collect();
    format!("HTTP/1.1 {status}\r\n{lists}Content-Length: 0\r\nConnection: close\r\n\r\n").into_bytes()
}

/// A server that answers a request so, and echoes once it is open.
fn server(answer: impl Fn(&Ask) -> Vec<u8> + Send + Sync + 'static) -> Backend {
    Backend::start(move |mut served| {
        let ask = Ask::read(&mut served.stream);
        served.recorded(ask.head.as_bytes());
        serve(&mut served.stream, &ask, &answer(&ask));
    })
}

fn serve(stream: &mut (impl Read + Write), ask: &Ask, answer: &[u8]) {
    // The probe may have left by now.
    let _ = stream.write_all(answer);
    if !answer.starts_with(b"HTTP/1.1 101") {
        return;
    }
    let _ = match ask.field("Sec-WebSocket-Key") {
        Some(_) => echo_frames(stream),
        None => echo_texts(stream),
    };
}

fn echo_frames(stream: &mut (impl Read + Write)) -> std::io::Result<()> {
    loop {
        let mut start = [0; 6];
        stream.read_exact(&mut start)?;
        let [first, length, key @ ..] = start;
        let mut payload = vec![0; usize::from(length - 0x80)];
        stream.read_exact(&mut payload)?;
        payload.iter_mut().zip(key.iter().cycle()).for_each(|(byte, key)| *byte ^= key);
        let answer = if first == 0x89 { 0x8A } else { first };
        stream.write_all(&[&[answer, length - 0x80], payload.as_slice()].concat())?;
        if first == 0x88 {
            return Ok(());
        }
    }
}

/// `FF 00` is answered with the same bytes, as an echo is.
fn echo_texts(stream: &mut (impl Read + Write)) -> std::io::Result<()> {
    let mut piece = [0; 256];
    loop {
        match stream.read(&mut piece)? {
            0 => return Ok(()),
            length => stream.write_all(&piece[..length])?,
        }
    }
}

/// Speaks version 13 alone, in the right way.
fn right_13(ask: &Ask) -> Vec<u8> {
    match ask.version() {
        Some("13") => ask.hybi(),
        Some("13x") => refusing("400 Bad Request", &["13"]),
        _ => refusing("426 Upgrade Required", &["13"]),
    }
}

fn probe(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_wsgate")).arg("probe").args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn url(server: &Backend) -> String {
    format!("ws://{}/ws", server.address())
}

/// Probes a server; every part must be in what is printed, with spaces as single ones.
fn check(server: &Backend, code: i32, parts: &[&str]) -> String {
    check_within("3s", server, code, parts)
}

fn check_within(timeout: &str, server: &Backend, code: i32, parts: &[&str]) -> String {
    let output = probe(&[&url(server), "--timeout", timeout]);
    let text = String::from_utf8(output.stdout).unwrap();
    let plain =
        text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ") + "\n").collect::<String>();
    for part in parts {
        assert!(plain.contains(&format!("{part}\n")), "`{part}` is not in {text}");
    }
    assert_eq!(output.status.code(), Some(code), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    text
}

#[test]
fn finds_a_right_13_server() {
    let server = server(right_13);
    check(
        &server,
        0,
        &[
            "13 101 right yes yes 1000",
            "8 426 – – – –",
            "0 426 – – – –",
            "hixie-75 426 – – – –",
            "`99` 426, Sec-WebSocket-Version: 13",
            "no version 426, Sec-WebSocket-Version: 13",
            "`13x` 400, Sec-WebSocket-Version: 13",
            "verdict: a right version-13 server",
            "versions = [13]",
        ],
    );
    assert_eq!(server.connections(), 8);
}

#[test]
fn finds_a_server_of_8_alone() {
    let server = server(|ask| match ask.version() {
        Some("8") => ask.hybi(),
        _ => refusing("426 Upgrade Required", &["8"]),
    });
    let parts = ["8 101 right yes yes 1000", "verdict: no right version-13 server; it speaks 8", "versions = [8]"];
    check(&server, 1, &parts);
}

#[test]
fn a_digest_is_held_against_the_keys() {
    let right = server(|ask| match ask.key3.as_slice() {
        [] => right_13(ask),
        _ => ask.hixie_76(),
    });
    check(&right, 0, &["0 101 right yes – FF 00", "versions = [13, 0]"]);
    let wrong = server(|ask| match ask.key3.as_slice() {
        [] => right_13(ask),
        _ => {
            let mut answer = ask.hixie_76();
            *answer.last_mut().unwrap() ^= 1;
            answer
        }
    });
    check(&wrong, 0, &["0 101 wrong digest – – –", "versions = [13]"]);
}

#[test]
fn a_server_of_hixie_75_is_not_taken_for_more() {
    let server = server(|_| HIXIE_75.to_vec());
    check(
        &server,
        1,
        &[
            "13 101 as hixie-75 – – –",
            "0 101 no digest – – –",
            "hixie-75 101 has none yes – end",
            "`99` 101, as hixie-75",
            "- takes a request without a version as hixie-75",
            "versions = [\"hixie-75\"]",
        ],
    );
}

#[test]
fn a_server_that_takes_any_number_proves_13_alone() {
    let server = server(|ask| match ask.field("Sec-WebSocket-Key") {
        Some(_) => ask.hybi(),
        None => refusing("400 Bad Request", &[]),
    });
    check(
        &server,
        0,
        &[
            "7 101 right yes yes 1000",
            "`99` 101: takes it as a WebSocket",
            "no version 101: takes it as a WebSocket",
            "- answers to any number; speaks 13's framing, so that taking 8 and 7 proves nothing",
            "- takes the malformed version `13x` as a WebSocket",
            "versions = [13]",
        ],
    );
}

#[test]
fn a_101_with_a_wrong_proof_is_not_spoken() {
    let wrong = server(|_| {
        b"HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: AAAA\r\n\r\n".to_vec()
    });
    let text = check(&wrong, 1, &["13 101 wrong accept – – –", "verdict: no version of WebSocket was seen right"]);
    assert!(!text.contains("versions = "), "{text}");
    let none = server(|_| b"HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n".to_vec());
    check(&none, 1, &["13 101 no accept – – –", "0 101 no digest – – –", "hixie-75 101 wrong status-line – – –"]);
}

#[test]
fn a_list_may_stand_in_two_lines() {
    let server = server(|ask| match ask.version() {
        Some("13" | "8" | "7") => ask.hybi(),
        _ => refusing("400 Bad Request", &["13", "8, 7"]),
    });
    let parts = ["`99` 400, Sec-WebSocket-Version: 13, 8, 7", "versions = [13, 8, 7]"];
    let text = check(&server, 0, &parts);
    assert!(!text.contains("advertis"), "{text}");
}

#[test]
fn servers_without_an_answer_are_told_apart() {
    let hanging = Backend::start(|mut served| served.until_end());
    check_within("300ms", &hanging, 1, &["13 no answer in time – – – –", "`99` no answer in time"]);
    let closing = server(|_| Vec::new());
    check(&closing, 1, &["13 closed – – – –", "hixie-75 closed – – – –"]);
    let garbage = server(|_| b"SSH-2.0-something\r\n\r\n".to_vec());
    check(&garbage, 1, &["13 not HTTP/1.x – – – –"]);
    let silent_once_open = Backend::start(|mut served| {
        let ask = Ask::read(&mut served.stream);
        served.send(right_13(&ask));
        if ask.version() == Some("13") {
            served.until_end();
        }
    });
    check(&silent_once_open, 0, &["13 101 right no echo no pong no answer", "- does not answer Pings in 13"]);
}

#[test]
fn lines_and_an_origin_reach_the_server() {
    let server = server(right_13);
    let arguments = ["--header", "Cookie: a=b", "--header", "X-Other:c", "--origin", "https://b.example"];
    let output = probe(&[&[url(&server).as_str()], arguments.as_slice()].concat());
    assert_eq!(output.status.code(), Some(0));
    let heard = server.recorded();
    assert_eq!(heard.matches("\r\nCookie: a=b\r\nX-Other: c\r\n").count(), 8, "{heard}");
    assert_eq!(heard.matches("Origin: https://b.example\r\n").count(), 8, "{heard}");
    assert_eq!(heard.matches("GET /ws HTTP/1.1\r\n").count(), 8, "{heard}");
    assert_eq!(heard.matches(&format!("\r\nHost: {}\r\n", server.address())).count(), 8, "{heard}");
}

#[test]
fn json_has_the_documented_fields() {
    let server = server(right_13);
    let output = probe(&[&url(&server), "--json"]);
    assert_eq!(output.status.code(), Some(0));
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(found["format"], 1);
    assert_eq!(found["url"], url(&server));
    assert_eq!(found["address"], server.address().to_string());
    assert_eq!(found["right_13"], true);
    assert_eq!(found["upstream_versions"], json!([13]));
    let expected = json!({
        "version": "13", "spoken": true, "handshake": "right", "status": 101, "flaw": null, "advertised": [],
        "proof": "right", "echo": "right", "ping": "right", "close": "close", "close_code": 1000, "broken": null,
    });
    assert_eq!(found["versions"][0], expected);
    let expected = json!({"asked": "99", "handshake": "refused", "status": 426, "flaw": null, "advertised": ["13"]});
    assert_eq!(found["unknown"][0], expected);
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operating.md")).unwrap();
    let objects = [&found, &found["versions"][0], &found["unknown"][0]];
    for field in objects.iter().flat_map(|object| object.as_object().unwrap().keys()) {
        assert!(page.contains(&format!("`{field}`")), "docs/operating.md has no `{field}`");
    }
}

/// A right version-13 server behind a certificate for 127.0.0.1 that it signed itself, and that certificate in PEM.
fn secure_server() -> (Backend, String) {
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(signing_key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    let config = Arc::new(config);
    let server = Backend::start(move |served| {
        let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
        let mut stream = StreamOwned::new(connection, served.stream);
        let ask = Ask::read(&mut stream);
        // Without a request, the certificate was not liked.
        if !ask.head.is_empty() {
            serve(&mut stream, &ask, &right_13(&ask));
        }
        stream.conn.send_close_notify();
        let _ = stream.flush();
    });
    (server, cert.pem())
}

#[test]
fn a_certificate_has_to_be_believed() {
    let (server, pem) = secure_server();
    let url = format!("wss://{}/", server.address());
    let folder = tempfile::tempdir().unwrap();
    let [own, other] = ["own.pem", "other.pem"].map(|name| folder.path().join(name).to_str().unwrap().to_owned());
    std::fs::write(&own, pem).unwrap();
    std::fs::write(&other, secure_server().1).unwrap();
    for arguments in [["--insecure"].as_slice(), &["--ca", &own]] {
        let output = probe(&[&[url.as_str()], arguments].concat());
        let text = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(0), "{text}{}", String::from_utf8_lossy(&output.stderr));
        assert!(text.starts_with(&url) && text.contains("verdict: a right version-13 server\n"), "{text}");
    }
    let doubted = probe(&[&url, "--ca", &other]);
    let text = String::from_utf8_lossy(&doubted.stderr);
    assert_eq!((doubted.status.code(), doubted.stdout.as_slice()), (Some(1), b"".as_slice()));
    assert!(text.contains("its certificate is not believed") && text.contains("--insecure"), "{text}");
    let unreadable = probe(&[&url, "--ca", "/nonexistent/ca.pem"]);
    assert_eq!(unreadable.status.code(), Some(2));
    let plain = Backend::start(|mut served| served.until_end());
    let output = probe(&[&format!("wss://{}/", plain.address()), "--insecure", "--timeout", "200ms"]);
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_server_that_is_not_there_is_an_error_of_one_line() {
    let output = probe(&[&format!("ws://{}/", Backend::nobody())]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(1), b"".as_slice()));
    assert!(text.starts_with("error: cannot reach `ws://127.0.0.1:") && text.lines().count() == 1, "{text}");
}

#[test]
fn a_command_line_that_means_nothing_exits_with_2() {
    for arguments in [
        &[][..],
        &["a.example"],
        &["ftp://a.example/"],
        &["ws://a.example:99999/"],
        &["ws://a.example/", "--header", "no colon"],
        &["ws://a.example/", "--header", "Sec-WebSocket-Version: 8"],
        &["ws://a.example/", "--origin", "a\nb"],
        &["ws://a.example/", "--timeout", "0s"],
        &["ws://a.example/", "--timeout", "5"],
        &["wss://a.example/", "--insecure", "--ca", "x.pem"],
    ] {
        let output = probe(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    }
    let help = String::from_utf8(probe(&["--help"]).stdout).unwrap();
    assert!(
        help.split_whitespace().collect::<Vec<_>>().join(" ").contains("Only against servers of your own"),
        "{help}"
    );
}

#[test]
fn control_c_ends_it_without_a_word() {
    let (asked, is_asked) = std::sync::mpsc::channel();
    let server = Backend::start(move |mut served| {
        Ask::read(&mut served.stream);
        let _ = asked.send(());
        served.until_end();
    });
    let child = Command::new(env!("CARGO_BIN_EXE_wsgate"))
        .args(["probe", &url(&server), "--timeout", "1h"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    is_asked.recv_timeout(crate::harness::PATIENCE).unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    assert_eq!((output.stdout, output.stderr), (Vec::new(), Vec::new()));
}

#[test]
fn the_gateway_itself_is_a_right_13_server() {
    let backend = server(right_13);
    let gateway = Gateway::start(&route_to(&[backend.address()], "", ""));
    let output = probe(&[&format!("ws://{}/ws", gateway.address())]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{text}");
    for part in [
        "  13        101        right  yes   yes   1000\n",
        "  `99`        426, Sec-WebSocket-Version: 13\n",
        "  no version  426, Sec-WebSocket-Version: 13\n",
        "  `13x`       400, Sec-WebSocket-Version: 13\n",
        "verdict: a right version-13 server\n\n",
    ] {
        assert!(text.contains(part), "`{part}` is not in {text}");
    }
}
