//! One look at the counters, for a reader that wants numbers by route and server and not an exposition. It reads the same
//! families that `/metrics` exposes and keeps no count of its own. It knows no configuration: where nothing was counted,
//! there are empty counts.

use std::collections::{BTreeMap, HashMap};

use prometheus::core::Collector;
use prometheus::proto::{Metric, MetricFamily};
use serde::Serialize;

use super::metrics::{Metrics, NO_ROUTE};

/// A count for each value of one label.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Counts(BTreeMap<String, u64>);

impl Counts {
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }

    fn add(&mut self, value: String, count: u64) {
        *self.0.entry(value).or_default() += count;
    }
}

/// What was counted for one route, over all its listeners, upstreams and close codes.
#[derive(Clone, Debug, Default)]
pub struct RouteCounts {
    /// Attempts to upgrade, by the version asked for.
    pub asked: Counts,
    /// By reason.
    pub refusals: Counts,
    /// By reason.
    pub would_refuse: Counts,
    /// Open now, by the version asked for.
    pub tunnels: Counts,
    /// By direction.
    pub bytes: Counts,
    /// By who began the end.
    pub closes: Counts,
}

/// All that the counters said at one moment.
#[derive(Debug, Default)]
pub struct Reading {
    routes: HashMap<String, RouteCounts>,
    /// By upstream and address.
    failures: HashMap<(String, String), Counts>,
    /// By upstream and name.
    discovered: HashMap<(String, String), Discovered>,
    pub reload: Reload,
    /// Whether limits are shared with other gateways; `None` where the configuration does not ask for it.
    pub shares_limits: Option<bool>,
}

/// What a name of servers came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Discovered {
    pub servers: u64,
    /// When name servers last said something of it, in seconds of Unix time.
    pub last_success_time: u64,
}

/// How reading the configuration went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reload {
    /// Whether the configuration read last was taken.
    pub last_successful: bool,
    /// When one was last taken, in seconds of Unix time.
    pub last_success_time: i64,
}

impl Reading {
    /// Reads each family that is wanted once, and not the rest: `process_*` alone would list every open descriptor.
    pub fn take(metrics: &Metrics) -> Reading {
        let mut reading = Reading {
            reload: Reload {
                last_successful: metrics.reload_successful.get() == 1,
                last_success_time: metrics.reload_success_timestamp.get(),
            },
            ..Reading::default()
        };
        let gauge = metrics.shared_limits_up.collect();
        let mut series = gauge.iter().flat_map(MetricFamily::get_metric);
        reading.shares_limits = series.next().map(|metric| metric.get_gauge().get_value() > 0.0);
        reading.count_routes(&metrics.upgrade_requests, "version", |route| &mut route.asked);
        reading.count_routes(&metrics.refusals, "reason", |route| &mut route.refusals);
        reading.count_routes(&metrics.would_refuse, "reason", |route| &mut route.would_refuse);
        reading.count_routes(&metrics.tunnels, "version", |route| &mut route.tunnels);
        reading.count_routes(&metrics.tunnel_bytes, "direction", |route| &mut route.bytes);
        reading.count_routes(&metrics.tunnel_closes, "by", |route| &mut route.closes);
        for metric in metrics.backend_failures.collect().iter().flat_map(MetricFamily::get_metric) {
            let server = (label(metric, "upstream"), label(metric, "server"));
            reading.failures.entry(server).or_default().add(label(metric, "reason"), value(metric));
        }
        for (family, field) in [
            (&metrics.discovery.servers, (|found| &mut found.servers) as fn(&mut Discovered) -> &mut u64),
            (&metrics.discovery.last_success, |found| &mut found.last_success_time),
        ] {
            for metric in family.collect().iter().flat_map(MetricFamily::get_metric) {
                let name = (label(metric, "upstream"), label(metric, "name"));
                *field(reading.discovered.entry(name).or_default()) = value(metric);
            }
        }
        reading
    }

    pub fn discovered(&self, upstream: &str, name: &str) -> Discovered {
        self.discovered.get(&(upstream.to_owned(), name.to_owned())).copied().unwrap_or_default()
    }

    pub fn route(&self, name: &str) -> RouteCounts {
        self.routes.get(name).cloned().unwrap_or_default()
    }

    /// Of requests that no route matched, or that were refused before one was asked.
    pub fn without_route(&self) -> RouteCounts {
        self.route(NO_ROUTE)
    }

    /// Dials that gave no tunnel, by reason.
    pub fn failures(&self, upstream: &str, address: &str) -> Counts {
        self.failures.get(&(upstream.to_owned(), address.to_owned())).cloned().unwrap_or_default()
    }

    /// Open tunnels of all routes, those included that are no longer configured.
    pub fn tunnels(&self) -> u64 {
        self.routes.values().map(|route| route.tunnels.total()).sum()
    }

    fn count_routes(&mut self, family: &impl Collector, by: &str, place: fn(&mut RouteCounts) -> &mut Counts) {
        for metric in family.collect().iter().flat_map(MetricFamily::get_metric) {
            let route = self.routes.entry(label(metric, "route")).or_default();
            place(route).add(label(metric, by), value(metric));
        }
    }
}

fn label(metric: &Metric, name: &str) -> String {
    let label = metric.get_label().iter().find(|label| label.name() == name);
    label.map_or_else(String::new, |label| label.value().to_owned())
}

/// Of a counter or a gauge: the other of the two is 0.
#[expect(clippy::cast_possible_truncation, reason = "counts are whole, and none falls below 0")]
fn value(metric: &Metric) -> u64 {
    (metric.get_counter().get_value() + metric.get_gauge().get_value()) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reason::Reason;

    fn counts(entries: &[(&str, u64)]) -> Counts {
        Counts(entries.iter().map(|(value, count)| ((*value).to_owned(), *count)).collect())
    }

    #[test]
    fn a_route_is_counted_over_all_its_listeners_upstreams_and_codes() {
        let metrics = Metrics::new();
        for listener in ["public", "internal"] {
            metrics.upgrade_requests.with_label_values(&[listener, "chat", "8"]).inc_by(2);
        }
        metrics.upgrade_requests.with_label_values(&["public", "chat", "13"]).inc();
        metrics.upgrade_requests.with_label_values(&["public", "other", "13"]).inc();
        for upstream in ["old", "new"] {
            metrics.tunnels.with_label_values(&["chat", upstream, "13"]).inc();
        }
        for code in ["1000", "none"] {
            metrics.tunnel_closes.with_label_values(&["chat", "client", code]).inc();
        }
        let reading = Reading::take(&metrics);
        let chat = reading.route("chat");
        assert_eq!(chat.asked, counts(&[("13", 1), ("8", 4)]));
        assert_eq!(chat.tunnels, counts(&[("13", 2)]));
        assert_eq!(chat.closes, counts(&[("client", 2)]));
        assert_eq!(reading.tunnels(), 2);
    }

    #[test]
    fn refusals_before_a_route_was_found_stand_apart() {
        let metrics = Metrics::new();
        metrics.refusals.with_label_values(&[NO_ROUTE, "no-route"]).inc();
        metrics.refusals.with_label_values(&["chat", "origin-refused"]).inc();
        let reading = Reading::take(&metrics);
        assert_eq!(reading.without_route().refusals, counts(&[("no-route", 1)]));
        assert_eq!(reading.route("chat").refusals, counts(&[("origin-refused", 1)]));
    }

    #[test]
    fn failures_are_those_of_one_server() {
        let metrics = Metrics::new();
        metrics.server("chat", &"127.0.0.1:9001".parse().unwrap()).failed(Reason::BackendTimeout);
        let reading = Reading::take(&metrics);
        assert_eq!(reading.failures("chat", "127.0.0.1:9001"), counts(&[("backend-timeout", 1)]));
        assert_eq!(reading.failures("chat", "127.0.0.1:9002"), Counts::default());
    }

    #[test]
    fn what_was_never_counted_is_empty() {
        let reading = Reading::take(&Metrics::new());
        assert_eq!(reading.route("chat").asked, Counts::default());
        assert_eq!((reading.tunnels(), reading.reload), (0, Reload::default()));
    }
}
