//! Slots that all share: how many at once. It does not know what a slot is for, and no clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// So many slots, or any number. Clones share the count.
#[derive(Clone, Debug)]
pub struct Slots {
    /// Slots taken now. A limit that a reload lowered may be below it.
    used: Arc<AtomicUsize>,
    limit: usize,
}

/// One slot, given back when dropped.
#[derive(Debug)]
pub struct Slot {
    used: Arc<AtomicUsize>,
}

impl Slots {
    pub fn new(limit: Option<usize>) -> Slots {
        Slots { used: Arc::new(AtomicUsize::new(0)), limit: limit.unwrap_or(usize::MAX) }
    }

    /// The same count under another limit.
    pub fn with_limit(&self, limit: Option<usize>) -> Slots {
        Slots { used: Arc::clone(&self.used), limit: limit.unwrap_or(usize::MAX) }
    }

    /// `None` when all are taken. Never more than the limit are out, whatever threads ask at once.
    pub fn take(&self) -> Option<Slot> {
        let mut used = self.used.load(Ordering::Relaxed);
        loop {
            if used >= self.limit {
                return None;
            }
            match self.used.compare_exchange_weak(used, used + 1, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Some(Slot { used: Arc::clone(&self.used) }),
                Err(now) => used = now,
            }
        }
    }

    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Whether somebody else holds a clone of these, or a slot of them.
    pub fn are_shared(&self) -> bool {
        Arc::strong_count(&self.used) > 1
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.used.fetch_sub(1, Ordering::Relaxed);
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
