//! Listening sockets that go from one process to the next, while clients come and go.

use std::fs::{Permissions, set_permissions};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::backend::{Backend, route_to};
use crate::harness::{
    Gateway, PATIENCE, configuration, connect, finish, read_answer, read_exactly, read_head, read_to_end, upgrade,
};

/// A backend, and the place where successors wait.
struct Site {
    backend: Backend,
    folder: tempfile::TempDir,
}

impl Site {
    fn new() -> Site {
        let folder = tempfile::tempdir().unwrap();
        set_permissions(folder.path(), Permissions::from_mode(0o700)).unwrap();
        Site { backend: Backend::echo(), folder }
    }

    fn door(&self) -> PathBuf {
        self.folder.path().join("upgrade.sock")
    }

    /// With more keys of the listener, and more listeners.
    fn configuration(&self, listeners: &str) -> String {
        let gateway = format!(
            "upgrade_socket = '{}'\n[gateway.drain]\nspread = '0s'\ntimeout = '60s'",
            self.door().to_str().unwrap()
        );
        // Blind, so that a drain leaves tunnels alone and what they echo shows who lives.
        configuration(&gateway, listeners, &route_to(&[self.backend.address()], "", "tunnel.frames = 'blind'"))
    }

    fn start(&self) -> Gateway {
        Gateway::launch(&self.configuration(""), &[], &[]).until_ready()
    }

    /// A successor that waits.
    fn successor(&self) -> Gateway {
        let successor = Gateway::launch(&self.configuration(""), &["--upgrade"], &[]);
        successor.wait_for_message(WAITING);
        successor
    }

    /// From one to the other, in order.
    fn hand_over(&self, from: &Gateway, to: Gateway) -> Gateway {
        from.signal(Signal::QUIT);
        let to = to.until_ready();
        from.wait_for_message("handed over");
        to.wait_for_message("in charge");
        assert!(!self.door().exists(), "nobody waits any more");
        to
    }
}

const WAITING: &str = "waiting for SIGQUIT to the running process";

fn not_handed_over(line: &Value) -> bool {
    line["message"] == "not handed over: serving on" && line["level"] == "ERROR"
}

/// A tunnel on a connection of its own, tried out.
fn tunnel(address: SocketAddr) -> TcpStream {
    let mut stream = connect(address);
    stream.write_all(upgrade("").as_bytes()).unwrap();
    let head = read_head(&mut stream);
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    say(&mut stream, b"first words");
    stream
}

fn say(stream: &mut TcpStream, words: &[u8]) {
    stream.write_all(words).unwrap();
    read_exactly(stream, words);
}

/// Handshakes without a pause, from several threads.
struct Stream {
    done: Arc<AtomicUsize>,
    failures: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Stream {
    fn begin(address: SocketAddr, threads: usize) -> Stream {
        let (done, failures, stop) =
            (Arc::<AtomicUsize>::default(), Arc::<Mutex<Vec<String>>>::default(), Arc::<AtomicBool>::default());
        let threads = (0..threads).map(|_| {
            let (done, failures, stop) = (Arc::clone(&done), Arc::clone(&failures), Arc::clone(&stop));
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    match handshake(address) {
                        Ok(()) => drop(done.fetch_add(1, Ordering::Relaxed)),
                        Err(error) => failures.lock().unwrap().push(error),
                    }
                }
            })
        });
        let threads = threads.collect();
        Stream { done, failures, stop, threads }
    }

    /// Waits for so many handshakes from now on.
    fn more(&self, count: usize) {
        let (until, goal) = (Instant::now() + PATIENCE, self.done.load(Ordering::Relaxed) + count);
        while self.done.load(Ordering::Relaxed) < goal {
            assert!(Instant::now() < until, "handshakes have stopped: {:?}", self.failures.lock().unwrap());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn end(self) -> (usize, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().unwrap();
        }
        (self.done.load(Ordering::Relaxed), self.failures.lock().unwrap().clone())
    }
}

/// One connection: handshake, echo, end.
fn handshake(address: SocketAddr) -> Result<(), String> {
    let told = |step: &'static str| move |error: std::io::Error| format!("{step}: {error}");
    let mut stream = TcpStream::connect(address).map_err(told("connect"))?;
    stream.set_nodelay(true).map_err(told("connect"))?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(told("connect"))?;
    stream.write_all(upgrade("").as_bytes()).map_err(told("head"))?;
    let (mut answer, mut piece) = (Vec::new(), [0; 1024]);
    while !answer.ends_with(b"\r\n\r\n") {
        match stream.read(&mut piece).map_err(told("answer"))? {
            0 => return Err(format!("closed after {:?}", String::from_utf8_lossy(&answer))),
            length => answer.extend_from_slice(&piece[..length]),
        }
    }
    if !answer.starts_with(b"HTTP/1.1 101 ") {
        return Err(String::from_utf8_lossy(&answer).into_owned());
    }
    stream.write_all(b"echo").map_err(told("echo"))?;
    stream.read_exact(&mut piece[..4]).map_err(told("echo"))?;
    if &piece[..4] == b"echo" { Ok(()) } else { Err(format!("echo: {:?}", &piece[..4])) }
}

#[test]
fn no_handshake_fails_while_the_sockets_go_from_process_to_process() {
    let site = Site::new();
    let mut running = site.start();
    let address = running.address();
    let stream = Stream::begin(address, 4);
    stream.more(200);
    // A to B to C, and some more.
    for _ in 0..4 {
        let mut old_tunnel = tunnel(address);
        let next = site.successor();
        stream.more(100);
        let next = site.hand_over(&running, next);
        assert_eq!(next.address(), address);
        stream.more(200);
        say(&mut old_tunnel, b"still here");
        assert!(!running.has_ended(), "a tunnel is open");
        finish(&old_tunnel);
        assert_eq!(running.wait(), 0);
        running = next;
    }
    let (done, failures) = stream.end();
    assert!(failures.is_empty(), "{} of {done} failed: {failures:?}", failures.len());
    assert!(
        running.metric(r#"wsgate_tunnels_total{backend_version="13",route="r",upstream="u",version="13"}"#) > 100.0
    );
}

#[test]
fn tunnels_live_on_in_the_old_process_until_the_last_is_gone() {
    let site = Site::new();
    let mut old = site.start();
    let address = old.address();
    let mut tunnels: Vec<TcpStream> = (0..3).map(|_| tunnel(address)).collect();
    let next = site.hand_over(&old, site.successor());
    old.wait_for_log(|line| line["message"] == "draining" && line["open"] == 3);
    let mut new_tunnel = tunnel(address);
    for stream in &mut tunnels {
        say(stream, b"still here");
    }
    for mut stream in tunnels {
        assert!(!old.has_ended());
        finish(&stream);
        assert_eq!(read_to_end(&mut stream), "");
    }
    let last = Instant::now();
    assert_eq!(old.wait(), 0);
    assert!(last.elapsed() < Duration::from_secs(5), "it waits for nothing after the last tunnel");
    say(&mut new_tunnel, b"and here");
    assert!((next.metric(r#"wsgate_tunnels{route="r",upstream="u",version="13"}"#) - 1.0).abs() < f64::EPSILON);
}

#[test]
fn an_old_process_ends_at_the_end_of_its_drain_all_the_same() {
    let site = Site::new();
    let text = site.configuration("").replace("timeout = '60s'", "timeout = '300ms'");
    let mut old = Gateway::launch(&text, &[], &[]).until_ready();
    let mut stream = tunnel(old.address());
    let _next = site.hand_over(&old, site.successor());
    assert_eq!(old.wait(), 0);
    assert_eq!(read_to_end(&mut stream), "");
    old.wait_for_log(|line| line["message"] == "drain timed out" && line["left"] == 1);
}

#[test]
fn a_signal_to_end_cuts_what_is_left_in_the_old_process() {
    let site = Site::new();
    let mut old = site.start();
    let mut stream = tunnel(old.address());
    let _next = site.hand_over(&old, site.successor());
    old.wait_for_message("draining");
    old.signal(Signal::TERM);
    assert_eq!(old.wait(), 0);
    assert_eq!(read_to_end(&mut stream), "");
}

#[test]
fn who_was_accepted_before_is_served_by_the_old_process() {
    let site = Site::new();
    let mut old = site.start();
    let mut silent = connect(old.address());
    old.wait_for_metric(r#"wsgate_connections{listener="public"}"#, 1.0);
    let _next = site.hand_over(&old, site.successor());
    old.wait_for_message("draining");
    silent.write_all(upgrade("").as_bytes()).unwrap();
    let head = read_head(&mut silent);
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    say(&mut silent, b"served");
    assert!(!old.has_ended());
    finish(&silent);
    assert_eq!(old.wait(), 0);
    old.wait_for_access(|line| line["event"] == "opened");
}

#[test]
fn an_idle_connection_of_the_old_process_is_closed_in_order() {
    let answering = Backend::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let site = Site { backend: answering, ..Site::new() };
    let mut old = site.start();
    let mut idle = connect(old.address());
    idle.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let answer = read_answer(&mut idle);
    assert!(answer.ends_with("ok") && !answer.to_ascii_lowercase().contains("connection: close"), "{answer}");
    let _next = site.hand_over(&old, site.successor());
    assert_eq!(idle.read(&mut [0; 16]).unwrap(), 0, "an end, and no reset");
    assert_eq!(old.wait(), 0);
}

#[test]
fn the_successor_answers_at_the_same_admin_address() {
    let site = Site::new();
    let old = site.start();
    let _tunnel = tunnel(old.address());
    let admin = old.listens("admin");
    assert!(old.metric("wsgate_handover_timestamp_seconds").abs() < f64::EPSILON);
    let mut kept = connect(admin);
    let ask = b"GET /readyz HTTP/1.1\r\nHost: a\r\n\r\n";
    kept.write_all(ask).unwrap();
    assert!(read_answer(&mut kept).starts_with("HTTP/1.1 200 "));
    let next = site.hand_over(&old, site.successor());
    assert_eq!(next.listens("admin"), admin);
    old.wait_for_message("draining");
    let pid = format!("process_start_time_seconds {}", next.metric("process_start_time_seconds"));
    assert!(next.metric("wsgate_handover_timestamp_seconds") > 1.7e9);
    for _ in 0..20 {
        assert_eq!(next.admin("/readyz", "").0, 200);
        assert!(next.admin("/status", "").1.contains(r#""phase": "ready""#), "the old one says handed-over");
        assert!(next.admin("/metrics", "").1.contains(&pid));
    }
    // Who kept a connection to the old process hears of the address, not of the process, and is sent to the new one.
    kept.write_all(ask).unwrap();
    let answer = read_answer(&mut kept).to_ascii_lowercase();
    assert!(answer.starts_with("http/1.1 200 ") && answer.contains("connection: close"), "{answer}");
}

#[test]
fn the_sockets_that_came_are_closed_on_exec() {
    let site = Site::new();
    let old = site.start();
    let next = site.hand_over(&old, site.successor());
    let mut sockets = 0;
    for entry in std::fs::read_dir(format!("/proc/{}/fd", next.pid())).unwrap() {
        let path = entry.unwrap().path();
        let Ok(target) = std::fs::read_link(&path) else { continue };
        let number: u32 = path.file_name().unwrap().to_str().unwrap().parse().unwrap();
        if number > 2 && target.to_str().is_some_and(|target| target.starts_with("socket:")) {
            let info = std::fs::read_to_string(format!("/proc/{}/fdinfo/{number}", next.pid())).unwrap();
            let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap().trim();
            assert_ne!(u32::from_str_radix(flags, 8).unwrap() & 0o2_000_000, 0, "{number} is left open: {info}");
            sockets += 1;
        }
    }
    assert!(sockets >= 2, "the listener and the admin listener at least");
}

#[test]
fn with_nobody_waiting_nothing_changes() {
    let site = Site::new();
    let mut gateway = site.start();
    let mut stream = tunnel(gateway.address());
    gateway.signal(Signal::QUIT);
    let line = gateway.wait_for_log(not_handed_over);
    assert!(line["error"].as_str().unwrap().contains(site.door().to_str().unwrap()), "{line}");
    assert_eq!(gateway.admin("/readyz", "").0, 200);
    say(&mut stream, b"still here");
    drop(tunnel(gateway.address()));
    assert!(!gateway.has_ended());
}

#[test]
fn a_successor_that_dies_changes_nothing() {
    let site = Site::new();
    let mut old = site.start();
    let mut stream = tunnel(old.address());
    // While it waits: it leaves its file behind.
    let waiting = site.successor();
    waiting.signal(Signal::KILL);
    drop(waiting);
    assert!(site.door().exists());
    old.signal(Signal::QUIT);
    old.wait_for_log(not_handed_over);
    // While it has the offer, and before it says that it serves.
    let stopped = site.successor();
    stopped.signal(Signal::STOP);
    old.signal(Signal::QUIT);
    wait_for_messages(&old, "handing the listening sockets over", 2);
    stopped.signal(Signal::KILL);
    drop(stopped);
    wait_for_messages(&old, "not handed over: serving on", 2);
    say(&mut stream, b"still here");
    drop(tunnel(old.address()));
    assert!(!old.has_ended());
    // The next one finds the file of the dead, and all is well.
    let next = site.hand_over(&old, site.successor());
    finish(&stream);
    assert_eq!(old.wait(), 0);
    drop(tunnel(next.address()));
}

fn wait_for_messages(gateway: &Gateway, message: &str, count: usize) {
    let until = Instant::now() + PATIENCE;
    while gateway.count_logged(|line| line["message"] == message) < count {
        assert!(Instant::now() < until, "`{message}` was not said {count} times");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_second_signal_waits_for_the_first() {
    let site = Site::new();
    let old = site.start();
    let next = site.successor();
    next.signal(Signal::STOP);
    old.signal(Signal::QUIT);
    old.wait_for_message("handing the listening sockets over");
    old.signal(Signal::QUIT);
    old.wait_for_message("SIGQUIT ignored: a hand-over is under way");
    next.signal(Signal::CONT);
    let next = next.until_ready();
    old.wait_for_message("handed over");
    drop(tunnel(next.address()));
}

#[test]
fn garbage_at_the_socket_is_sent_away_by_the_successor_and_believed_by_nobody() {
    let site = Site::new();
    let old = site.start();
    let next = site.successor();
    let garbage: [&[u8]; 4] = [b"", b"GET / HTTP/1.1\r\n\r\n", b"wsg\x01\xff\xff\xff\xff", b"wsg\x01\0\0\0\x02{}"];
    for bytes in garbage {
        let mut babbler = UnixStream::connect(site.door()).unwrap();
        // It may close before all is written.
        let _ = babbler.write_all(bytes);
    }
    wait_for_messages(&next, "who came with no sockets was sent away", garbage.len());
    let offer =
        br#"{"message":"offer","service":{},"places":[{"role":"listener","name":"x","address":"127.0.0.1:1"}]}"#;
    let mut liar = UnixStream::connect(site.door()).unwrap();
    liar.write_all(&[b"wsg\x01".as_slice(), &u32::try_from(offer.len()).unwrap().to_be_bytes(), offer].concat())
        .unwrap();
    wait_for_messages(&next, "who came with no sockets was sent away", garbage.len() + 1);
    drop(site.hand_over(&old, next));

    for answer in [b"".as_slice(), b"HTTP/1.1 200 OK\r\n\r\n", b"wsg\x01\0\0\0\x17{\"message\":\"withdrawn\"}"] {
        let old = site.start();
        let door = UnixListener::bind(site.door()).unwrap();
        old.signal(Signal::QUIT);
        let (mut peer, _) = door.accept().unwrap();
        read_offer(&mut peer);
        peer.write_all(answer).unwrap();
        drop(peer);
        old.wait_for_log(not_handed_over);
        drop(tunnel(old.address()));
        std::fs::remove_file(site.door()).unwrap();
    }
}

/// Whole, and without the descriptors.
fn read_offer(peer: &mut UnixStream) {
    let mut header = [0; 8];
    peer.read_exact(&mut header).unwrap();
    assert_eq!(&header[..4], b"wsg\x01");
    let length = u32::from_be_bytes(header[4..].try_into().unwrap()) as usize;
    let mut body = vec![0; length];
    peer.read_exact(&mut body).unwrap();
    let offer: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((&offer["message"], offer["places"].as_array().unwrap().len()), (&Value::from("offer"), 2));
}

#[test]
fn a_directory_that_others_may_enter_is_refused() {
    let site = Site::new();
    let old = site.start();
    set_permissions(site.folder.path(), Permissions::from_mode(0o755)).unwrap();
    refused(&site.configuration(""), "mode 0755 instead of 0700");
    // The running process does not trust what it finds in it either.
    let door = UnixListener::bind(site.door()).unwrap();
    old.signal(Signal::QUIT);
    let (mut peer, _) = door.accept().unwrap();
    assert_eq!(peer.read(&mut [0; 16]).unwrap(), 0, "no offer");
    let line = old.wait_for_log(not_handed_over);
    assert!(line["error"].as_str().unwrap().contains("mode 0755 instead of 0700"), "{line}");
    drop(tunnel(old.address()));
    // One that is not there is made.
    let text = site.configuration("").replace("upgrade.sock", "made/upgrade.sock");
    let next = Gateway::launch(&text, &["--upgrade"], &[]);
    next.wait_for_message(WAITING);
    let mode = std::fs::metadata(site.folder.path().join("made")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o700);
}

/// A successor that does not begin, and what it says.
fn refused(text: &str, expected: &str) {
    let mut next = Gateway::launch(text, &["--upgrade"], &[]);
    assert_eq!(next.wait(), 1);
    next.wait_for_log(|line| line["message"].as_str().or(line.as_str()).is_some_and(|text| text.contains(expected)));
}

#[test]
fn a_successor_that_cannot_start_has_taken_nothing() {
    let site = Site::new();
    let mut old = site.start();
    refused("[gateway]\nthread = 1\n", "unknown-key");
    assert!(!site.door().exists());
    // It learns only with the sockets in its hands that another address is taken.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let holder = std::net::TcpListener::bind(taken).unwrap();
    let text = site.configuration(&format!("[[listener]]\nname = 'more'\nlisten = '{taken}'"));
    let mut next = Gateway::launch(&text, &["--upgrade"], &[]);
    next.wait_for_message(WAITING);
    old.signal(Signal::QUIT);
    assert_eq!(next.wait(), 1);
    old.wait_for_log(not_handed_over);
    drop(holder);
    drop(tunnel(old.address()));
    assert!(!old.has_ended());
}

#[test]
fn listeners_may_come_go_and_change_their_names() {
    let site = Site::new();
    let more = "[[listener]]\nname = 'second'\nlisten = '127.0.0.1:0'";
    let old = Gateway::launch(&site.configuration(more), &[], &[]).until_ready();
    let (public, second) = (old.address(), old.listens("second"));
    drop(tunnel(second));
    // `public` under another name at the same address, `second` gone, `third` new.
    let renamed = format!(
        "[[listener]]\nname = 'renamed'\nlisten = '{public}'\n[[listener]]\nname = 'third'\nlisten = '127.0.0.1:0'"
    );
    let text = site
        .configuration("")
        .replace("name = 'public'\nlisten = '127.0.0.1:0'", "name = 'other'\nlisten = '127.0.0.1:0'");
    let next = Gateway::launch(&text.replace("[[upstream]]", &format!("{renamed}\n[[upstream]]")), &["--upgrade"], &[]);
    next.wait_for_message(WAITING);
    old.signal(Signal::QUIT);
    next.wait_for_message("in charge");
    assert_eq!(next.listens("renamed"), public);
    for (name, taken_over) in [("renamed", true), ("admin", true), ("third", false), ("other", false)] {
        next.wait_for_log(|line| line["listener"] == name && line["taken_over"] == taken_over);
    }
    next.wait_for_log(|line| {
        line["message"] == "closing a socket that came and that no listener has"
            && line["address"] == second.to_string()
    });
    drop(tunnel(public));
    drop(tunnel(next.listens("third")));
    old.wait_for_message("stopped");
    assert!(TcpStream::connect(second).is_err(), "nobody has it any more");
}

#[test]
fn a_process_that_is_told_to_go_leaves_whoever_waits_waiting() {
    let site = Site::new();
    let mut old = site.start();
    let mut next = site.successor();
    old.signal(Signal::TERM);
    assert_eq!(old.wait(), 0);
    assert!(TcpStream::connect(old.address()).is_err());
    assert!(!next.has_ended(), "until its time is up");
}

#[test]
fn a_process_that_is_told_to_go_in_the_middle_of_a_hand_over_loses_nothing() {
    let site = Site::new();
    let mut old = site.start();
    let address = old.address();
    let next = site.successor();
    next.signal(Signal::STOP);
    old.signal(Signal::QUIT);
    old.wait_for_message("handing the listening sockets over");
    // Once the offer is on its way, the sockets are in it.
    old.wait_for_message("sockets offered");
    old.signal(Signal::TERM);
    assert_eq!(old.wait(), 0);
    let mut early = connect(address);
    early.write_all(upgrade("").as_bytes()).unwrap();
    next.signal(Signal::CONT);
    assert!(read_head(&mut early).starts_with("HTTP/1.1 101 "));
    let next = next.until_ready();
    next.wait_for_message("in charge");
    drop(tunnel(next.address()));
}

#[test]
fn who_drains_has_nothing_to_hand_over() {
    let site = Site::new();
    let mut old = site.start();
    let stream = tunnel(old.address());
    let _next = site.successor();
    old.signal(Signal::TERM);
    let until = Instant::now() + PATIENCE;
    while old.admin("/readyz", "").0 == 200 {
        assert!(Instant::now() < until, "it does not drain");
    }
    old.signal(Signal::QUIT);
    old.wait_for_message("SIGQUIT ignored: only who is ready can hand over");
    finish(&stream);
    assert_eq!(old.wait(), 0);
}
