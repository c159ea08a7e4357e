//! The series of every family, by what they belong to. A label's value is of a closed set or a configured name, so a client
//! cannot make series. It does not know when anything happens (that is [`super::Observer`]) nor any exposition format
//! (that is `exposition`).

mod handles;

use std::collections::HashMap;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus::core::{Collector, MetricVec, MetricVecBuilder};
use prometheus::proto::MetricFamily;
use prometheus::{HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry};

use super::discovery::Discovery;
use super::families::{self, Define};
pub use super::families::{Family, Kind};
use crate::address::Address;
use crate::config::{Config, model};
use crate::reason::By;
pub use handles::{DirectionMetrics, ListenerMetrics, RouteMetrics, ServerMetrics, Situation, Standing, Turned};

/// The `route` label of a request that no route matched. No configured name looks like this.
pub const NO_ROUTE: &str = "-";

/// The `code` label of a tunnel whose end did not begin with a Close frame.
pub const NO_CLOSE_CODE: &str = "none";

/// The `version` labels: what a client can ask for.
pub const VERSIONS: [&str; 8] = ["hixie-75", "0", "7", "8", "13", "other", "missing", "malformed"];

/// The `reason` labels of a Redis that is of no use: no answer in time, no connection, an answer that is an error, and one that
/// forgot what it was told.
pub const SHARED_LIMITS_FAILURES: [&str; 4] = ["timeout", "connection", "answer", "lost"];

/// The source revision, where the build was told.
pub const REVISION: &str = match option_env!("WSGATE_REVISION") {
    Some(revision) => revision,
    None => "unknown",
};

/// The `kind` labels of a TLS handshake.
pub const FULL: &str = "full";
pub const RESUMED: &str = "resumed";

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
    pub(super) upgrade_requests: IntCounterVec,
    pub(super) refusals: IntCounterVec,
    pub(super) would_refuse: IntCounterVec,
    pub(super) handshake_duration: HistogramVec,
    pub(super) tunnels: IntGaugeVec,
    pub(super) tunnels_opened: IntCounterVec,
    pub(super) tunnel_duration: HistogramVec,
    pub(super) tunnel_bytes: IntCounterVec,
    tunnel_messages: IntCounterVec,
    broken_frames: IntCounterVec,
    pub(super) pings: IntCounterVec,
    pub(super) pong_timeouts: IntCounterVec,
    pub(super) tunnel_closes: IntCounterVec,
    connections: IntGaugeVec,
    http2_connections: IntGaugeVec,
    pub(super) tls_handshakes: IntCounterVec,
    pub(super) tls_handshake_failures: IntCounterVec,
    tls_not_after: IntGaugeVec,
    pub(super) http_requests: IntCounterVec,
    backend_up: IntGaugeVec,
    backend_versions: IntGaugeVec,
    backend_tunnels: IntGaugeVec,
    pub(super) backend_connect_duration: HistogramVec,
    pub(super) backend_failures: IntCounterVec,
    /// Names of servers.
    pub discovery: Discovery,
    backend_draining: IntGaugeVec,
    backend_transitions: IntCounterVec,
    backend_checks: IntCounterVec,
    backend_check_duration: HistogramVec,
    upstream_panic: IntGaugeVec,
    upstream_waiting: IntGaugeVec,
    pub(super) upstream_wait_timeouts: IntCounterVec,
    pub(super) reload_successful: IntGauge,
    pub(super) reload_success_timestamp: IntGauge,
    handover_timestamp: IntGauge,
    pub(super) shared_limits_up: IntGaugeVec,
    shared_limits_failures: IntCounterVec,
    /// Tunnels still open during a drain; 0 at any other time.
    pub drain_remaining: IntGauge,
    /// What [`super::AccessLog`] threw away.
    pub access_log_dropped: IntCounter,
}

impl Metrics {
    pub fn new() -> Metrics {
        let mut define = Define { registry: Registry::new(), families: Vec::new() };
        let build_info = define.gauge(families::BUILD_INFO);
        build_info.with_label_values(&[env!("CARGO_PKG_VERSION"), REVISION]).set(1);
        define.process();
        Metrics {
            upgrade_requests: define.counter(families::UPGRADE_REQUESTS),
            refusals: define.counter(families::REFUSALS),
            would_refuse: define.counter(families::WOULD_REFUSE),
            handshake_duration: define.histogram(families::HANDSHAKE_DURATION, &HANDSHAKE_SECONDS),
            tunnels: define.gauge(families::TUNNELS),
            tunnels_opened: define.counter(families::TUNNELS_OPENED),
            tunnel_duration: define.histogram(families::TUNNEL_DURATION, &TUNNEL_SECONDS),
            tunnel_bytes: define.counter(families::TUNNEL_BYTES),
            tunnel_messages: define.counter(families::TUNNEL_MESSAGES),
            broken_frames: define.counter(families::BROKEN_FRAMES),
            pings: sides(define.counter(families::PINGS)),
            pong_timeouts: sides(define.counter(families::PONG_TIMEOUTS)),
            tunnel_closes: define.counter(families::TUNNEL_CLOSES),
            connections: define.gauge(families::CONNECTIONS),
            http2_connections: define.gauge(families::HTTP2_CONNECTIONS),
            tls_handshakes: define.counter(families::TLS_HANDSHAKES),
            tls_handshake_failures: define.counter(families::TLS_HANDSHAKE_FAILURES),
            tls_not_after: define.gauge(families::TLS_NOT_AFTER),
            http_requests: define.counter(families::HTTP_REQUESTS),
            backend_up: define.gauge(families::BACKEND_UP),
            backend_versions: define.gauge(families::BACKEND_VERSIONS),
            backend_tunnels: define.gauge(families::BACKEND_TUNNELS),
            backend_connect_duration: define.histogram(families::BACKEND_CONNECT_DURATION, &CONNECT_SECONDS),
            backend_failures: define.counter(families::BACKEND_FAILURES),
            discovery: Discovery::new(&mut define),
            backend_draining: define.gauge(families::BACKEND_DRAINING),
            backend_transitions: define.counter(families::BACKEND_TRANSITIONS),
            backend_checks: define.counter(families::BACKEND_CHECKS),
            backend_check_duration: define.histogram(families::BACKEND_CHECK_DURATION, &CONNECT_SECONDS),
            upstream_panic: define.gauge(families::UPSTREAM_PANIC),
            upstream_waiting: define.gauge(families::UPSTREAM_WAITING),
            upstream_wait_timeouts: define.counter(families::UPSTREAM_WAIT_TIMEOUTS),
            reload_successful: single_gauge(&define.gauge(families::RELOAD_SUCCESSFUL)),
            reload_success_timestamp: single_gauge(&define.gauge(families::RELOAD_SUCCESS_TIMESTAMP)),
            handover_timestamp: single_gauge(&define.gauge(families::HANDOVER_TIMESTAMP)),
            drain_remaining: single_gauge(&define.gauge(families::DRAIN_REMAINING)),
            access_log_dropped: define.counter(families::ACCESS_LOG_DROPPED).with_label_values(&NO_LABELS),
            shared_limits_up: define.gauge(families::SHARED_LIMITS_UP),
            shared_limits_failures: define.counter(families::SHARED_LIMITS_FAILURES),
            registry: define.registry,
            families: define.families,
        }
    }

    pub fn route(&self, name: &str) -> RouteMetrics {
        RouteMetrics { from_client: self.direction(name, TO_BACKEND), from_backend: self.direction(name, TO_CLIENT) }
    }

    fn direction(&self, route: &str, direction: &str) -> DirectionMetrics {
        let messages = |kind| self.tunnel_messages.with_label_values(&[route, direction, kind]);
        DirectionMetrics {
            bytes: self.tunnel_bytes.with_label_values(&[route, direction]),
            text: messages("text"),
            binary: messages("binary"),
            ping: messages("ping"),
            pong: messages("pong"),
            close: messages("close"),
            broken: self.broken_frames.with_label_values(&[route, direction]),
        }
    }

    pub fn listener(&self, name: &str) -> ListenerMetrics {
        ListenerMetrics {
            connections: self.connections.with_label_values(&[name]),
            http2_connections: self.http2_connections.with_label_values(&[name]),
        }
    }

    pub fn server(&self, upstream: &str, address: &Address) -> ServerMetrics {
        ServerMetrics {
            failures: self.backend_failures.clone(),
            transitions: self.backend_transitions.clone(),
            checks: self.backend_checks.clone(),
            check_duration: self.backend_check_duration.clone(),
            upstream: upstream.to_owned(),
            address: address.to_string(),
        }
    }

    /// The servers as they stand now. One that is not among them is not shown: it would be reported as up, or down, for ever.
    /// For the one thread that exposes: another would see the moment between the old and the new.
    pub fn show_servers<'a>(&self, servers: impl Iterator<Item = Standing<'a>>) {
        self.backend_up.reset();
        self.backend_tunnels.reset();
        self.backend_versions.reset();
        self.backend_draining.reset();
        for Standing { upstream, address, up, draining, tunnels, learned } in servers {
            let address = address.to_string();
            let labels = [upstream, address.as_str()];
            self.backend_tunnels.with_label_values(&labels).set(tunnels as i64);
            if let Some(up) = up {
                self.backend_up.with_label_values(&labels).set(i64::from(up));
                self.backend_draining.with_label_values(&labels).set(i64::from(draining));
            }
            for version in learned.iter().flat_map(|learned| learned.iter()) {
                self.backend_versions.with_label_values(&[upstream, &address, version.name()]).set(1);
            }
        }
    }

    /// As [`Metrics::show_servers`], of the upstreams.
    pub fn show_upstreams<'a>(&self, upstreams: impl Iterator<Item = Situation<'a>>) {
        self.upstream_panic.reset();
        self.upstream_waiting.reset();
        for Situation { upstream, in_panic, waiting } in upstreams {
            self.upstream_panic.with_label_values(&[upstream]).set(i64::from(in_panic));
            self.upstream_waiting.with_label_values(&[upstream]).set(waiting as i64);
        }
    }

    /// A configuration came into force: shows at 0 every series whose labels it decides, so that a rate sees the first
    /// event. What only an event decides is shown with the first one: refusals, would-be refusals and failures by reason,
    /// plain answers by status, and `route="-"`. What a server is doing is shown by [`Metrics::show_servers`].
    pub fn apply(&self, config: &Config) {
        for listener in &config.listeners {
            self.listener(&listener.name);
            if listener.tls.is_some() {
                self.show_handshakes(&listener.name);
            }
        }
        for route in &config.routes {
            self.show_route(config, route);
        }
        for upstream in &config.upstreams {
            self.backend_connect_duration.with_label_values(&[&upstream.name]);
            self.upstream_wait_timeouts.with_label_values(&[&upstream.name]);
        }
    }

    /// No configuration names the route any more, and no tunnel of it is left: its series go, or names that come and go would
    /// fill the memory. If it returns, its counters begin at 0.
    pub fn forget_route(&self, route: &str) {
        let label = [("route", route)];
        forget(&self.upgrade_requests, &label);
        forget(&self.refusals, &label);
        forget(&self.would_refuse, &label);
        forget(&self.handshake_duration, &label);
        forget(&self.tunnels, &label);
        forget(&self.tunnels_opened, &label);
        forget(&self.tunnel_duration, &label);
        forget(&self.tunnel_bytes, &label);
        forget(&self.tunnel_messages, &label);
        forget(&self.broken_frames, &label);
        forget(&self.tunnel_closes, &label);
        forget(&self.http_requests, &label);
    }

    /// As [`Metrics::forget_route`], of an upstream.
    pub fn forget_upstream(&self, upstream: &str) {
        let label = [("upstream", upstream)];
        forget(&self.tunnels, &label);
        forget(&self.tunnels_opened, &label);
        forget(&self.backend_connect_duration, &label);
        forget(&self.backend_check_duration, &label);
        forget(&self.upstream_wait_timeouts, &label);
    }

    /// As [`Metrics::forget_route`], of a server.
    pub fn forget_server(&self, upstream: &str, address: &Address) {
        let address = address.to_string();
        let labels = [("upstream", upstream), ("server", address.as_str())];
        forget(&self.backend_failures, &labels);
        forget(&self.backend_transitions, &labels);
        forget(&self.backend_checks, &labels);
    }

    /// The certificates that are shown now, by file. One that is not among them is not shown: it would seem to expire for ever.
    pub fn show_certificates<'a>(&self, certificates: impl Iterator<Item = (&'a Path, SystemTime)>) {
        self.tls_not_after.reset();
        for (file, not_after) in certificates {
            self.tls_not_after.with_label_values(&[&file.display().to_string()]).set(unix_seconds(not_after));
        }
    }

    /// A configuration was read and taken, at the start or on a reload.
    pub fn reload_succeeded(&self, now: SystemTime) {
        self.reload_success_timestamp.set(unix_seconds(now));
        self.reload_successful.set(1);
    }

    /// Whether limits are shared with other gateways; `None` where the configuration does not ask for it, and nothing is
    /// shown.
    pub fn show_shared_limits(&self, is_up: Option<bool>) {
        let Some(is_up) = is_up else {
            self.shared_limits_up.reset();
            return;
        };
        self.shared_limits_up.with_label_values(&NO_LABELS).set(i64::from(is_up));
        for reason in SHARED_LIMITS_FAILURES {
            self.shared_limits_failures.with_label_values(&[reason]);
        }
    }

    /// `reason` is of [`SHARED_LIMITS_FAILURES`].
    pub fn shared_limits_failed(&self, reason: &'static str) {
        self.shared_limits_failures.with_label_values(&[reason]).inc();
    }

    /// The process took the sockets of another one over.
    pub fn taken_over(&self, now: SystemTime) {
        self.handover_timestamp.set(unix_seconds(now));
    }

    /// What was refused for its files alone can be used again.
    pub fn reload_is_good(&self) {
        self.reload_successful.set(1);
    }

    /// A configuration was read and refused, or a file that it names; the old one stays in force.
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

    fn show_handshakes(&self, listener: &str) {
        for version in ["1.2", "1.3"] {
            for kind in [FULL, RESUMED] {
                self.tls_handshakes.with_label_values(&[listener, version, kind]);
            }
        }
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
        for asked in &route.versions.accept {
            self.tunnels.with_label_values(&[name, upstream.name.as_str(), asked.name()]);
            if let model::Spoken::Listed(spoken) = &upstream.versions
                && let Some(towards) = asked.towards(spoken)
            {
                self.tunnels_opened.with_label_values(&[name, &upstream.name, asked.name(), towards.name()]);
            }
        }
    }
}

/// Takes out every series of the family that has these labels, whatever its others are.
pub(super) fn forget<B: MetricVecBuilder>(family: &MetricVec<B>, labels: &[(&str, &str)]) {
    for metric in family.collect().iter().flat_map(MetricFamily::get_metric) {
        let series: HashMap<&str, &str> =
            metric.get_label().iter().map(|label| (label.name(), label.value())).collect();
        if labels.iter().all(|(name, value)| series.get(name) == Some(value)) {
            // The only error is that there is no such series, which is what is wanted.
            let _ = family.remove(&series);
        }
    }
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics::new()
    }
}

const NO_LABELS: [&str; 0] = [];

/// Both series of a family are there from the start.
fn sides(family: IntCounterVec) -> IntCounterVec {
    for side in ["client", "backend"] {
        family.with_label_values(&[side]);
    }
    family
}

pub(super) fn unix_seconds(time: SystemTime) -> i64 {
    let since_epoch = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_epoch.as_secs()).unwrap_or(i64::MAX)
}

fn single_gauge(family: &IntGaugeVec) -> IntGauge {
    family.with_label_values(&NO_LABELS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reason::Reason;

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

    fn address(text: &str) -> Address {
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
        assert!(metrics.families().len() > 35, "{}", metrics.families().len());
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
    fn only_the_servers_of_now_are_shown_and_a_gone_one_is_neither_up_nor_down() {
        let metrics = Metrics::new();
        let labels = |server| [("upstream", "chat"), ("server", server)];
        let (first, second) = ("127.0.0.1:9001", "127.0.0.1:9002");
        let addresses = [address(first), address(second)];
        let standing = |server, up, tunnels| Standing {
            upstream: "chat",
            address: server,
            up,
            draining: false,
            tunnels,
            learned: None,
        };
        let [one, other] = &addresses;
        metrics.show_servers([standing(one, Some(true), 1), standing(other, Some(false), 0)].into_iter());
        assert_eq!(value(&metrics, "wsgate_backend_up", &labels(first)), Some(1.0));
        assert_eq!(value(&metrics, "wsgate_backend_up", &labels(second)), Some(0.0));
        metrics.show_servers([standing(one, None, 1)].into_iter());
        assert_eq!(value(&metrics, "wsgate_backend_up", &labels(first)), None);
        assert_eq!(value(&metrics, "wsgate_backend_tunnels", &labels(first)), Some(1.0));
        assert_eq!(value(&metrics, "wsgate_backend_tunnels", &labels(second)), None);
    }

    fn config() -> Config {
        let text = "[[listener]]\nname = \"public\"\nlisten = \"127.0.0.1:0\"\n[[route]]\nname = \"chat\"\nupstream = \"chat\"\n\
                    [[upstream]]\nname = \"chat\"\nservers = [\"127.0.0.1:9001\"]\n";
        crate::config::parse("test.toml", text, std::num::NonZeroUsize::MIN).unwrap()
    }

    #[test]
    fn what_the_configuration_decides_is_shown_at_0() {
        let metrics = Metrics::new();
        metrics.apply(&config());
        let series: [(&str, &[(&str, &str)]); 6] = [
            ("wsgate_connections", &[("listener", "public")]),
            ("wsgate_upgrade_requests_total", &[("listener", "public"), ("route", "chat"), ("version", "missing")]),
            ("wsgate_tunnels", &[("route", "chat"), ("upstream", "chat"), ("version", "13")]),
            ("wsgate_tunnel_bytes_total", &[("route", "chat"), ("direction", "to_client")]),
            ("wsgate_tunnel_closes_total", &[("route", "chat"), ("by", "operator"), ("code", "none")]),
            ("wsgate_access_log_dropped_total", &[]),
        ];
        for (family, labels) in series {
            assert_eq!(value(&metrics, family, labels), Some(0.0), "{family}");
        }
    }

    #[test]
    fn what_is_forgotten_leaves_no_series_and_takes_none_of_another_name() {
        let metrics = Metrics::new();
        let before = series(&metrics);
        metrics.apply(&config());
        metrics.refusals.with_label_values(&["chat", "no-route"]).inc();
        metrics.server("chat", &address("127.0.0.1:9001")).failed(Reason::BackendTimeout);
        metrics.refusals.with_label_values(&["chat2", "no-route"]).inc();
        metrics.server("chat2", &address("127.0.0.1:9001")).failed(Reason::BackendTimeout);
        metrics.forget_route("chat");
        metrics.forget_upstream("chat");
        metrics.forget_server("chat", &address("127.0.0.1:9001"));
        // The listener stays, since a reload takes none away.
        assert_eq!(series(&metrics), before + 4);
        let labels = [("upstream", "chat2"), ("server", "127.0.0.1:9001"), ("reason", "backend-timeout")];
        assert_eq!(value(&metrics, "wsgate_backend_failures_total", &labels), Some(1.0));
    }

    fn series(metrics: &Metrics) -> usize {
        metrics.gather().iter().map(|family| family.get_metric().len()).sum()
    }

    #[test]
    fn failures_are_counted_by_server_and_reason() {
        let metrics = Metrics::new();
        let server = metrics.server("chat", &address("[::1]:9001"));
        server.failed(Reason::BackendTimeout);
        let labels = [("upstream", "chat"), ("server", "[::1]:9001"), ("reason", "backend-timeout")];
        assert_eq!(value(&metrics, "wsgate_backend_failures_total", &labels), Some(1.0));
    }

    #[test]
    fn a_hand_over_is_shown_with_its_time() {
        let metrics = Metrics::new();
        assert_eq!(value(&metrics, "wsgate_handover_timestamp_seconds", &[]), Some(0.0));
        metrics.taken_over(UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000));
        assert_eq!(value(&metrics, "wsgate_handover_timestamp_seconds", &[]), Some(1_700_000_000.0));
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
