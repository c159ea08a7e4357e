//! What outlives configurations: counts, slots and health belong to the process, by name. It does not know what is built with
//! them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::config::Config;
use crate::config::model;
use crate::limits::{Buckets, ClientSlots, Handshakes, Journal, Pace, PerClient, Slots};
use crate::names::Names;
use crate::observe::Observer;
use crate::roster::Roster;
use crate::upstream::Registry;

/// Counts, slots and health, which belong to the process.
pub struct Lasting {
    pub observer: Arc<Observer>,
    /// What names of servers stand for.
    pub names: Names,
    pub(super) servers: Registry,
    pub(super) connections: NamedSlots,
    pub(super) tunnels: NamedSlots,
    pub(super) client_connections: NamedClientSlots,
    pub(super) client_tunnels: NamedClientSlots,
    /// By route.
    pub(super) client_handshakes: Mutex<HashMap<String, Arc<Buckets>>>,
    /// Of the tunnels of clients.
    pub journal: Arc<Journal>,
    /// By route.
    pub(super) rosters: Mutex<HashMap<String, Roster>>,
    /// Upstreams that have series.
    pub(super) upstreams: Mutex<HashSet<String>>,
}

/// Slots by name, so that a new configuration finds the counts of the old one.
#[derive(Default)]
pub(super) struct NamedSlots(pub(super) Mutex<HashMap<String, Slots>>);

impl NamedSlots {
    pub(super) fn get(&self, name: &str, limit: Option<usize>) -> Slots {
        self.0.lock().entry(name.to_owned()).or_insert_with(|| Slots::new(None)).with_limit(limit)
    }

    /// Forgets the names that nobody has slots of, and returns them.
    fn forget_unused(&self) -> Vec<String> {
        let mut named = self.0.lock();
        named.extract_if(|_, slots| !slots.are_shared()).map(|(name, _)| name).collect()
    }
}

/// As [`NamedSlots`], of each client.
#[derive(Default)]
pub(super) struct NamedClientSlots {
    pub(super) named: Mutex<HashMap<String, ClientSlots>>,
    journal: Option<Arc<Journal>>,
}

impl NamedClientSlots {
    pub(super) fn get(&self, name: &str, limit: Option<u32>) -> ClientSlots {
        let mut named = self.named.lock();
        let slots = named.entry(name.to_owned()).or_insert_with(|| ClientSlots::new(name, None, self.journal.clone()));
        slots.with_limit(limit)
    }

    fn forget_unused(&self) {
        self.named.lock().retain(|_, slots| slots.are_shared());
    }
}

impl Lasting {
    pub fn new(observer: Arc<Observer>) -> Lasting {
        let journal = Arc::<Journal>::default();
        Lasting {
            observer,
            client_connections: NamedClientSlots::default(),
            client_tunnels: NamedClientSlots { journal: Some(Arc::clone(&journal)), ..NamedClientSlots::default() },
            client_handshakes: Mutex::default(),
            journal,
            names: Names::default(),
            servers: Registry::new(fastrand::u64(..)),
            connections: NamedSlots::default(),
            tunnels: NamedSlots::default(),
            rosters: Mutex::default(),
            upstreams: Mutex::default(),
        }
    }

    /// Who is open of a route, whichever configuration it came from. One that was taken away and returns is open again.
    pub(super) fn roster(&self, route: &str) -> Roster {
        let roster = self.rosters.lock().entry(route.to_owned()).or_default().clone();
        roster.open();
        roster
    }

    /// Those of all routes that have or had tunnels.
    pub fn rosters(&self) -> Vec<Roster> {
        self.rosters.lock().values().cloned().collect()
    }

    pub(super) fn per_client(&self, route: &model::Route, clients: usize) -> PerClient {
        let handshakes = route.limits.handshakes_per_client.map(|rate| {
            let mut tables = self.client_handshakes.lock();
            let table = tables.get(&route.name).filter(|table| table.is_for(clients)).cloned();
            // Of another size, every bucket is full: to carry them over would be worth a moment's rest to the clients of it.
            let buckets = table.unwrap_or_else(|| Arc::new(Buckets::new(clients)));
            tables.insert(route.name.clone(), Arc::clone(&buckets));
            Handshakes { buckets, pace: Pace::new(rate) }
        });
        let tunnels = self.client_tunnels.get(&route.name, route.limits.tunnels_per_client);
        PerClient { tunnels, handshakes }
    }

    /// The tunnels of clients, of all routes that have or had some.
    pub fn client_tunnels(&self) -> Vec<ClientSlots> {
        self.client_tunnels.named.lock().values().cloned().collect()
    }

    /// Forgets, with their series, the routes and servers that no generation has and no tunnel is left of. A listener is
    /// never gone while the process lives, and an upstream of `config` is not gone while its names stand for nobody.
    pub(super) fn forget_unused(&self, config: &Config) {
        let metrics = self.observer.metrics();
        self.client_connections.forget_unused();
        self.client_tunnels.forget_unused();
        self.client_handshakes.lock().retain(|_, table| Arc::strong_count(table) > 1);
        for route in self.tunnels.forget_unused() {
            metrics.forget_route(&route);
            self.rosters.lock().remove(&route);
        }
        for (upstream, address) in self.servers.forget_unused() {
            metrics.forget_server(&upstream, &address);
        }
        let mut upstreams = self.upstreams.lock();
        upstreams.extend(config.upstreams.iter().map(|rules| rules.name.clone()));
        let is_configured = |name: &String| config.upstreams.iter().any(|rules| rules.name == *name);
        for gone in upstreams.extract_if(|name| !is_configured(name) && !self.servers.knows(name)) {
            metrics.forget_upstream(&gone);
        }
    }
}
