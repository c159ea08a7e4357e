//! Slow start: the part that a server which has just come up gets of its share. Time is an argument. It does not know how
//! servers are picked.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// The part at the beginning; from there it grows linearly to all of it.
const PART_MIN: f64 = 0.1;

/// What a server may save of turns that it did not take.
const SAVED_MAX: f64 = 2.0;

#[derive(Debug, Default)]
pub(super) struct Warmup {
    /// Mirrors `course.begun`, so that a pick among warm servers takes no lock.
    is_on: AtomicBool,
    course: Mutex<Course>,
}

#[derive(Debug, Default)]
struct Course {
    begun: Begun,
    /// Turns that it may take.
    saved: f64,
}

#[derive(Debug, Default)]
enum Begun {
    #[default]
    No,
    /// When somebody is first to be sent somewhere.
    WithThePick,
    At(Instant),
}

impl Warmup {
    pub fn begin(&self, now: Instant) {
        self.set(Begun::At(now));
    }

    /// As [`Warmup::begin`], by somebody who has no clock.
    pub fn begin_with_the_pick(&self) {
        self.set(Begun::WithThePick);
    }

    fn set(&self, begun: Begun) {
        *self.course.lock() = Course { begun, saved: 0.0 };
        self.is_on.store(true, Ordering::Relaxed);
    }

    pub fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Relaxed)
    }

    /// The part of its share, above 0 and at most 1, over a window of this length.
    pub fn part(&self, window: Option<Duration>, now: Instant) -> f64 {
        if !self.is_on() {
            return 1.0;
        }
        let mut course = self.course.lock();
        let since = match course.begun {
            Begun::No => return 1.0,
            Begun::WithThePick => now,
            Begun::At(since) => since,
        };
        let elapsed = now.saturating_duration_since(since);
        match window.filter(|window| elapsed < *window) {
            Some(window) => {
                course.begun = Begun::At(since);
                PART_MIN + (1.0 - PART_MIN) * elapsed.div_duration_f64(window)
            }
            None => {
                course.begun = Begun::No;
                self.is_on.store(false, Ordering::Relaxed);
                1.0
            }
        }
    }

    /// Somebody is to be sent somewhere, and the server's share of that is this. Whether it has saved up a whole turn.
    pub fn save(&self, share: f64) -> bool {
        let mut course = self.course.lock();
        course.saved = (course.saved + share).min(SAVED_MAX);
        course.saved >= 1.0
    }

    /// It took a turn.
    pub fn spend(&self) {
        let mut course = self.course.lock();
        course.saved = (course.saved - 1.0).max(0.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_part_grows_linearly_from_a_tenth_to_all_of_it() {
        let (warmup, start) = (Warmup::default(), Instant::now());
        let window = Some(Duration::from_secs(10));
        let check = |after: u64, expected: f64| {
            let part = warmup.part(window, start + Duration::from_secs(after));
            assert!((part - expected).abs() < 1e-9, "{part} after {after} s");
        };
        check(0, 1.0);
        warmup.begin_with_the_pick();
        check(0, 0.1);
        check(5, 0.55);
        check(10, 1.0);
        assert!(!warmup.is_on());
        warmup.begin(start);
        assert!((warmup.part(None, start) - 1.0).abs() < 1e-9 && !warmup.is_on());
    }
}
