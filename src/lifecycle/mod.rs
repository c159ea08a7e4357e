//! The process's own life: Starting → Ready → Draining → Stopped, and the signals that move it. It does not know what is
//! being served, only how much of it is still open.

mod signals;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::config::model::Drain;
use crate::reason::Reason;
use crate::roster::Member;
pub use signals::Signals;

/// ```text
///   Starting ──listeners are bound──► Ready ──SIGTERM──► Draining ──nothing open, or timeout──► Stopped
///                                       └───────────────SIGINT, second SIGTERM──────────────────────►┘
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Starting,
    Ready,
    /// Not ready any more. Everything is served until the drain's delay is over, then nothing new.
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
    /// Holds one request that nobody waits for yet.
    reload: Notify,
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
            reload: Notify::new(),
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

    /// Listeners are closed, and a connection that was kept open gets no tunnel and no further request.
    pub fn refuses_tunnels(&self) -> bool {
        *self.stop_accepting.borrow()
    }

    /// The configuration is to be read again.
    pub fn ask_reload(&self) {
        self.reload.notify_one();
    }

    /// Until somebody asks for a reload. Asked several times before that is asked once.
    pub async fn reload_asked(&self) {
        self.reload.notified().await;
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

    /// Readiness goes first; after the delay nothing new is taken and the tunnels are asked to end, one after the other over
    /// the spread; then it waits for what is open. `close` closes every roster and tells who is on it.
    pub async fn drain(&self, plan: Drain, close: impl FnOnce() -> Vec<Arc<Member>>) -> Drained {
        self.enter(Phase::Draining);
        tokio::time::sleep(plan.delay).await;
        self.stop_accepting.send_replace(true);
        self.work.close();
        let members = close();
        let end = async {
            let asking = ask_to_end(Reason::Drained, plan.spread, &members);
            tokio::pin!(asking);
            tokio::select! {
                () = self.work.wait() => return,
                () = &mut asking => {}
            }
            self.work.wait().await;
        };
        match tokio::time::timeout(plan.timeout, end).await {
            Ok(()) => Drained::Empty,
            Err(_) => Drained::TimedOut { left: self.work.len() },
        }
    }
}

/// Asks these tunnels to end, evenly over `spread`.
pub async fn ask_to_end(reason: Reason, spread: Duration, members: &[Arc<Member>]) {
    let (start, count) = (Instant::now(), members.len().max(1) as f64);
    for (at, member) in members.iter().enumerate() {
        tokio::time::sleep_until(start + spread.mul_f64(at as f64 / count)).await;
        member.ask_to_end(reason);
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;
    use crate::roster::{Membership, Roster};

    #[tokio::test(start_paused = true)]
    async fn a_drain_waits_for_the_last_piece_of_work() {
        let lifecycle = Lifecycle::default();
        let work = lifecycle.work();
        let accepting = lifecycle.watch_accepting();
        let drain = lifecycle.drain(plan(3), Vec::new);
        tokio::pin!(drain);
        let early = tokio::time::timeout(Duration::from_secs(2), &mut drain).await;
        assert!(early.is_err() && lifecycle.phase() == Phase::Draining);
        assert!(!lifecycle.refuses_tunnels() && !*accepting.borrow());
        let late = tokio::time::timeout(Duration::from_secs(2), &mut drain).await;
        assert!(late.is_err() && lifecycle.refuses_tunnels() && *accepting.borrow());
        drop(work);
        assert_eq!(drain.await, Drained::Empty);
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_ends_at_its_timeout() {
        let lifecycle = Lifecycle::default();
        let _work = lifecycle.work();
        let drained = lifecycle.drain(plan(0), Vec::new).await;
        assert_eq!(drained, Drained::TimedOut { left: 1 });
    }

    fn plan(delay: u64) -> Drain {
        Drain { delay: Duration::from_secs(delay), spread: Duration::from_secs(10), timeout: Duration::from_secs(30) }
    }

    fn asked(tunnels: &[Membership]) -> usize {
        let waker = Waker::noop();
        tunnels.iter().filter(|tunnel| tunnel.asked_to_end(waker) == Some(Reason::Drained)).count()
    }

    #[tokio::test(start_paused = true)]
    async fn tunnels_are_asked_evenly_and_late_ones_too() {
        let (lifecycle, roster) = (Lifecycle::default(), Roster::default());
        let _work = lifecycle.work();
        let mut tunnels: Vec<Membership> = (0..100).map(|_| roster.join()).collect();
        let drain = lifecycle.drain(plan(1), || roster.close(Reason::Drained));
        tokio::pin!(drain);
        let start = Instant::now();
        for (milliseconds, expected) in [(500, 0), (1050, 1), (6050, 51), (10_950, 100)] {
            let _ = tokio::time::timeout_at(start + Duration::from_millis(milliseconds), &mut drain).await;
            assert_eq!(asked(&tunnels), expected, "after {milliseconds} ms");
        }
        tunnels.push(roster.join());
        assert_eq!(asked(&tunnels), 101);
    }
}
