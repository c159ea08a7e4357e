//! The servers behind a route: which one is next, how many tunnels each carries, which are out for a while, and who waits for
//! room. Time is an argument. It knows no socket and no name service.

mod affinity;
mod balance;
mod line;
mod registry;
mod server;
mod standing;
mod warmup;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use crate::address::ClientAddr;
use crate::config::model;
use crate::dialect::Dialect;
use crate::handshake::Field;
use crate::policy::Permit;
use crate::reason::Reason;
pub use affinity::Affinity;
use affinity::ServerId;
use balance::{Balancer, Moment};
pub use line::Place;
use registry::Common;
pub use registry::Registry;
pub use server::{Server, TunnelSlot};
pub use standing::{Change, CheckFailure};

/// The servers of one upstream and how the next is chosen.
#[derive(Debug)]
pub struct Cluster {
    rules: model::Upstream,
    servers: Vec<Server>,
    balancer: Arc<Balancer>,
    common: Arc<Common>,
    /// What every server speaks, or is asked for first.
    listed: Arc<[Dialect]>,
}

/// The servers of a cluster that one request has already tried, by index.
#[derive(Debug, Default)]
pub struct Tried {
    /// The first `count` of them count. As many as an upstream's `tries` may be.
    indices: [usize; 16],
    count: usize,
}

/// A server picked for a tunnel, with its slot.
#[derive(Debug)]
pub struct Picked<'c> {
    pub server: &'c Server,
    pub slot: TunnelSlot,
    index: usize,
}

impl Cluster {
    /// Of the servers that have an address.
    pub fn new(rules: &model::Upstream, registry: &Registry) -> Cluster {
        let located = || rules.servers.iter().filter_map(|server| Some((server.address.address()?, server)));
        let common = registry.common(&rules.name);
        let states = registry.states(&rules.name, located(), &common);
        let servers = located().zip(states).map(|((address, server), state)| {
            Server::new(ServerId::new(&rules.name, address), (address, server), state, registry.chance())
        });
        let listed = match &rules.versions {
            model::Spoken::Listed(list) => list.as_slice().into(),
            model::Spoken::Auto => [Dialect::Rfc6455].into(),
        };
        let balancer = registry.balancer(rules);
        Cluster { balancer, servers: servers.collect(), rules: rules.clone(), common, listed }
    }

    pub fn rules(&self) -> &model::Upstream {
        &self.rules
    }

    pub fn servers(&self) -> &[Server] {
        &self.servers
    }

    /// Where a request would rather go.
    pub fn affinity(&self, client: ClientAddr, fields: &[Field<'_>]) -> Affinity {
        Affinity::new(&self.rules, client, fields)
    }

    /// The server for a new tunnel, its slot taken.
    ///
    /// # Errors
    /// [`Reason::LimitBackendTunnels`] when every server left to try carries its `max_tunnels`, and
    /// [`Reason::BackendUnavailable`] when none is left to try.
    pub fn pick(&self, _: &Permit, affinity: &Affinity, tried: &mut Tried, now: Instant) -> Result<Picked<'_>, Reason> {
        let named = self.named(affinity).filter(|&index| !tried.has(index));
        if let Some((index, slot)) = named.and_then(|index| Some((index, self.servers[index].take_slot()?))) {
            tried.add(index);
            return Ok(Picked { server: &self.servers[index], slot, index });
        }
        let mut full = Vec::new();
        loop {
            let may = |index: usize| !tried.has(index) && !full.contains(&index);
            let Some(index) = self.next(affinity, may, full.is_empty(), now) else {
                return Err(if full.is_empty() { Reason::BackendUnavailable } else { Reason::LimitBackendTunnels });
            };
            let server = &self.servers[index];
            match server.take_slot() {
                Some(slot) => {
                    tried.add(index);
                    return Ok(Picked { server, slot, index });
                }
                None => full.push(index),
            }
        }
    }

    /// Position and server for a plain request, which takes no slot.
    ///
    /// # Errors
    /// [`Reason::BackendUnavailable`] when none is left to try.
    pub fn pick_for_request(
        &self,
        _: &Permit,
        affinity: &Affinity,
        tried: &mut Tried,
        now: Instant,
    ) -> Result<(usize, &Server), Reason> {
        let named = self.named(affinity).filter(|&index| !tried.has(index));
        let next = || self.next(affinity, |index| !tried.has(index), true, now);
        let index = named.or_else(next).ok_or(Reason::BackendUnavailable)?;
        tried.add(index);
        Ok((index, &self.servers[index]))
    }

    /// The server that the request's cookie names, if it takes anything new.
    fn named(&self, affinity: &Affinity) -> Option<usize> {
        let id = affinity.named?;
        let index = self.servers.iter().position(|server| server.id() == id)?;
        let server = &self.servers[index];
        (!server.is_draining() && (server.is_up() || self.is_in_panic())).then_some(index)
    }

    /// Among the healthy; or among all where too few are. Where none of those left is healthy and `may_be_any`, among all as well: a
    /// server that is out may be back, and asking it costs the client no more than the refusal it would get otherwise.
    fn next(&self, affinity: &Affinity, may: impl Fn(usize) -> bool, may_be_any: bool, now: Instant) -> Option<usize> {
        let may = |index: usize| !self.servers[index].is_draining() && may(index);
        let moment = Moment { key: affinity.key, slow_start: self.rules.slow_start, now };
        if !self.is_in_panic() {
            let health = &self.rules.health;
            let healthy = |index: usize| may(index) && self.servers[index].may_be_picked(health, now);
            while let Some(index) = self.balancer.next(&self.servers, moment, healthy) {
                if self.servers[index].claim(health, now) {
                    return Some(index);
                }
            }
            if !may_be_any {
                return None;
            }
        }
        self.balancer.next(&self.servers, moment, may)
    }

    /// Whether fewer servers are up than `panic_threshold` asks for, or none, so that all are used.
    pub fn is_in_panic(&self) -> bool {
        let (mut all, mut up) = (0, 0);
        for server in self.servers.iter().filter(|server| !server.is_draining()) {
            all += 1;
            up += usize::from(server.is_up());
        }
        all > 0 && (up == 0 || up * 100 < self.rules.health.panic_threshold as usize * all)
    }

    /// Whether the server gets only a part of its share, because it came up a short while ago.
    pub fn is_warming_up(&self, server: &Server) -> bool {
        let knows_it = match self.rules.balance {
            model::Balance::LeastTunnels | model::Balance::RoundRobin => self.rules.slow_start.is_some(),
            model::Balance::ClientHash | model::Balance::HeaderHash => false,
        };
        knows_it && server.warmup().is_on()
    }

    /// [`Cluster::is_in_panic`], if that is another answer than the last one that was given here.
    pub fn panic_changed(&self) -> Option<bool> {
        let is = self.is_in_panic();
        let was = self.common.in_panic.swap(is, Ordering::Relaxed);
        (is != was).then_some(is)
    }

    /// The value of `Set-Cookie` by which this client comes back to the server at this position, unless it has that cookie.
    pub fn cookie(&self, index: usize, affinity: &Affinity) -> Option<String> {
        let (sticky, id) = (self.rules.sticky.as_ref()?, self.servers[index].id());
        (affinity.named != Some(id)).then(|| affinity::cookie(sticky, id))
    }

    /// Handshakes that wait for room.
    pub fn waiting(&self) -> usize {
        self.common.line.length()
    }

    /// A place in the line of those who wait, if there is one. Who comes while others wait joins them before it tries. Who has
    /// tried servers may not look there again, and so does not stand for those behind.
    pub fn wait(&self, tried: &Tried) -> Option<Place> {
        self.common.line.join(self.rules.queue, tried.count > 0)
    }

    /// There may be room that nobody in the line knows of: a server is back, or new, or takes more.
    pub fn call_waiting(&self) {
        self.common.line.call_next();
    }

    /// When the next server that is out is due for its trial, which nobody calls the line for; of those that were not due yet when
    /// they were looked at, if they were.
    pub fn next_trial(&self, looked: Option<Instant>) -> Option<Instant> {
        let servers = self.servers.iter().filter(|server| !server.is_draining() && !server.is_up());
        servers
            .filter_map(|server| server.due(&self.rules.health))
            .filter(|due| looked.is_none_or(|looked| *due > looked))
            .min()
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

    /// A dial of the server at this position failed.
    pub fn failed(&self, index: usize, now: Instant) -> Change {
        self.servers[index].failed(&self.rules.health, now)
    }

    /// A dial went well.
    pub fn succeeded(&self, index: usize, now: Instant) -> Change {
        self.servers[index].succeeded(&self.rules.health, now)
    }

    /// A check went well, or not.
    pub fn checked(&self, index: usize, failure: Option<CheckFailure>, now: Instant) -> Change {
        self.servers[index].checked(&self.rules.health, failure, now)
    }
}

impl Tried {
    fn add(&mut self, index: usize) {
        if let Some(free) = self.indices.get_mut(self.count) {
            *free = index;
            self.count += 1;
        }
    }

    /// The last one may be tried again.
    pub fn forget_last(&mut self) {
        self.count = self.count.saturating_sub(1);
    }

    /// The same servers among others: positions are those of `after` now. The tries count on.
    pub fn carry_over(&mut self, before: &Cluster, after: &Cluster) {
        for index in &mut self.indices[..self.count] {
            let address = before.servers.get(*index).map(Server::address);
            let same = after.servers.iter().position(|server| Some(server.address()) == address);
            *index = same.unwrap_or(usize::MAX);
        }
    }

    fn has(&self, index: usize) -> bool {
        self.indices[..self.count].contains(&index)
    }

    pub fn count(&self) -> usize {
        self.count
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
