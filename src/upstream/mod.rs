//! The servers behind a route: which one is next, how many tunnels each carries, and which are out for a while. Time is an
//! argument. It knows no socket and no name service.

mod balance;
mod server;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::config::model;
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
    balancer: Balancer,
}

/// Counts and health that outlive configurations: a reload finds its servers as they were.
#[derive(Debug, Default)]
pub struct Registry {
    states: Mutex<HashMap<(String, SocketAddr), std::sync::Arc<State>>>,
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
    fn state(&self, upstream: &str, address: SocketAddr) -> std::sync::Arc<State> {
        std::sync::Arc::clone(self.states.lock().entry((upstream.to_owned(), address)).or_default())
    }
}

impl Cluster {
    pub fn new(rules: &model::Upstream, registry: &Registry) -> Cluster {
        let servers: Vec<Server> = rules
            .servers
            .iter()
            .map(|server| Server::new(server, registry.state(&rules.name, server.address)))
            .collect();
        Cluster { balancer: Balancer::new(rules), rules: rules.clone(), servers }
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
