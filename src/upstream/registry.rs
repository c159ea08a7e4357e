//! Counts and health that outlive configurations. It knows no rules but the weights that turns are dealt by.

use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::balance::Balancer;
use super::line::Line;
use super::server::State;
use crate::address::Address;
use crate::config::model;

/// What is known of servers and upstreams apart from any configuration: a reload finds them as they were, and goes on with their
/// turns.
#[derive(Debug, Default)]
pub struct Registry {
    /// Of this process, so that a fleet of gateways does not do everything at the same moment.
    chance: u64,
    /// By the upstream's name and the server's address.
    pub(super) states: Mutex<HashMap<(String, Address), Arc<State>>>,
    /// By the upstream's name.
    pub(super) turns: Mutex<HashMap<String, Turns>>,
    /// By name, as long as a server of the upstream is known.
    common: Mutex<HashMap<String, Arc<Common>>>,
}

/// What all servers of an upstream have in common.
#[derive(Debug, Default)]
pub(super) struct Common {
    pub line: Arc<Line>,
    /// Whether too few are up, as it was last told.
    pub in_panic: AtomicBool,
}

/// The turns of an upstream, and between which servers they are dealt.
#[derive(Debug)]
pub(super) struct Turns {
    balance: model::Balance,
    servers: Vec<model::Server>,
    balancer: Weak<Balancer>,
}

impl Registry {
    pub fn new(chance: u64) -> Registry {
        Registry { chance, ..Registry::default() }
    }

    pub(super) fn chance(&self) -> u64 {
        self.chance
    }

    pub(super) fn common(&self, upstream: &str) -> Arc<Common> {
        Arc::clone(self.common.lock().entry(upstream.to_owned()).or_default())
    }

    /// Of each server in turn. One that is new among others begins slowly.
    pub(super) fn states<'s>(
        &self,
        upstream: &str,
        servers: impl Iterator<Item = (&'s Address, &'s model::Server)>,
        common: &Common,
    ) -> Vec<Arc<State>> {
        let mut states = self.states.lock();
        let is_running = states.keys().any(|(known, _)| known == upstream);
        servers
            .map(|(address, server)| {
                let state = states.entry((upstream.to_owned(), address.clone()));
                let state = state.or_insert_with(|| {
                    let state = State::new(Arc::clone(&common.line));
                    if is_running {
                        state.warmup.begin_with_the_pick();
                    }
                    Arc::new(state)
                });
                state.drains(server.drain);
                Arc::clone(state)
            })
            .collect()
    }

    /// The balancer of the configuration before, as long as the same servers take turns in the same way: begun anew at each
    /// reload, turns would favour the first server.
    pub(super) fn balancer(&self, rules: &model::Upstream) -> Arc<Balancer> {
        let mut turns = self.turns.lock();
        let before = turns.get(&rules.name);
        let same = before.filter(|turns| turns.balance == rules.balance && turns.servers == rules.servers);
        if let Some(balancer) = same.and_then(|turns| turns.balancer.upgrade()) {
            return balancer;
        }
        let located = rules.servers.iter().filter(|server| server.address.address().is_some()).count();
        let balancer = Arc::new(Balancer::new(rules, located));
        let (balance, servers) = (rules.balance, rules.servers.clone());
        turns.insert(rules.name.clone(), Turns { balance, servers, balancer: Arc::downgrade(&balancer) });
        balancer
    }

    /// Every server with a live tunnel, whether or not a cluster still has it: upstream, address and number of tunnels.
    pub fn with_tunnels(&self) -> Vec<(String, Address, usize)> {
        let states = self.states.lock();
        let all =
            states.iter().map(|((upstream, address), state)| (upstream.clone(), address.clone(), state.tunnels()));
        all.filter(|(_, _, tunnels)| *tunnels > 0).collect()
    }

    /// Forgets the servers that no cluster has and no tunnel goes to: configurations that name new servers again and again
    /// would fill the memory. Returns them.
    pub fn forget_unused(&self) -> Vec<(String, Address)> {
        self.turns.lock().retain(|_, turns| turns.balancer.strong_count() > 0);
        let mut states = self.states.lock();
        let unused = states.extract_if(|_, state| !State::is_in_use(state));
        let servers: Vec<(String, Address)> = unused.map(|(server, _)| server).collect();
        let is_known = |upstream: &str| states.keys().any(|(known, _)| known == upstream);
        self.common.lock().retain(|upstream, common| Arc::strong_count(common) > 1 || is_known(upstream));
        servers
    }

    /// Whether there is a server of the upstream that is not forgotten.
    pub fn knows(&self, upstream: &str) -> bool {
        self.states.lock().keys().any(|(known, _)| known == upstream)
    }
}
