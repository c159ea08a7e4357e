//! One server: its live tunnels and its standing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::Change;
use crate::address::Address;
use crate::config::model;
use crate::dialect::Dialect;
use crate::limits::{Slot, Slots};

#[derive(Debug)]
pub struct Server {
    address: Address,
    /// At least 1.
    weight: u32,
    max_tunnels: Option<usize>,
    slots: Slots,
    state: Arc<State>,
    /// What it was heard to speak, where it was asked. A new configuration asks anew.
    learned: Mutex<Option<Arc<[Dialect]>>>,
}

/// What is known of a server apart from any configuration.
#[derive(Debug)]
pub struct State {
    slots: Slots,
    health: Mutex<Health>,
    /// Mirrors `health.out_until.is_some()`, so that a pick among healthy servers takes no lock.
    out: AtomicBool,
}

impl State {
    /// Live tunnels, whatever configuration they began with.
    pub(super) fn tunnels(&self) -> usize {
        self.slots.used()
    }

    /// Whether a tunnel goes to the server, or a cluster has it, besides whoever holds `state`.
    pub(super) fn is_in_use(state: &Arc<State>) -> bool {
        Arc::strong_count(state) > 1 || state.slots.are_shared()
    }
}

impl Default for State {
    fn default() -> State {
        State { slots: Slots::new(None), health: Mutex::default(), out: AtomicBool::new(false) }
    }
}

/// ```text
///   up ──fall failures in a row──► out ──eject_time──► on trial ──success──► up
///                                   ▲                     │
///                                   └──────failure────────┘
/// ```
#[derive(Debug, Default)]
pub(super) struct Health {
    /// In a row.
    pub failures: u32,
    /// Set while out and on trial.
    pub out_until: Option<Instant>,
}

/// A live tunnel's place on a server; given back when dropped.
#[derive(Debug)]
pub struct TunnelSlot {
    _slot: Slot,
}

impl TunnelSlot {
    /// A place that no server has, for tests of what holds one.
    #[doc(hidden)]
    pub fn of(slots: &Slots) -> TunnelSlot {
        TunnelSlot { _slot: slots.take().expect("slots of a test have room") }
    }
}

impl Server {
    pub(super) fn new(address: &Address, rules: &model::Server, state: Arc<State>) -> Server {
        let slots = state.slots.with_limit(rules.max_tunnels);
        Server {
            address: address.clone(),
            weight: rules.weight,
            max_tunnels: rules.max_tunnels,
            slots,
            state,
            learned: Mutex::default(),
        }
    }

    pub fn address(&self) -> &Address {
        &self.address
    }

    pub fn weight(&self) -> u32 {
        self.weight
    }

    pub fn max_tunnels(&self) -> Option<usize> {
        self.max_tunnels
    }

    /// Live tunnels, those of earlier configurations included.
    pub fn tunnels(&self) -> usize {
        self.slots.used()
    }

    /// Not taken out by failed dials. A server whose trial is due is still out.
    pub fn is_up(&self) -> bool {
        !self.state.out.load(Ordering::Relaxed)
    }

    /// What it was heard to speak; `None` where it was not asked, or is to be asked again.
    pub fn learned(&self) -> Option<Arc<[Dialect]>> {
        self.learned.lock().clone()
    }

    /// Returns whether that is news.
    pub(super) fn learn(&self, versions: &[Dialect]) -> bool {
        let mut learned = self.learned.lock();
        let is_news = learned.as_deref() != Some(versions);
        if is_news {
            *learned = Some(versions.into());
        }
        is_news
    }

    pub(super) fn forget(&self) {
        *self.learned.lock() = None;
    }

    /// Up, or due for its trial.
    pub(super) fn may_be_picked(&self, now: Instant) -> bool {
        self.is_up() || self.state.health.lock().out_until.is_none_or(|out_until| out_until <= now)
    }

    /// One client at a time finds out whether a server is back: whoever claims its trial puts off the next one.
    pub(super) fn claim(&self, next_trial_in: Duration, now: Instant) -> bool {
        if self.is_up() {
            return true;
        }
        let mut health = self.state.health.lock();
        match health.out_until {
            Some(out_until) if out_until > now => false,
            Some(_) => {
                health.out_until = Some(now + next_trial_in);
                true
            }
            None => true,
        }
    }

    pub(super) fn take_slot(&self) -> Option<TunnelSlot> {
        self.slots.take().map(|slot| TunnelSlot { _slot: slot })
    }

    pub(super) fn failed(&self, fall: u32, out_for: Duration, now: Instant) -> Change {
        self.forget();
        let mut health = self.state.health.lock();
        let change = health.failed(fall, out_for, now);
        self.state.out.store(health.out_until.is_some(), Ordering::Relaxed);
        change
    }

    pub(super) fn succeeded(&self) -> Change {
        if self.is_up() && self.state.health.lock().failures == 0 {
            return Change::None;
        }
        let change = self.state.health.lock().succeeded();
        self.state.out.store(false, Ordering::Relaxed);
        change
    }
}

impl Health {
    fn failed(&mut self, fall: u32, out_for: Duration, now: Instant) -> Change {
        self.failures = self.failures.saturating_add(1);
        if self.failures < fall {
            return Change::None;
        }
        let was_out = self.out_until.is_some();
        self.out_until = Some(now + out_for);
        if was_out { Change::None } else { Change::WentDown { out_for } }
    }

    fn succeeded(&mut self) -> Change {
        self.failures = 0;
        if self.out_until.take().is_some() { Change::CameBack } else { Change::None }
    }
}
