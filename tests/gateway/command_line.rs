//! The verbs that need no network: what they print and how they exit.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

fn run(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_wsgate"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A verb that does not read may be gone by now.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn conf(name: &str) -> String {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf").join(name);
    path.to_str().unwrap().to_owned()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn check_tells_good_from_bad_by_its_exit_code() {
    let good = run(&["check", "-c", &conf("minimal.toml")], "");
    assert_eq!(good.status.code(), Some(0), "{}", said(&good));
    let alias = run(&["-t", "-c", &conf("minimal.toml")], "");
    assert_eq!(alias.status.code(), Some(0), "{}", said(&alias));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bad.toml");
    std::fs::write(&path, "[gateway]\nthread = 2\n[log]\nlevel = 'loud'\n").unwrap();
    let bad = run(&["check", "-c", path.to_str().unwrap()], "");
    assert_eq!(bad.status.code(), Some(1));
    let said = said(&bad);
    for part in ["unknown-key", "did you mean `threads`", "bad.toml:2", "bad.toml:4", "^^^"] {
        assert!(said.contains(part), "{part} is not in {said}");
    }
    let usage = run(&["check", "--nothing"], "");
    assert_eq!(usage.status.code(), Some(2));
    let missing = run(&["check", "-c", "/nonexistent/wsgate.toml"], "");
    assert_eq!(missing.status.code(), Some(1));
}

#[test]
fn check_print_shows_every_default() {
    let output = run(&["check", "--print", "-c", &conf("minimal.toml")], "");
    assert_eq!(output.status.code(), Some(0));
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(printed.contains("header_timeout = \"5s\"") && printed.contains("idle_timeout = \"5m\""), "{printed}");
}

#[test]
fn explain_shows_each_step_and_the_answer() {
    let head = "GET / HTTP/1.1\nHost: a.example\nUpgrade: websocket\nConnection: Upgrade\nSec-WebSocket-Version: 8\n\
                Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\n";
    let refused = run(&["explain", "-c", &conf("minimal.toml")], head);
    assert_eq!(refused.status.code(), Some(1), "{}", said(&refused));
    let text = said(&refused);
    assert!(text.contains("line ends completed"), "{text}");
    let whole = run(&["explain", "-c", &conf("minimal.toml")], &(head.replace('\n', "\r\n") + "\r\n"));
    assert!(whole.status.code() == Some(1) && !said(&whole).contains("line ends completed"), "{}", said(&whole));
    assert!(text.contains("REFUSE version is served") && text.contains("HTTP/1.1 426 Upgrade Required"), "{text}");
    let passed = run(&["explain", "-c", &conf("minimal.toml")], &head.replace("Version: 8", "Version: 13"));
    assert_eq!(passed.status.code(), Some(0), "{}", said(&passed));
    assert!(said(&passed).contains("goes to upstream"), "{}", said(&passed));
    let garbage = run(&["explain", "-c", &conf("minimal.toml")], "hello");
    assert_eq!(garbage.status.code(), Some(1));
    assert!(said(&garbage).contains("HTTP/1.1 400"), "{}", said(&garbage));
    let unknown = run(&["explain", "-c", &conf("minimal.toml"), "--listener", "nobody"], head);
    assert_eq!(unknown.status.code(), Some(2));
}
