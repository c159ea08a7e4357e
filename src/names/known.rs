//! What is known of one name, from answer to answer: the servers it stands for, how long they are kept where nobody is there any
//! more, and when to ask again. Time and chance are arguments. It does not know who asks.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::answer::{Answer, Found};
use crate::config::model;

/// ```text
///   Unasked ──┬──► Answering ◄──┐
///             ├──► Empty ◄──────┤  any to any, by the last answer
///             └──► Failing ◄────┘
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Unasked,
    Answering,
    /// Name servers say that nobody is there.
    Empty,
    /// They say nothing.
    Failing,
}

#[derive(Debug)]
pub struct Known {
    servers: Arc<[Found]>,
    standing: Standing,
    /// Since when name servers say so without having named anybody in between.
    empty_since: Option<Instant>,
    /// In a row.
    failures: u32,
    due: Instant,
}

/// What an answer changed.
#[derive(Debug, PartialEq, Eq)]
pub struct Step {
    pub added: Vec<SocketAddr>,
    pub removed: Vec<SocketAddr>,
    /// Where it is another one than before.
    pub turned: Option<Standing>,
    /// Also where only weights are others.
    pub is_change: bool,
}

/// Until a name is asked for again of which nobody is there, at most: an operator waits for the first server.
const EMPTY_WAIT_MAX: Duration = Duration::from_secs(5);

/// Until failing name servers are asked again, at most.
const BACK_OFF_MAX: Duration = Duration::from_secs(10);

/// A wait is longer by up to a part of this, so that many gateways do not ask all at once.
const JITTER: f64 = 0.1;

impl Known {
    /// Nothing, and due at once.
    pub fn new(now: Instant) -> Known {
        Known { servers: Arc::new([]), standing: Standing::Unasked, empty_since: None, failures: 0, due: now }
    }

    pub fn servers(&self) -> &Arc<[Found]> {
        &self.servers
    }

    pub fn standing(&self) -> Standing {
        self.standing
    }

    /// When to ask again.
    pub fn due(&self) -> Instant {
        self.due
    }

    /// It is due now, if not before.
    pub fn ask(&mut self, now: Instant) {
        self.due = self.due.min(now);
    }

    /// `chance` is of 0 to 1.
    pub fn handle_answer(
        &mut self,
        answer: Option<Answer<Found>>,
        rules: &model::Dns,
        now: Instant,
        chance: f64,
    ) -> Step {
        let (standing, servers, wait) = match answer {
            Some(Answer::Some { records, ttl }) => {
                (self.empty_since, self.failures) = (None, 0);
                (Standing::Answering, records.into(), ttl.clamp(rules.min_ttl, rules.max_ttl))
            }
            Some(Answer::Nobody { ttl }) => {
                self.failures = 0;
                self.handle_nobody(ttl, rules, now)
            }
            None => {
                self.failures = self.failures.saturating_add(1);
                (Standing::Failing, Arc::clone(&self.servers), back_off(self.failures, rules))
            }
        };
        self.due = now + wait.mul_f64(1.0 + JITTER * chance.clamp(0.0, 1.0));
        let turned = (standing != self.standing).then_some(standing);
        self.standing = standing;
        let before = std::mem::replace(&mut self.servers, servers);
        let missing_in = |other: &[Found], list: &[Found]| {
            let missing = list.iter().filter(|found| other.iter().all(|there| there.address != found.address));
            missing.map(|found| found.address).collect()
        };
        Step {
            added: missing_in(&before, &self.servers),
            removed: missing_in(&self.servers, &before),
            turned,
            is_change: before != self.servers,
        }
    }

    /// The servers stay for a while: it may be a slip of whoever keeps the zone, and where all are gone or unready, those of a
    /// moment ago are the best to try.
    fn handle_nobody(
        &mut self,
        ttl: Option<Duration>,
        rules: &model::Dns,
        now: Instant,
    ) -> (Standing, Arc<[Found]>, Duration) {
        let since = *self.empty_since.get_or_insert(now);
        let left = rules.empty_after.saturating_sub(now.saturating_duration_since(since));
        let most = EMPTY_WAIT_MAX.max(rules.min_ttl);
        let wait = ttl.unwrap_or_default().clamp(rules.min_ttl, rules.max_ttl).min(most);
        if left.is_zero() || self.servers.is_empty() {
            return (Standing::Empty, Arc::new([]), wait);
        }
        (Standing::Empty, Arc::clone(&self.servers), wait.min(left))
    }
}

/// Twice as long after each failure.
fn back_off(failures: u32, rules: &model::Dns) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    rules.min_ttl.saturating_mul(1 << doublings).min(BACK_OFF_MAX.max(rules.min_ttl))
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::super::answer::of_host;
    use super::*;

    fn secs(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    fn rules() -> model::Dns {
        model::Dns { min_ttl: secs(1), max_ttl: secs(60), empty_after: secs(30), ..model::Dns::default() }
    }

    fn found(last: &[u8], ttl: u64) -> Option<Answer<Found>> {
        let ips: Vec<IpAddr> = last.iter().map(|last| IpAddr::from([10, 0, 0, *last])).collect();
        Some(Answer::Some { records: of_host(&"app".into(), 9001, &ips), ttl: secs(ttl) })
    }

    fn nobody(ttl: u64) -> Option<Answer<Found>> {
        Some(Answer::Nobody { ttl: Some(secs(ttl)) })
    }

    /// One name, and a clock of its own.
    struct Asked {
        known: Known,
        now: Instant,
    }

    impl Asked {
        fn new() -> Asked {
            let now = Instant::now();
            Asked { known: Known::new(now), now }
        }

        /// The next answer, at the time when it is due. What is known then, and how long it holds.
        fn hears(&mut self, answer: Option<Answer<Found>>) -> (Vec<u8>, Duration) {
            self.now = self.known.due();
            self.known.handle_answer(answer, &rules(), self.now, 0.0);
            (last(&self.known), self.known.due() - self.now)
        }
    }

    fn last(known: &Known) -> Vec<u8> {
        let last = known.servers().iter().map(|found| match found.address.ip() {
            IpAddr::V4(ip) => ip.octets()[3],
            IpAddr::V6(_) => 0,
        });
        last.collect()
    }

    #[test]
    fn an_answer_holds_for_its_ttl_within_the_clamps() {
        let mut asked = Asked::new();
        for (ttl, expected) in [(0, 1), (1, 1), (7, 7), (60, 60), (86_400, 60)] {
            assert_eq!(asked.hears(found(&[1], ttl)), (vec![1], secs(expected)), "{ttl}");
        }
    }

    #[test]
    fn a_wait_is_longer_by_chance_and_never_shorter() {
        let now = Instant::now();
        for (chance, expected) in [(0.0, 10_000), (0.5, 10_500), (1.0, 11_000), (9.0, 11_000), (-1.0, 10_000)] {
            let mut known = Known::new(now);
            known.handle_answer(found(&[1], 10), &rules(), now, chance);
            assert_eq!(known.due() - now, Duration::from_millis(expected));
        }
    }

    #[test]
    fn what_is_known_stays_while_name_servers_fail_and_they_are_asked_less_and_less() {
        let mut asked = Asked::new();
        asked.hears(found(&[1, 2], 5));
        for wait in [1, 2, 4, 8, 10, 10, 10] {
            assert_eq!(asked.hears(None), (vec![1, 2], secs(wait)));
        }
        assert_eq!(asked.known.standing(), Standing::Failing);
        assert_eq!(asked.hears(found(&[3], 5)), (vec![3], secs(5)));
        assert_eq!(asked.hears(None).1, secs(1));
    }

    #[test]
    fn failures_without_end_do_not_overflow() {
        let now = Instant::now();
        let mut known = Known { failures: u32::MAX, ..Known::new(now) };
        known.handle_answer(None, &rules(), now, 1.0);
        assert!(known.due() - now <= secs(11));
    }

    #[test]
    fn who_is_gone_by_name_is_kept_for_a_while() {
        let mut asked = Asked::new();
        asked.hears(found(&[1], 5));
        let start = asked.known.due();
        let mut answers = 0;
        while asked.hears(nobody(300)).0 == [1] {
            answers += 1;
            assert!(answers < 100);
        }
        assert_eq!(asked.now - start, secs(30));
        assert_eq!(asked.hears(nobody(300)), (vec![], secs(5)));
        assert_eq!(asked.hears(nobody(2)), (vec![], secs(2)));
        assert_eq!(asked.hears(found(&[1], 9)), (vec![1], secs(9)));
        assert_eq!(asked.hears(nobody(3)), (vec![1], secs(3)));
    }

    #[test]
    fn who_is_gone_by_name_is_gone_at_once_where_the_operator_says_so() {
        let now = Instant::now();
        let rules = model::Dns { empty_after: Duration::ZERO, ..rules() };
        let mut known = Known::new(now);
        known.handle_answer(found(&[1], 5), &rules, now, 0.0);
        let step = known.handle_answer(nobody(5), &rules, now, 0.0);
        assert_eq!((last(&known), step.removed.len(), step.turned), (vec![], 1, Some(Standing::Empty)));
    }

    #[test]
    fn a_step_says_what_is_new() {
        let (mut asked, now) = (Asked::new(), Instant::now());
        asked.hears(found(&[1, 2], 5));
        let step = asked.known.handle_answer(found(&[2, 3], 5), &rules(), now, 0.0);
        let addresses = |last: u8| vec![SocketAddr::from(([10, 0, 0, last], 9001))];
        assert_eq!(step, Step { added: addresses(3), removed: addresses(1), turned: None, is_change: true });
        let step = asked.known.handle_answer(found(&[3, 2], 5), &rules(), now, 0.0);
        assert_eq!(step, Step { added: vec![], removed: vec![], turned: None, is_change: false });
        let step = asked.known.handle_answer(None, &rules(), now, 0.0);
        assert_eq!((step.turned, step.is_change), (Some(Standing::Failing), false));
        assert_eq!(asked.known.handle_answer(None, &rules(), now, 0.0).turned, None);
    }
}
