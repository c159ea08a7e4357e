//! A new configuration while the gateway runs: what changes at once, what outlives the change, and what is refused whole.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::Instant;

use rustix::process::Signal;
use serde_json::Value;

use crate::backend::{Backend, route_to};
use crate::harness::{Gateway, PATIENCE, finish, read_exactly, read_head, status, upgrade};

pub const SUCCESSFUL: &str = "wsgate_config_last_reload_successful";
const TIMESTAMP: &str = "wsgate_config_last_reload_success_timestamp_seconds";

/// A configuration in the parts that the tests change.
#[derive(Clone)]
pub struct File {
    /// Keys of `[gateway]`.
    pub gateway: &'static str,
    /// Keys of `[admin]`.
    pub admin: &'static str,
    /// Keys of `[log]`.
    pub log: String,
    pub listeners: &'static str,
    pub rest: String,
}

impl File {
    pub fn new(rest: impl Into<String>) -> File {
        File {
            gateway: "",
            admin: "listen = '127.0.0.1:0'",
            log: "format = 'json'\nlevel = 'debug'\naccess = 'stdout'".to_owned(),
            listeners: "[[listener]]\nname = 'public'\nlisten = '127.0.0.1:0'",
            rest: rest.into(),
        }
    }

    pub fn text(&self) -> String {
        let File { gateway, admin, log, listeners, rest } = self;
        format!("[gateway]\n{gateway}\n[admin]\n{admin}\n[log]\n{log}\n{listeners}\n{rest}\n")
    }

    pub fn start(&self) -> Gateway {
        Gateway::start_from(&self.text())
    }
}

pub fn is_reloaded(line: &Value) -> bool {
    line["message"] == "configuration reloaded"
}

fn is_refused(line: &Value) -> bool {
    line["message"] == "reload refused, the configuration in force stays"
}

/// SIGHUP with another text, until it is in force.
pub fn reload(gateway: &Gateway, file: &File) {
    fs::write(gateway.path(), file.text()).unwrap();
    let before = gateway.count_logged(is_reloaded);
    gateway.signal(Signal::HUP);
    gateway.wait_for_nth_log(before + 1, is_reloaded);
    gateway.wait_for_metric(SUCCESSFUL, 1.0);
}

/// SIGHUP with another text, until it is refused. The last line of the refusal.
fn refuse(gateway: &Gateway, text: &str) -> Value {
    fs::write(gateway.path(), text).unwrap();
    refused(gateway)
}

fn refused(gateway: &Gateway) -> Value {
    let before = gateway.count_logged(is_refused);
    gateway.signal(Signal::HUP);
    let line = gateway.wait_for_nth_log(before + 1, is_refused);
    gateway.wait_for_metric(SUCCESSFUL, 0.0);
    line
}

/// Versions that the route accepts, before a backend that speaks them all.
pub fn accepting(backend: SocketAddr, versions: &str) -> File {
    File::new(route_to(&[backend], "versions = [13, 8]", &format!("versions.accept = [{versions}]")))
}

/// What an upgrade that asks for version 8 is answered.
pub fn status_of_8(gateway: &Gateway) -> u16 {
    let mut stream = gateway.connect();
    stream.write_all(upgrade("").replace("Version: 13", "Version: 8").as_bytes()).unwrap();
    status(&read_head(&mut stream))
}

pub fn echo(stream: &mut TcpStream, text: &[u8]) {
    stream.write_all(text).unwrap();
    read_exactly(stream, text);
}

#[test]
fn a_signal_brings_the_new_rules_into_force_and_open_tunnels_live_on() {
    let backend = Backend::echo();
    let gateway = accepting(backend.address(), "13").start();
    let (mut tunnel, _) = gateway.open();
    // A connection that waits for its next head gets the rules of the moment at which that comes.
    let mut waiting = gateway.connect();
    assert_eq!(status_of_8(&gateway), 426);
    reload(&gateway, &accepting(backend.address(), "13, 8"));
    assert_eq!(status_of_8(&gateway), 101);
    waiting.write_all(upgrade("").replace("Version: 13", "Version: 8").as_bytes()).unwrap();
    assert_eq!(status(&read_head(&mut waiting)), 101);
    echo(&mut tunnel, b"still here");
    reload(&gateway, &accepting(backend.address(), "13"));
    assert_eq!(status_of_8(&gateway), 426);
    echo(&mut tunnel, b"and again");
    echo(&mut waiting, b"of a version that no other client gets now");
}

#[test]
fn a_tunnel_keeps_the_rules_it_began_with() {
    let backend = Backend::echo();
    let file = |idle| File::new(route_to(&[backend.address()], "", &format!("tunnel.idle_timeout = '{idle}'")));
    let gateway = file("500ms").start();
    let (mut old, _) = gateway.open();
    reload(&gateway, &file("off"));
    let (mut new, _) = gateway.open();
    read_exactly(&mut old, b"\x88\x0E\x03\xE9idle-timeout");
    drop(old);
    gateway.wait_for_access(|line| line["event"] == "closed" && line["reason"] == "idle-timeout");
    echo(&mut new, b"not idle for ever");
}

#[test]
fn a_route_that_is_gone_closes_its_tunnels_where_it_says_so() {
    let backend = Backend::echo();
    let close = "[route.tunnel]\non_remove = 'close'";
    let file = |name: &str| {
        let route = route_to(&[backend.address()], "", close).replace("name = 'r'", &format!("name = '{name}'"));
        File { gateway: "drain.spread = '0s'", ..File::new(route) }
    };
    let gateway = file("r").start();
    let (mut tunnel, _) = gateway.open();
    reload(&gateway, &file("r"));
    gateway.wait_for_metric("wsgate_tunnels{route=\"r\",upstream=\"u\",version=\"13\"}", 1.0);
    reload(&gateway, &file("s"));
    read_exactly(&mut tunnel, b"\x88\x0F\x03\xE9route-removed");
    drop(tunnel);
    gateway.wait_for_access(|line| line["event"] == "closed" && line["reason"] == "route-removed");
    // One that returns is as any other.
    reload(&gateway, &file("r"));
    let (mut again, _) = gateway.open();
    echo(&mut again, b"here");
}

#[test]
fn a_route_that_is_gone_keeps_its_tunnels_and_its_counts() {
    let backend = Backend::echo();
    let routes = route_to(&[backend.address()], "", "paths = ['/ws']");
    let gateway = File::new(routes.clone()).start();
    let (mut tunnel, _) = gateway.open();
    let others = File::new(routes.replace("'r'", "'other'").replace("/ws", "/other"));
    let open = "wsgate_tunnels{route=\"r\",upstream=\"u\",version=\"13\"}";
    for _ in 0..3 {
        reload(&gateway, &others);
        assert_eq!(status(&gateway.ask(upgrade(""))), 404);
        echo(&mut tunnel, b"of no route");
        gateway.wait_for_metric(open, 1.0);
    }
    finish(&tunnel);
    gateway.wait_for_access(|line| line["event"] == "closed" && line["route"] == "r");
    gateway.wait_for_metric(open, 0.0);
    gateway.wait_for_metric("wsgate_tunnel_bytes_total{direction=\"to_backend\",route=\"r\"}", 33.0);
    // Nobody uses the name any more, so the next reload takes its series away.
    reload(&gateway, &others);
    let (_, metrics) = gateway.admin("/metrics", "");
    assert!(!metrics.contains("route=\"r\"") && metrics.contains("route=\"other\""), "{metrics}");
}

#[test]
fn a_bad_file_is_refused_with_every_problem_and_a_good_one_mends_it() {
    let backend = Backend::echo();
    let good = accepting(backend.address(), "13");
    let gateway = good.start();
    let bad = File { gateway: "thread = 1", ..good.clone() }.text().replace("level = 'debug'", "level = 'debgu'");
    let last = refuse(&gateway, &bad);
    assert_eq!(last["problems"], 2);
    let problem = |code: &str| gateway.wait_for_log(|line| line["code"] == code);
    let (unknown, choice) = (problem("unknown-key"), problem("unknown-choice"));
    assert_eq!((&unknown["line"], &unknown["column"]), (&Value::from(2), &Value::from(1)), "{unknown}");
    assert_eq!(unknown["message"], "unknown key: `thread`");
    assert_eq!(unknown["hint"], "did you mean `threads`?");
    assert_eq!(unknown["file"], gateway.path().to_str().unwrap());
    assert_eq!(
        (&choice["line"], &choice["hint"]),
        (&Value::from(7), &Value::from("did you mean `debug`?")),
        "{choice}"
    );
    assert_eq!(status_of_8(&gateway), 426);

    let taken = gateway.metric(TIMESTAMP);
    let until = Instant::now() + PATIENCE;
    // Its unit is a second.
    while gateway.metric(TIMESTAMP) <= taken {
        assert!(Instant::now() < until, "the time of the last reload stays");
        reload(&gateway, &good);
    }
}

#[test]
fn a_bad_file_can_be_read_in_the_text_format_too() {
    let backend = Backend::echo();
    let text = File { log: "format = 'text'\naccess = 'off'".to_owned(), ..accepting(backend.address(), "13") };
    let gateway = accepting(backend.address(), "13").start();
    fs::write(gateway.path(), text.text()).unwrap();
    gateway.signal(Signal::HUP);
    let has = |line: &Value, part: &str| line.as_str().is_some_and(|line| line.contains(part));
    gateway.wait_for_log(|line| has(line, "configuration reloaded"));
    let bad = text.text().replace("accept = [13]", "accept = [14]");
    let at = bad.lines().position(|line| line.contains("[14]")).unwrap() + 1;
    fs::write(gateway.path(), bad).unwrap();
    gateway.signal(Signal::HUP);
    let line = gateway.wait_for_log(|line| has(line, "unserved-version"));
    for part in ["ERROR", "code=\"unserved-version\"", "wsgate.toml\"", "column=20", "hint=\"no version above 13"] {
        assert!(has(&line, part), "{part} is not in {line}");
    }
    assert!(has(&line, &format!(" line={at} ")), "line {at} is not in {line}");
    gateway.wait_for_log(|line| has(line, "reload refused") && has(line, "problems=1"));
}

#[test]
fn a_file_that_cannot_be_read_leaves_everything_as_it_is() {
    let backend = Backend::echo();
    let file = accepting(backend.address(), "13");
    let gateway = file.start();
    fs::remove_file(gateway.path()).unwrap();
    let line = refused(&gateway);
    let error = line["error"].as_str().unwrap();
    assert!(error.starts_with("cannot read the configuration `") && error.contains("wsgate.toml`: "), "{error}");
    assert_eq!(status_of_8(&gateway), 426);
    reload(&gateway, &accepting(backend.address(), "13, 8"));
    assert_eq!(status_of_8(&gateway), 101);
}

#[test]
fn addresses_and_threads_wait_for_the_next_start_and_are_named() {
    let backend = Backend::echo();
    let file = File { gateway: "threads = 2", ..accepting(backend.address(), "13") };
    let gateway = file.start();
    let listens = gateway.status()["listeners"][0]["listen"].clone();
    assert_eq!(listens, gateway.address().to_string());
    let moved = File {
        gateway: "threads = 3",
        admin: "listen = '127.0.0.3:0'",
        listeners: "[[listener]]\nname = 'public'\nlisten = '127.0.0.2:0'",
        ..accepting(backend.address(), "13, 8")
    };
    reload(&gateway, &moved);
    for (key, in_force, wanted) in [
        ("listener.public.listen", gateway.address().to_string(), "127.0.0.2:0"),
        ("admin.listen", gateway.listens("admin").to_string(), "127.0.0.3:0"),
        ("gateway.threads", "2".to_owned(), "3"),
    ] {
        let line = gateway.wait_for_log(|line| line["key"] == key);
        assert_eq!((&line["in_force"], &line["wanted"]), (&Value::from(in_force), &Value::from(wanted)), "{line}");
    }
    assert_eq!(gateway.status()["listeners"][0]["listen"], listens);
    // The rest of the file is in force, at the old address.
    assert_eq!(status_of_8(&gateway), 101);
    // Port 0 keeps what the system chose, without a word.
    let named = gateway.count_logged(|line| line["key"].is_string());
    reload(&gateway, &file);
    assert_eq!(gateway.count_logged(|line| line["key"].is_string()), named);
}

const BOTH: &str = "[[listener]]\nname = 'public'\nlisten = '127.0.0.1:0'\n\
                    [[listener]]\nname = 'inner'\nlisten = '127.0.0.1:0'\nheader_limit = '1KiB'";
const BOTH_TURNED: &str = "[[listener]]\nname = 'inner'\nlisten = '127.0.0.1:0'\nheader_limit = '1KiB'\n\
                           [[listener]]\nname = 'public'\nlisten = '127.0.0.1:0'";

#[test]
fn a_listener_more_or_less_is_refused_whole() {
    let backend = Backend::echo();
    let one = accepting(backend.address(), "13");
    let gateway = one.start();
    let two = File { listeners: BOTH, ..accepting(backend.address(), "13, 8") };
    let line = refuse(&gateway, &two.text());
    assert!(line["error"].as_str().unwrap().contains("the file adds `inner`"), "{line}");
    assert!(line["hint"].as_str().unwrap().contains("--upgrade"), "{line}");
    assert_eq!(status_of_8(&gateway), 426);
    assert_eq!(gateway.status()["listeners"].as_array().unwrap().len(), 1);

    let gateway = File { listeners: BOTH, ..one }.start();
    let line = refuse(&gateway, &accepting(backend.address(), "13, 8").text());
    assert!(line["error"].as_str().unwrap().contains("the file removes `inner`"), "{line}");
    assert_eq!(status_of_8(&gateway), 426);
}

#[test]
fn another_order_of_listeners_and_routes_is_harmless() {
    let backend = Backend::echo();
    let upstream = format!("[[upstream]]\nname = 'u'\nservers = ['{}']\n", backend.address());
    let route = |listener| format!("[[route]]\nname = 'for-{listener}'\nlisteners = ['{listener}']\nupstream = 'u'\n");
    let (public, inner) = (route("public"), route("inner"));
    let file = File { listeners: BOTH, ..File::new(format!("{upstream}{public}{inner}")) };
    let gateway = file.start();
    let long = format!("X-Long: {}\r\n", "x".repeat(2000));
    let check = || {
        for (name, expected) in [("public", 101), ("inner", 431)] {
            let mut stream = crate::harness::connect(gateway.listens(name));
            stream.write_all(upgrade(&long).as_bytes()).unwrap();
            assert_eq!(status(&read_head(&mut stream)), expected, "{name}");
            let mut stream = crate::harness::connect(gateway.listens(name));
            stream.write_all(upgrade("").as_bytes()).unwrap();
            assert_eq!(status(&read_head(&mut stream)), 101);
        }
        let count = |listener: &str| {
            gateway.metric(&format!(
                "wsgate_upgrade_requests_total{{listener=\"{listener}\",route=\"for-{listener}\",version=\"13\"}}"
            ))
        };
        (count("public"), count("inner"))
    };
    assert_eq!(check(), (2.0, 1.0));
    reload(&gateway, &File { listeners: BOTH_TURNED, ..File::new(format!("{upstream}{inner}{public}")) });
    assert_eq!(check(), (4.0, 2.0));
}

#[test]
fn level_and_format_of_the_log_change() {
    let route = route_to(&[Backend::nobody()], "tries = 1", "");
    let file = |log: &str| File { log: format!("{log}\naccess = 'off'"), ..File::new(route.clone()) };
    let debug = file("format = 'json'\nlevel = 'debug'");
    let gateway = debug.start();
    let is_debug = |line: &Value| line["message"] == "dial failed";
    assert_eq!(status(&gateway.ask(upgrade(""))), 503);
    gateway.wait_for_log(is_debug);

    // At `error` the reload itself is not in the log, so the gauge says when it is over.
    refuse(&gateway, "nonsense");
    fs::write(gateway.path(), file("format = 'json'\nlevel = 'error'").text()).unwrap();
    gateway.signal(Signal::HUP);
    gateway.wait_for_metric(SUCCESSFUL, 1.0);
    assert_eq!(status(&gateway.ask(upgrade(""))), 503);
    reload(&gateway, &debug);
    assert_eq!(gateway.count_logged(is_debug), 1);
    assert_eq!(status(&gateway.ask(upgrade(""))), 503);
    gateway.wait_for_nth_log(2, is_debug);

    fs::write(gateway.path(), file("format = 'text'\nlevel = 'debug'").text()).unwrap();
    gateway.signal(Signal::HUP);
    gateway.wait_for_log(|line| line.as_str().is_some_and(|line| line.contains(" INFO configuration reloaded ")));
    reload(&gateway, &debug);
}

#[test]
fn the_access_log_changes_its_file_and_one_that_cannot_be_opened_refuses_the_rest_too() {
    let backend = Backend::echo();
    let folder = tempfile::tempdir().unwrap();
    let path = |name| folder.path().join(name);
    let file = |name: &str, versions| {
        let log = format!("format = 'json'\naccess = '{}'", folder.path().join(name).display());
        File { log, ..accepting(backend.address(), versions) }
    };
    let gateway = file("first.log", "13").start();
    drop(gateway.open());
    let closed = |name| {
        let until = Instant::now() + PATIENCE;
        loop {
            let text = fs::read_to_string(path(name)).unwrap_or_default();
            if text.contains("\"closed\"") {
                return text.lines().count();
            }
            assert!(Instant::now() < until, "{name} has {text}");
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    };
    assert_eq!(closed("first.log"), 2);
    let line = refuse(&gateway, &file("missing/access.log", "13, 8").text());
    assert!(line["error"].as_str().unwrap().contains("missing/access.log"), "{line}");
    assert_eq!(status_of_8(&gateway), 426);
    reload(&gateway, &file("second.log", "13"));
    drop(gateway.open());
    assert_eq!(closed("second.log"), 2);
    // The refusal of version 8 came before, so it went to the first.
    assert_eq!(closed("first.log"), 3);
}

#[test]
fn a_limit_below_what_is_open_cuts_nothing_and_admits_nobody() {
    let backend = Backend::echo();
    let file = |limit| File::new(route_to(&[backend.address()], "", &format!("limits.tunnels = {limit}")));
    let gateway = file(10).start();
    let mut tunnels: Vec<TcpStream> = (0..4).map(|_| gateway.open().0).collect();
    reload(&gateway, &file(2));
    tunnels.iter_mut().for_each(|tunnel| echo(tunnel, b"over the limit"));
    assert_eq!(status(&gateway.ask(upgrade(""))), 503);
    assert_eq!(gateway.status()["routes"][0]["tunnels"], 4);
    gateway.wait_for_metric("wsgate_refusals_total{reason=\"limit-tunnels\",route=\"r\"}", 1.0);
    tunnels.truncate(1);
    gateway.wait_for_metric("wsgate_tunnels{route=\"r\",upstream=\"u\",version=\"13\"}", 1.0);
    drop(gateway.open());
    gateway
        .wait_for_metric("wsgate_tunnels_total{backend_version=\"13\",route=\"r\",upstream=\"u\",version=\"13\"}", 5.0);
}

#[test]
fn the_standing_and_the_tunnels_of_a_server_outlive_a_reload() {
    let (nobody, good) = (Backend::nobody(), Backend::echo());
    let health = "balance = 'round-robin'\n[upstream.health]\nfall = 1\neject_time = '1h'";
    let file = |more: &str| File::new(route_to(&[nobody, good.address()], health, more));
    let gateway = file("").start();
    let _tunnels = (gateway.open(), gateway.open());
    gateway.wait_for_log(|line| line["message"] == "backend is out after failed dials");
    let standing = |gateway: &Gateway| {
        let servers = gateway.status()["upstreams"][0]["servers"].clone();
        (servers[0]["up"].clone(), servers[1]["up"].clone(), servers[1]["tunnels"].clone())
    };
    assert_eq!(standing(&gateway), (false.into(), true.into(), 2.into()));
    reload(&gateway, &file("limits.tunnels = 100"));
    assert_eq!(standing(&gateway), (false.into(), true.into(), 2.into()));
    gateway.wait_for_metric(&format!("wsgate_backend_up{{server=\"{nobody}\",upstream=\"u\"}}"), 0.0);
    // It is still out, so nobody tries it.
    let failed = gateway.count_logged(|line| line["message"] == "dial failed");
    (0..4).for_each(|_| drop(gateway.open()));
    assert_eq!(gateway.count_logged(|line| line["message"] == "dial failed"), failed);
}

#[test]
fn a_server_that_is_gone_counts_its_tunnels_down() {
    let (old, new) = (Backend::echo(), Backend::echo());
    let gateway = File::new(route_to(&[old.address()], "", "")).start();
    let (mut tunnel, _) = gateway.open();
    reload(&gateway, &File::new(route_to(&[new.address()], "", "")));
    let tunnels = format!("wsgate_backend_tunnels{{server=\"{}\",upstream=\"u\"}}", old.address());
    gateway.wait_for_metric(&tunnels, 1.0);
    echo(&mut tunnel, b"on the old one");
    drop(gateway.open());
    assert_eq!((old.connections(), new.connections()), (1, 1));
    drop(tunnel);
    let until = Instant::now() + PATIENCE;
    while gateway.admin("/metrics", "").1.contains(&tunnels) {
        assert!(Instant::now() < until, "{tunnels} stays");
    }
}

#[test]
fn a_handshake_in_progress_ends_under_the_rules_it_began_with() {
    let (go, gone) = std::sync::mpsc::channel::<()>();
    let gone = std::sync::Mutex::new(gone);
    let slow = Backend::start(move |mut served| {
        served.head();
        gone.lock().unwrap().recv_timeout(PATIENCE).unwrap();
        served.send(crate::backend::switching("") + "late");
        served.until_end();
    });
    let gateway = File::new(route_to(&[slow.address()], "handshake_timeout = '30s'", "")).start();
    let mut stream = gateway.connect();
    stream.write_all(upgrade("").as_bytes()).unwrap();
    let until = Instant::now() + PATIENCE;
    while slow.connections() == 0 {
        assert!(Instant::now() < until, "the handshake does not reach the backend");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    reload(&gateway, &File::new(route_to(&[Backend::nobody()], "", "hosts = ['b.example']")));
    go.send(()).unwrap();
    assert_eq!(status(&read_head(&mut stream)), 101);
    read_exactly(&mut stream, b"late");
    assert_eq!(status(&gateway.ask(upgrade(""))), 404);
}

#[test]
fn a_reload_during_a_drain_is_ignored() {
    let backend = Backend::echo();
    let mut gateway = accepting(backend.address(), "13").start();
    let (tunnel, _) = gateway.open();
    gateway.signal(Signal::TERM);
    gateway.wait_for_log(|line| line["message"] == "draining");
    gateway.signal(Signal::HUP);
    gateway.wait_for_log(|line| line["message"].as_str().is_some_and(|text| text.starts_with("reload ignored: ")));
    finish(&tunnel);
    assert_eq!(gateway.wait(), 0);
    assert!(!gateway.has_logged(is_reloaded));
}

#[test]
fn the_demo_has_nothing_to_reload() {
    let mut demo = Command::new(env!("CARGO_BIN_EXE_wsgate"))
        .args(["demo", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = rustix::process::Pid::from_child(&demo);
    let mut lines = BufReader::new(demo.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.ends_with(" ready")));
    rustix::process::kill_process(pid, Signal::HUP).unwrap();
    assert!(lines.any(|line| line.contains("nothing to reload")));
    rustix::process::kill_process(pid, Signal::INT).unwrap();
    assert!(lines.any(|line| line.contains("stopped")));
    demo.wait().unwrap();
}
