//! Every metric family of the product in one place: name, labels, type, help. It does not know when anything happens, nor
//! what is counted where.

use prometheus::core::Collector;
use prometheus::process_collector::ProcessCollector;
use prometheus::proto::MetricType;
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry};

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

/// One row of the table below.
#[derive(Clone, Copy)]
pub(super) struct Row {
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
}

const fn row(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Row {
    Row { name, labels, help }
}

pub(super) const UPGRADE_REQUESTS: Row = row(
    "wsgate_upgrade_requests_total",
    &["listener", "route", "version"],
    "Attempts to upgrade, by the WebSocket version asked for, before any decision.",
);
pub(super) const REFUSALS: Row =
    row("wsgate_refusals_total", &["route", "reason"], "Requests that the gateway refused, by why.");
pub(super) const WOULD_REFUSE: Row = row(
    "wsgate_would_refuse_total",
    &["route", "reason"],
    "Attempts let through by observe mode or a relaxed check that a strict route would have refused.",
);
pub(super) const HANDSHAKE_DURATION: Row = row(
    "wsgate_handshake_duration_seconds",
    &["route"],
    "From the end of the request head to the 101 on its way to the client.",
);
pub(super) const TUNNELS: Row = row("wsgate_tunnels", &["route", "upstream", "version"], "Tunnels open now.");
pub(super) const TUNNELS_OPENED: Row = row(
    "wsgate_tunnels_total",
    &["route", "upstream", "version", "backend_version"],
    "Tunnels opened: the 101 went to the client.",
);
pub(super) const TUNNEL_DURATION: Row =
    row("wsgate_tunnel_duration_seconds", &["route"], "From the 101 to the end of the tunnel, observed at the end.");
pub(super) const TUNNEL_BYTES: Row = row(
    "wsgate_tunnel_bytes_total",
    &["route", "direction"],
    "Bytes relayed after the 101, frame headers included, counted while the tunnel lives.",
);
pub(super) const TUNNEL_MESSAGES: Row = row(
    "wsgate_tunnel_messages_total",
    &["route", "direction", "kind"],
    "Messages and control frames relayed whole, counted while the tunnel lives; the gateway's own are not among them.",
);
pub(super) const BROKEN_FRAMES: Row = row(
    "wsgate_broken_frames_total",
    &["route", "direction"],
    "Frames that broke RFC 6455: the first of a tunnel, after which it is blind or ends.",
);
pub(super) const PINGS: Row = row("wsgate_pings_total", &["side"], "Pings that the gateway sent to a side.");
pub(super) const PONG_TIMEOUTS: Row = row(
    "wsgate_pong_timeouts_total",
    &["side"],
    "Tunnels ended because a side stayed silent after a Ping, or took nothing for as long.",
);
pub(super) const TUNNEL_CLOSES: Row = row(
    "wsgate_tunnel_closes_total",
    &["route", "by", "code"],
    "Tunnels ended, by who began the end and the code of the Close frame that began it.",
);
pub(super) const CONNECTIONS: Row =
    row("wsgate_connections", &["listener"], "Open client connections now, tunnels included.");
pub(super) const TLS_HANDSHAKES: Row = row(
    "wsgate_tls_handshakes_total",
    &["listener", "tls", "kind"],
    "TLS handshakes with clients that came to a good end, by whether a session was resumed.",
);
pub(super) const TLS_HANDSHAKE_FAILURES: Row = row(
    "wsgate_tls_handshake_failures_total",
    &["listener", "reason"],
    "Clients with which TLS was not agreed on, by why.",
);
pub(super) const TLS_NOT_AFTER: Row = row(
    "wsgate_tls_certificate_not_after_timestamp_seconds",
    &["certificate"],
    "When a certificate that the gateway shows expires, in Unix time, by its file.",
);
pub(super) const HTTP2_CONNECTIONS: Row =
    row("wsgate_http2_connections", &["listener"], "Those of the open client connections that speak HTTP/2.");
pub(super) const HTTP_REQUESTS: Row = row(
    "wsgate_http_requests_total",
    &["route", "status"],
    "Requests that were no upgrade, by the status of the answer.",
);
pub(super) const BACKEND_UP: Row =
    row("wsgate_backend_up", &["upstream", "server"], "1 while the server gets new tunnels, 0 while it is out.");
pub(super) const BACKEND_VERSIONS: Row = row(
    "wsgate_backend_versions",
    &["upstream", "server", "version"],
    "1 for each version that a server was heard to speak, where the configuration has servers asked.",
);
pub(super) const BACKEND_TUNNELS: Row =
    row("wsgate_backend_tunnels", &["upstream", "server"], "Tunnels open to the server now.");
pub(super) const BACKEND_CONNECT_DURATION: Row = row(
    "wsgate_backend_connect_duration_seconds",
    &["upstream"],
    "Time to connect to a server, successful connections only.",
);
pub(super) const BACKEND_FAILURES: Row = row(
    "wsgate_backend_failures_total",
    &["upstream", "server", "reason"],
    "Dials that gave no tunnel, by why, those retried on another server included.",
);
pub(super) const DISCOVERY_LOOKUPS: Row = row(
    "wsgate_discovery_lookups_total",
    &["upstream", "name", "result"],
    "Times that name servers were asked for a name of servers, by how it ended.",
);
pub(super) const DISCOVERY_SERVERS: Row =
    row("wsgate_discovery_servers", &["upstream", "name"], "Servers that the name stands for now.");
pub(super) const DISCOVERY_LAST_SUCCESS: Row = row(
    "wsgate_discovery_last_success_timestamp_seconds",
    &["upstream", "name"],
    "When name servers last said something of the name, 0 before they did.",
);
pub(super) const BACKEND_DRAINING: Row = row(
    "wsgate_backend_draining",
    &["upstream", "server"],
    "1 while the configuration drains the server, so that it gets nothing new.",
);
pub(super) const BACKEND_TRANSITIONS: Row = row(
    "wsgate_backend_transitions_total",
    &["upstream", "server", "to"],
    "Times that a server went down or came back up.",
);
pub(super) const BACKEND_CHECKS: Row =
    row("wsgate_backend_checks_total", &["upstream", "server", "result"], "Checks of a server, by how they went.");
pub(super) const BACKEND_CHECK_DURATION: Row = row(
    "wsgate_backend_check_duration_seconds",
    &["upstream"],
    "Time that a check of a server took, whatever it came to.",
);
pub(super) const UPSTREAM_PANIC: Row = row(
    "wsgate_upstream_panic",
    &["upstream"],
    "1 while too few servers of the upstream are up, so that all of them are used.",
);
pub(super) const UPSTREAM_WAITING: Row =
    row("wsgate_upstream_waiting", &["upstream"], "Handshakes that wait for a server with room now.");
pub(super) const UPSTREAM_WAIT_TIMEOUTS: Row = row(
    "wsgate_upstream_wait_timeouts_total",
    &["upstream"],
    "Handshakes that waited for a server with room until their time was up.",
);
pub(super) const DRAIN_REMAINING: Row =
    row("wsgate_drain_remaining", &[], "Tunnels still open during a drain, 0 at any other time.");
pub(super) const RELOAD_SUCCESSFUL: Row =
    row("wsgate_config_last_reload_successful", &[], "Whether the configuration read last was taken.");
pub(super) const RELOAD_SUCCESS_TIMESTAMP: Row = row(
    "wsgate_config_last_reload_success_timestamp_seconds",
    &[],
    "When a configuration was last taken, in Unix time.",
);
pub(super) const HANDOVER_TIMESTAMP: Row = row(
    "wsgate_handover_timestamp_seconds",
    &[],
    "When this process took the sockets of another one over, in Unix time; 0 if it did not.",
);
pub(super) const ACCESS_LOG_DROPPED: Row = row(
    "wsgate_access_log_dropped_total",
    &[],
    "Access log lines thrown away because the queue was full or the file could not be written.",
);
pub(super) const SHARED_LIMITS_UP: Row = row(
    "wsgate_shared_limits_up",
    &[],
    "1 while clients are counted over all gateways, 0 while each counts for itself because Redis is of no use.",
);
pub(super) const SHARED_LIMITS_FAILURES: Row = row(
    "wsgate_shared_limits_failures_total",
    &["reason"],
    "Times that Redis was of no use for shared limits, by why.",
);
pub(super) const BUILD_INFO: Row = row("wsgate_build_info", &["version", "revision"], "Always 1: which build runs.");

/// Makes each family, registers it and keeps its row for [`Metrics::families`].
pub(super) struct Define {
    pub registry: Registry,
    /// Sorted by name.
    pub families: Vec<Family>,
}

impl Define {
    pub fn counter(&mut self, row: Row) -> IntCounterVec {
        self.add(row.name, Kind::Counter, row.labels);
        let family = IntCounterVec::new(Opts::new(row.name, row.help), row.labels).expect(VALID);
        self.register(family)
    }

    pub fn gauge(&mut self, row: Row) -> IntGaugeVec {
        self.add(row.name, Kind::Gauge, row.labels);
        let family = IntGaugeVec::new(Opts::new(row.name, row.help), row.labels).expect(VALID);
        self.register(family)
    }

    pub fn histogram(&mut self, row: Row, buckets: &[f64]) -> HistogramVec {
        self.add(row.name, Kind::Histogram, row.labels);
        let opts = HistogramOpts::new(row.name, row.help).buckets(buckets.to_vec());
        let family = HistogramVec::new(opts, row.labels).expect(VALID);
        self.register(family)
    }

    /// `process_*`, named and typed by the collector, read from `/proc` at each scrape.
    pub fn process(&mut self) {
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
