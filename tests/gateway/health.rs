//! Servers that die, hang, lie and come back: new handshakes go elsewhere in time, none is lost that another server could have
//! served, and each change is told once.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::backend::{Backend, route_to, switching};
use crate::harness::{Gateway, PATIENCE, connect, read_exactly, read_head, status, upgrade};
use crate::process::Process;
use crate::reload::{File, reload};

/// Quick enough for a test, slow enough for a busy machine.
const QUICK: &str = "interval = '200ms'\ntimeout = '1s'\nrise = 2\nfall = 2";

fn checked(check: &str, more: &str) -> String {
    format!("{more}\n[upstream.health]\ncheck = '{check}'\n{QUICK}")
}

fn up(gateway: &Gateway, server: SocketAddr, expected: f64) {
    gateway.wait_for_metric(&format!("wsgate_backend_up{{server=\"{server}\",upstream=\"u\"}}"), expected);
}

fn transitions(gateway: &Gateway, server: SocketAddr, to: &str) -> f64 {
    gateway.metric(&format!("wsgate_backend_transitions_total{{server=\"{server}\",to=\"{to}\",upstream=\"u\"}}"))
}

fn check_counted(gateway: &Gateway, server: SocketAddr, result: &str) {
    let series = format!("wsgate_backend_checks_total{{result=\"{result}\",server=\"{server}\",upstream=\"u\"}}");
    let until = Instant::now() + PATIENCE;
    while gateway.metric(&series) < 1.0 {
        assert!(Instant::now() < until, "no check of {server} was {result}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn is_about(line: &Value, message: &str, server: SocketAddr) -> bool {
    line["message"] == message && line["server"] == server.to_string()
}

const OUT_BY_CHECKS: &str = "backend is out after failed checks";
const OUT_BY_DIALS: &str = "backend is out after failed dials";

/// Opens tunnels one after the other from several threads until told to stop, and counts those that did not get their 101.
struct Load {
    over: AtomicBool,
    served: AtomicUsize,
    lost: AtomicUsize,
}

impl Load {
    fn around(address: SocketAddr, during: impl FnOnce(&Load)) {
        let load = Load { over: AtomicBool::new(false), served: AtomicUsize::new(0), lost: AtomicUsize::new(0) };
        std::thread::scope(|scope| {
            let clients: Vec<_> = (0..4).map(|_| scope.spawn(|| load.run(address))).collect();
            // Set even when something fails, or the threads would never end.
            let end = End(&load.over);
            load.until_more(20);
            during(&load);
            drop(end);
            clients.into_iter().for_each(|client| client.join().unwrap());
        });
        assert_eq!(load.lost.load(Ordering::SeqCst), 0, "of {:?}", load.served);
    }

    fn run(&self, address: SocketAddr) {
        while !self.over.load(Ordering::SeqCst) {
            let mut stream = connect(address);
            stream.write_all(upgrade("").as_bytes()).unwrap();
            if status(&read_head(&mut stream)) == 101 { &self.served } else { &self.lost }
                .fetch_add(1, Ordering::SeqCst);
        }
    }

    fn until_more(&self, count: usize) {
        let until = Instant::now() + PATIENCE;
        let wanted = self.served.load(Ordering::SeqCst) + count;
        while self.served.load(Ordering::SeqCst) < wanted {
            assert!(Instant::now() < until, "no handshakes go through");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn a_server_that_is_killed_loses_no_handshake_and_comes_back_by_its_checks() {
    let (mut dies, stays) = (Process::start(), Process::start());
    let gateway = Gateway::start(&route_to(&[dies.address(), stays.address()], &checked("websocket", ""), ""));
    check_counted(&gateway, dies.address(), "passed");
    let mut back = None;
    Load::around(gateway.address(), |load| {
        dies.kill();
        up(&gateway, dies.address(), 0.0);
        check_counted(&gateway, dies.address(), "unreachable");
        load.until_more(50);
        back = Some(dies.again());
        up(&gateway, dies.address(), 1.0);
        load.until_more(50);
    });
    let server = dies.address();
    assert!((transitions(&gateway, server, "down") - 1.0).abs() < f64::EPSILON);
    assert!((transitions(&gateway, server, "up") - 1.0).abs() < f64::EPSILON);
    let told = |message| gateway.count_logged(|line| is_about(line, message, server));
    assert_eq!((told(OUT_BY_CHECKS) + told(OUT_BY_DIALS), told("backend is back")), (1, 1));
    assert_eq!(gateway.count_logged(|line| is_about(line, "backend is back", stays.address())), 0);
}

#[test]
fn a_server_that_hangs_is_left_within_its_checks_and_costs_only_their_time() {
    let (hangs, stays) = (Process::start(), Process::start());
    // A dial would wait for longer than the test has patience.
    let slow = checked("websocket", "handshake_timeout = '1m'");
    let gateway = Gateway::start(&route_to(&[hangs.address(), stays.address()], &slow, ""));
    check_counted(&gateway, hangs.address(), "passed");
    hangs.signal(Signal::STOP);
    up(&gateway, hangs.address(), 0.0);
    check_counted(&gateway, hangs.address(), "timeout");
    assert!(gateway.has_logged(|line| is_about(line, OUT_BY_CHECKS, hangs.address())));
    (0..20).for_each(|_| drop(gateway.open()));
    hangs.signal(Signal::CONT);
    up(&gateway, hangs.address(), 1.0);
    assert_eq!(gateway.count_logged(|line| is_about(line, OUT_BY_CHECKS, stays.address())), 0);
}

/// What a check makes of a server that answers this to every head.
fn check_verdict(check: &str, answer: &'static str, result: &str) {
    let backend = Backend::start(move |mut served| {
        served.head();
        served.send(answer);
        served.until_end();
    });
    let gateway = Gateway::start(&route_to(&[backend.address()], &checked(check, ""), ""));
    check_counted(&gateway, backend.address(), result);
    let expected = if result == "passed" { 1.0 } else { 0.0 };
    up(&gateway, backend.address(), expected);
    if result != "passed" {
        gateway.wait_for_log(|line| is_about(line, "check failed", backend.address()) && line["reason"] == result);
    }
}

#[test]
fn a_websocket_check_believes_only_a_right_101() {
    let wrong = "HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n\r\n";
    check_verdict("websocket", wrong, "handshake");
    check_verdict("websocket", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "status");
    check_verdict("websocket", "hello\r\n\r\n", "lost");
    check_verdict("websocket", "", "timeout");
}

#[test]
fn an_http_check_wants_2xx_or_3xx_and_a_tcp_check_a_connection() {
    check_verdict("http", "HTTP/1.1 204 Fine\r\n\r\n", "passed");
    check_verdict("http", "HTTP/1.1 302 Elsewhere\r\nLocation: /x\r\n\r\n", "passed");
    check_verdict("http", "HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n", "status");
    check_verdict("http", "HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", "status");
    // Nobody accepts, but somebody listens.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    check_counted(&Gateway::start(&route_to(&[address], &checked("tcp", ""), "")), address, "passed");
    let nobody = Backend::nobody();
    let gateway = Gateway::start(&route_to(&[nobody], &checked("tcp", ""), ""));
    check_counted(&gateway, nobody, "unreachable");
    up(&gateway, nobody, 0.0);
}

/// The head of a check, and what it says after the 101.
fn heard_by(upstream: &str, answer: fn(&str) -> Vec<u8>) -> (String, Vec<u8>) {
    let (told, heard) = std::sync::mpsc::channel();
    let told = std::sync::Mutex::new(told);
    let backend = Backend::start(move |mut served| {
        let head = served.head();
        served.send(answer(&head));
        let mut after = [0; 64];
        let read = std::io::Read::read(&mut served.stream, &mut after).unwrap_or(0);
        served.send(b"\x88\x02\x03\xE8");
        let _ = told.lock().unwrap().send((head, after[..read].to_vec()));
    });
    let _gateway = Gateway::start(&route_to(&[backend.address()], upstream, ""));
    heard.recv_timeout(PATIENCE).unwrap()
}

#[test]
fn a_websocket_check_speaks_the_version_of_its_upstream_and_says_goodbye() {
    let right = |head: &str| {
        let key = head.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).unwrap();
        let accept = tokio_tungstenite::tungstenite::handshake::derive_accept_key(key.as_bytes());
        switching("").replace(crate::harness::ACCEPT, &accept).into_bytes()
    };
    let health = checked("websocket", "versions = [8, 13]") + "\npath = '/up'\nhost = 'chat.example.com'";
    let (head, after) = heard_by(&health, right);
    assert!(head.starts_with("GET /up HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("Sec-WebSocket-Version: 8\r\n") && head.contains("Host: chat.example.com\r\n"), "{head}");
    // A masked Close with 1000.
    let [0x88, 0x82, a, b, _, _, x, y] = after[..] else { panic!("{after:?}") };
    assert_eq!(u16::from_be_bytes([a ^ x, b ^ y]), 1000);
    let hixie = |_: &str| {
        b"HTTP/1.1 101 Web Socket Protocol Handshake\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\n\
          WebSocket-Origin: a\r\nWebSocket-Location: b\r\n\r\n"
            .to_vec()
    };
    let (head, after) = heard_by(&checked("websocket", "versions = ['hixie-75']"), hixie);
    assert!(head.contains("Upgrade: WebSocket\r\n") && head.contains("\r\nOrigin: "), "{head}");
    assert_eq!(after, b"");
}

#[test]
fn checks_reach_a_unix_socket() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.sock");
    let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let route = route_to(&["127.0.0.1:1".parse().unwrap()], &checked("tcp", ""), "");
    let gateway = Gateway::start(&route.replace("127.0.0.1:1", &format!("unix:{}", path.display())));
    let series =
        format!("wsgate_backend_checks_total{{result=\"passed\",server=\"unix:{}\",upstream=\"u\"}}", path.display());
    let until = Instant::now() + PATIENCE;
    while gateway.metric(&series) < 2.0 {
        assert!(Instant::now() < until, "no check reaches it");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn with_too_few_up_all_are_used_and_that_is_told_once() {
    let (good, nobody) = (Backend::start(|mut served| served.until_end()), Backend::nobody());
    let panic = checked("tcp", "tries = 2\nbalance = 'round-robin'") + "\npanic_threshold = 60";
    let gateway = Gateway::start(&route_to(&[good.address(), nobody], &panic, ""));
    up(&gateway, nobody, 0.0);
    gateway.wait_for_metric("wsgate_upstream_panic{upstream=\"u\"}", 1.0);
    gateway.wait_for_message("too few backends are up, all are used");
    assert_eq!(gateway.status()["upstreams"][0]["panic"], true);
    let unavailable = |server| {
        let labels = format!("reason=\"backend-unavailable\",server=\"{server}\",upstream=\"u\"");
        gateway.metric(&format!("wsgate_backend_failures_total{{{labels}}}"))
    };
    // It is tried all the same.
    let before = unavailable(nobody);
    (0..2).for_each(|_| drop(gateway.connect().write_all(upgrade("").as_bytes())));
    let until = Instant::now() + PATIENCE;
    while unavailable(nobody) <= before {
        assert!(Instant::now() < until, "nobody tries it");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(gateway.count_logged(|line| line["message"] == "too few backends are up, all are used"), 1);
}

#[test]
fn an_idle_gateway_without_checks_asks_nobody() {
    let backend = Backend::echo();
    let gateway = Gateway::start(&route_to(&[backend.address()], "", ""));
    let (mut tunnel, _): (TcpStream, String) = gateway.open();
    tunnel.write_all(b"x").unwrap();
    read_exactly(&mut tunnel, b"x");
    assert_eq!(backend.connections(), 1);
}

#[test]
fn checks_follow_a_reload() {
    let listen = || std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (first, second) = (listen(), listen());
    let file = |server: &std::net::TcpListener, check: &str| {
        File::new(route_to(&[server.local_addr().unwrap()], &checked(check, ""), ""))
    };
    let gateway = file(&first, "tcp").start();
    check_counted(&gateway, first.local_addr().unwrap(), "passed");
    reload(&gateway, &file(&second, "tcp"));
    check_counted(&gateway, second.local_addr().unwrap(), "passed");
    // Nobody answers, so what went well as a connection does not as a handshake.
    reload(&gateway, &file(&second, "websocket"));
    up(&gateway, second.local_addr().unwrap(), 0.0);
    reload(&gateway, &file(&second, "tcp"));
    up(&gateway, second.local_addr().unwrap(), 1.0);
}

#[test]
fn a_server_that_comes_back_fills_slowly() {
    let (mut dies, stays) = (Process::start(), Process::start());
    let slow = checked("websocket", "slow_start = '1h'");
    let gateway = Gateway::start(&route_to(&[dies.address(), stays.address()], &slow, ""));
    check_counted(&gateway, dies.address(), "passed");
    dies.kill();
    up(&gateway, dies.address(), 0.0);
    check_counted(&gateway, dies.address(), "unreachable");
    let _back = dies.again();
    up(&gateway, dies.address(), 1.0);
    let _tunnels: Vec<_> = (0..40).map(|_| gateway.open()).collect();
    // By the count of tunnels alone it would have half of them; its share is a tenth of that.
    let servers = gateway.status()["upstreams"][0]["servers"].clone();
    assert!(servers[0]["tunnels"].as_u64().unwrap() <= 5 && servers[0]["warming_up"] == true, "{servers}");
    gateway.wait_for_metric("wsgate_tunnels{route=\"r\",upstream=\"u\",version=\"13\"}", 40.0);
}
