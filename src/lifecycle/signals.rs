//! Unix signals, in Pingora's terms: its main thread waits here, and goes as soon as this returns.

use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use pingora::server::{ShutdownSignal, ShutdownSignalWatch};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};

use super::handover::{Giver, Predecessor};
use super::{Drained, Lifecycle, Phase, watchdog};
use crate::generation::Current;

/// Waits for the signals of an operator and does what they ask.
pub struct Signals {
    lifecycle: Arc<Lifecycle>,
    current: Arc<Current>,
    /// Accept loops to be waited for.
    accept_loops: usize,
    /// Until we serve in its place.
    predecessor: Mutex<Option<Predecessor>>,
    giver: Giver,
}

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    AfterDrain,
    AtOnce,
}

struct Streams {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
    reopen: Signal,
    quit: Signal,
}

impl Streams {
    fn listen() -> io::Result<Streams> {
        Ok(Streams {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
            reopen: signal(SignalKind::user_defined1())?,
            quit: signal(SignalKind::quit())?,
        })
    }
}

impl Signals {
    /// Ready means that so many accept loops have begun. A predecessor is told then.
    pub fn new(
        lifecycle: Arc<Lifecycle>,
        current: Arc<Current>,
        accept_loops: usize,
        predecessor: Option<Predecessor>,
    ) -> Signals {
        let giver = Giver::new(Arc::clone(&lifecycle));
        Signals { lifecycle, current, accept_loops, predecessor: Mutex::new(predecessor), giver }
    }

    /// Says ready when it is. Returns when another process serves on our sockets.
    async fn until_handed_over(&self) {
        self.lifecycle.until_accepting(self.accept_loops).await;
        self.lifecycle.enter(Phase::Ready);
        info!("ready");
        let predecessor = self.predecessor.lock().take();
        match predecessor {
            Some(predecessor) => predecessor.relieve(&self.lifecycle).await,
            None => self.lifecycle.notifier().ready(),
        }
        tokio::spawn(watchdog::watch(Arc::clone(&self.lifecycle)));
        // It fails only when there is no lifecycle any more.
        let _ = self.lifecycle.watch_handed_over().wait_for(|handed_over| *handed_over).await;
    }

    /// Serves until the first signal that ends the process. Returns how.
    async fn until_told_to_end(&self, streams: &mut Streams) -> Ending {
        loop {
            tokio::select! {
                _ = streams.terminate.recv() => return Ending::AfterDrain,
                _ = streams.interrupt.recv() => return Ending::AtOnce,
                _ = streams.reopen.recv() => match self.current.observer().reopen_log() {
                    Ok(()) => info!("access log reopened"),
                    Err(error) => tracing::error!(%error, "access log cannot be reopened"),
                },
                _ = streams.hang_up.recv() => self.lifecycle.ask_reload(),
                _ = streams.quit.recv() => self.giver.give(&self.current.load().config.gateway.upgrade_socket),
            }
        }
    }

    /// Until the drain is over, or a second signal that ends the process cuts it short.
    async fn drain(&self, streams: &mut Streams) {
        let drain = self.current.load().config.gateway.drain;
        tokio::select! {
            drained = self.lifecycle.drain(drain, || self.current.lasting.rosters()) => match drained {
                Drained::Empty => info!("drained"),
                Drained::TimedOut { left } => warn!(left, "drain timed out"),
            },
            _ = self.until_told_to_end(streams) => warn!(left = self.lifecycle.open(), "drain cut short"),
        }
    }
}

#[async_trait]
impl ShutdownSignalWatch for Signals {
    /// The drain is done here, so that what is left for Pingora is to go: its own way sleeps for a fixed time.
    async fn recv(&self) -> ShutdownSignal {
        let mut streams = Streams::listen().expect("a process may always listen for its own signals");
        // Only now does a signal reach us rather than the default that kills, so we may say that we are ready.
        let ending = tokio::select! {
            ending = self.until_told_to_end(&mut streams) => ending,
            () = self.until_handed_over() => Ending::AfterDrain,
        };
        match ending {
            Ending::AfterDrain => self.drain(&mut streams).await,
            Ending::AtOnce => {}
        }
        self.lifecycle.cut(&self.current.lasting.rosters()).await;
        self.lifecycle.enter(Phase::Stopped);
        info!("stopped");
        ShutdownSignal::FastShutdown
    }
}
