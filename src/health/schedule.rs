//! When which server is checked next. Time and chance are arguments. It knows no check.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::address::Address;

/// The upstream's name and the server's address.
pub type ServerKey = (String, Address);

#[derive(Debug, Default)]
pub struct Schedule(HashMap<ServerKey, Turn>);

#[derive(Clone, Copy, Debug)]
enum Turn {
    Due(Instant),
    /// It is being checked, and no second check begins.
    Now,
}

impl Schedule {
    /// Those that stay keep their turn, those that are new get one within their interval.
    pub fn follow(
        &mut self,
        servers: impl Iterator<Item = (ServerKey, Duration)>,
        now: Instant,
        chance: &mut fastrand::Rng,
    ) {
        let mut before = std::mem::take(&mut self.0);
        self.0 = servers
            .map(|(key, interval)| {
                let latest = now + interval;
                let turn = match before.remove(&key) {
                    // An interval that became shorter holds at once.
                    Some(Turn::Due(due)) => Turn::Due(due.min(latest)),
                    Some(Turn::Now) => Turn::Now,
                    None => Turn::Due(now + interval.mul_f64(chance.f64())),
                };
                (key, turn)
            })
            .collect();
    }

    /// One that is due; it is being checked from here on.
    pub fn take_due(&mut self, now: Instant) -> Option<ServerKey> {
        let due = self.0.iter_mut().find(|(_, turn)| matches!(turn, Turn::Due(due) if *due <= now));
        due.map(|(key, turn)| {
            *turn = Turn::Now;
            key.clone()
        })
    }

    pub fn next_due(&self) -> Option<Instant> {
        let due = self.0.values().filter_map(|turn| match turn {
            Turn::Due(due) => Some(*due),
            Turn::Now => None,
        });
        due.min()
    }

    /// A check is over that began then: the next one comes an interval after it, up to a tenth sooner or later. Returns whether the
    /// server is still to be checked.
    pub fn done(&mut self, key: &ServerKey, interval: Duration, begun: Instant, chance: &mut fastrand::Rng) -> bool {
        let turn = self.0.get_mut(key);
        let is_wanted = turn.is_some();
        if let Some(turn) = turn {
            *turn = Turn::Due(begun + interval.mul_f64(0.9 + 0.2 * chance.f64()));
        }
        is_wanted
    }

    pub fn forget(&mut self, key: &ServerKey) {
        self.0.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(10);

    fn key(port: u16) -> ServerKey {
        ("u".to_owned(), std::net::SocketAddr::from(([127, 0, 0, 1], port)).into())
    }

    fn follow(schedule: &mut Schedule, ports: std::ops::Range<u16>, now: Instant) {
        schedule.follow(ports.map(|port| (key(port), INTERVAL)), now, &mut fastrand::Rng::with_seed(1));
    }

    #[test]
    fn the_first_checks_are_spread_over_an_interval() {
        let (mut schedule, start) = (Schedule::default(), Instant::now());
        follow(&mut schedule, 1..101, start);
        for (tenth, expected) in [(1, 1..=25), (5, 35..=65), (10, 100..=100)] {
            let now = start + INTERVAL * tenth / 10;
            let due = schedule.0.values().filter(|turn| matches!(turn, Turn::Due(due) if *due <= now)).count();
            assert!(expected.contains(&due), "{due} after {tenth} tenths");
        }
    }

    #[test]
    fn a_server_is_checked_once_at_a_time_and_again_an_interval_later() {
        let (mut schedule, start) = (Schedule::default(), Instant::now());
        follow(&mut schedule, 1..2, start);
        let now = start + INTERVAL;
        assert_eq!(schedule.take_due(now), Some(key(1)));
        assert_eq!((schedule.take_due(now), schedule.next_due()), (None, None));
        assert!(schedule.done(&key(1), INTERVAL, now, &mut fastrand::Rng::with_seed(2)));
        let due = schedule.next_due().unwrap() - now;
        assert!(due >= INTERVAL.mul_f64(0.9) && due <= INTERVAL.mul_f64(1.1), "{due:?}");
    }

    #[test]
    fn servers_that_stay_keep_their_turn_and_those_that_go_are_not_asked_again() {
        let (mut schedule, start) = (Schedule::default(), Instant::now());
        follow(&mut schedule, 1..3, start);
        let before = schedule.next_due();
        let running = schedule.take_due(start + INTERVAL).unwrap();
        follow(&mut schedule, 1..4, start);
        assert!(matches!(schedule.0[&running], Turn::Now));
        assert!(schedule.next_due() >= before);
        follow(&mut schedule, 9..10, start);
        assert!(!schedule.done(&running, INTERVAL, start, &mut fastrand::Rng::with_seed(2)));
        assert_eq!(schedule.0.len(), 1);
    }
}
