//! One server: its live tunnels, its standing, and what it speaks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

use super::affinity::ServerId;
use super::line::Line;
use super::standing::{Change, CheckFailure, Health};
use super::warmup::Warmup;
use crate::address::Address;
use crate::config::model;
use crate::dialect::Dialect;
use crate::limits::{Slot, Slots};

#[derive(Debug)]
pub struct Server {
    address: Address,
    rules: model::Server,
    id: ServerId,
    slots: Slots,
    state: Arc<State>,
    /// Of this server and this process.
    chance: u64,
    /// What it was heard to speak, where it was asked. A new configuration asks anew.
    learned: Mutex<Option<Arc<[Dialect]>>>,
}

/// What is known of a server apart from any configuration.
#[derive(Debug)]
pub struct State {
    slots: Slots,
    health: Mutex<Health>,
    /// Mirrors `!health.is_up()`, so that a pick among healthy servers takes no lock.
    out: AtomicBool,
    /// Whether the configuration of now drains it.
    drained: AtomicBool,
    pub(super) warmup: Warmup,
}

impl State {
    /// Of an upstream with this line.
    pub(super) fn new(line: Arc<Line>) -> State {
        State {
            slots: Slots::telling(move || line.call_next()),
            health: Mutex::default(),
            out: AtomicBool::new(false),
            drained: AtomicBool::new(false),
            warmup: Warmup::default(),
        }
    }

    /// Live tunnels, whatever configuration they began with.
    pub(super) fn tunnels(&self) -> usize {
        self.slots.used()
    }

    /// Whether a tunnel goes to the server, or a cluster has it, besides whoever holds `state`.
    pub(super) fn is_in_use(state: &Arc<State>) -> bool {
        Arc::strong_count(state) > 1 || state.slots.are_shared()
    }

    /// A configuration drains it, or does not. After a drain it is as cold as after a fall.
    pub(super) fn drains(&self, drain: bool) {
        if self.drained.swap(drain, Ordering::Relaxed) && !drain {
            self.warmup.begin_with_the_pick();
        }
    }
}

/// A live tunnel's place on a server; given back when dropped. Who waits for one is called then.
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
    pub(super) fn new(
        id: ServerId,
        (address, rules): (&Address, &model::Server),
        state: Arc<State>,
        chance: u64,
    ) -> Server {
        let slots = state.slots.with_limit(rules.max_tunnels);
        let (address, rules) = (address.clone(), rules.clone());
        Server { address, rules, id, slots, state, chance: chance ^ id.0, learned: Mutex::default() }
    }

    pub fn address(&self) -> &Address {
        &self.address
    }

    pub fn weight(&self) -> u32 {
        self.rules.weight
    }

    pub fn max_tunnels(&self) -> Option<usize> {
        self.rules.max_tunnels
    }

    /// It gets nothing new.
    pub fn is_draining(&self) -> bool {
        self.rules.drain
    }

    /// Live tunnels, those of earlier configurations included.
    pub fn tunnels(&self) -> usize {
        self.slots.used()
    }

    /// Not taken out by failed dials or checks. A server whose trial is due is still out.
    pub fn is_up(&self) -> bool {
        !self.state.out.load(Ordering::Relaxed)
    }

    pub(super) fn id(&self) -> ServerId {
        self.id
    }

    pub(super) fn warmup(&self) -> &Warmup {
        &self.state.warmup
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
    pub(super) fn may_be_picked(&self, rules: &model::Health, now: Instant) -> bool {
        self.is_up() || self.state.health.lock().may_be_picked(rules, now)
    }

    /// When it is due for a trial, if that is what it waits for.
    pub(super) fn due(&self, rules: &model::Health) -> Option<Instant> {
        self.state.health.lock().due(rules)
    }

    /// One client at a time finds out whether a server is back: whoever claims its trial puts off the next one.
    pub(super) fn claim(&self, rules: &model::Health, now: Instant) -> bool {
        self.is_up() || self.state.health.lock().claim(rules, self.chance, now)
    }

    pub(super) fn take_slot(&self) -> Option<TunnelSlot> {
        self.slots.take().map(|slot| TunnelSlot { _slot: slot })
    }

    pub(super) fn failed(&self, rules: &model::Health, now: Instant) -> Change {
        self.forget();
        self.change(now, |health| health.dial_failed(rules, self.chance, now))
    }

    pub(super) fn succeeded(&self, rules: &model::Health, now: Instant) -> Change {
        if self.is_up() && !self.state.health.lock().is_suspect() {
            return Change::None;
        }
        self.change(now, |health| health.dial_succeeded(rules, now))
    }

    pub(super) fn checked(&self, rules: &model::Health, failure: Option<CheckFailure>, now: Instant) -> Change {
        self.change(now, |health| match failure {
            Some(_) => health.check_failed(rules),
            None => health.check_passed(rules, now),
        })
    }

    fn change(&self, now: Instant, change: impl FnOnce(&mut Health) -> Change) -> Change {
        let mut health = self.state.health.lock();
        let change = change(&mut health);
        self.state.out.store(!health.is_up(), Ordering::Relaxed);
        if change == Change::CameBack {
            self.state.warmup.begin(now);
        }
        change
    }
}
