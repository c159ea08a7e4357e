//! What the service manager is told (`sd_notify(3)`): that the gateway is ready, what it is doing, that it is alive. Without
//! `NOTIFY_SOCKET` nothing happens. It does not know when to say what.

use std::env;
use std::ffi::OsStr;
use std::fmt::Write;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use sd_notify::NotifyState;
use serde::{Deserialize, Serialize};
use tracing::warn;

/// How long a manager that does not read may hold us up.
const SEND_PATIENCE: Duration = Duration::from_secs(1);

/// Speaks for the service, as long as this process is the one that does.
pub struct Notifier {
    manager: Option<Manager>,
    invocation: Option<String>,
    watchdog: Mutex<Option<Duration>>,
    /// False while another process speaks for the same service.
    in_charge: AtomicBool,
}

struct Manager {
    socket: UnixDatagram,
    address: SocketAddr,
}

/// What a process of the same service must know to speak for it. A manager tells it only to the first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// `INVOCATION_ID` of `systemd.exec(5)`: one run of a service, however many processes it has.
    pub invocation: Option<String>,
    pub watchdog_usec: Option<u64>,
}

/// While this lives, the manager believes that the configuration is being read again.
#[must_use = "the reload is over when this is dropped"]
pub struct Reloading<'n>(&'n Notifier);

impl Default for Notifier {
    /// Without a manager.
    fn default() -> Notifier {
        Notifier { manager: None, invocation: None, watchdog: Mutex::new(None), in_charge: AtomicBool::new(true) }
    }
}

impl Notifier {
    /// The variables stay as they are: taking them away needs a process of one thread, and we start no children.
    pub fn from_environment() -> Notifier {
        let invocation = env::var("INVOCATION_ID").ok();
        let service = Service { invocation, watchdog_usec: sd_notify::watchdog_enabled().map(microseconds) };
        match env::var_os("NOTIFY_SOCKET") {
            Some(address) => Notifier::to(&address, service),
            None => Notifier::default(),
        }
    }

    /// To the manager at this address: a path, or `@` and an abstract name (`unix(7)`).
    pub fn to(address: &OsStr, service: Service) -> Notifier {
        let manager = Manager::at(address);
        if let Err(error) = &manager {
            warn!(%error, "the service manager cannot be told anything: `{}`", address.display());
        }
        Notifier {
            manager: manager.ok(),
            invocation: service.invocation,
            watchdog: Mutex::new(service.watchdog_usec.map(Duration::from_micros)),
            in_charge: AtomicBool::new(true),
        }
    }

    pub fn ready(&self) {
        self.tell(&[NotifyState::Ready, NotifyState::Status("serving")]);
    }

    /// Says that a reload begins; that it is over is said when the value is dropped.
    pub fn reloading(&self) -> Reloading<'_> {
        let status = NotifyState::Status("reading the configuration again");
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.tell(&[NotifyState::Reloading, now, status]),
            // Without the time, a manager would take the message for a fault.
            Err(error) => warn!(%error, "the service manager cannot be told of a reload"),
        }
        Reloading(self)
    }

    pub fn stopping(&self, open: usize) {
        self.tell(&[NotifyState::Stopping, NotifyState::Status(&format!("draining, {open} open"))]);
    }

    pub fn alive(&self) {
        self.tell(&[NotifyState::Watchdog]);
    }

    /// After so much silence the manager takes the process for dead.
    pub fn watchdog(&self) -> Option<Duration> {
        *self.watchdog.lock()
    }

    /// What a successor has to know.
    pub fn service(&self) -> Service {
        Service { invocation: self.invocation.clone(), watchdog_usec: self.watchdog().map(microseconds) }
    }

    /// Whether a process with this `INVOCATION_ID`, or without one, belongs to the same run of the same service.
    pub fn is_of_service(&self, invocation: Option<&str>) -> bool {
        self.invocation.as_deref() == invocation
    }

    /// From here on another process speaks for the service.
    pub fn hush(&self) {
        self.in_charge.store(false, Ordering::Release);
    }

    /// From here on this process speaks for the service, and is the one that the manager watches and signals.
    pub fn take_charge(&self, before: &Service) {
        if self.is_of_service(before.invocation.as_deref()) {
            let mut watchdog = self.watchdog.lock();
            *watchdog = watchdog.or(before.watchdog_usec.map(Duration::from_micros));
        }
        self.in_charge.store(true, Ordering::Release);
        let status = NotifyState::Status("serving, with the sockets of the process before");
        // Nobody has fed the watchdog since the hand-over began, and half of its limit may be too late for the first time.
        self.tell(&[NotifyState::MainPid(std::process::id()), NotifyState::Ready, NotifyState::Watchdog, status]);
    }

    /// One message; a manager that cannot be reached is no reason to stop.
    fn tell(&self, states: &[NotifyState<'_>]) {
        let Some(manager) = self.manager.as_ref().filter(|_| self.in_charge.load(Ordering::Acquire)) else { return };
        if let Err(error) = manager.tell(states) {
            warn!(%error, "the service manager was not told");
        }
    }
}

impl Drop for Reloading<'_> {
    fn drop(&mut self) {
        self.0.ready();
    }
}

impl Manager {
    fn at(address: &OsStr) -> io::Result<Manager> {
        let bytes = address.as_bytes();
        let address = match bytes.strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None if bytes.starts_with(b"/") => SocketAddr::from_pathname(address)?,
            None => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    "neither an absolute path nor an abstract name",
                ));
            }
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(SEND_PATIENCE))?;
        Ok(Manager { socket, address })
    }

    /// The crate's own way of sending knows no abstract names.
    fn tell(&self, states: &[NotifyState<'_>]) -> io::Result<()> {
        let mut message = String::new();
        for state in states {
            writeln!(message, "{state}").expect("a string takes what is written");
        }
        self.socket.send_to_addr(message.as_bytes(), &self.address).map(|_| ())
    }
}

fn microseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A manager that listens at a path, and what it heard.
    fn check(speak: impl FnOnce(&Notifier), expected: &[&str]) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let heard = UnixDatagram::bind(&path).unwrap();
        check_at(&heard, path.as_os_str(), speak, expected);
    }

    fn check_at(heard: &UnixDatagram, address: &OsStr, speak: impl FnOnce(&Notifier), expected: &[&str]) {
        let service = Service { invocation: Some("a1".to_owned()), watchdog_usec: None };
        speak(&Notifier::to(address, service));
        heard.set_nonblocking(true).unwrap();
        for expected in expected {
            let mut bytes = [0; 256];
            let length = heard.recv(&mut bytes).unwrap();
            assert_eq!(String::from_utf8_lossy(&bytes[..length]), *expected);
        }
        assert_eq!(heard.recv(&mut [0; 256]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn says_what_the_manager_understands() {
        check(Notifier::ready, &["READY=1\nSTATUS=serving\n"]);
        check(|notifier| notifier.stopping(3), &["STOPPING=1\nSTATUS=draining, 3 open\n"]);
        check(Notifier::alive, &["WATCHDOG=1\n"]);
    }

    #[test]
    fn an_abstract_name_is_an_address_too() {
        let name = format!("wsgate-notify-{}", std::process::id());
        let heard = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        check_at(&heard, OsStr::new(&format!("@{name}")), Notifier::alive, &["WATCHDOG=1\n"]);
    }

    #[test]
    fn a_reload_has_a_time_and_an_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let heard = UnixDatagram::bind(&path).unwrap();
        let notifier = Notifier::to(path.as_os_str(), Service::default());
        let reloading = notifier.reloading();
        let mut bytes = [0; 256];
        let length = heard.recv(&mut bytes).unwrap();
        let began = String::from_utf8_lossy(&bytes[..length]).into_owned();
        let time = began.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").and_then(|rest| rest.split_once('\n')).unwrap().0;
        assert!(time.parse::<u64>().unwrap() > 0);
        heard.set_nonblocking(true).unwrap();
        assert!(heard.recv(&mut bytes).is_err(), "it is not over yet");
        drop(reloading);
        let length = heard.recv(&mut bytes).unwrap();
        assert!(bytes[..length].starts_with(b"READY=1\n"));
    }

    #[test]
    fn only_who_is_in_charge_speaks() {
        let hush = |notifier: &Notifier| {
            notifier.hush();
            notifier.alive();
            notifier.stopping(1);
        };
        check(hush, &[]);
        let pid = std::process::id();
        let expected =
            format!("MAINPID={pid}\nREADY=1\nWATCHDOG=1\nSTATUS=serving, with the sockets of the process before\n");
        let take_charge = |notifier: &Notifier| {
            notifier.hush();
            notifier.take_charge(&Service { invocation: Some("a1".to_owned()), watchdog_usec: Some(5) });
            assert_eq!(notifier.watchdog(), Some(Duration::from_micros(5)), "the manager told only the process before");
        };
        check(take_charge, &[&expected]);
    }

    #[test]
    fn the_watchdog_of_another_service_is_not_ours() {
        let notifier = Notifier::default();
        notifier.take_charge(&Service { invocation: Some("b2".to_owned()), watchdog_usec: Some(5) });
        assert_eq!(notifier.watchdog(), None);
    }

    #[test]
    fn an_address_that_is_none_is_no_reason_to_stop() {
        Notifier::to(OsStr::new("relative"), Service::default()).ready();
        Notifier::to(OsStr::new("/nonexistent/notify"), Service::default()).ready();
        Notifier::default().ready();
    }
}
