//! Who is open: every tunnel of a route, so that somebody else than its two sides can ask it to end. It does not know what
//! a tunnel is, nor when one should end.

use std::sync::Arc;
use std::task::Waker;

use parking_lot::Mutex;
use slab::Slab;

use crate::reason::Reason;

/// The open tunnels of one route. Cheap to clone; all clones are one roster.
#[derive(Clone, Debug, Default)]
pub struct Roster(Arc<Mutex<Tunnels>>);

#[derive(Debug, Default)]
struct Tunnels {
    open: Slab<Arc<Member>>,
    /// Why whoever joins is to end at once.
    closed: Option<Reason>,
}

/// One open tunnel, as others see it.
#[derive(Debug, Default)]
pub struct Member(Mutex<Asked>);

#[derive(Debug, Default)]
struct Asked {
    to_end: Option<Reason>,
    waker: Option<Waker>,
}

/// One open tunnel, as it sees itself. It is on the roster until this is dropped.
#[derive(Debug)]
pub struct Membership {
    roster: Roster,
    place: usize,
    member: Arc<Member>,
}

impl Roster {
    pub fn join(&self) -> Membership {
        let mut tunnels = self.0.lock();
        let member = Arc::new(Member(Mutex::new(Asked { to_end: tunnels.closed, waker: None })));
        let place = tunnels.open.insert(Arc::clone(&member));
        Membership { roster: self.clone(), place, member }
    }

    /// Who is open now, the oldest mostly first.
    pub fn members(&self) -> Vec<Arc<Member>> {
        self.0.lock().open.iter().map(|(_, member)| Arc::clone(member)).collect()
    }

    /// As [`Roster::members`]. Whoever joins from here on, by a handshake that was in flight, is asked to
    /// end as it joins.
    pub fn close(&self, reason: Reason) -> Vec<Arc<Member>> {
        let mut tunnels = self.0.lock();
        tunnels.closed = Some(reason);
        tunnels.open.iter().map(|(_, member)| Arc::clone(member)).collect()
    }

    /// Whoever joins may stay.
    pub fn open(&self) {
        self.0.lock().closed = None;
    }

    pub fn is_empty(&self) -> bool {
        self.0.lock().open.is_empty()
    }
}

impl Member {
    /// Wakes the tunnel. Only the first reason counts, unless time is up: that is the last one.
    pub fn ask_to_end(&self, reason: Reason) {
        let mut asked = self.0.lock();
        if asked.to_end.is_some() && reason != Reason::DrainTimeout {
            return;
        }
        asked.to_end = Some(reason);
        let waker = asked.waker.take();
        drop(asked);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Membership {
    /// Whether it was asked to end; if not, `waker` is woken when it is.
    pub fn asked_to_end(&self, waker: &Waker) -> Option<Reason> {
        let mut asked = self.member.0.lock();
        if asked.to_end != Some(Reason::DrainTimeout)
            && !asked.waker.as_ref().is_some_and(|known| known.will_wake(waker))
        {
            asked.waker = Some(waker.clone());
        }
        asked.to_end
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.roster.0.lock().open.remove(self.place);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_tunnel_is_woken_once_and_hears_the_first_reason() {
        let (roster, count) = (Roster::default(), Arc::new(Count::default()));
        let waker = Waker::from(Arc::clone(&count));
        let open = roster.join();
        assert_eq!(open.asked_to_end(&waker), None);
        for member in roster.close(Reason::Drained) {
            member.ask_to_end(Reason::Drained);
            member.ask_to_end(Reason::RouteRemoved);
        }
        assert_eq!(open.asked_to_end(&waker), Some(Reason::Drained));
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn whoever_was_asked_is_woken_once_more_when_time_is_up() {
        let (roster, count) = (Roster::default(), Arc::new(Count::default()));
        let waker = Waker::from(Arc::clone(&count));
        let open = roster.join();
        for (reason, woken) in [(Reason::Drained, 1), (Reason::DrainTimeout, 2)] {
            open.asked_to_end(&waker);
            roster.members()[0].ask_to_end(reason);
            assert_eq!((open.asked_to_end(&waker), count.0.load(Ordering::Relaxed)), (Some(reason), woken));
        }
    }

    #[test]
    fn whoever_joins_a_closed_roster_is_asked_at_once() {
        let roster = Roster::default();
        assert!(roster.close(Reason::RouteRemoved).is_empty());
        assert_eq!(roster.join().asked_to_end(Waker::noop()), Some(Reason::RouteRemoved));
        roster.open();
        assert_eq!(roster.join().asked_to_end(Waker::noop()), None);
    }

    #[test]
    fn whoever_leaves_is_off_the_roster_and_holds_nothing() {
        let roster = Roster::default();
        let (first, second) = (roster.join(), roster.join());
        drop(first);
        assert_eq!(roster.close(Reason::Drained).len(), 1);
        let waker = Waker::from(Arc::new(Count::default()));
        assert_eq!(second.asked_to_end(&waker), None);
        drop(second);
        assert!(roster.is_empty());
    }
}
