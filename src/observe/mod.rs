//! What the gateway tells of itself: one event a fact, which feeds the access log and the metrics together, so that the
//! two cannot disagree. It does not know who causes an event, nor who reads what comes of it.

mod access_log;
pub mod discovery;
pub mod event;
pub mod exposition;
mod families;
mod line;
pub mod metrics;
mod openmetrics;
pub mod reading;

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use prometheus::IntGauge;

pub use access_log::AccessLog;
pub use event::{Answered, Closed, Opened, Passed, Refused, Request, RequestId};
pub use metrics::Metrics;

use crate::reason::Reason;
use line::Line;
use metrics::NO_ROUTE;

/// Where every event goes. One for the life of the process.
pub struct Observer {
    metrics: Arc<Metrics>,
    access_log: AccessLog,
}

/// Counts one open tunnel for as long as it lives.
#[must_use = "a tunnel counts as closed when this is dropped"]
#[derive(Debug)]
pub struct OpenTunnel {
    tunnels: IntGauge,
}

impl Drop for OpenTunnel {
    fn drop(&mut self) {
        self.tunnels.dec();
    }
}

impl Observer {
    pub fn new(metrics: Arc<Metrics>, access_log: AccessLog) -> Observer {
        Observer { metrics, access_log }
    }

    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    pub fn access_log(&self) -> &AccessLog {
        &self.access_log
    }

    /// Opens the access log by its path again, after a rotation renamed it. On an error the old file stays.
    pub fn reopen_log(&self) -> io::Result<()> {
        self.access_log.reopen()
    }

    /// Somebody tried to upgrade; nothing is decided yet. `asked` is of [`metrics::VERSIONS`].
    pub fn upgrade_requested(&self, listener: &str, route: Option<&str>, asked: &'static str) {
        self.metrics.upgrade_requests.with_label_values(&[listener, route.unwrap_or(NO_ROUTE), asked]).inc();
    }

    /// TLS was agreed on with a client.
    pub fn tls_agreed(&self, listener: &str, version: &'static str, is_resumed: bool) {
        let kind = if is_resumed { metrics::RESUMED } else { metrics::FULL };
        self.metrics.tls_handshakes.with_label_values(&[listener, version, kind]).inc();
    }

    /// TLS was not agreed on with a client. `reason` is of a closed set.
    pub fn tls_failed(&self, listener: &str, reason: &'static str) {
        self.metrics.tls_handshake_failures.with_label_values(&[listener, reason]).inc();
    }

    /// Observe mode or a relaxed check let something pass. The line of the tunnel names it: [`Opened::would_refuse`].
    pub fn would_refuse(&self, route: &str, reason: Reason) {
        self.metrics.would_refuse.with_label_values(&[route, reason.code()]).inc();
    }

    /// A refused request that was no upgrade also counts as answered, so it must not be passed to [`Self::answered`].
    pub fn refused(&self, event: &Refused<'_>) {
        let route = event.request.route.unwrap_or(NO_ROUTE);
        self.metrics.refusals.with_label_values(&[route, event.reason.code()]).inc();
        if event.request.asked.is_none() {
            self.count_http(route, event.status);
        }
        self.access_log.write(|| Line::refused(event, SystemTime::now()).to_bytes());
    }

    pub fn opened(&self, event: &Opened<'_>) -> OpenTunnel {
        let route = event.request.route.unwrap_or(NO_ROUTE);
        let version = event.request.asked.unwrap_or(MISSING);
        self.metrics.handshake_duration.with_label_values(&[route]).observe(event.handshake.as_secs_f64());
        self.metrics.tunnels_opened.with_label_values(&[route, event.upstream, version, event.spoken]).inc();
        let tunnels = self.metrics.tunnels.with_label_values(&[route, event.upstream, version]);
        tunnels.inc();
        self.access_log.write(|| Line::opened(event, SystemTime::now()).to_bytes());
        OpenTunnel { tunnels }
    }

    pub fn closed(&self, event: &Closed<'_>) {
        let by = event.reason.by().as_str();
        self.metrics.tunnel_closes.with_label_values(&[event.route, by, event.code]).inc();
        self.metrics.tunnel_duration.with_label_values(&[event.route]).observe(event.duration.as_secs_f64());
        self.access_log.write(|| Line::closed(event, SystemTime::now()).to_bytes());
    }

    /// The gateway sent a Ping to a side: `client` or `backend`.
    pub fn pinged(&self, side: &str) {
        self.metrics.pings.with_label_values(&[side]).inc();
    }

    /// A side did not answer a Ping, nor say anything else.
    pub fn pong_missed(&self, side: &str) {
        self.metrics.pong_timeouts.with_label_values(&[side]).inc();
    }

    pub fn answered(&self, event: &Answered<'_>) {
        self.count_http(event.request.route.unwrap_or(NO_ROUTE), event.status);
        self.access_log.write(|| Line::answered(event, SystemTime::now()).to_bytes());
    }

    /// A connection to a server of the upstream was made in this time.
    pub fn connected(&self, upstream: &str, duration: Duration) {
        self.metrics.backend_connect_duration.with_label_values(&[upstream]).observe(duration.as_secs_f64());
    }

    /// A handshake waited for a server with room until its time was up.
    pub fn waited_in_vain(&self, upstream: &str) {
        self.metrics.upstream_wait_timeouts.with_label_values(&[upstream]).inc();
    }

    fn count_http(&self, route: &str, status: u16) {
        // Three digits whatever comes.
        let status = format!("{:03}", status.min(999));
        self.metrics.http_requests.with_label_values(&[route, &status]).inc();
    }
}

/// The version of a tunnel whose request named none.
const MISSING: &str = "missing";

#[cfg(test)]
mod tests {
    use super::line::tests::request;
    use super::*;
    use crate::config::model;

    fn observer() -> Observer {
        let metrics = Arc::new(Metrics::new());
        let access_log = AccessLog::open(&model::AccessLog::Off, metrics.access_log_dropped.clone()).unwrap();
        Observer::new(metrics, access_log)
    }

    fn check(observer: &Observer, expected: &str) {
        let (_, text) = exposition::render(observer.metrics(), None);
        let text = String::from_utf8(text).unwrap();
        assert!(text.lines().any(|line| line == expected), "{expected} is not in\n{text}");
    }

    static SERVER: std::sync::LazyLock<crate::address::Address> =
        std::sync::LazyLock::new(|| "127.0.0.1:9001".parse().unwrap());

    fn opened() -> Opened<'static> {
        Opened {
            request: request(),
            upstream: "chat",
            server: &SERVER,
            spoken: "8",
            subprotocol: None,
            extensions: None,
            handshake: Duration::from_millis(3),
            would_refuse: &[],
        }
    }

    #[test]
    fn a_tunnel_is_open_until_its_count_is_dropped() {
        let observer = observer();
        let open = observer.opened(&opened());
        check(&observer, r#"wsgate_tunnels{route="chat",upstream="chat",version="8"} 1"#);
        check(&observer, r#"wsgate_tunnels_total{backend_version="8",route="chat",upstream="chat",version="8"} 1"#);
        check(&observer, r#"wsgate_handshake_duration_seconds_bucket{route="chat",le="0.0025"} 0"#);
        check(&observer, r#"wsgate_handshake_duration_seconds_bucket{route="chat",le="0.005"} 1"#);
        drop(open);
        check(&observer, r#"wsgate_tunnels{route="chat",upstream="chat",version="8"} 0"#);
    }

    #[test]
    fn the_count_of_an_open_tunnel_is_one_pointer() {
        assert_eq!(size_of::<OpenTunnel>(), size_of::<usize>());
    }

    #[test]
    fn a_refused_upgrade_is_no_plain_request() {
        let observer = observer();
        observer.upgrade_requested("public", None, "8");
        observer.refused(&Refused { request: request(), reason: Reason::OriginRefused, status: 403, detail: None });
        check(&observer, r#"wsgate_upgrade_requests_total{listener="public",route="-",version="8"} 1"#);
        check(&observer, r#"wsgate_refusals_total{reason="origin-refused",route="chat"} 1"#);
        let (_, text) = exposition::render(observer.metrics(), None);
        assert!(!String::from_utf8(text).unwrap().contains("wsgate_http_requests_total"));
    }

    #[test]
    fn a_refused_plain_request_is_counted_by_its_status_too() {
        let observer = observer();
        let plain = Request { route: None, asked: None, ..request() };
        observer.refused(&Refused { request: plain, reason: Reason::NoRoute, status: 404, detail: None });
        check(&observer, r#"wsgate_refusals_total{reason="no-route",route="-"} 1"#);
        check(&observer, r#"wsgate_http_requests_total{route="-",status="404"} 1"#);
    }

    #[test]
    fn a_status_is_always_three_digits() {
        let observer = observer();
        for (status, label) in [(0, "000"), (200, "200"), (u16::MAX, "999")] {
            let request = Request { asked: None, ..request() };
            observer.answered(&Answered { request, status, server: None, bytes: 0, duration: Duration::ZERO });
            check(&observer, &format!(r#"wsgate_http_requests_total{{route="chat",status="{label}"}} 1"#));
        }
    }

    #[test]
    fn an_end_counts_by_who_began_it() {
        let observer = observer();
        observer.closed(&Closed {
            id: RequestId(1),
            route: "chat",
            reason: Reason::IdleTimeout,
            code: "1001",
            duration: Duration::from_secs(2),
            from_client: Passed::default(),
            from_backend: Passed::default(),
        });
        check(&observer, r#"wsgate_tunnel_closes_total{by="gateway",code="1001",route="chat"} 1"#);
        check(&observer, r#"wsgate_tunnel_duration_seconds_bucket{route="chat",le="5"} 1"#);
    }
}
