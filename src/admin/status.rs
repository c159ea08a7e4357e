//! `/status`: what is configured and what is happening now, as JSON. A view: it shows the configuration in force next
//! to what the counters say, and counts nothing itself. `docs/operating.md` says what each field means.

use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use crate::address::Address;
use crate::config::{Choice, model};
use crate::dialect::Dialect;
use crate::generation::{Generation, ListenerHandle, UpstreamHandle};
use crate::lifecycle::{Lifecycle, Phase};
use crate::observe::metrics::REVISION;
use crate::observe::reading::{Counts, Reading};

/// The whole answer; its fields in the order in which they are shown.
#[derive(Debug, Serialize)]
pub struct Status<'g> {
    version: &'static str,
    revision: &'static str,
    phase: &'static str,
    uptime_seconds: u64,
    tunnels: u64,
    reload: Reload,
    drain: Drain,
    /// `up`, `down`; nothing where limits are not to be shared.
    shared_limits: Option<&'static str>,
    listeners: Vec<Listener<'g>>,
    routes: Vec<Route<'g>>,
    unrouted: Unrouted,
    upstreams: Vec<Upstream>,
}

#[derive(Debug, Serialize)]
struct Reload {
    last_successful: bool,
    last_success_time: i64,
}

#[derive(Debug, Serialize)]
struct Drain {
    draining: bool,
    remaining: usize,
    delay_seconds: f64,
    spread_seconds: f64,
    timeout_seconds: f64,
}

#[derive(Debug, Serialize)]
struct Listener<'g> {
    name: &'g str,
    listen: &'g Address,
    connections: usize,
    max_connections: usize,
}

#[derive(Debug, Serialize)]
struct Route<'g> {
    name: &'g str,
    listeners: Vec<&'g str>,
    hosts: Vec<String>,
    paths: Vec<String>,
    upstream: &'g str,
    mode: &'static str,
    accept: Vec<Value>,
    plain_http: &'static str,
    tunnels: u64,
    max_tunnels: Option<usize>,
    asked: Counts,
    refusals: Counts,
    would_refuse: Counts,
    closes: Counts,
    bytes: Counts,
}

#[derive(Debug, Serialize)]
struct Unrouted {
    asked: Counts,
    refusals: Counts,
}

#[derive(Debug, Serialize)]
struct Upstream {
    name: String,
    versions: Value,
    names: Vec<Name>,
    balance: &'static str,
    /// Too few servers are up, so that all are used.
    panic: bool,
    waiting: usize,
    servers: Vec<Server>,
}

/// Stands for servers.
#[derive(Debug, Serialize)]
struct Name {
    name: String,
    servers: u64,
    last_success_time: u64,
}

#[derive(Debug, Serialize)]
struct Server {
    address: Address,
    up: bool,
    draining: bool,
    warming_up: bool,
    /// What it was heard to speak, where it is asked.
    versions: Option<Vec<Value>>,
    tunnels: usize,
    max_tunnels: Option<usize>,
    weight: u32,
    failures: Counts,
}

impl<'g> Status<'g> {
    pub fn new(generation: &'g Generation, reading: &Reading, lifecycle: &Lifecycle, uptime: Duration) -> Status<'g> {
        let config = &generation.config;
        let unrouted = reading.without_route();
        Status {
            version: env!("CARGO_PKG_VERSION"),
            revision: REVISION,
            phase: lifecycle.phase().as_str(),
            uptime_seconds: uptime.as_secs(),
            tunnels: reading.tunnels(),
            reload: Reload {
                last_successful: reading.reload.last_successful,
                last_success_time: reading.reload.last_success_time,
            },
            drain: Drain::new(&config.gateway.drain, lifecycle),
            shared_limits: reading.shares_limits.map(|is_up| if is_up { "up" } else { "down" }),
            listeners: config.listeners.iter().zip(&generation.listeners).map(Listener::new).collect(),
            routes: config.routes.iter().map(|rules| Route::new(rules, generation, reading)).collect(),
            unrouted: Unrouted { asked: unrouted.asked, refusals: unrouted.refusals },
            upstreams: generation
                .upstreams
                .iter()
                .zip(&config.upstreams)
                .map(|(upstream, given)| Upstream::new(&upstream.now(), given, reading))
                .collect(),
        }
    }
}

/// What a drain still waits for; 0 at any other time.
pub fn remaining(lifecycle: &Lifecycle) -> usize {
    match lifecycle.phase() {
        Phase::Draining | Phase::HandedOver => lifecycle.open(),
        Phase::Starting | Phase::Ready | Phase::Stopped => 0,
    }
}

impl Drain {
    fn new(rules: &model::Drain, lifecycle: &Lifecycle) -> Drain {
        Drain {
            draining: lifecycle.phase() == Phase::Draining,
            remaining: remaining(lifecycle),
            delay_seconds: rules.delay.as_secs_f64(),
            spread_seconds: rules.spread.as_secs_f64(),
            timeout_seconds: rules.timeout.as_secs_f64(),
        }
    }
}

impl<'g> Listener<'g> {
    fn new((rules, handle): (&'g model::Listener, &ListenerHandle)) -> Listener<'g> {
        Listener {
            name: &rules.name,
            listen: &rules.listen,
            connections: handle.connections.used(),
            max_connections: rules.max_connections,
        }
    }
}

impl<'g> Route<'g> {
    fn new(rules: &'g model::Route, generation: &'g Generation, reading: &Reading) -> Route<'g> {
        let config = &generation.config;
        let counts = reading.route(&rules.name);
        Route {
            name: &rules.name,
            listeners: rules.listeners.iter().map(|&listener| config.listeners[listener].name.as_str()).collect(),
            hosts: rules.hosts.iter().map(ToString::to_string).collect(),
            paths: rules.paths.iter().map(ToString::to_string).collect(),
            upstream: &config.upstreams[rules.upstream].name,
            mode: rules.versions.mode.word(),
            accept: listed(&rules.versions.accept),
            plain_http: rules.plain_http.word(),
            tunnels: counts.tunnels.total(),
            max_tunnels: rules.limits.tunnels,
            asked: counts.asked,
            refusals: counts.refusals,
            would_refuse: counts.would_refuse,
            closes: counts.closes,
            bytes: counts.bytes,
        }
    }
}

impl Upstream {
    /// `given` is as the file has it: names, where the other has addresses.
    fn new(upstream: &UpstreamHandle, given: &model::Upstream, reading: &Reading) -> Upstream {
        let rules = upstream.cluster.rules();
        let servers = upstream.cluster.servers().iter().map(|server| Server {
            address: server.address().clone(),
            up: server.is_up(),
            draining: server.is_draining(),
            warming_up: upstream.cluster.is_warming_up(server),
            versions: server.learned().map(|versions| listed(&versions)),
            tunnels: server.tunnels(),
            max_tunnels: server.max_tunnels(),
            weight: server.weight(),
            failures: reading.failures(&rules.name, &server.address().to_string()),
        });
        let versions = match &rules.versions {
            model::Spoken::Listed(list) => Value::Array(listed(list)),
            model::Spoken::Auto => "auto".into(),
        };
        let names = given.servers.iter().filter(|server| server.address.is_name()).map(|server| {
            let name = server.address.to_string();
            let found = reading.discovered(&rules.name, &name);
            Name { servers: found.servers, last_success_time: found.last_success_time, name }
        });
        Upstream {
            name: rules.name.clone(),
            versions,
            names: names.collect(),
            balance: rules.balance.word(),
            panic: upstream.cluster.is_in_panic(),
            waiting: upstream.cluster.waiting(),
            servers: servers.collect(),
        }
    }
}

/// As in the configuration: numbers, and one word.
fn listed(versions: &[Dialect]) -> Vec<Value> {
    versions.iter().map(|version| version.number().map_or_else(|| version.name().into(), Value::from)).collect()
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;
    use std::sync::Arc;
    use std::time::{Instant, UNIX_EPOCH};

    use serde_json::json;

    use super::*;
    use crate::config;
    use crate::generation::Lasting;
    use crate::observe::{AccessLog, Metrics, Observer};
    use crate::reason::Reason;

    const CONFIGURATION: &str = "
        [gateway.drain]
        delay = '300ms'
        [[listener]]
        name = 'public'
        listen = '127.0.0.1:8080'
        [[listener]]
        name = 'internal'
        listen = '[::1]:8080'
        max_connections = 7
        [[route]]
        name = 'chat'
        hosts = ['*.Example.com']
        paths = ['=/ws']
        upstream = 'chat'
        plain_http = 'refuse'
        versions = { accept = [13, 8], mode = 'observe' }
        limits = { tunnels = 5 }
        [[upstream]]
        name = 'chat'
        servers = [{ address = '127.0.0.1:9001', weight = 3, max_tunnels = 9 }, '127.0.0.1:9002']
        health = { fall = 1 }
    ";

    struct Process {
        generation: Generation,
        observer: Arc<Observer>,
        lifecycle: Lifecycle,
    }

    impl Process {
        fn start() -> Process {
            let config = config::parse("test.toml", CONFIGURATION, NonZeroUsize::MIN);
            let config = config.unwrap_or_else(|problems| panic!("{problems}"));
            let metrics = Arc::new(Metrics::new());
            metrics.apply(&config);
            let access_log = AccessLog::open(&model::AccessLog::Off, metrics.access_log_dropped.clone()).unwrap();
            let observer = Arc::new(Observer::new(metrics, access_log));
            let loaded = crate::tls::load(&config, &crate::tls::Files::default(), &crate::tls::Known::default());
            let generation = Generation::build(config, loaded.ok().unwrap(), &Lasting::new(Arc::clone(&observer)));
            Process { generation, observer, lifecycle: Lifecycle::default() }
        }

        fn status(&self) -> Value {
            let reading = Reading::take(self.observer.metrics());
            let status = Status::new(&self.generation, &reading, &self.lifecycle, Duration::from_millis(65_900));
            serde_json::to_value(status).unwrap()
        }
    }

    #[test]
    fn shows_the_configuration_in_force() {
        let status = Process::start().status();
        assert_eq!((&status["phase"], &status["uptime_seconds"]), (&json!("starting"), &json!(65)));
        assert_eq!(status["drain"]["delay_seconds"], 0.3);
        assert_eq!(status["listeners"][1]["listen"], "[::1]:8080");
        assert_eq!(status["listeners"][1]["max_connections"], 7);
        let route = &status["routes"][0];
        for (field, expected) in [
            ("listeners", json!(["public", "internal"])),
            ("hosts", json!(["*.example.com"])),
            ("paths", json!(["=/ws"])),
            ("upstream", json!("chat")),
            ("mode", json!("observe")),
            ("accept", json!([13, 8])),
            ("plain_http", json!("refuse")),
            ("max_tunnels", json!(5)),
        ] {
            assert_eq!(route[field], expected, "{field}");
        }
        let servers = &status["upstreams"][0]["servers"];
        assert_eq!((&servers[0]["weight"], &servers[0]["max_tunnels"]), (&json!(3), &json!(9)));
        assert_eq!((&servers[1]["weight"], &servers[1]["max_tunnels"]), (&json!(1), &Value::Null));
    }

    #[test]
    fn shows_what_was_counted_once_over_all_listeners() {
        let process = Process::start();
        for listener in ["public", "internal"] {
            process.observer.upgrade_requested(listener, Some("chat"), "8");
        }
        process.observer.upgrade_requested("public", None, "malformed");
        process.observer.would_refuse("chat", Reason::VersionUnsupported);
        let status = process.status();
        let route = &status["routes"][0];
        assert_eq!((&route["asked"]["8"], &route["asked"]["13"]), (&json!(2), &json!(0)));
        assert_eq!(route["would_refuse"], json!({ "version-unsupported": 1 }));
        assert_eq!(route["refusals"], json!({}));
        assert_eq!(status["unrouted"], json!({ "asked": { "malformed": 1 }, "refusals": {} }));
    }

    #[test]
    fn shows_which_server_is_down_and_why() {
        let process = Process::start();
        process.generation.upstreams[0].now().not_reached(1, Reason::BackendTimeout, Instant::now());
        let servers = process.status()["upstreams"][0]["servers"].take();
        assert_eq!((&servers[0]["up"], &servers[0]["failures"]), (&json!(true), &json!({})));
        assert_eq!((&servers[1]["up"], &servers[1]["failures"]), (&json!(false), &json!({ "backend-timeout": 1 })));
    }

    #[test]
    fn shows_a_drain_and_a_refused_configuration() {
        let process = Process::start();
        let _work = process.lifecycle.work();
        process.lifecycle.enter(Phase::Ready);
        process.observer.metrics().reload_succeeded(UNIX_EPOCH + Duration::from_secs(1_700_000_000));
        let status = process.status();
        assert_eq!((&status["drain"]["draining"], &status["drain"]["remaining"]), (&json!(false), &json!(0)));
        assert_eq!(status["reload"], json!({ "last_successful": true, "last_success_time": 1_700_000_000 }));
        process.lifecycle.enter(Phase::Draining);
        process.observer.metrics().reload_failed();
        let status = process.status();
        assert_eq!((&status["drain"]["draining"], &status["drain"]["remaining"]), (&json!(true), &json!(1)));
        assert_eq!(status["reload"], json!({ "last_successful": false, "last_success_time": 1_700_000_000 }));
    }
}
