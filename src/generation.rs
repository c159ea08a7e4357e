//! All that is built from one configuration. A reload makes a new [`Generation`]; a session keeps the one it began with, and
//! what is [`Lasting`] outlives them all. It knows no socket and no runtime.

mod lasting;
mod secured;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use crate::address::Address;
use crate::bridge::{Binary, Terms};
use crate::config::Config;
use crate::config::model;
use crate::dialect::Dialect;
use crate::limits::{ClientRules, ClientSlots, PerClient, Slots};
use crate::observe::Observer;
use crate::observe::metrics::{ListenerMetrics, RouteMetrics, ServerMetrics, Situation, Standing, Turned};
use crate::policy::{Permit, Policy};
use crate::reason::Reason;
use crate::roster::Roster;
use crate::tls::Loaded;
use crate::tunnel::{Frames, PingRules, Rules};
use crate::upstream::{Change, CheckFailure, Cluster};
pub use lasting::Lasting;
pub use secured::Secured;

/// One configuration, ready to serve.
pub struct Generation {
    pub config: Config,
    pub policy: Policy,
    pub clients: ClientRules,
    /// As `config.listeners`.
    pub listeners: Vec<ListenerHandle>,
    /// As `config.routes`.
    pub routes: Vec<Arc<RouteHandle>>,
    /// As `config.upstreams`.
    pub upstreams: Vec<Upstream>,
    pub secured: Secured,
}

pub struct ListenerHandle {
    pub name: String,
    pub connections: Slots,
    pub connections_per_client: ClientSlots,
    metrics: ListenerMetrics,
}

impl ListenerHandle {
    pub fn metrics(&self) -> &ListenerMetrics {
        &self.metrics
    }
}

/// What a tunnel needs of its route while it lives.
pub struct RouteHandle {
    pub name: String,
    pub tunnels: Slots,
    pub per_client: PerClient,
    pub roster: Roster,
    pub rules: Arc<Rules>,
    /// In place of `rules` where a side has no frames, so that messages are collected.
    pub bridged_rules: Arc<Rules>,
    pub terms: Terms,
    pub metrics: RouteMetrics,
}

/// The servers of one upstream, replaced whole when they change while the configuration stays.
pub struct Upstream(ArcSwap<UpstreamHandle>);

impl Upstream {
    fn new(rules: &model::Upstream, lasting: &Lasting) -> Upstream {
        Upstream(ArcSwap::from_pointee(UpstreamHandle::new(&lasting.names.resolve(rules), lasting)))
    }

    /// Takes the servers that names stand for by now. Returns whether they are others than before.
    fn refresh(&self, rules: &model::Upstream, lasting: &Lasting) -> bool {
        let (resolved, before) = (lasting.names.resolve(rules), self.now());
        let is_other = before.cluster.rules().servers != resolved.servers;
        if is_other {
            let next = UpstreamHandle::new(&resolved, lasting);
            next.cluster.remember(&before.cluster);
            let next = Arc::new(next);
            self.0.store(Arc::clone(&next));
            // Only now, so that who is called finds them.
            next.cluster.call_waiting();
        }
        is_other
    }

    /// As they are now. Whoever begins with them goes on with them, so that positions mean the same throughout; but who waits in
    /// the line takes those of the moment when it is called.
    pub fn now(&self) -> Arc<UpstreamHandle> {
        self.0.load_full()
    }
}

/// The servers of one upstream at one moment.
pub struct UpstreamHandle {
    pub cluster: Cluster,
    /// As `cluster.servers()`.
    pub metrics: Vec<ServerMetrics>,
}

impl UpstreamHandle {
    fn new(rules: &model::Upstream, lasting: &Lasting) -> UpstreamHandle {
        let cluster = Cluster::new(rules, &lasting.servers);
        let metrics = lasting.observer.metrics();
        let servers = cluster.servers().iter().map(|server| metrics.server(&rules.name, server.address()));
        let handle = UpstreamHandle { metrics: servers.collect(), cluster };
        handle.tell_panic();
        handle
    }

    /// A server gave an answer that is HTTP.
    pub fn reached(&self, server: usize, now: Instant) {
        self.tell(server, self.cluster.succeeded(server, now));
    }

    /// A server was checked, and this is how it failed, if it did, and how long it took.
    pub fn checked(&self, server: usize, failure: Option<CheckFailure>, took: Duration, now: Instant) {
        self.metrics[server].checked(failure.map_or(CHECK_PASSED, CheckFailure::as_str), took);
        self.tell(server, self.cluster.checked(server, failure, now));
    }

    /// A server was heard to speak these.
    pub fn learned(&self, server: usize, versions: &[Dialect]) {
        if self.cluster.learn(server, versions) {
            let (upstream, server) = (&self.cluster.rules().name, self.cluster.servers()[server].address());
            let versions = versions.iter().map(|version| version.name()).collect::<Vec<_>>().join(", ");
            tracing::info!(upstream, %server, versions, "backend told its versions");
        }
    }

    /// A server was right in this version. It may speak others, which nobody asked it for.
    pub fn proved(&self, server: usize, version: Dialect) {
        if self.cluster.servers()[server].learned().is_none() {
            self.cluster.learn(server, &[version]);
        }
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
        let metrics = &self.metrics[server];
        let (upstream, server) = (&self.cluster.rules().name, self.cluster.servers()[server].address());
        match change {
            Change::None => return,
            Change::Ejected { out_for } => {
                metrics.turned(Turned::Down);
                tracing::warn!(upstream, %server, ?out_for, "backend is out after failed dials");
            }
            Change::WentDown => {
                metrics.turned(Turned::Down);
                tracing::warn!(upstream, %server, "backend is out after failed checks");
            }
            Change::CameBack => {
                metrics.turned(Turned::Up);
                tracing::info!(upstream, %server, "backend is back");
            }
        }
        self.tell_panic();
        // Who waits may use a server that is back, and where too few are up now, one that is not.
        self.cluster.call_waiting();
    }

    fn tell_panic(&self) {
        let (upstream, servers) = (&self.cluster.rules().name, self.cluster.servers());
        let up = servers.iter().filter(|server| server.is_up()).count();
        match self.cluster.panic_changed() {
            Some(true) => tracing::warn!(upstream, up, of = servers.len(), "too few backends are up, all are used"),
            Some(false) => tracing::info!(upstream, up, of = servers.len(), "enough backends are up again"),
            None => {}
        }
    }

    fn standings(&self) -> impl Iterator<Item = Standing<'_>> {
        let upstream = &self.cluster.rules().name;
        self.cluster.servers().iter().map(move |server| Standing {
            upstream,
            address: server.address(),
            up: Some(server.is_up()),
            draining: server.is_draining(),
            tunnels: server.tunnels(),
            learned: server.learned(),
        })
    }
}

/// The label of a check that found nothing wrong.
const CHECK_PASSED: &str = "passed";

impl Generation {
    /// What the configuration names is found as the generation before left it, and what nobody names any more is forgotten.
    pub fn build(config: Config, loaded: Loaded, lasting: &Lasting) -> Generation {
        let metrics = lasting.observer.metrics();
        metrics.apply(&config);
        let listeners = config.listeners.iter().map(|listener| ListenerHandle {
            name: listener.name.clone(),
            connections: lasting.connections.get(&listener.name, Some(listener.max_connections)),
            connections_per_client: lasting.client_connections.get(&listener.name, listener.connections_per_client),
            metrics: metrics.listener(&listener.name),
        });
        let routes = config.routes.iter().map(|route| {
            Arc::new(RouteHandle {
                name: route.name.clone(),
                tunnels: lasting.tunnels.get(&route.name, route.limits.tunnels),
                per_client: lasting.per_client(route, config.limits.clients),
                roster: lasting.roster(&route.name),
                rules: Arc::new(rules(&route.tunnel)),
                bridged_rules: Arc::new(bridged_rules(&route.tunnel, &route.bridge)),
                terms: terms(&route.bridge),
                metrics: metrics.route(&route.name),
            })
        });
        let upstreams = config.upstreams.iter().map(|rules| Upstream::new(rules, lasting));
        let generation = Generation {
            policy: Policy::new(&config),
            clients: ClientRules::new(&config.limits),
            listeners: listeners.collect(),
            routes: routes.collect(),
            upstreams: upstreams.collect(),
            secured: Secured::new(&config, loaded),
            config,
        };
        // Only now, so that a name that comes back finds what it left.
        lasting.forget_unused(&generation.config);
        generation
    }

    pub fn route(&self, permit: &Permit) -> &Arc<RouteHandle> {
        &self.routes[permit.route()]
    }

    pub fn upstream(&self, permit: &Permit) -> Arc<UpstreamHandle> {
        self.upstreams[self.config.routes[permit.route()].upstream].now()
    }

    pub fn upstream_named(&self, name: &str) -> Option<Arc<UpstreamHandle>> {
        let index = self.config.upstreams.iter().position(|rules| rules.name == name)?;
        Some(self.upstreams[index].now())
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

/// A bridge has to bound what it collects, whatever the route says of other tunnels.
fn bridged_rules(tunnel: &model::Tunnel, bridge: &model::Bridge) -> Rules {
    let most = tunnel.max_message_bytes.map_or(bridge.max_message_bytes, |most| most.min(bridge.max_message_bytes));
    Rules { max_message_bytes: Some(most), ..rules(tunnel) }
}

fn terms(bridge: &model::Bridge) -> Terms {
    Terms {
        binary: match bridge.binary {
            model::Binary::Refuse => Binary::Refuse,
            model::Binary::Base64 => Binary::Base64,
        },
        message_bytes_max: usize::try_from(bridge.max_message_bytes).unwrap_or(usize::MAX),
    }
}

/// The generation that new requests get, and what outlives it.
pub struct Current {
    generation: ArcSwap<Generation>,
    pub lasting: Lasting,
}

impl Current {
    pub fn new(config: Config, loaded: Loaded, lasting: Lasting) -> Current {
        Current { generation: ArcSwap::from_pointee(Generation::build(config, loaded, &lasting)), lasting }
    }

    pub fn load(&self) -> Arc<Generation> {
        self.generation.load_full()
    }

    /// New requests get `next` from here on. Returns the generation before, which lives until its last request is over.
    pub fn replace(&self, next: &Arc<Generation>) -> Arc<Generation> {
        let before = self.generation.swap(Arc::clone(next));
        self.lasting.journal.nudge();
        // Only now, so that who is called finds the servers and limits of `next`.
        next.upstreams.iter().for_each(|upstream| upstream.now().cluster.call_waiting());
        before
    }

    /// Brings the servers of every upstream up to date with what names stand for. New tunnels go by them; open ones stay where they
    /// are. For the one task that asks for names.
    pub fn refresh_servers(&self) {
        let generation = self.load();
        let upstreams = generation.upstreams.iter().zip(&generation.config.upstreams);
        // Each of them, so no `any`.
        let changed = upstreams.filter(|(upstream, rules)| upstream.refresh(rules, &self.lasting)).count();
        if changed > 0 {
            self.lasting.forget_unused(&generation.config);
        }
    }

    /// Brings the gauges up to date that mirror what slots and servers count by themselves.
    pub fn mirror_gauges(&self) {
        let generation = self.load();
        for listener in &generation.listeners {
            listener.metrics.connections.set(listener.connections.used() as i64);
        }
        let certificates = generation.secured.certificates();
        let shown = certificates.iter().map(|certificate| (certificate.file.as_path(), certificate.not_after));
        self.observer().metrics().show_certificates(shown);
        let upstreams: Vec<Arc<UpstreamHandle>> = generation.upstreams.iter().map(Upstream::now).collect();
        let named: Vec<Standing<'_>> = upstreams.iter().flat_map(|upstream| upstream.standings()).collect();
        let names: HashSet<(&str, &Address)> = named.iter().map(|server| (server.upstream, server.address)).collect();
        // Servers that are configured no more, and whose tunnels are still open.
        let with_tunnels = self.lasting.servers.with_tunnels();
        let left = with_tunnels
            .iter()
            .filter(|(upstream, address, _)| !names.contains(&(upstream.as_str(), address)))
            .map(|(upstream, address, tunnels)| Standing {
                upstream,
                address,
                up: None,
                draining: false,
                tunnels: *tunnels,
                learned: None,
            });
        let metrics = self.observer().metrics();
        metrics.show_servers(named.iter().cloned().chain(left));
        metrics.show_upstreams(upstreams.iter().map(|upstream| Situation {
            upstream: &upstream.cluster.rules().name,
            in_panic: upstream.cluster.is_in_panic(),
            waiting: upstream.cluster.waiting(),
        }));
    }

    pub fn observer(&self) -> &Arc<Observer> {
        &self.lasting.observer
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;
    use crate::config::{self, model};
    use crate::observe::{AccessLog, Metrics, exposition};
    use crate::policy::tests::permit;
    use crate::tls;
    use crate::upstream::{Affinity, Tried, TunnelSlot};

    fn config(route: &str, upstream: &str, server: &str) -> Config {
        let text = format!(
            "[[listener]]\nname = 'public'\nlisten = '127.0.0.1:0'\n[[route]]\nname = '{route}'\nupstream = '{upstream}'\n\
             [[upstream]]\nname = '{upstream}'\nservers = ['{server}']\nbalance = 'round-robin'\n"
        );
        config::parse("test.toml", &text, NonZeroUsize::MIN).unwrap()
    }

    fn plain(config: &Config) -> Loaded {
        tls::load(config, &tls::Files::default(), &tls::Known::default()).ok().unwrap()
    }

    fn current() -> Current {
        let metrics = Arc::new(Metrics::new());
        let access_log = AccessLog::open(&model::AccessLog::Off, metrics.access_log_dropped.clone()).unwrap();
        let observer = Arc::new(Observer::new(metrics, access_log));
        let config = config("chat", "app", "127.0.0.1:9001");
        let loaded = plain(&config);
        Current::new(config, loaded, Lasting::new(observer))
    }

    fn reload(current: &Current, config: Config) {
        let loaded = plain(&config);
        current.replace(&Arc::new(Generation::build(config, loaded, &current.lasting)));
    }

    fn tunnel(current: &Current) -> TunnelSlot {
        let generation = current.load();
        let cluster = &generation.upstreams[0].now().cluster;
        cluster.pick(&permit(), &Affinity::default(), &mut Tried::default(), Instant::now()).unwrap().slot
    }

    fn shown(current: &Current) -> Vec<String> {
        current.mirror_gauges();
        let (_, text) = exposition::render(current.observer().metrics(), None);
        let text = String::from_utf8(text).unwrap();
        let ours = text.lines().filter(|line| line.starts_with("wsgate_"));
        ours.map(str::to_owned).collect()
    }

    fn check_shown(current: &Current, expected: &str) {
        let shown = shown(current);
        assert!(shown.iter().any(|line| line == expected), "{expected} is not in {shown:#?}");
    }

    #[test]
    fn names_that_come_and_go_leave_nothing_behind() {
        let current = current();
        let mut series = Vec::new();
        for round in 0..200 {
            let server = format!("127.0.0.1:{}", 10_000 + round);
            reload(&current, config(&format!("route-{round}"), &format!("upstream-{round}"), &server));
            current.load().upstreams[0].now().not_used(0, Reason::BackendHandshakeWrong);
            series.push(shown(&current).len());
        }
        assert_eq!(series[199], series[3], "{series:?}");
        let Lasting { tunnels, servers, .. } = &current.lasting;
        assert_eq!(tunnels.0.lock().len(), 2, "that of now, and that of before, which had its generation until now");
        assert_eq!(servers.forget_unused().len(), 1);
        assert_eq!(servers.forget_unused().len(), 0);
    }

    #[test]
    fn a_route_that_comes_back_finds_its_open_tunnels() {
        let current = current();
        let open = current.load().routes[0].tunnels.take();
        for other in ["one", "two", "three"] {
            reload(&current, config(other, "app", "127.0.0.1:9001"));
        }
        reload(&current, config("chat", "app", "127.0.0.1:9001"));
        assert_eq!(current.load().routes[0].tunnels.used(), 1);
        drop(open);
        assert_eq!(current.load().routes[0].tunnels.used(), 0);
    }

    #[test]
    fn a_server_that_is_gone_shows_its_tunnels_until_the_last_one_ends() {
        let current = current();
        check_shown(&current, r#"wsgate_backend_up{server="127.0.0.1:9001",upstream="app"} 1"#);
        let tunnels = (tunnel(&current), tunnel(&current));
        reload(&current, config("chat", "app", "127.0.0.1:9002"));
        check_shown(&current, r#"wsgate_backend_tunnels{server="127.0.0.1:9001",upstream="app"} 2"#);
        assert!(!shown(&current).iter().any(|line| line.contains("up{server=\"127.0.0.1:9001\"")));
        drop(tunnels.0);
        check_shown(&current, r#"wsgate_backend_tunnels{server="127.0.0.1:9001",upstream="app"} 1"#);
        drop(tunnels.1);
        assert!(!shown(&current).iter().any(|line| line.contains("127.0.0.1:9001")));
        check_shown(&current, r#"wsgate_backend_tunnels{server="127.0.0.1:9002",upstream="app"} 0"#);
    }

    #[test]
    fn a_server_that_its_name_still_stands_for_keeps_what_is_known_of_it() {
        let current = current();
        let name = model::Location::Name { host: "app".to_owned(), port: 9001 };
        current.lasting.names.follow([&name], Instant::now());
        let found = |last: &[u8]| {
            let ips: Vec<std::net::IpAddr> = last.iter().map(|last| [10, 0, 0, *last].into()).collect();
            let records = crate::names::answer::of_host(&"app".into(), 9001, &ips);
            let answer = Some(crate::names::Answer::Some { records, ttl: std::time::Duration::ZERO });
            current.lasting.names.handle_answer(&name, answer, &model::Dns::default(), Instant::now(), 0.0);
        };
        found(&[1, 2]);
        reload(&current, config("chat", "app", "app:9001"));
        let before = current.load().upstreams[0].now();
        current.refresh_servers();
        assert!(Arc::ptr_eq(&before, &current.load().upstreams[0].now()), "nothing changed");
        before.learned(1, &[Dialect::Rfc6455]);
        before.not_used(0, Reason::BackendHandshakeWrong);
        let tunnel = tunnel(&current);
        found(&[2, 3]);
        current.refresh_servers();
        let after = current.load().upstreams[0].now();
        let servers = after.cluster.servers().iter();
        let known: Vec<(String, bool)> =
            servers.map(|server| (server.address().to_string(), server.learned().is_some())).collect();
        assert_eq!(known, [("10.0.0.2:9001".to_owned(), true), ("10.0.0.3:9001".to_owned(), false)]);
        check_shown(&current, r#"wsgate_backend_tunnels{server="10.0.0.1:9001",upstream="app"} 1"#);
        drop((before, after, tunnel));
        found(&[]);
        current.refresh_servers();
        // The upstream is still there, without a server.
        check_shown(&current, r#"wsgate_backend_connect_duration_seconds_count{upstream="app"} 0"#);
        assert!(!shown(&current).iter().any(|line| line.contains("10.0.0")));
    }

    #[test]
    fn a_server_that_stays_keeps_its_standing() {
        let current = current();
        let now = Instant::now();
        (0..3).for_each(|_| current.load().upstreams[0].now().not_reached(0, Reason::BackendUnavailable, now));
        reload(&current, config("other", "app", "127.0.0.1:9001"));
        check_shown(&current, r#"wsgate_backend_up{server="127.0.0.1:9001",upstream="app"} 0"#);
    }
}
