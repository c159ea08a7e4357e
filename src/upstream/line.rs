//! Who waits for a server with room, first come, first served. A freed slot, and whatever else may have made room, calls one
//! who waits. It knows no time and no runtime: a call is a waker.

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
    is_choosy: bool,
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
/// served or not, calls the next one: so no slot is free that nobody in the line was told of, and one call is enough for room
/// for many. Who waits on although others might find what it cannot use passes the call on to them.
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

    /// `None` where `most` wait already. Who is choosy may wait although there is room for others.
    pub fn join(self: &Arc<Line>, most: usize, is_choosy: bool) -> Option<Place> {
        let mut places = self.places.lock();
        if places.waiting.len() >= most {
            return None;
        }
        let ticket = places.next;
        places.next += 1;
        // With nobody ahead that would take any room, nobody knows whether there is some by now.
        let call = if places.waiting.iter().all(|ahead| ahead.is_choosy) { Call::Called } else { Call::None };
        places.waiting.push_back(Waiting { ticket, is_choosy, call });
        self.length.store(places.waiting.len(), Ordering::Relaxed);
        fence(Ordering::SeqCst);
        drop(places);
        Some(Place { line: Arc::clone(self), ticket })
    }

    /// There may be room.
    pub fn call_next(&self) {
        self.call_from(0);
    }

    /// The first one from this ticket on that is not called yet.
    fn call_from(&self, ticket: u64) {
        if self.length() == 0 {
            return;
        }
        let mut places = self.places.lock();
        let at = places.waiting.partition_point(|waiting| waiting.ticket < ticket);
        let next = places.waiting.range_mut(at..).find(|waiting| !matches!(waiting.call, Call::Called));
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

    /// The call was of no use here. Only who stands behind is called: who stands ahead was called before.
    pub fn pass_on(&self) {
        self.line.call_from(self.ticket + 1);
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
        let places: Vec<Place> = (0..3).map(|_| line.join(3, false).unwrap()).collect();
        assert!(line.join(3, false).is_none());
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
        let (first, second) = (line.join(2, false).unwrap(), line.join(2, false).unwrap());
        assert!(called(&first));
        line.call_next();
        drop(first);
        assert_eq!(line.length(), 1);
        assert!(called(&second));
        assert!(line.join(2, false).is_some());
    }

    #[test]
    fn a_call_that_is_of_no_use_goes_to_those_behind_and_ends_with_the_last() {
        let line = Arc::new(Line::default());
        let places: Vec<Place> = (0..3).map(|_| line.join(3, false).unwrap()).collect();
        assert!(called(&places[0]));
        line.call_next();
        for (at, place) in places.iter().enumerate() {
            let all: Vec<bool> = places.iter().map(called).collect();
            assert_eq!(all.iter().position(|called| *called), Some(at), "{all:?}");
            place.pass_on();
        }
        assert!(!places.iter().any(called));
        assert_eq!(line.length(), 3, "everybody keeps its place");
    }

    #[test]
    fn behind_those_who_are_choosy_everybody_looks_once() {
        let line = Arc::new(Line::default());
        let places: Vec<Place> = [true, true, false, false].map(|choosy| line.join(4, choosy).unwrap()).into();
        assert_eq!(places.iter().map(called).collect::<Vec<_>>(), [true, true, true, false]);
    }

    #[test]
    fn one_call_serves_as_many_as_there_is_room_for() {
        let line = Arc::new(Line::default());
        let mut places: VecDeque<Place> = (0..5).map(|_| line.join(5, false).unwrap()).collect();
        assert!(called(&places[0]));
        let mut room = 3;
        line.call_next();
        while places.front().is_some_and(called) && room > 0 {
            room -= 1;
            places.pop_front();
        }
        assert_eq!((places.len(), room), (2, 0));
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
        let place = line.join(100, false).unwrap();
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
