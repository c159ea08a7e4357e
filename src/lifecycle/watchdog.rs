//! Tells the service manager that the gateway is alive, as often as it wants to hear it and only while that is true. A
//! process can be there and serve nobody, so each accept loop's runtime is asked to do something first.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;

use super::Lifecycle;

/// Long enough that the runtime has to turn its timers, which it does where it turns its sockets.
const ASKED_FOR: Duration = Duration::from_millis(1);

/// Runs as long as the process; returns at once where no watchdog waits.
pub async fn watch(lifecycle: Arc<Lifecycle>) {
    let Some(limit) = lifecycle.notifier().watchdog() else { return };
    // Half of the limit, as `sd_watchdog_enabled(3)` asks for. `interval` would catch up after a stall, all at once.
    loop {
        tokio::time::sleep(limit / 2).await;
        for accepting in lifecycle.accepting() {
            until_it_serves(&accepting.runtime).await;
        }
        lifecycle.notifier().alive();
    }
}

/// Never returns when the runtime does not turn any more: the silence is what the manager acts on.
async fn until_it_serves(runtime: &Handle) {
    // It fails when the runtime is shut down, with the process close behind it.
    let _ = runtime.spawn(tokio::time::sleep(ASKED_FOR)).await;
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;
    use std::sync::mpsc;

    use super::*;
    use crate::lifecycle::notify::{Notifier, Service};
    use crate::lifecycle::{Accepting, Place, Role};

    #[test]
    fn a_runtime_that_hangs_is_not_alive() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let heard = UnixDatagram::bind(&path).unwrap();
        heard.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        let service = Service { invocation: None, watchdog_usec: Some(20_000) };
        let lifecycle = Arc::new(Lifecycle::new(Notifier::to(path.as_os_str(), service)));

        let edge = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let socket = Arc::new(std::net::TcpListener::bind("127.0.0.1:0").unwrap());
        let address = socket.local_addr().unwrap();
        let (block, blocked) = mpsc::channel::<()>();
        let (began, begun) = mpsc::channel();
        let accepting = Arc::clone(&lifecycle);
        edge.spawn(async move {
            let place = Place { role: Role::Listener, name: "public".to_owned(), address: address.into() };
            accepting.accepts(Accepting::new(place, &socket));
            began.send(()).unwrap();
            // The runtime's only thread waits here until the other end is dropped.
            let _ = blocked.recv();
        });
        begun.recv().unwrap();

        let own = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        own.spawn(watch(Arc::clone(&lifecycle)));
        let mut bytes = [0; 64];
        assert!(heard.recv(&mut bytes).is_err(), "fifteen times the limit, and not a word");
        drop(block);
        let length = heard.recv(&mut bytes).unwrap();
        assert_eq!(&bytes[..length], b"WATCHDOG=1\n");
    }
}
