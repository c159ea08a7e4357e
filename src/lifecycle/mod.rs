//! The process's own life: Starting → Ready → Draining → Stopped, and the signals that move it. It does not know what is
//! being served, only how much of it is still open.

mod accepting;
pub mod handover;
mod notify;
mod signals;
mod watchdog;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::info;

use crate::config::model::Drain;
use crate::reason::Reason;
use crate::roster::{Member, Roster};
pub use accepting::{Accepting, Place, Role};
pub use notify::Notifier;
pub use signals::Signals;

use accepting::Begun;

/// ```text
///   Starting ──all accept──► Ready ──SIGTERM──► Draining ───────nothing open, or timeout──────► Stopped
///                             │└──SIGQUIT, and a successor serves──► HandedOver ──the same───────►┤
///                             └───────────────────SIGINT, second SIGTERM─────────────────────────►┘
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Starting,
    Ready,
    /// Not ready any more. Everything is served until the drain's delay is over, then nothing new.
    Draining,
    /// Another process accepts on the same sockets. What was accepted here is served here, new tunnels included: its clients
    /// cannot know.
    HandedOver,
    Stopped,
}

impl Phase {
    pub fn as_str(self) -> &'static str {
        match self {
            Phase::Starting => "starting",
            Phase::Ready => "ready",
            Phase::Draining => "draining",
            Phase::HandedOver => "handed-over",
            Phase::Stopped => "stopped",
        }
    }
}

/// Shared by all that must know whether the gateway still takes work.
pub struct Lifecycle {
    notifier: Notifier,
    phase: watch::Sender<Phase>,
    /// True from the moment on which no connection is accepted any more. Pingora's services watch it.
    stop_accepting: watch::Sender<bool>,
    /// Holds one request that nobody waits for yet.
    reload: Notify,
    handed_over: watch::Sender<bool>,
    failed: AtomicBool,
    begun: Begun,
    /// One token for each accept loop, and for each connection until its first head is dealt with.
    arrivals: TaskTracker,
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
    /// Without a service manager.
    fn default() -> Lifecycle {
        Lifecycle::new(Notifier::default())
    }
}

impl Lifecycle {
    pub fn new(notifier: Notifier) -> Lifecycle {
        Lifecycle {
            notifier,
            phase: watch::Sender::new(Phase::Starting),
            stop_accepting: watch::Sender::new(false),
            reload: Notify::new(),
            handed_over: watch::Sender::new(false),
            failed: AtomicBool::new(false),
            begun: Begun::default(),
            arrivals: TaskTracker::new(),
            work: TaskTracker::new(),
        }
    }

    pub fn notifier(&self) -> &Notifier {
        &self.notifier
    }

    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    pub fn enter(&self, phase: Phase) {
        self.phase.send_replace(phase);
    }

    /// Whether a connection that stays open holds up the end.
    pub fn is_draining(&self) -> bool {
        matches!(self.phase(), Phase::Draining | Phase::HandedOver | Phase::Stopped)
    }

    /// Listeners are closed, and a client that still asks for a tunnel should rather come again: it then finds another gateway.
    pub fn refuses_tunnels(&self) -> bool {
        *self.stop_accepting.borrow() && !self.is_handed_over()
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

    /// To be told by each accept loop when it begins.
    pub fn accepts(&self, accepting: Accepting) {
        self.begun.add(accepting);
    }

    /// The accept loops that have begun, those that have ended since included.
    pub fn accepting(&self) -> Vec<Accepting> {
        self.begun.all()
    }

    /// Until so many accept loops have begun.
    pub async fn until_accepting(&self, count: usize) {
        self.begun.wait_for(count).await;
    }

    /// Another process accepts on the same sockets: from here on only what was accepted here is served.
    pub fn hand_over(&self) {
        // A connection that hears of the end asks what kind of end it is, so that is said first.
        self.enter(Phase::HandedOver);
        self.handed_over.send_replace(true);
        self.stop_accepting.send_replace(true);
    }

    /// The process whose sockets these are wants them back. It serves already, so this is a hand-over too, and a failure.
    pub fn hand_back(&self) {
        self.failed.store(true, Ordering::Release);
        self.hand_over();
    }

    /// Whether the process ends for another reason than that somebody asked it to.
    pub fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    pub fn is_handed_over(&self) -> bool {
        *self.handed_over.borrow()
    }

    /// Turns true at a hand-over, and in no other drain.
    pub fn watch_handed_over(&self) -> watch::Receiver<bool> {
        self.handed_over.subscribe()
    }

    /// A connection that has just been accepted, or the loop that accepts them, until the token is dropped.
    pub fn arrival(&self) -> TaskTrackerToken {
        self.arrivals.token()
    }

    /// Work that a drain waits for, until the token is dropped.
    pub fn work(&self) -> TaskTrackerToken {
        self.work.token()
    }

    pub fn open(&self) -> usize {
        self.work.len()
    }

    /// Cuts the tunnels that are left, so that each still leaves its record: a runtime that is shut down drops tasks where
    /// they stand. Other work is not waited for, but for the moment in which a handshake becomes a tunnel.
    pub async fn cut(&self, rosters: &[Roster]) {
        for member in rosters.iter().flat_map(|roster| roster.close(Reason::DrainTimeout)) {
            member.ask_to_end(Reason::DrainTimeout);
        }
        let start = Instant::now();
        while start.elapsed() < CUT_MAX && self.open() > 0 {
            if start.elapsed() >= OPENING_MAX && rosters.iter().all(Roster::is_empty) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Readiness goes first; after the delay nothing new is taken and the tunnels are asked to end, one after the other over
    /// the spread; then it waits for what is open. After a hand-over the first half has happened.
    pub async fn drain(&self, plan: Drain, rosters: impl Fn() -> Vec<Roster>) -> Drained {
        self.notifier.stopping(self.open());
        if !self.is_handed_over() {
            self.enter(Phase::Draining);
        }
        info!(open = self.open(), "draining");
        if !self.is_handed_over() {
            tokio::time::sleep(plan.delay).await;
            self.stop_accepting.send_replace(true);
        }
        self.arrivals.close();
        self.work.close();
        // An arrival becomes work before it ceases to be an arrival, so nothing falls between the two.
        let gone = async {
            self.arrivals.wait().await;
            self.work.wait().await;
        };
        let end = async {
            tokio::select! {
                () = gone => {}
                () = close_all(plan.spread, rosters) => {}
            }
        };
        match tokio::time::timeout(plan.timeout, end).await {
            Ok(()) => Drained::Empty,
            Err(_) => Drained::TimedOut { left: self.work.len() },
        }
    }
}

/// How long the cutting of tunnels may take.
const CUT_MAX: Duration = Duration::from_secs(1);

/// How long it waits for a tunnel that is just opening.
const OPENING_MAX: Duration = Duration::from_millis(100);

/// Asks every tunnel to end, evenly over `spread`; at its end those too that handshakes in flight have opened meanwhile or are
/// still to open. It does not return: what it asked for takes its time.
async fn close_all(spread: Duration, rosters: impl Fn() -> Vec<Roster>) {
    let end_of_spread = Instant::now() + spread;
    let open: Vec<Arc<Member>> = rosters().iter().flat_map(Roster::members).collect();
    ask_to_end(Reason::Drained, spread, &open).await;
    tokio::time::sleep_until(end_of_spread).await;
    let late: Vec<Arc<Member>> = rosters().iter().flat_map(|roster| roster.close(Reason::Drained)).collect();
    ask_to_end(Reason::Drained, Duration::ZERO, &late).await;
    info!(tunnels = open.len(), "every tunnel was asked to end");
    std::future::pending::<()>().await;
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
    async fn after_a_hand_over_who_has_just_arrived_is_waited_for_and_served() {
        let lifecycle = Lifecycle::default();
        lifecycle.enter(Phase::Ready);
        let arrival = lifecycle.arrival();
        lifecycle.hand_over();
        assert!(*lifecycle.watch_accepting().borrow() && *lifecycle.watch_handed_over().borrow());
        let drain = lifecycle.drain(plan(3), Vec::new);
        tokio::pin!(drain);
        let early = tokio::time::timeout(Duration::from_secs(2), &mut drain).await;
        assert!(early.is_err() && !lifecycle.refuses_tunnels());
        assert_eq!(lifecycle.phase(), Phase::HandedOver);
        let work = lifecycle.work();
        drop(arrival);
        let late = tokio::time::timeout(Duration::from_secs(2), &mut drain).await;
        assert!(late.is_err());
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
    async fn what_is_left_is_cut_and_waited_for_a_moment() {
        let (lifecycle, roster) = (Lifecycle::default(), Roster::default());
        let (tunnel, work) = (roster.join(), lifecycle.work());
        let start = Instant::now();
        lifecycle.cut(std::slice::from_ref(&roster)).await;
        assert_eq!(tunnel.asked_to_end(Waker::noop()), Some(Reason::DrainTimeout));
        assert!(start.elapsed() >= CUT_MAX && start.elapsed() < CUT_MAX * 2);
        drop(tunnel);
        let start = Instant::now();
        lifecycle.cut(std::slice::from_ref(&roster)).await;
        assert!(start.elapsed() >= OPENING_MAX && start.elapsed() < OPENING_MAX * 2);
        drop(work);
        let start = Instant::now();
        lifecycle.cut(&[roster]).await;
        assert_eq!(start.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn tunnels_are_asked_evenly_and_late_ones_too() {
        let (lifecycle, roster) = (Lifecycle::default(), Roster::default());
        let _work = lifecycle.work();
        let mut tunnels: Vec<Membership> = (0..100).map(|_| roster.join()).collect();
        let drain = lifecycle.drain(plan(1), || vec![roster.clone()]);
        tokio::pin!(drain);
        let start = Instant::now();
        for (milliseconds, expected) in [(500, 0), (1050, 1), (6050, 51), (10_950, 100)] {
            let _ = tokio::time::timeout_at(start + Duration::from_millis(milliseconds), &mut drain).await;
            assert_eq!(asked(&tunnels), expected, "after {milliseconds} ms");
        }
        // By a handshake that was in flight.
        tunnels.push(roster.join());
        let _ = tokio::time::timeout_at(start + Duration::from_millis(11_050), &mut drain).await;
        assert_eq!(asked(&tunnels), 101);
        tunnels.push(roster.join());
        assert_eq!(asked(&tunnels), 102);
    }
}
