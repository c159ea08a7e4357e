//! Every metric family of the product in one place: name, labels, type, help. A label's value is of a closed set or a
//! configured name, so a client cannot make series. It does not know when anything happens (that is
//! [`super::Observer`]) nor any exposition format (that is `exposition`).
//! It is longer than a file should be, because half of it is one table.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use prometheus::core::Collector;
use prometheus::process_collector::ProcessCollector;
use prometheus::proto::{MetricFamily, MetricType};
use prometheus::{HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use crate::config::{Config, model};
use crate::reason::{By, Reason};

/// The `route` label of a request that no route matched. No configured name looks like this.
pub const NO_ROUTE: &str = "-";

/// The `code` label of a tunnel that ended without a Close frame, and of all tunnels while frames are not read.
pub const NO_CLOSE_CODE: &str = "none";

/// The `version` labels: what a client can ask for.
pub const VERSIONS: [&str; 7] = ["0", "7", "8", "13", "other", "missing", "malformed"];

const TO_BACKEND: &str = "to_backend";
const TO_CLIENT: &str = "to_client";

const HANDSHAKE_SECONDS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
const TUNNEL_SECONDS: [f64; 13] =
    [1.0, 5.0, 15.0, 30.0, 60.0, 300.0, 900.0, 1_800.0, 3_600.0, 10_800.0, 21_600.0, 43_200.0, 86_400.0];
const CONNECT_SECONDS: [f64; 14] =
    [0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0];

/// All counters of the process. They outlive every configuration, so a reload never sets one back.
pub struct Metrics {
    registry: Registry,
    families: Vec<Family>,
    /// Upstream and address of each server that is exposed.
    servers: Mutex<BTreeSet<(String, String)>>,
    pub(super) upgrade_requests: IntCounterVec,
    pub(super) refusals: IntCounterVec,
    pub(super) would_refuse: IntCounterVec,
    pub(super) handshake_duration: HistogramVec,
    pub(super) tunnels: IntGaugeVec,
    pub(super) tunnels_opened: IntCounterVec,
    pub(super) tunnel_duration: HistogramVec,
    tunnel_bytes: IntCounterVec,
    pub(super) tunnel_closes: IntCounterVec,
    connections: IntGaugeVec,
    pub(super) http_requests: IntCounterVec,
    backend_up: IntGaugeVec,
    backend_tunnels: IntGaugeVec,
    pub(super) backend_connect_duration: HistogramVec,
    backend_failures: IntCounterVec,
    reload_successful: IntGauge,
    reload_success_timestamp: IntGauge,
    /// Tunnels still open during a drain; 0 at any other time.
    pub drain_remaining: IntGauge,
    /// What [`super::AccessLog`] threw away.
    pub access_log_dropped: IntCounter,
}

/// What a family is called and which labels it has, for the page that documents them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Family {
    pub name: String,
    pub kind: Kind,
    pub labels: &'static [&'static str],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Kind {
    /// As both exposition formats and `docs/metrics.md` write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }
}

/// What the tunnels of a route count while they live. Cheap to clone; outlives the configuration it was made for.
#[derive(Clone, Debug)]
pub struct RouteMetrics {
    /// Frame headers included.
    pub bytes_to_backend: IntCounter,
    pub bytes_to_client: IntCounter,
}

/// Cheap to clone; outlives the configuration it was made for.
#[derive(Clone, Debug)]
pub struct ListenerMetrics {
    /// Open client connections, tunnels included.
    pub connections: IntGauge,
}

/// What is known of one backend server. Outlives the configuration it was made for.
#[derive(Clone, Debug)]
pub struct ServerMetrics {
    /// 1 while the server gets new tunnels, 0 while it is out.
    pub up: IntGauge,
    /// Open now.
    pub tunnels: IntGauge,
    failures: IntCounterVec,
    upstream: String,
    address: String,
}

impl ServerMetrics {
    /// A dial gave no tunnel, whether or not another server then did.
    pub fn failed(&self, reason: Reason) {
        self.failures.with_label_values(&[self.upstream.as_str(), &self.address, reason.code()]).inc();
    }
}

impl Metrics {
    pub fn new() -> Metrics {
        let mut define = Define { registry: Registry::new(), families: Vec::new() };
        let build_info = define.gauge(BUILD_INFO);
        let revision = option_env!("WSGATE_REVISION").unwrap_or("unknown");
        build_info.with_label_values(&[env!("CARGO_PKG_VERSION"), revision]).set(1);
        define.process();
        Metrics {
            upgrade_requests: define.counter(UPGRADE_REQUESTS),
            refusals: define.counter(REFUSALS),
            would_refuse: define.counter(WOULD_REFUSE),
            handshake_duration: define.histogram(HANDSHAKE_DURATION, &HANDSHAKE_SECONDS),
            tunnels: define.gauge(TUNNELS),
            tunnels_opened: define.counter(TUNNELS_OPENED),
            tunnel_duration: define.histogram(TUNNEL_DURATION, &TUNNEL_SECONDS),
            tunnel_bytes: define.counter(TUNNEL_BYTES),
            tunnel_closes: define.counter(TUNNEL_CLOSES),
            connections: define.gauge(CONNECTIONS),
            http_requests: define.counter(HTTP_REQUESTS),
            backend_up: define.gauge(BACKEND_UP),
            backend_tunnels: define.gauge(BACKEND_TUNNELS),
            backend_connect_duration: define.histogram(BACKEND_CONNECT_DURATION, &CONNECT_SECONDS),
            backend_failures: define.counter(BACKEND_FAILURES),
            reload_successful: single_gauge(&define.gauge(RELOAD_SUCCESSFUL)),
            reload_success_timestamp: single_gauge(&define.gauge(RELOAD_SUCCESS_TIMESTAMP)),
            drain_remaining: single_gauge(&define.gauge(DRAIN_REMAINING)),
            access_log_dropped: define.counter(ACCESS_LOG_DROPPED).with_label_values(&NO_LABELS),
            registry: define.registry,
            families: define.families,
            servers: Mutex::new(BTreeSet::new()),
        }
    }

    pub fn route(&self, name: &str) -> RouteMetrics {
        RouteMetrics {
            bytes_to_backend: self.tunnel_bytes.with_label_values(&[name, TO_BACKEND]),
            bytes_to_client: self.tunnel_bytes.with_label_values(&[name, TO_CLIENT]),
        }
    }

    pub fn listener(&self, name: &str) -> ListenerMetrics {
        ListenerMetrics { connections: self.connections.with_label_values(&[name]) }
    }

    /// A server that was not exposed before begins as up; one that was keeps what it had.
    pub fn server(&self, upstream: &str, address: SocketAddr) -> ServerMetrics {
        let address = address.to_string();
        let labels = [upstream, address.as_str()];
        let mut servers = self.servers.lock();
        let up = self.backend_up.with_label_values(&labels);
        if servers.insert((upstream.to_owned(), address.clone())) {
            up.set(1);
        }
        ServerMetrics {
            up,
            tunnels: self.backend_tunnels.with_label_values(&labels),
            failures: self.backend_failures.clone(),
            upstream: upstream.to_owned(),
            address,
        }
    }

    /// A configuration came into force: shows at 0 every series whose labels it decides, so that a rate sees the first
    /// event, and takes back the servers that it no longer names. What only an event decides is shown with the first
    /// one: refusals, would-be refusals and failures by reason, plain answers by status, and `route="-"`.
    pub fn apply(&self, config: &Config) {
        for listener in &config.listeners {
            self.listener(&listener.name);
        }
        for route in &config.routes {
            self.show_route(config, route);
        }
        let mut named = BTreeSet::new();
        for upstream in &config.upstreams {
            self.backend_connect_duration.with_label_values(&[&upstream.name]);
            for server in &upstream.servers {
                self.server(&upstream.name, server.address);
                named.insert((upstream.name.clone(), server.address.to_string()));
            }
        }
        self.servers.lock().retain(|server| named.contains(server) || self.take_back(server));
    }

    /// A configuration was read and taken, at the start or on a reload.
    pub fn reload_succeeded(&self, now: SystemTime) {
        let since_epoch = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        self.reload_success_timestamp.set(i64::try_from(since_epoch.as_secs()).unwrap_or(i64::MAX));
        self.reload_successful.set(1);
    }

    /// A configuration was read and refused; the old one stays in force.
    pub fn reload_failed(&self) {
        self.reload_successful.set(0);
    }

    /// Every family that can be exposed, sorted by name, whether or not it has a series yet.
    pub fn families(&self) -> &[Family] {
        &self.families
    }

    /// The state of every series now.
    pub fn gather(&self) -> Vec<MetricFamily> {
        self.registry.gather()
    }

    fn show_route(&self, config: &Config, route: &model::Route) {
        let name = route.name.as_str();
        let upstream = &config.upstreams[route.upstream];
        self.route(name);
        self.handshake_duration.with_label_values(&[name]);
        self.tunnel_duration.with_label_values(&[name]);
        for by in By::ALL {
            self.tunnel_closes.with_label_values(&[name, by.as_str(), NO_CLOSE_CODE]);
        }
        for &listener in &route.listeners {
            for version in VERSIONS {
                self.upgrade_requests.with_label_values(&[&config.listeners[listener].name, name, version]);
            }
        }
        for served in &route.versions.served {
            let version = served.to_string();
            self.tunnels.with_label_values(&[name, &upstream.name, &version]);
            if upstream.versions.contains(served) {
                self.tunnels_opened.with_label_values(&[name, &upstream.name, &version, &version]);
            }
        }
    }

    /// A gone server would be reported as down, or up, for ever. Its count of tunnels stays as long as one is open.
    /// Answers whether the server is still exposed, which it never is.
    fn take_back(&self, (upstream, address): &(String, String)) -> bool {
        let labels = [upstream, address];
        // The only error is that there is no such series, which is what is wanted.
        let _ = self.backend_up.remove_label_values(&labels);
        if self.backend_tunnels.with_label_values(&labels).get() == 0 {
            let _ = self.backend_tunnels.remove_label_values(&labels);
        }
        false
    }
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics::new()
    }
}

const NO_LABELS: [&str; 0] = [];

fn single_gauge(family: &IntGaugeVec) -> IntGauge {
    family.with_label_values(&NO_LABELS)
}

/// One row of the table below.
#[derive(Clone, Copy)]
struct Row {
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
}

const fn row(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Row {
    Row { name, labels, help }
}

const UPGRADE_REQUESTS: Row = row(
    "wsgate_upgrade_requests_total",
    &["listener", "route", "version"],
    "Attempts to upgrade, by the WebSocket version asked for, before any decision.",
);
const REFUSALS: Row = row("wsgate_refusals_total", &["route", "reason"], "Requests that the gateway refused, by why.");
const WOULD_REFUSE: Row = row(
    "wsgate_would_refuse_total",
    &["route", "reason"],
    "Attempts let through by observe mode or a relaxed check that a strict route would have refused.",
);
const HANDSHAKE_DURATION: Row = row(
    "wsgate_handshake_duration_seconds",
    &["route"],
    "From the end of the request head to the 101 on its way to the client.",
);
const TUNNELS: Row = row("wsgate_tunnels", &["route", "upstream", "version"], "Tunnels open now.");
const TUNNELS_OPENED: Row = row(
    "wsgate_tunnels_total",
    &["route", "upstream", "version", "backend_version"],
    "Tunnels opened: the 101 went to the client.",
);
const TUNNEL_DURATION: Row =
    row("wsgate_tunnel_duration_seconds", &["route"], "From the 101 to the end of the tunnel, observed at the end.");
const TUNNEL_BYTES: Row = row(
    "wsgate_tunnel_bytes_total",
    &["route", "direction"],
    "Bytes relayed after the 101, frame headers included, counted while the tunnel lives.",
);
const TUNNEL_CLOSES: Row =
    row("wsgate_tunnel_closes_total", &["route", "by", "code"], "Tunnels ended, by who began the end.");
const CONNECTIONS: Row = row("wsgate_connections", &["listener"], "Open client connections now, tunnels included.");
const HTTP_REQUESTS: Row = row(
    "wsgate_http_requests_total",
    &["route", "status"],
    "Requests that were no upgrade, by the status of the answer.",
);
const BACKEND_UP: Row =
    row("wsgate_backend_up", &["upstream", "server"], "1 while the server gets new tunnels, 0 while it is out.");
const BACKEND_TUNNELS: Row = row("wsgate_backend_tunnels", &["upstream", "server"], "Tunnels open to the server now.");
const BACKEND_CONNECT_DURATION: Row = row(
    "wsgate_backend_connect_duration_seconds",
    &["upstream"],
    "Time to connect to a server, successful connections only.",
);
const BACKEND_FAILURES: Row = row(
    "wsgate_backend_failures_total",
    &["upstream", "server", "reason"],
    "Dials that gave no tunnel, by why, those retried on another server included.",
);
const DRAIN_REMAINING: Row =
    row("wsgate_drain_remaining", &[], "Tunnels still open during a drain, 0 at any other time.");
const RELOAD_SUCCESSFUL: Row =
    row("wsgate_config_last_reload_successful", &[], "Whether the configuration read last was taken.");
const RELOAD_SUCCESS_TIMESTAMP: Row = row(
    "wsgate_config_last_reload_success_timestamp_seconds",
    &[],
    "When a configuration was last taken, in Unix time.",
);
const ACCESS_LOG_DROPPED: Row = row(
    "wsgate_access_log_dropped_total",
    &[],
    "Access log lines thrown away because the queue was full or the file could not be written.",
);
const BUILD_INFO: Row = row("wsgate_build_info", &["version", "revision"], "Always 1: which build runs.");

/// Makes each family, registers it and keeps its row for [`Metrics::families`].
struct Define {
    registry: Registry,
    /// Sorted by name.
    families: Vec<Family>,
}

impl Define {
    fn counter(&mut self, row: Row) -> IntCounterVec {
        self.add(row.name, Kind::Counter, row.labels);
        let family = IntCounterVec::new(Opts::new(row.name, row.help), row.labels).expect(VALID);
        self.register(family)
    }

    fn gauge(&mut self, row: Row) -> IntGaugeVec {
        self.add(row.name, Kind::Gauge, row.labels);
        let family = IntGaugeVec::new(Opts::new(row.name, row.help), row.labels).expect(VALID);
        self.register(family)
    }

    fn histogram(&mut self, row: Row, buckets: &[f64]) -> HistogramVec {
        self.add(row.name, Kind::Histogram, row.labels);
        let opts = HistogramOpts::new(row.name, row.help).buckets(buckets.to_vec());
        let family = HistogramVec::new(opts, row.labels).expect(VALID);
        self.register(family)
    }

    /// `process_*`, named and typed by the collector, read from `/proc` at each scrape.
    fn process(&mut self) {
        let collector = ProcessCollector::for_self();
        for family in collector.collect() {
            let kind = if family.get_field_type() == MetricType::COUNTER { Kind::Counter } else { Kind::Gauge };
            self.add(family.name(), kind, &[]);
        }
        self.registry.register(Box::new(collector)).expect(ONCE);
    }

    fn add(&mut self, name: &str, kind: Kind, labels: &'static [&'static str]) {
        let at = self.families.partition_point(|family| family.name.as_str() < name);
        self.families.insert(at, Family { name: name.to_owned(), kind, labels });
    }

    fn register<C: Collector + Clone + 'static>(&self, family: C) -> C {
        self.registry.register(Box::new(family.clone())).expect(ONCE);
        family
    }
}

const VALID: &str = "the names and labels of the table are valid";
const ONCE: &str = "each family of the table is registered once";

#[cfg(test)]
mod tests {
    use super::*;

    fn value(metrics: &Metrics, family: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let families = metrics.gather();
        let family = families.iter().find(|candidate| candidate.name() == family)?;
        let has = |metric: &&prometheus::proto::Metric| {
            let found: Vec<(&str, &str)> =
                metric.get_label().iter().map(|label| (label.name(), label.value())).collect();
            labels.iter().all(|label| found.contains(label)) && found.len() == labels.len()
        };
        let metric = family.get_metric().iter().find(has)?;
        Some(metric.get_counter().get_value() + metric.get_gauge().get_value())
    }

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn every_family_has_a_name_help_and_unit_that_promtool_accepts() {
        let metrics = Metrics::new();
        for family in metrics.families() {
            assert_eq!(family.name.ends_with("_total"), family.kind == Kind::Counter, "{family:?}");
            assert_eq!(family.kind == Kind::Histogram, family.name.ends_with("_duration_seconds"), "{family:?}");
            assert!(family.name.starts_with("wsgate_") || family.name.starts_with("process_"), "{family:?}");
        }
        let sorted = metrics.families().windows(2).all(|pair| pair[0].name < pair[1].name);
        assert!(sorted, "{:?}", metrics.families());
        assert_eq!(metrics.families().len(), 27);
    }

    #[test]
    fn only_declared_families_are_exposed() {
        let metrics = Metrics::new();
        let gathered = metrics.gather();
        assert!(!gathered.is_empty());
        for family in gathered {
            assert!(metrics.families().iter().any(|declared| declared.name == family.name()), "{}", family.name());
        }
    }

    #[test]
    fn a_new_server_is_up_and_a_known_one_keeps_its_state() {
        let metrics = Metrics::new();
        let labels = [("upstream", "chat"), ("server", "127.0.0.1:9001")];
        let server = metrics.server("chat", address("127.0.0.1:9001"));
        assert_eq!(value(&metrics, "wsgate_backend_up", &labels), Some(1.0));
        server.up.set(0);
        server.tunnels.inc();
        metrics.server("chat", address("127.0.0.1:9001"));
        assert_eq!(value(&metrics, "wsgate_backend_up", &labels), Some(0.0));
        assert_eq!(value(&metrics, "wsgate_backend_tunnels", &labels), Some(1.0));
    }

    fn config(servers: &str) -> Config {
        let text = format!(
            "[[listener]]\nname = \"public\"\nlisten = \"127.0.0.1:0\"\n[[route]]\nname = \"chat\"\nupstream = \"chat\"\n\
             [[upstream]]\nname = \"chat\"\nservers = [{servers}]\n"
        );
        crate::config::parse("test.toml", &text, std::num::NonZeroUsize::MIN).unwrap()
    }

    #[test]
    fn what_the_configuration_decides_is_shown_at_0() {
        let metrics = Metrics::new();
        metrics.apply(&config(r#""127.0.0.1:9001""#));
        let series: [(&str, &[(&str, &str)]); 7] = [
            ("wsgate_connections", &[("listener", "public")]),
            ("wsgate_upgrade_requests_total", &[("listener", "public"), ("route", "chat"), ("version", "missing")]),
            ("wsgate_tunnels", &[("route", "chat"), ("upstream", "chat"), ("version", "13")]),
            ("wsgate_tunnel_bytes_total", &[("route", "chat"), ("direction", "to_client")]),
            ("wsgate_tunnel_closes_total", &[("route", "chat"), ("by", "operator"), ("code", "none")]),
            ("wsgate_backend_tunnels", &[("upstream", "chat"), ("server", "127.0.0.1:9001")]),
            ("wsgate_access_log_dropped_total", &[]),
        ];
        for (family, labels) in series {
            assert_eq!(value(&metrics, family, labels), Some(0.0), "{family}");
        }
    }

    #[test]
    fn a_server_that_is_no_longer_configured_is_taken_back_and_can_return() {
        let metrics = Metrics::new();
        let labels = [("upstream", "chat"), ("server", "127.0.0.1:9001")];
        metrics.apply(&config(r#""127.0.0.1:9001", "127.0.0.1:9002""#));
        let old = metrics.server("chat", address("127.0.0.1:9001"));
        old.up.set(0);
        metrics.apply(&config(r#""127.0.0.1:9002""#));
        assert_eq!(value(&metrics, "wsgate_backend_up", &labels), None);
        assert_eq!(value(&metrics, "wsgate_backend_tunnels", &labels), None);
        metrics.apply(&config(r#""127.0.0.1:9001""#));
        assert_eq!(value(&metrics, "wsgate_backend_up", &labels), Some(1.0));
    }

    #[test]
    fn failures_are_counted_by_server_and_reason() {
        let metrics = Metrics::new();
        let server = metrics.server("chat", address("[::1]:9001"));
        server.failed(Reason::BackendTimeout);
        let labels = [("upstream", "chat"), ("server", "[::1]:9001"), ("reason", "backend-timeout")];
        assert_eq!(value(&metrics, "wsgate_backend_failures_total", &labels), Some(1.0));
    }

    #[test]
    fn a_reload_is_shown_with_its_time() {
        let metrics = Metrics::new();
        metrics.reload_succeeded(UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000));
        let timestamp = "wsgate_config_last_reload_success_timestamp_seconds";
        assert_eq!(value(&metrics, timestamp, &[]), Some(1_700_000_000.0));
        assert_eq!(value(&metrics, "wsgate_config_last_reload_successful", &[]), Some(1.0));
        metrics.reload_failed();
        assert_eq!(value(&metrics, "wsgate_config_last_reload_successful", &[]), Some(0.0));
        assert_eq!(value(&metrics, timestamp, &[]), Some(1_700_000_000.0));
    }
}
