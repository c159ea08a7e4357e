//! Unix signals, in Pingora's terms: its main thread waits here, and goes as soon as this returns.

use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use pingora::server::{ShutdownSignal, ShutdownSignalWatch};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};

use super::{Drained, Lifecycle, Phase};
use crate::generation::Current;

/// Waits for the signals of an operator and does what they ask.
pub struct Signals {
    lifecycle: Arc<Lifecycle>,
    current: Arc<Current>,
    /// Set once, by the one call of `recv`.
    urgency: Arc<Mutex<Urgency>>,
}

/// How the process ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Urgency {
    /// After a drain, complete or not.
    #[default]
    Drained,
    /// At once, because the operator asked twice or with SIGINT.
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
    pub fn new(lifecycle: Arc<Lifecycle>, current: Arc<Current>) -> Signals {
        Signals { lifecycle, current, urgency: Arc::default() }
    }

    /// Tells, after Pingora has returned, how it came to that.
    pub fn urgency(&self) -> Arc<Mutex<Urgency>> {
        Arc::clone(&self.urgency)
    }

    /// Serves until the first signal that ends the process. Returns whether it may drain.
    async fn until_told_to_end(&self, streams: &mut Streams) -> Urgency {
        loop {
            tokio::select! {
                _ = streams.terminate.recv() => return Urgency::Drained,
                _ = streams.interrupt.recv() => return Urgency::AtOnce,
                _ = streams.reopen.recv() => match self.current.observer().reopen_log() {
                    Ok(()) => info!("access log reopened"),
                    Err(error) => tracing::error!(%error, "access log cannot be reopened"),
                },
                _ = streams.hang_up.recv() => warn!("SIGHUP ignored: this release does not reload its configuration"),
                _ = streams.quit.recv() => warn!("SIGQUIT ignored: this release does not hand its sockets over"),
            }
        }
    }

    async fn drain(&self, streams: &mut Streams) -> Urgency {
        let drain = self.current.load().config.gateway.drain;
        info!(open = self.lifecycle.open(), "draining");
        tokio::select! {
            drained = self.lifecycle.drain(drain.delay, drain.timeout) => {
                match drained {
                    Drained::Empty => info!("drained"),
                    Drained::TimedOut { left } => warn!(left, "drain timed out"),
                }
                Urgency::Drained
            }
            _ = streams.terminate.recv() => Urgency::AtOnce,
            _ = streams.interrupt.recv() => Urgency::AtOnce,
        }
    }
}

#[async_trait]
impl ShutdownSignalWatch for Signals {
    /// The drain is done here, so that what is left for Pingora is to go: its own way sleeps for a fixed time.
    async fn recv(&self) -> ShutdownSignal {
        let mut streams = Streams::listen().expect("a process may always listen for its own signals");
        let mut urgency = self.until_told_to_end(&mut streams).await;
        if urgency == Urgency::Drained {
            urgency = self.drain(&mut streams).await;
        }
        self.lifecycle.enter(Phase::Stopped);
        *self.urgency.lock() = urgency;
        info!("stopped");
        ShutdownSignal::FastShutdown
    }
}
