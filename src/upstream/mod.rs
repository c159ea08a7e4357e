//! The servers behind a route: which one is next, how many tunnels each carries, and which are out for a while. Time is an
//! argument. It knows no socket and no name service.

mod balance;
mod server;

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::address::Address;
use crate::config::model;
use crate::dialect::Dialect;
use crate::policy::Permit;
use crate::reason::Reason;
use balance::Balancer;
use server::State;
pub use server::{Server, TunnelSlot};

/// The servers of one upstream and how the next is chosen.
#[derive(Debug)]
pub struct Cluster {
    rules: model::Upstream,
    servers: Vec<Server>,
    balancer: Arc<Balancer>,
    /// What every server speaks, or is asked for first.
    listed: Arc<[Dialect]>,
}

/// Counts and health that outlive configurations: a reload finds its servers as they were, and goes on with their turns.
#[derive(Debug, Default)]
pub struct Registry {
    /// By the upstream's name and the server's address.
    states: Mutex<HashMap<(String, Address), Arc<State>>>,
    /// By the upstream's name.
    turns: Mutex<HashMap<String, Turns>>,
}

/// The turns of an upstream, and between which servers they are dealt.
#[derive(Debug)]
struct Turns {
    balance: model::Balance,
    servers: Vec<model::Server>,
    balancer: Weak<Balancer>,
}

/// The servers of a cluster that one request has already tried, by index.
#[derive(Debug, Default)]
pub struct Tried(Vec<usize>);

/// A server picked for a tunnel, with its slot.
#[derive(Debug)]
pub struct Picked<'c> {
    pub server: &'c Server,
    pub slot: TunnelSlot,
    index: usize,
}

impl Registry {
    fn state(&self, upstream: &str, address: &Address) -> Arc<State> {
        Arc::clone(self.states.lock().entry((upstream.to_owned(), address.clone())).or_default())
    }

    /// The balancer of the configuration before, as long as the same servers take turns in the same way: begun anew at each
    /// reload, turns would favour the first server.
    fn balancer(&self, rules: &model::Upstream) -> Arc<Balancer> {
        let mut turns = self.turns.lock();
        let before = turns.get(&rules.name);
        let same = before.filter(|turns| turns.balance == rules.balance && turns.servers == rules.servers);
        if let Some(balancer) = same.and_then(|turns| turns.balancer.upgrade()) {
            return balancer;
        }
        let balancer = Arc::new(Balancer::new(rules));
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
        unused.map(|(server, _)| server).collect()
    }

    /// Whether there is a server of the upstream that is not forgotten.
    pub fn knows(&self, upstream: &str) -> bool {
        self.states.lock().keys().any(|(known, _)| known == upstream)
    }
}

impl Cluster {
    /// Of the servers that have an address.
    pub fn new(rules: &model::Upstream, registry: &Registry) -> Cluster {
        let servers = rules.servers.iter().filter_map(|server| {
            let address = server.address.address()?;
            Some(Server::new(address, server, registry.state(&rules.name, address)))
        });
        let servers: Vec<Server> = servers.collect();
        let listed = match &rules.versions {
            model::Spoken::Listed(list) => list.as_slice().into(),
            model::Spoken::Auto => [Dialect::Rfc6455].into(),
        };
        Cluster { balancer: registry.balancer(rules), rules: rules.clone(), servers, listed }
    }

    pub fn rules(&self) -> &model::Upstream {
        &self.rules
    }

    pub fn servers(&self) -> &[Server] {
        &self.servers
    }

    /// The server for a new tunnel, its slot taken.
    ///
    /// # Errors
    /// [`Reason::LimitBackendTunnels`] when every server left to try carries its `max_tunnels`, and
    /// [`Reason::BackendUnavailable`] when none is left to try.
    pub fn pick(&self, _: &Permit, tried: &mut Tried, now: Instant) -> Result<Picked<'_>, Reason> {
        let mut full = Tried::default();
        loop {
            let Some(index) = self.next(|index| !tried.has(index) && !full.has(index), now) else {
                return Err(if full.0.is_empty() { Reason::BackendUnavailable } else { Reason::LimitBackendTunnels });
            };
            let server = &self.servers[index];
            match server.take_slot() {
                Some(slot) => {
                    tried.0.push(index);
                    return Ok(Picked { server, slot, index });
                }
                None => full.0.push(index),
            }
        }
    }

    /// Position and server for a plain request, which takes no slot.
    ///
    /// # Errors
    /// [`Reason::BackendUnavailable`] when none is left to try.
    pub fn pick_for_request(&self, _: &Permit, tried: &mut Tried, now: Instant) -> Result<(usize, &Server), Reason> {
        let index = self.next(|index| !tried.has(index), now).ok_or(Reason::BackendUnavailable)?;
        tried.0.push(index);
        Ok((index, &self.servers[index]))
    }

    /// Among the healthy, or among all where none of those left is healthy: a server that is out may be back, and asking it
    /// costs the client no more than the refusal it would get otherwise.
    fn next(&self, may: impl Fn(usize) -> bool, now: Instant) -> Option<usize> {
        let healthy = |index: usize| may(index) && self.servers[index].may_be_picked(now);
        while let Some(index) = self.balancer.next(&self.servers, healthy) {
            if self.servers[index].claim(self.rules.health.eject_time, now) {
                return Some(index);
            }
        }
        self.balancer.next(&self.servers, may)
    }

    /// Whether servers are asked what they speak (RFC 6455 §4.4).
    pub fn asks_for_versions(&self) -> bool {
        self.rules.versions == model::Spoken::Auto
    }

    /// What the server at this position speaks, as far as is known; the best is to be asked for first.
    pub fn spoken(&self, index: usize) -> Arc<[Dialect]> {
        let learned = if self.asks_for_versions() { self.servers[index].learned() } else { None };
        learned.unwrap_or_else(|| Arc::clone(&self.listed))
    }

    /// The server at this position was heard to speak these. Returns whether that is news.
    pub fn learn(&self, index: usize, versions: &[Dialect]) -> bool {
        self.servers[index].learn(versions)
    }

    /// Servers that were there before too speak what they were heard to speak then.
    pub fn remember(&self, before: &Cluster) {
        for server in &self.servers {
            let same = before.servers.iter().find(|earlier| earlier.address() == server.address());
            if let Some(learned) = same.and_then(Server::learned) {
                server.learn(&learned);
            }
        }
    }

    /// What was heard of the server at this position was wrong.
    pub fn forget(&self, index: usize) {
        self.servers[index].forget();
    }

    /// A dial of the server at this position failed. Returns whether this one took it out.
    pub fn failed(&self, index: usize, now: Instant) -> Change {
        self.servers[index].failed(self.rules.health.fall, self.rules.health.eject_time, now)
    }

    /// A dial went well. Returns whether the server was out before.
    pub fn succeeded(&self, index: usize) -> Change {
        self.servers[index].succeeded()
    }
}

/// What an outcome did to a server's standing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    None,
    WentDown { out_for: Duration },
    CameBack,
}

impl Tried {
    /// The last one may be tried again.
    pub fn forget_last(&mut self) {
        self.0.pop();
    }

    fn has(&self, index: usize) -> bool {
        self.0.contains(&index)
    }

    pub fn count(&self) -> usize {
        self.0.len()
    }
}

impl Picked<'_> {
    /// Position in the configuration.
    pub fn index(&self) -> usize {
        self.index
    }
}

#[cfg(test)]
mod tests;
