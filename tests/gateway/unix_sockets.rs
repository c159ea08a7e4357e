//! Unix sockets on either side of the gateway, and the life of their files.

use std::fs::{Permissions, set_permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::process::Signal;

use crate::backend::{Backend, route_to, switching};
use crate::callers::answering;
use crate::harness::{Gateway, PATIENCE, configuration, read_exactly, status, upgrade};

const GET: &str = "GET /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

/// A listener `local` beside `public`.
struct Site {
    folder: tempfile::TempDir,
    backend: Backend,
}

impl Site {
    fn new(backend: Backend) -> Site {
        let folder = tempfile::tempdir().unwrap();
        set_permissions(folder.path(), Permissions::from_mode(0o700)).unwrap();
        Site { folder, backend }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("local.sock")
    }

    fn configuration(&self, listener: &str) -> String {
        let gateway = format!("upgrade_socket = '{}'", self.folder.path().join("upgrade.sock").display());
        let local = format!("[[listener]]\nname = 'local'\nlisten = 'unix:{}'\n{listener}\n", self.path().display());
        configuration(&gateway, "", &format!("{local}{}", route_to(&[self.backend.address()], "", "")))
    }

    fn start(&self) -> Gateway {
        Gateway::start_from(&self.configuration(""))
    }

    fn inode(&self) -> u64 {
        std::fs::metadata(self.path()).unwrap().ino()
    }
}

fn connect(path: &Path) -> UnixStream {
    let stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn ask(path: &Path, request: &str) -> String {
    let mut stream = connect(path);
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn read_head(stream: &mut impl Read) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

#[test]
fn a_client_comes_over_a_unix_socket_and_is_called_local() {
    let site = Site::new(Backend::echo());
    let gateway = site.start();
    assert_eq!(std::fs::metadata(site.path()).unwrap().mode() & 0o7777, 0o660);
    let mut stream = connect(&site.path());
    stream.write_all(upgrade("X-Forwarded-For: 192.0.2.1\r\n").as_bytes()).unwrap();
    assert_eq!(status(&read_head(&mut stream)), 101);
    stream.write_all(b"words").unwrap();
    let mut heard = [0; 5];
    stream.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"words");
    let line = gateway.wait_for_access(|line| line["event"] == "opened");
    assert!(line["client"] == "local" && line["listener"] == "local" && line["peer"].is_null(), "{line}");
    let seen = site.backend.recorded();
    assert!(seen.contains("X-Forwarded-For: unknown\r\n") && seen.contains("Forwarded: for=unknown;"), "{seen}");
    assert_eq!(status(&ask(&site.path(), "GET / HTTP/1.1\r\n\r\n")), 400);
}

#[test]
fn a_proxy_on_a_unix_socket_is_believed_where_it_is_listed_and_may_send_a_header() {
    let site = Site::new(answering());
    let gateway =
        Gateway::start_from(&site.configuration("client_address = 'proxy-protocol'\ntrusted_proxies = ['unix']"));
    assert_eq!(status(&ask(&site.path(), &format!("PROXY TCP4 192.0.2.1 198.51.100.2 5 443\r\n{GET}"))), 200);
    let line = gateway.wait_for_access(|line| line["event"] == "request");
    assert!(line["client"] == "192.0.2.1:5" && line["peer"] == "local", "{line}");
    assert!(site.backend.recorded().to_ascii_lowercase().contains("x-forwarded-for: 192.0.2.1\r\n"));
    drop(gateway);
    let gateway = Gateway::start_from(
        &site.configuration("client_address = 'proxy-protocol'\ntrusted_proxies = ['127.0.0.1/32']"),
    );
    assert_eq!(status(&ask(&site.path(), "PROXY UNKNOWN\r\n")), 403);
    gateway.wait_for_access(|line| line["reason"] == "proxy-peer-unlisted" && line["client"] == "local");
}

#[test]
fn the_file_goes_with_the_gateway_and_a_stale_one_is_replaced() {
    let site = Site::new(answering());
    let mut gateway = site.start();
    gateway.signal(Signal::KILL);
    gateway.wait();
    assert!(site.path().exists(), "nobody could remove it");
    let mut gateway = site.start();
    assert_eq!(status(&ask(&site.path(), GET)), 200);

    // While it lives nobody else gets its place.
    let mut second = Gateway::launch(&site.configuration(""), &[], &[]);
    assert_ne!(second.wait(), 0);
    let path = site.path().display().to_string();
    second.wait_for_log(|line| {
        line.to_string().contains(&path) && line.to_string().contains("another process listens there")
    });
    assert_eq!(status(&ask(&site.path(), GET)), 200);

    gateway.signal(Signal::TERM);
    assert_eq!(gateway.wait(), 0);
    assert!(!site.path().exists());
}

#[test]
fn a_successor_gets_the_socket_and_the_file_stays_until_it_ends() {
    let site = Site::new(answering());
    let mut old = site.start();
    let inode = site.inode();
    let new = Gateway::launch(&site.configuration("socket_mode = '0600'"), &["--upgrade"], &[]);
    new.wait_for_message("waiting for SIGQUIT to the running process");
    old.signal(Signal::QUIT);
    let mut new = new.until_ready();
    new.wait_for_log(|line| {
        line["message"] == "listening" && line["listener"] == "local" && line["taken_over"] == true
    });
    old.wait_for_message("handed over");
    assert_eq!(old.wait(), 0);
    assert_eq!(site.inode(), inode, "the same file, and the old process left it alone");
    assert_eq!(std::fs::metadata(site.path()).unwrap().mode() & 0o7777, 0o600);
    assert_eq!(status(&ask(&site.path(), GET)), 200);
    new.wait_for_access(|line| line["client"] == "local");
    new.signal(Signal::TERM);
    assert_eq!(new.wait(), 0);
    assert!(!site.path().exists());
}

#[test]
fn a_reload_leaves_the_socket_where_it_is() {
    let site = Site::new(answering());
    let gateway = site.start();
    let moved = site.configuration("socket_mode = '0666'").replace("local.sock", "other.sock");
    std::fs::write(gateway.path(), moved).unwrap();
    gateway.signal(Signal::HUP);
    for key in ["listener.local.listen", "listener.local.socket_mode"] {
        gateway.wait_for_log(|line| line["key"] == key);
    }
    assert_eq!(status(&ask(&site.path(), GET)), 200);
    assert!(!site.folder.path().join("other.sock").exists());
}

/// Upgrades and plain requests, until its folder goes.
fn serve_at(path: &Path) {
    let listener = UnixListener::bind(path).unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                if read_head(&mut stream).contains("Upgrade: websocket") {
                    stream.write_all(switching("").as_bytes()).unwrap();
                    let mut reader = stream.try_clone().unwrap();
                    let _ = std::io::copy(&mut reader, &mut stream);
                } else {
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                }
            });
        }
    });
}

fn route_to_sockets(paths: &[&Path], upstream: &str) -> String {
    let servers: Vec<String> = paths.iter().map(|path| format!("'unix:{}'", path.display())).collect();
    format!(
        "[[upstream]]\nname = 'u'\nservers = [{}]\n{upstream}\n[[route]]\nname = 'r'\nupstream = 'u'\n",
        servers.join(", ")
    )
}

#[test]
fn a_server_may_be_a_unix_socket() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.sock");
    serve_at(&path);
    for more in ["", "proxy_protocol = 'off'"] {
        let gateway = Gateway::start(&route_to_sockets(&[&path], more));
        let (mut stream, _) = gateway.open();
        stream.write_all(b"words").unwrap();
        read_exactly(&mut stream, b"words");
        let server = format!("unix:{}", path.display());
        gateway.wait_for_metric(&format!("wsgate_backend_tunnels{{server=\"{server}\",upstream=\"u\"}}"), 1.0);
        gateway.wait_for_access(|line| line["event"] == "opened" && line["server"] == server.as_str());
        assert_eq!(status(&gateway.ask(GET)), 200);
        gateway.wait_for_access(|line| line["event"] == "request" && line["server"] == server.as_str());
        assert!(gateway.status().to_string().contains(&server));
    }
}

#[test]
fn a_socket_that_is_gone_is_passed_over_and_alone_it_is_503() {
    let folder = tempfile::tempdir().unwrap();
    let (good, gone) = (folder.path().join("good.sock"), folder.path().join("gone.sock"));
    serve_at(&good);
    // One that nobody serves any more, as a killed process leaves it; the second was never there.
    drop(UnixListener::bind(&gone).unwrap());
    for bad in [gone, folder.path().join("never.sock")] {
        let gateway = Gateway::start(&route_to_sockets(&[&bad], ""));
        assert_eq!(status(&gateway.ask(upgrade(""))), 503);
        assert_eq!(status(&gateway.ask(GET)), 503);
        let labels = format!("reason=\"backend-unavailable\",server=\"unix:{}\",upstream=\"u\"", bad.display());
        gateway.wait_for_metric(&format!("wsgate_backend_failures_total{{{labels}}}"), 2.0);
        let gateway = Gateway::start(&route_to_sockets(&[&bad, &good], "balance = 'round-robin'"));
        for _ in 0..3 {
            drop(gateway.open());
            assert_eq!(status(&gateway.ask(GET)), 200);
        }
    }
}
