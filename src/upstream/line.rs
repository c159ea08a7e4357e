//! Who waits for a server with room, first come, first served. A freed slot calls one who waits. It knows no time and no
//! runtime: a call is a waker.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering, fence};
use std::task::Waker;

use parking_lot::Mutex;

/// One line for an upstream, whatever its configurations and servers.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// Mirrors the length of the line, so that a slot that is freed while nobody waits takes no lock.
    length: AtomicUsize,
    places: Mutex<Places>,
}

#[derive(Debug, Default)]
struct Places {
    next: u64,
    /// By ascending ticket.
    waiting: VecDeque<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    ticket: u64,
    call: Call,
}

#[derive(Debug)]
enum Call {
    /// Nobody called, and nobody listens yet.
    None,
    Awaited(Waker),
    Called,
}

/// A place in the line, left when dropped.
///
/// Whoever is called tries for a slot, which somebody may have taken meanwhile; then it waits on where it stands. Who leaves,
/// served or not, calls the next one: so no slot is free that nobody in the line was told of.
#[derive(Debug)]
pub struct Place {
    line: Arc<Line>,
    ticket: u64,
}

impl Line {
    pub fn length(&self) -> usize {
        // With the fence of `join`: either a slot that is freed now sees who waits, or who waits sees the slot.
        fence(Ordering::SeqCst);
        self.length.load(Ordering::Relaxed)
    }

    /// `None` where `most` wait already.
    pub fn join(self: &Arc<Line>, most: usize) -> Option<Place> {
        let mut places = self.places.lock();
        if places.waiting.len() >= most {
            return None;
        }
        let ticket = places.next;
        places.next += 1;
        // With nobody ahead, nobody knows whether there is room by now.
        let call = if places.waiting.is_empty() { Call::Called } else { Call::None };
        places.waiting.push_back(Waiting { ticket, call });
        self.length.store(places.waiting.len(), Ordering::Relaxed);
        fence(Ordering::SeqCst);
        drop(places);
        Some(Place { line: Arc::clone(self), ticket })
    }

    /// There is room for one.
    pub fn call_next(&self) {
        if self.length() == 0 {
            return;
        }
        let mut places = self.places.lock();
        let next = places.waiting.iter_mut().find(|waiting| !matches!(waiting.call, Call::Called));
        let waker = next.and_then(|next| match std::mem::replace(&mut next.call, Call::Called) {
            Call::Awaited(waker) => Some(waker),
            Call::None | Call::Called => None,
        });
        drop(places);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Place {
    /// Whether there was a call since the last time; if not, `waker` is woken by the next one.
    pub fn was_called(&self, waker: &Waker) -> bool {
        let mut places = self.line.places.lock();
        let at = places.waiting.partition_point(|waiting| waiting.ticket < self.ticket);
        let Some(own) = places.waiting.get_mut(at) else { return false };
        match &own.call {
            Call::Called => {
                own.call = Call::None;
                true
            }
            Call::None | Call::Awaited(_) => {
                own.call = Call::Awaited(waker.clone());
                false
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut places = self.line.places.lock();
        let at = places.waiting.partition_point(|waiting| waiting.ticket < self.ticket);
        places.waiting.remove(at);
        self.line.length.store(places.waiting.len(), Ordering::Relaxed);
        drop(places);
        self.line.call_next();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::task::Wake;

    use super::*;
    use crate::limits::{Slot, Slots};

    fn called(place: &Place) -> bool {
        place.was_called(Waker::noop())
    }

    #[test]
    fn the_first_one_who_waits_is_called_first_and_one_at_a_time() {
        let line = Arc::new(Line::default());
        let places: Vec<Place> = (0..3).map(|_| line.join(3).unwrap()).collect();
        assert!(line.join(3).is_none());
        // The first is let in to look, because nobody knows whether there is room.
        assert_eq!(places.iter().map(called).collect::<Vec<_>>(), [true, false, false]);
        line.call_next();
        assert_eq!(places.iter().map(called).collect::<Vec<_>>(), [true, false, false]);
        line.call_next();
        line.call_next();
        assert_eq!(places.iter().map(called).collect::<Vec<_>>(), [true, true, false]);
    }

    #[test]
    fn who_leaves_frees_its_place_and_passes_its_call_on() {
        let line = Arc::new(Line::default());
        let (first, second) = (line.join(2).unwrap(), line.join(2).unwrap());
        assert!(called(&first));
        line.call_next();
        drop(first);
        assert_eq!(line.length(), 1);
        assert!(called(&second));
        assert!(line.join(2).is_some());
    }

    struct Flag(AtomicBool);

    impl Wake for Flag {
        fn wake(self: Arc<Flag>) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    /// Threads that hold a slot for a moment each and wait in line for it: all of them get one, in the end.
    #[test]
    fn no_call_is_lost() {
        let (line, slots) = (Arc::new(Line::default()), Slots::new(Some(2)));
        std::thread::scope(|scope| {
            for _ in 0..6 {
                scope.spawn(|| {
                    for _ in 0..300 {
                        let slot = wait(&line, &slots);
                        assert!(slots.used() <= 2);
                        drop(slot);
                        line.call_next();
                    }
                });
            }
        });
        assert_eq!((line.length(), slots.used()), (0, 0));
    }

    fn wait(line: &Arc<Line>, slots: &Slots) -> Slot {
        if line.length() == 0
            && let Some(slot) = slots.take()
        {
            return slot;
        }
        let place = line.join(100).unwrap();
        let flag = Arc::new(Flag(AtomicBool::new(true)));
        let waker = Waker::from(Arc::clone(&flag));
        let begun = std::time::Instant::now();
        loop {
            assert!(begun.elapsed().as_secs() < 20, "nobody calls: {line:?}");
            if !flag.0.swap(false, Ordering::SeqCst) {
                std::thread::yield_now();
                continue;
            }
            while place.was_called(&waker) {
                if let Some(slot) = slots.take() {
                    return slot;
                }
            }
        }
    }
}
