//! Whether a server is up, by what dials of clients and checks say of it. Time and chance are arguments. It does not know
//! which server it is.

use std::time::{Duration, Instant};

use crate::config::model::{self, HealthCheck};

/// What was heard of a server.
///
/// ```text
///            fall failed checks in a row
///   ┌────────────────────────────────────────────► Down
///   │                                               ▲ │
///   │                                a failed check │ │ rise good checks in a row
///   │    fall failed dials in a row                 │ │
///   Up ──────────────────────────────► Ejected ─────┤ └──────────────────────────► Up
///   ▲                                  ▲     │      │
///   │                  a failed dial,  │     │ eject_time is over, and a client is sent (without checks)
///   │                  twice the time  │     ▼      │
///   │                                  └─ OnTrial ──┘
///   │                                        │
///   └────────────────────────────────────────┴─ without checks: a good dial
///                                               with checks: rise good checks in a row, once eject_time is over
/// ```
///
/// Two judges, and either takes a server out: dials see what clients see, checks see it without clients. With checks, only they
/// bring a server back, and no client is sent to find out. A failed check confirms what dials said; where checks never
/// failed they do not see what is wrong, and the time that doubles keeps clients away.
#[derive(Debug, Default)]
pub(super) struct Health {
    standing: Standing,
    /// Failures in a row.
    failed_dials: u32,
    /// Failures in a row.
    failed_checks: u32,
    /// In a row.
    good_checks: u32,
    /// Times that it was ejected without having been up for long in between.
    ejections: u32,
}

#[derive(Debug)]
enum Standing {
    /// `since` is `None` where it has never been out: nobody asked it yet, and it is used until it is known to be down.
    Up { since: Option<Instant> },
    /// By failed dials.
    Ejected { until: Instant },
    /// A client was sent to find out; another one may be at `next`.
    OnTrial { next: Instant },
    /// By failed checks.
    Down,
}

impl Default for Standing {
    fn default() -> Standing {
        Standing::Up { since: None }
    }
}

/// What an outcome did to a server's standing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    None,
    /// By failed dials.
    Ejected {
        out_for: Duration,
    },
    /// By failed checks.
    WentDown,
    CameBack,
}

/// How a check of a server failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckFailure {
    /// No connection was made.
    Unreachable,
    /// TLS was not agreed on, or the server not believed.
    Tls,
    /// Not over in time.
    TimedOut,
    /// It ended before an answer, or the answer was not HTTP.
    Lost,
    /// An answer, but not a good one.
    Status,
    /// A 101 that is wrong.
    Handshake,
}

impl CheckFailure {
    pub const ALL: [CheckFailure; 6] = [
        CheckFailure::Unreachable,
        CheckFailure::Tls,
        CheckFailure::TimedOut,
        CheckFailure::Lost,
        CheckFailure::Status,
        CheckFailure::Handshake,
    ];

    /// The label and the word in the log.
    pub fn as_str(self) -> &'static str {
        match self {
            CheckFailure::Unreachable => "unreachable",
            CheckFailure::Tls => "tls",
            CheckFailure::TimedOut => "timeout",
            CheckFailure::Lost => "lost",
            CheckFailure::Status => "status",
            CheckFailure::Handshake => "handshake",
        }
    }
}

impl Health {
    pub fn is_up(&self) -> bool {
        matches!(self.standing, Standing::Up { .. })
    }

    /// Whether a good dial would be news.
    pub fn is_suspect(&self) -> bool {
        self.failed_dials > 0 || !self.is_up()
    }

    /// Up, or due for a trial.
    pub fn may_be_picked(&self, rules: &model::Health, now: Instant) -> bool {
        match self.standing {
            Standing::Up { .. } => true,
            Standing::Ejected { until: due } | Standing::OnTrial { next: due } => is_passive(rules) && due <= now,
            // Checks were on when it went down, and are not any more.
            Standing::Down => is_passive(rules),
        }
    }

    /// When a client may be sent to find out.
    pub fn due(&self, rules: &model::Health) -> Option<Instant> {
        match self.standing {
            Standing::Ejected { until: due } | Standing::OnTrial { next: due } => is_passive(rules).then_some(due),
            Standing::Up { .. } | Standing::Down => None,
        }
    }

    /// One client at a time finds out whether a server is back: whoever claims its trial puts off the next one.
    pub fn claim(&mut self, rules: &model::Health, chance: u64, now: Instant) -> bool {
        if self.is_up() {
            return true;
        }
        let may = self.may_be_picked(rules, now);
        if may {
            self.standing = Standing::OnTrial { next: now + self.out_for(rules, chance) };
        }
        may
    }

    pub fn dial_failed(&mut self, rules: &model::Health, chance: u64, now: Instant) -> Change {
        match self.standing {
            Standing::Up { since } => {
                self.failed_dials = self.failed_dials.saturating_add(1);
                if self.failed_dials < rules.fall {
                    return Change::None;
                }
                if since.is_some_and(|since| now.saturating_duration_since(since) >= rules.eject_time_max) {
                    self.ejections = 0;
                }
                let out_for = self.eject(rules, chance, now);
                Change::Ejected { out_for }
            }
            Standing::OnTrial { .. } => {
                self.eject(rules, chance, now);
                Change::None
            }
            // Where all are used, clients come to those that are out too. Their failures say nothing new.
            Standing::Ejected { .. } | Standing::Down => Change::None,
        }
    }

    pub fn dial_succeeded(&mut self, rules: &model::Health, now: Instant) -> Change {
        self.failed_dials = 0;
        if self.is_up() || !is_passive(rules) {
            return Change::None;
        }
        self.come_back(now)
    }

    pub fn check_failed(&mut self, rules: &model::Health) -> Change {
        self.good_checks = 0;
        self.failed_checks = self.failed_checks.saturating_add(1);
        match self.standing {
            Standing::Up { .. } if self.failed_checks >= rules.fall => {
                self.standing = Standing::Down;
                Change::WentDown
            }
            Standing::Up { .. } | Standing::Down => Change::None,
            Standing::Ejected { .. } | Standing::OnTrial { .. } => {
                self.standing = Standing::Down;
                Change::None
            }
        }
    }

    pub fn check_passed(&mut self, rules: &model::Health, now: Instant) -> Change {
        self.failed_checks = 0;
        self.good_checks = self.good_checks.saturating_add(1);
        let is_enough = self.good_checks >= rules.rise;
        match self.standing {
            Standing::Up { .. } => Change::None,
            Standing::Ejected { until: due } | Standing::OnTrial { next: due } if is_enough && due <= now => {
                self.come_back(now)
            }
            Standing::Ejected { .. } | Standing::OnTrial { .. } => Change::None,
            Standing::Down if is_enough => self.come_back(now),
            Standing::Down => Change::None,
        }
    }

    fn come_back(&mut self, now: Instant) -> Change {
        self.standing = Standing::Up { since: Some(now) };
        self.failed_dials = 0;
        self.failed_checks = 0;
        Change::CameBack
    }

    fn eject(&mut self, rules: &model::Health, chance: u64, now: Instant) -> Duration {
        let out_for = self.out_for(rules, chance);
        self.ejections = self.ejections.saturating_add(1);
        self.good_checks = 0;
        self.standing = Standing::Ejected { until: now + out_for };
        out_for
    }

    /// Twice as long each time, and up to a tenth longer, so that gateways that ejected together do not ask together.
    fn out_for(&self, rules: &model::Health, chance: u64) -> Duration {
        let doubled = rules.eject_time.saturating_mul(2_u32.saturating_pow(self.ejections));
        let tenth = mix(chance ^ u64::from(self.ejections)) % 1000;
        doubled.min(rules.eject_time_max).mul_f64(1.0 + tenth as f64 / 10_000.0)
    }
}

fn is_passive(rules: &model::Health) -> bool {
    rules.check == HealthCheck::Off
}

/// Spreads the bits of a number over all of it (the finalizer of splitmix64).
pub(super) fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::tests::health as rules;

    const SECOND: Duration = Duration::from_secs(1);

    fn checked() -> model::Health {
        model::Health { check: HealthCheck::Tcp, ..rules() }
    }

    fn ejected(health: &mut Health, rules: &model::Health, now: Instant) -> Duration {
        for _ in 1..rules.fall {
            assert_eq!(health.dial_failed(rules, 7, now), Change::None);
        }
        let Change::Ejected { out_for } = health.dial_failed(rules, 7, now) else { panic!("{health:?}") };
        out_for
    }

    #[test]
    fn the_time_out_doubles_up_to_its_limit_and_is_forgotten_after_being_up_for_long() {
        let (rules, mut now, mut health) = (rules(), Instant::now(), Health::default());
        let mut out_for = ejected(&mut health, &rules, now);
        for expected in [10, 20, 40, 80, 160, 300, 300] {
            let (least, most) = (SECOND * expected, (SECOND * expected).mul_f64(1.1));
            assert!(out_for >= least && out_for < most, "{out_for:?} for {expected} s");
            assert!(!health.may_be_picked(&rules, now + least - SECOND));
            now += most;
            assert!(health.claim(&rules, 7, now) && !health.claim(&rules, 7, now));
            assert_eq!(health.dial_succeeded(&rules, now), Change::CameBack);
            out_for = ejected(&mut health, &rules, now);
        }
        now += SECOND * 330;
        assert!(health.claim(&rules, 7, now));
        health.dial_succeeded(&rules, now);
        assert!(ejected(&mut health, &rules, now + rules.eject_time_max) < SECOND * 11);
    }

    #[test]
    fn a_failed_trial_doubles_the_time_once_whoever_else_fails() {
        let (rules, start, mut health) = (rules(), Instant::now(), Health::default());
        ejected(&mut health, &rules, start);
        (0..50).for_each(|_| assert_eq!(health.dial_failed(&rules, 7, start), Change::None));
        let later = start + SECOND * 11;
        assert!(health.claim(&rules, 7, later));
        (0..50).for_each(|_| assert_eq!(health.dial_failed(&rules, 7, later), Change::None));
        assert!(!health.may_be_picked(&rules, later + SECOND * 19));
        assert!(health.may_be_picked(&rules, later + SECOND * 22));
    }

    #[test]
    fn checks_take_a_server_out_and_bring_it_back() {
        let (rules, now, mut health) = (checked(), Instant::now(), Health::default());
        assert_eq!(health.check_failed(&rules), Change::None);
        assert_eq!(health.check_failed(&rules), Change::None);
        // Good dials do not hide what checks see.
        assert_eq!(health.dial_succeeded(&rules, now), Change::None);
        assert_eq!(health.check_failed(&rules), Change::WentDown);
        assert_eq!(health.check_failed(&rules), Change::None);
        assert!(!health.may_be_picked(&rules, now + SECOND * 3600) && !health.claim(&rules, 7, now));
        assert_eq!(health.dial_succeeded(&rules, now), Change::None);
        assert_eq!(health.check_passed(&rules, now), Change::None);
        assert_eq!(health.check_failed(&rules), Change::None);
        assert_eq!(health.check_passed(&rules, now), Change::None);
        assert_eq!(health.check_passed(&rules, now), Change::CameBack);
    }

    #[test]
    fn good_checks_do_not_end_an_ejection_that_they_never_saw_before_its_time() {
        let (rules, now, mut health) = (checked(), Instant::now(), Health::default());
        ejected(&mut health, &rules, now);
        (0..9).for_each(|_| assert_eq!(health.check_passed(&rules, now + SECOND), Change::None));
        assert_eq!(health.check_passed(&rules, now + SECOND * 11), Change::CameBack);
        // One failed check confirms it, and from there on checks decide alone.
        ejected(&mut health, &rules, now);
        assert_eq!(health.check_failed(&rules), Change::None);
        assert_eq!(health.check_passed(&rules, now), Change::None);
        assert_eq!(health.check_passed(&rules, now), Change::CameBack);
    }

    #[test]
    fn a_server_that_was_down_is_tried_by_clients_once_checks_are_off() {
        let (now, mut health) = (Instant::now(), Health::default());
        (0..3).for_each(|_| _ = health.check_failed(&checked()));
        assert!(health.may_be_picked(&rules(), now) && health.claim(&rules(), 7, now));
        assert!(!health.claim(&rules(), 7, now));
        assert_eq!(health.dial_succeeded(&rules(), now), Change::CameBack);
    }
}
