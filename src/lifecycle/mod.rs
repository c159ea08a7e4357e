//! The process's own life: Starting → Ready → Draining → Stopped, and the signals that move it. It does not know what is
//! being served, only how much of it is still open.

mod signals;

use std::time::Duration;

use tokio::sync::watch;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

pub use signals::Signals;

/// ```text
///   Starting ──listeners are bound──► Ready ──SIGTERM──► Draining ──last tunnel gone, or timeout──► Stopped
///                                       └───────────────SIGINT, second SIGTERM──────────────────────►┘
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Starting,
    Ready,
    /// Still accepting connections, but no new tunnels.
    Draining,
    Stopped,
}

impl Phase {
    pub fn as_str(self) -> &'static str {
        match self {
            Phase::Starting => "starting",
            Phase::Ready => "ready",
            Phase::Draining => "draining",
            Phase::Stopped => "stopped",
        }
    }
}

/// Shared by all that must know whether the gateway still takes work.
pub struct Lifecycle {
    phase: watch::Sender<Phase>,
    /// True from the moment on which no connection is accepted any more. Pingora's services watch it.
    stop_accepting: watch::Sender<bool>,
    /// One token for each open tunnel and each plain request in flight.
    work: TaskTracker,
}

/// How a drain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    Empty,
    TimedOut { left: usize },
}

impl Default for Lifecycle {
    fn default() -> Lifecycle {
        Lifecycle {
            phase: watch::Sender::new(Phase::Starting),
            stop_accepting: watch::Sender::new(false),
            work: TaskTracker::new(),
        }
    }
}

impl Lifecycle {
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    pub fn enter(&self, phase: Phase) {
        self.phase.send_replace(phase);
    }

    pub fn is_draining(&self) -> bool {
        matches!(self.phase(), Phase::Draining | Phase::Stopped)
    }

    /// Turns true when listeners close.
    pub fn watch_accepting(&self) -> watch::Receiver<bool> {
        self.stop_accepting.subscribe()
    }

    /// Work that a drain waits for, until the token is dropped.
    pub fn work(&self) -> TaskTrackerToken {
        self.work.token()
    }

    pub fn open(&self) -> usize {
        self.work.len()
    }

    /// Readiness goes first; after `delay` no connection is accepted; then it waits for what is open.
    pub async fn drain(&self, delay: Duration, timeout: Duration) -> Drained {
        self.enter(Phase::Draining);
        tokio::time::sleep(delay).await;
        self.stop_accepting.send_replace(true);
        self.work.close();
        match tokio::time::timeout(timeout, self.work.wait()).await {
            Ok(()) => Drained::Empty,
            Err(_) => Drained::TimedOut { left: self.work.len() },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_drain_waits_for_the_last_piece_of_work() {
        let lifecycle = Lifecycle::default();
        let work = lifecycle.work();
        let accepting = lifecycle.watch_accepting();
        let drain = lifecycle.drain(Duration::from_secs(3), Duration::from_secs(30));
        tokio::pin!(drain);
        let early = tokio::time::timeout(Duration::from_secs(2), &mut drain).await;
        assert!(early.is_err() && lifecycle.is_draining() && !*accepting.borrow());
        let late = tokio::time::timeout(Duration::from_secs(2), &mut drain).await;
        assert!(late.is_err() && *accepting.borrow());
        drop(work);
        assert_eq!(drain.await, Drained::Empty);
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_ends_at_its_timeout() {
        let lifecycle = Lifecycle::default();
        let _work = lifecycle.work();
        let drained = lifecycle.drain(Duration::ZERO, Duration::from_secs(30)).await;
        assert_eq!(drained, Drained::TimedOut { left: 1 });
    }
}
