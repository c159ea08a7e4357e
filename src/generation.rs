//! All that is built from one configuration. A reload makes a new [`Generation`]; a session keeps the one it began with, and
//! what is [`Lasting`] outlives them all. It knows no socket and no runtime.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use crate::config::Config;
use crate::config::model;
use crate::limits::Slots;
use crate::observe::Observer;
use crate::observe::metrics::{ListenerMetrics, RouteMetrics, ServerMetrics};
use crate::policy::{Permit, Policy};
use crate::reason::Reason;
use crate::roster::{Member, Roster};
use crate::tunnel::{Frames, PingRules, Rules};
use crate::upstream::{Change, Cluster, Registry};

/// One configuration, ready to serve.
pub struct Generation {
    pub config: Config,
    pub policy: Policy,
    /// As `config.listeners`.
    pub listeners: Vec<ListenerHandle>,
    /// As `config.routes`.
    pub routes: Vec<Arc<RouteHandle>>,
    /// As `config.upstreams`.
    pub upstreams: Vec<UpstreamHandle>,
}

pub struct ListenerHandle {
    pub name: String,
    pub connections: Slots,
    metrics: ListenerMetrics,
}

/// What a tunnel needs of its route while it lives.
pub struct RouteHandle {
    pub name: String,
    pub tunnels: Slots,
    pub roster: Roster,
    pub rules: Arc<Rules>,
    pub metrics: RouteMetrics,
}

pub struct UpstreamHandle {
    pub cluster: Cluster,
    /// As `cluster.servers()`.
    pub metrics: Vec<ServerMetrics>,
}

impl UpstreamHandle {
    /// A server gave an answer that is HTTP.
    pub fn reached(&self, server: usize) {
        self.tell(server, self.cluster.succeeded(server));
    }

    /// A server could not be reached, or not in time.
    pub fn not_reached(&self, server: usize, reason: Reason, now: Instant) {
        self.metrics[server].failed(reason);
        self.tell(server, self.cluster.failed(server, now));
    }

    /// A server could not be used, and that says nothing of whether it is there: counted, but it is not taken out.
    pub fn not_used(&self, server: usize, reason: Reason) {
        self.metrics[server].failed(reason);
    }

    /// A change of standing is said once.
    fn tell(&self, server: usize, change: Change) {
        let (upstream, server) = (&self.cluster.rules().name, self.cluster.servers()[server].address());
        match change {
            Change::None => {}
            Change::WentDown { out_for } => {
                tracing::warn!(upstream, %server, ?out_for, "backend is out after failed dials");
            }
            Change::CameBack => tracing::info!(upstream, %server, "backend is back"),
        }
    }

    /// Sets the gauges that mirror what the cluster knows.
    fn mirror(&self) {
        for (server, metrics) in self.cluster.servers().iter().zip(&self.metrics) {
            metrics.up.set(i64::from(server.is_up()));
            metrics.tunnels.set(server.tunnels() as i64);
        }
    }
}

/// Counts, slots and health, which belong to the process.
pub struct Lasting {
    pub observer: Arc<Observer>,
    servers: Registry,
    connections: NamedSlots,
    tunnels: NamedSlots,
    /// By route.
    rosters: Mutex<HashMap<String, Roster>>,
}

/// Slots by name, so that a new configuration finds the counts of the old one.
#[derive(Default)]
struct NamedSlots(Mutex<HashMap<String, Slots>>);

impl NamedSlots {
    fn get(&self, name: &str, limit: Option<usize>) -> Slots {
        self.0.lock().entry(name.to_owned()).or_insert_with(|| Slots::new(None)).with_limit(limit)
    }
}

impl Lasting {
    pub fn new(observer: Arc<Observer>) -> Lasting {
        Lasting {
            observer,
            servers: Registry::default(),
            connections: NamedSlots::default(),
            tunnels: NamedSlots::default(),
            rosters: Mutex::default(),
        }
    }

    /// Who is open of a route, whichever configuration it came from.
    pub fn roster(&self, route: &str) -> Roster {
        self.rosters.lock().entry(route.to_owned()).or_default().clone()
    }

    /// Every open tunnel.
    pub fn members(&self) -> Vec<Arc<Member>> {
        self.rosters.lock().values().flat_map(Roster::members).collect()
    }
}

impl Generation {
    pub fn build(config: Config, lasting: &Lasting) -> Generation {
        let metrics = lasting.observer.metrics();
        let listeners = config.listeners.iter().map(|listener| ListenerHandle {
            name: listener.name.clone(),
            connections: lasting.connections.get(&listener.name, Some(listener.max_connections)),
            metrics: metrics.listener(&listener.name),
        });
        let routes = config.routes.iter().map(|route| {
            Arc::new(RouteHandle {
                name: route.name.clone(),
                tunnels: lasting.tunnels.get(&route.name, route.limits.tunnels),
                roster: lasting.roster(&route.name),
                rules: Arc::new(rules(&route.tunnel)),
                metrics: metrics.route(&route.name),
            })
        });
        let upstreams = config.upstreams.iter().map(|upstream| UpstreamHandle {
            cluster: Cluster::new(upstream, &lasting.servers),
            metrics: upstream.servers.iter().map(|server| metrics.server(&upstream.name, server.address)).collect(),
        });
        Generation {
            policy: Policy::new(&config),
            listeners: listeners.collect(),
            routes: routes.collect(),
            upstreams: upstreams.collect(),
            config,
        }
    }

    pub fn route(&self, permit: &Permit) -> &Arc<RouteHandle> {
        &self.routes[permit.route()]
    }

    pub fn upstream(&self, permit: &Permit) -> &UpstreamHandle {
        &self.upstreams[self.config.routes[permit.route()].upstream]
    }

    /// Brings the gauges up to date that mirror what slots and servers count by themselves.
    pub fn mirror_gauges(&self) {
        for listener in &self.listeners {
            listener.metrics.connections.set(listener.connections.used() as i64);
        }
        self.upstreams.iter().for_each(UpstreamHandle::mirror);
    }

    pub fn listener(&self, index: usize) -> &model::Listener {
        &self.config.listeners[index]
    }
}

fn rules(tunnel: &model::Tunnel) -> Rules {
    Rules {
        frames: match tunnel.frames {
            model::Frames::Track => Frames::Track,
            model::Frames::Enforce => Frames::Enforce,
            model::Frames::Blind => Frames::Blind,
        },
        idle_timeout: tunnel.idle_timeout,
        ping: tunnel.ping_interval.map(|interval| PingRules { interval, timeout: tunnel.ping_timeout }),
        max_age: tunnel.max_age,
        close_timeout: tunnel.close_timeout,
        max_frame_bytes: tunnel.max_frame_bytes,
        max_message_bytes: tunnel.max_message_bytes,
    }
}

/// The generation that new requests get, and what outlives it.
pub struct Current {
    generation: ArcSwap<Generation>,
    pub lasting: Lasting,
}

impl Current {
    pub fn new(config: Config, lasting: Lasting) -> Current {
        Current { generation: ArcSwap::from_pointee(Generation::build(config, &lasting)), lasting }
    }

    pub fn load(&self) -> Arc<Generation> {
        self.generation.load_full()
    }

    pub fn observer(&self) -> &Arc<Observer> {
        &self.lasting.observer
    }
}
