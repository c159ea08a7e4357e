//! Slots that all share: how many at once. It does not know what a slot is for, and no clock.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// So many slots, or any number. Clones share the count.
#[derive(Clone, Debug)]
pub struct Slots {
    shared: Arc<Shared>,
    limit: usize,
}

struct Shared {
    /// Slots taken now. A limit that a reload lowered may be below it.
    used: AtomicUsize,
    /// Called after each slot that was given back.
    freed: Option<Box<dyn Fn() + Send + Sync>>,
}

/// One slot, given back when dropped.
#[derive(Debug)]
pub struct Slot {
    shared: Arc<Shared>,
}

impl Slots {
    pub fn new(limit: Option<usize>) -> Slots {
        let shared = Shared { used: AtomicUsize::new(0), freed: None };
        Slots { shared: Arc::new(shared), limit: limit.unwrap_or(usize::MAX) }
    }

    /// Any number, and whenever one is given back, somebody is told.
    pub fn telling(freed: impl Fn() + Send + Sync + 'static) -> Slots {
        let shared = Shared { used: AtomicUsize::new(0), freed: Some(Box::new(freed)) };
        Slots { shared: Arc::new(shared), limit: usize::MAX }
    }

    /// The same count under another limit.
    pub fn with_limit(&self, limit: Option<usize>) -> Slots {
        Slots { shared: Arc::clone(&self.shared), limit: limit.unwrap_or(usize::MAX) }
    }

    /// `None` when all are taken. Never more than the limit are out, whatever threads ask at once.
    pub fn take(&self) -> Option<Slot> {
        let mut used = self.used();
        loop {
            if used >= self.limit {
                return None;
            }
            match self.shared.used.compare_exchange_weak(used, used + 1, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Some(Slot { shared: Arc::clone(&self.shared) }),
                Err(now) => used = now,
            }
        }
    }

    pub fn used(&self) -> usize {
        self.shared.used.load(Ordering::Relaxed)
    }

    /// Whether somebody else holds a clone of these, or a slot of them.
    pub fn are_shared(&self) -> bool {
        Arc::strong_count(&self.shared) > 1
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.shared.used.fetch_sub(1, Ordering::Relaxed);
        if let Some(freed) = &self.shared.freed {
            freed();
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("used", &self.used).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_back_what_is_dropped() {
        let slots = Slots::new(Some(2));
        let first = slots.take().unwrap();
        let _second = slots.take().unwrap();
        assert!(slots.take().is_none());
        drop(first);
        assert!(slots.take().is_some());
    }

    #[test]
    fn somebody_is_told_of_each_slot_that_is_given_back() {
        let told = Arc::new(AtomicUsize::new(0));
        let teller = Arc::clone(&told);
        let slots = Slots::telling(move || _ = teller.fetch_add(1, Ordering::Relaxed));
        let (one, other) = (slots.take(), slots.with_limit(Some(2)).take());
        assert_eq!(told.load(Ordering::Relaxed), 0);
        drop((one, other));
        assert_eq!((told.load(Ordering::Relaxed), slots.used()), (2, 0));
    }

    #[test]
    fn a_lowered_limit_counts_those_already_out() {
        let slots = Slots::new(None);
        let out: Vec<Slot> = (0..3).map(|_| slots.take().unwrap()).collect();
        let lowered = slots.with_limit(Some(2));
        assert!(lowered.take().is_none());
        drop(out);
        assert!(lowered.take().is_some());
        assert_eq!(slots.used(), 0);
    }

    #[test]
    fn they_are_shared_as_long_as_a_clone_or_a_slot_is_left() {
        let slots = Slots::new(None);
        assert!(!slots.are_shared());
        let clone = slots.with_limit(Some(1));
        let slot = clone.take();
        drop(clone);
        assert!(slots.are_shared());
        drop(slot);
        assert!(!slots.are_shared());
    }

    #[test]
    fn threads_never_take_more_than_the_limit() {
        let slots = Slots::new(Some(5));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..1000 {
                        let slot = slots.take();
                        assert!(slots.used() <= 5);
                        drop(slot);
                    }
                });
            }
        });
        assert_eq!(slots.used(), 0);
    }
}
