//! What the service manager hears, at a datagram socket in its place.

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::backend::{Backend, route_to};
use crate::harness::{Gateway, PATIENCE, configuration, connect, finish, read_head, upgrade};

struct Manager {
    socket: UnixDatagram,
    folder: tempfile::TempDir,
    backend: Backend,
}

impl Manager {
    fn new() -> Manager {
        let folder = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(folder.path().join("notify")).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Manager { socket, folder, backend: Backend::echo() }
    }

    fn launch(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Gateway {
        let path = |name: &str| self.folder.path().join(name).to_str().unwrap().to_owned();
        let gateway = format!("upgrade_socket = '{}'", path("run/upgrade.sock"));
        let text = configuration(&gateway, "", &route_to(&[self.backend.address()], "", ""));
        let notify = path("notify");
        let environment: Vec<_> = environment.iter().copied().chain([("NOTIFY_SOCKET", notify.as_str())]).collect();
        Gateway::launch(&text, arguments, &environment)
    }

    fn hear(&self) -> String {
        let mut bytes = [0; 1024];
        let length = self.socket.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    }

    /// The first message that begins so; a watchdog's are passed over.
    fn expect(&self, beginning: &str) -> String {
        loop {
            let message = self.hear();
            if message.starts_with(beginning) {
                return message;
            }
            assert_eq!(message, "WATCHDOG=1\n", "before `{beginning}`");
        }
    }
}

const WATCHDOG: (&str, &str) = ("WATCHDOG_USEC", "400000");

#[test]
fn hears_of_readiness_life_and_the_drain() {
    let manager = Manager::new();
    let mut gateway = manager.launch(&[], &[WATCHDOG]).until_ready();
    assert_eq!(manager.expect("READY=1\n"), "READY=1\nSTATUS=serving\n");
    for _ in 0..5 {
        let before = Instant::now();
        assert_eq!(manager.hear(), "WATCHDOG=1\n");
        assert!(before.elapsed() < Duration::from_millis(400), "within the limit, after {:?}", before.elapsed());
    }
    let mut stream = connect(gateway.address());
    std::io::Write::write_all(&mut stream, upgrade("").as_bytes()).unwrap();
    read_head(&mut stream);
    gateway.signal(Signal::TERM);
    assert_eq!(manager.expect("STOPPING=1\n"), "STOPPING=1\nSTATUS=draining, 1 open\n");
    assert_eq!(manager.hear(), "WATCHDOG=1\n", "a drain is no reason to be taken for dead");
    finish(&stream);
    assert_eq!(gateway.wait(), 0);
}

#[test]
fn a_watchdog_for_another_process_is_not_fed() {
    let manager = Manager::new();
    let mut gateway = manager.launch(&[], &[("WATCHDOG_USEC", "20000"), ("WATCHDOG_PID", "1")]).until_ready();
    manager.expect("READY=1\n");
    gateway.signal(Signal::TERM);
    assert!(manager.hear().starts_with("STOPPING=1\n"));
    assert_eq!(gateway.wait(), 0);
}

#[test]
fn hears_of_the_new_process_of_a_service_and_no_more_of_the_old_one() {
    let manager = Manager::new();
    let service = ("INVOCATION_ID", "5f1c0b8e");
    let mut old = manager.launch(&[], &[WATCHDOG, service]).until_ready();
    manager.expect("READY=1\n");
    let mut next = manager.launch(&["--upgrade"], &[service]);
    next.wait_for_message("waiting for SIGQUIT to the running process");
    old.signal(Signal::QUIT);
    let message = manager.expect("MAINPID=");
    assert!(message.starts_with(&format!("MAINPID={}\nREADY=1\nWATCHDOG=1\n", next.pid())), "{message}");
    assert_eq!(old.wait(), 0);
    // The manager told only the first process how often it wants to hear of it.
    for _ in 0..3 {
        assert_eq!(manager.hear(), "WATCHDOG=1\n", "the old one did not say that the service stops");
    }
    next.signal(Signal::TERM);
    manager.expect("STOPPING=1\n");
    assert_eq!(next.wait(), 0);
}

#[test]
fn a_process_of_another_service_leaves_the_old_one_its_own() {
    let manager = Manager::new();
    let mut old = manager.launch(&[], &[("INVOCATION_ID", "5f1c0b8e")]).until_ready();
    manager.expect("READY=1\n");
    let next = manager.launch(&["--upgrade"], &[("INVOCATION_ID", "77aa3d21")]);
    next.wait_for_message("waiting for SIGQUIT to the running process");
    old.signal(Signal::QUIT);
    assert_eq!(old.wait(), 0);
    let mut heard = [manager.hear(), manager.hear()];
    heard.sort();
    assert!(heard[0].starts_with(&format!("MAINPID={}\n", next.pid())), "{heard:?}");
    assert!(heard[1].starts_with("STOPPING=1\n"), "{heard:?}");
}

#[test]
fn a_socket_that_is_not_there_stops_nothing() {
    let backend = Backend::echo();
    let text = configuration("", "", &route_to(&[backend.address()], "", ""));
    assert!(!Path::new("/nonexistent").exists());
    let gateway = Gateway::launch(&text, &[], &[("NOTIFY_SOCKET", "/nonexistent/notify")]).until_ready();
    gateway.wait_for_message("the service manager was not told");
    assert_eq!(gateway.admin("/readyz", "").0, 200);
}
