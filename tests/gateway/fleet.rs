//! Two gateways and a real Redis: they hold a client to one limit, and whatever becomes of Redis or of one of them, handshakes
//! go on and each gateway holds its own.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::backend::{Backend, route_to};
use crate::client_limits::{ONE, OTHER, open_from, open_in_time, refused, reload, try_open_from};
use crate::harness::{Gateway, PATIENCE, configuration, status};
use crate::stage::SLACK;

const UP: &str = "wsgate_shared_limits_up";

/// A running `redis-server`; killed when dropped.
struct Redis {
    child: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Redis {
    fn start() -> Redis {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        Redis::start_on(port, &[])
    }

    fn start_on(port: u16, more: &[&str]) -> Redis {
        let folder = tempfile::tempdir().unwrap();
        let child = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir"])
            .arg(folder.path())
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server is installed by `make test`");
        let redis = Redis { child, port, _folder: folder };
        let until = Instant::now() + PATIENCE;
        while !redis.is_there() {
            assert!(Instant::now() < until, "redis-server does not answer");
            std::thread::sleep(Duration::from_millis(10));
        }
        redis
    }

    fn is_there(&self) -> bool {
        let Ok(stream) = TcpStream::connect(("127.0.0.1", self.port)) else { return false };
        let answer = command(stream, "PING");
        answer.starts_with("+PONG") || answer.starts_with("-NOAUTH")
    }

    fn say(&self, words: &str) -> String {
        command(TcpStream::connect(("127.0.0.1", self.port)).unwrap(), words)
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }
}

/// One inline command, and what comes back at once.
fn command(mut stream: TcpStream, words: &str) -> String {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut answer = [0; 4096];
    let read = stream.write_all(format!("{words}\r\n").as_bytes()).and_then(|()| stream.read(&mut answer));
    String::from_utf8_lossy(&answer[..read.unwrap_or(0)]).into_owned()
}

impl Drop for Redis {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A gateway's configuration: limits of the route, and more keys of `[limits.shared]` than where Redis is.
fn text(backend: &Backend, redis: Option<u16>, shared: &str, limits: &str) -> String {
    let redis = redis.map_or(String::new(), |port| format!("redis = 'redis://127.0.0.1:{port}/0'\nretry = '100ms'\n"));
    let route = route_to(&[backend.address()], "", &format!("[route.limits]\n{limits}"));
    configuration("", "", &format!("[limits.shared]\n{redis}{shared}\n{route}"))
}

/// A fast Redis on a busy machine may take longer than the default timeout.
const PATIENT: &str = "timeout = '5s'";

fn start(backend: &Backend, redis: &Redis, shared: &str, limits: &str) -> Gateway {
    let gateway = Gateway::start_from(&text(backend, Some(redis.port), shared, limits));
    gateway.wait_for_metric(UP, 1.0);
    gateway
}

fn is_down(line: &serde_json::Value) -> bool {
    line["message"] == "limits are not shared: each gateway counts for itself"
}

fn is_up(line: &serde_json::Value) -> bool {
    line["message"] == "limits are shared: clients are counted over all gateways"
}

#[test]
fn two_gateways_hold_a_client_to_one_number_of_tunnels() {
    let (backend, redis) = (Backend::echo(), Redis::start());
    let gateways = [(); 2].map(|()| start(&backend, &redis, PATIENT, "tunnels_per_client = 3"));
    let [here, there] = &gateways;
    let first = open_from(ONE, here);
    let _more = [open_from(ONE, there), open_from(ONE, here)];
    for gateway in &gateways {
        let answer = refused(ONE, gateway);
        assert!(answer.starts_with("HTTP/1.1 429 ") && answer.contains("\r\nRetry-After: 5\r\n"), "{answer}");
        let line = gateway.wait_for_access(|line| line["reason"] == "limit-client-tunnels");
        assert_eq!(line["detail"], "counted over all gateways");
    }
    let _other = open_from(OTHER, there);
    drop(first);
    let last = open_in_time(ONE, there);
    assert_eq!(status(&refused(ONE, here)), 429);
    drop((last, _more, _other));
    let until = Instant::now() + PATIENCE;
    while redis.say("KEYS wsgate:tunnels:*") != "*0\r\n" {
        assert!(Instant::now() < until, "still there: {}", redis.say("KEYS *"));
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn two_gateways_hold_a_client_to_one_rate() {
    let (backend, redis) = (Backend::echo(), Redis::start());
    let gateways = [(); 2].map(|()| start(&backend, &redis, PATIENT, "handshakes_per_client = '4/h'"));
    let begun = Instant::now();
    for gateway in &gateways {
        (0..2).for_each(|_| drop(open_from(ONE, gateway)));
    }
    for gateway in gateways.iter().chain(&gateways) {
        let answer = refused(ONE, gateway);
        assert!(answer.starts_with("HTTP/1.1 429 "), "{answer}");
        let retry_after = answer.lines().find_map(|line| line.strip_prefix("Retry-After: ")).unwrap();
        let (least, seconds) = (899 - begun.elapsed().as_secs(), retry_after.parse::<u64>().unwrap());
        assert!((least..=900).contains(&seconds), "one every 15 minutes, and it says {seconds} s");
        gateway.wait_for_access(|line| line["reason"] == "limit-client-handshakes");
    }
    drop(open_from(OTHER, &gateways[0]));
}

#[test]
fn a_redis_that_hangs_is_waited_for_once_and_local_limits_take_over() {
    let (backend, redis) = (Backend::echo(), Redis::start());
    let timeout = Duration::from_secs(4);
    // Long, so that no beat finds out before a handshake does.
    let shared = "timeout = '4s'\nlease = '1m'";
    let gateways = [(); 2].map(|()| start(&backend, &redis, shared, "tunnels_per_client = 3"));
    let [here, there] = &gateways;
    let _open = [open_from(ONE, here), open_from(ONE, here)];
    redis.signal(Signal::STOP);
    let begun = Instant::now();
    let _third = open_from(ONE, here);
    for _ in 0..10 {
        assert_eq!(status(&refused(ONE, here)), 429, "this gateway knows its own three");
        drop(open_in_time(OTHER, here));
    }
    let took = begun.elapsed();
    assert!(took < timeout + SLACK, "21 handshakes took {took:?}, and only the first may wait for {timeout:?}");
    here.wait_for_metric(UP, 0.0);
    assert!(here.metric("wsgate_shared_limits_failures_total{reason=\"timeout\"}") >= 1.0);
    here.wait_for_log(|line| is_down(line) && line["reason"] == "timeout");
    assert_eq!(here.status()["shared_limits"], "down");
    drop(open_from(ONE, there));
    redis.signal(Signal::CONT);
    for gateway in &gateways {
        gateway.wait_for_metric(UP, 1.0);
        gateway.wait_for_nth_log(2, is_up);
        assert_eq!(gateway.count_logged(is_down), 1);
        assert_eq!(gateway.status()["shared_limits"], "up");
    }
    // The third was opened while nobody could be told.
    assert_eq!(status(&refused(ONE, there)), 429);
}

#[test]
fn a_redis_that_is_gone_and_comes_back_empty_is_told_everything_again() {
    let (backend, redis) = (Backend::echo(), Redis::start());
    let gateways = [(); 2].map(|()| start(&backend, &redis, PATIENT, "tunnels_per_client = 3"));
    let [here, there] = &gateways;
    let first = open_from(ONE, here);
    let _second = open_from(ONE, here);
    let port = redis.port;
    drop(redis);
    let begun = Instant::now();
    let _third = open_from(ONE, here);
    assert_eq!(status(&refused(ONE, here)), 429, "this gateway knows its own three");
    let _elsewhere = open_from(OTHER, there);
    assert!(begun.elapsed() < SLACK, "a connection that is gone is noticed at once: {:?}", begun.elapsed());
    for gateway in &gateways {
        gateway.wait_for_metric(UP, 0.0);
        gateway.wait_for_log(is_down);
    }
    drop(first);
    let redis = Redis::start_on(port, &[]);
    for gateway in &gateways {
        gateway.wait_for_metric(UP, 1.0);
        gateway.wait_for_nth_log(2, is_up);
        assert_eq!(gateway.count_logged(is_down), 1, "one line for a change, however often it is tried");
    }
    let _last = open_from(ONE, there);
    assert_eq!(status(&refused(ONE, there)), 429);
    drop(redis);
}

#[test]
fn a_gateway_that_is_killed_gives_back_what_it_had() {
    let (backend, redis) = (Backend::echo(), Redis::start());
    let shared = "timeout = '5s'\nlease = '2s'";
    let [here, there] = [(); 2].map(|()| start(&backend, &redis, shared, "tunnels_per_client = 2"));
    let _both = [open_from(ONE, &here), open_from(ONE, &here)];
    assert_eq!(status(&refused(ONE, &there)), 429);
    // It lives, so what it said holds for longer than a lease.
    let until = Instant::now() + Duration::from_secs(5);
    while Instant::now() < until {
        assert_eq!(status(&refused(ONE, &there)), 429);
        std::thread::sleep(Duration::from_millis(100));
    }
    here.signal(Signal::KILL);
    let killed = Instant::now();
    drop(open_in_time(ONE, &there));
    let took = killed.elapsed();
    assert!(took < Duration::from_secs(2) + SLACK, "its lease is 2 s, and {took:?} went by");
    drop(here);
}

#[test]
fn a_reload_begins_and_ends_sharing() {
    let (backend, redis) = (Backend::echo(), Redis::start());
    let there = start(&backend, &redis, PATIENT, "tunnels_per_client = 2");
    let alone = text(&backend, None, "", "tunnels_per_client = 2");
    let here = Gateway::start_from(&alone);
    let shows_it = |gateway: &Gateway| {
        gateway.admin("/metrics", "").1.lines().any(|line| line.starts_with("wsgate_shared_limits_up "))
    };
    assert!(!shows_it(&here));
    let _open = [open_from(ONE, &here), open_from(ONE, &here)];
    drop(open_from(ONE, &there));
    reload(&here, &text(&backend, Some(redis.port), PATIENT, "tunnels_per_client = 2"));
    here.wait_for_metric(UP, 1.0);
    assert_eq!(status(&refused(ONE, &there)), 429, "what was open before is told");
    reload(&here, &text(&backend, Some(redis.port), "timeout = '5s'\nprefix = 'another:'", "tunnels_per_client = 2"));
    drop(open_in_time(ONE, &there));
    here.wait_for_nth_log(1, is_up);
    reload(&here, &alone);
    here.wait_for_log(|line| line["message"] == "limits are not shared any more: the configuration names no Redis");
    assert!(!shows_it(&here));
    assert!(try_open_from(ONE, &here).is_err(), "its own count goes on");
}

#[test]
fn a_password_is_read_from_its_file() {
    let backend = Backend::echo();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let redis = Redis::start_on(port, &["--requirepass", "open sesame"]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    std::fs::write(&file, "wrong\n").unwrap();
    let shared = format!("{PATIENT}\npassword_file = '{}'", file.display());
    let gateway = Gateway::start_from(&text(&backend, Some(redis.port), &shared, "tunnels_per_client = 1"));
    gateway.wait_for_log(|line| is_down(line) && line["reason"] == "answer");
    let open = open_from(ONE, &gateway);
    std::fs::write(&file, "open sesame\n").unwrap();
    gateway.wait_for_metric(UP, 1.0);
    drop(open);
}
