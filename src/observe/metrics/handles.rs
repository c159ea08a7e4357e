//! What a single route, listener or server counts, and how a server or an upstream stands. Handles are kept by whoever does the work,
//! so that no name is looked up for each event. They do not know which families there are.

use std::sync::Arc;
use std::time::Duration;

use prometheus::{HistogramVec, IntCounter, IntCounterVec, IntGauge};

use crate::address::Address;
use crate::dialect::Dialect;
use crate::reason::Reason;

/// What the tunnels of a route count while they live. Cheap to clone; outlives the configuration it was made for.
#[derive(Clone, Debug)]
pub struct RouteMetrics {
    pub from_client: DirectionMetrics,
    pub from_backend: DirectionMetrics,
}

/// What one direction of a route's tunnels counts.
#[derive(Clone, Debug)]
pub struct DirectionMetrics {
    /// Frame headers included.
    pub bytes: IntCounter,
    pub text: IntCounter,
    pub binary: IntCounter,
    pub ping: IntCounter,
    pub pong: IntCounter,
    pub close: IntCounter,
    /// Frames that broke RFC 6455.
    pub broken: IntCounter,
}

/// Cheap to clone; outlives the configuration it was made for.
#[derive(Clone, Debug)]
pub struct ListenerMetrics {
    /// Open client connections, tunnels included.
    pub connections: IntGauge,
    /// Those of HTTP/2.
    pub http2_connections: IntGauge,
}

/// What is counted of one backend server. Outlives the configuration it was made for.
#[derive(Clone, Debug)]
pub struct ServerMetrics {
    pub(super) failures: IntCounterVec,
    pub(super) transitions: IntCounterVec,
    pub(super) checks: IntCounterVec,
    pub(super) check_duration: HistogramVec,
    pub(super) upstream: String,
    pub(super) address: String,
}

/// How a backend server stands at one moment.
#[derive(Clone, Debug)]
pub struct Standing<'a> {
    pub upstream: &'a str,
    pub address: &'a Address,
    /// `None` where no configuration names the server any more, so that it gets no tunnels, up or not.
    pub up: Option<bool>,
    /// Whether the configuration drains it.
    pub draining: bool,
    /// Open now.
    pub tunnels: usize,
    /// What it was heard to speak, where it was asked.
    pub learned: Option<Arc<[Dialect]>>,
}

/// What became of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turned {
    Up,
    Down,
}

/// How an upstream stands at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Situation<'a> {
    pub upstream: &'a str,
    /// Too few servers are up, so that all are used.
    pub in_panic: bool,
    /// Handshakes that wait for a server with room.
    pub waiting: usize,
}

impl ServerMetrics {
    /// A dial gave no tunnel, whether or not another server then did.
    pub fn failed(&self, reason: Reason) {
        self.failures.with_label_values(&[self.upstream.as_str(), &self.address, reason.code()]).inc();
    }

    /// It came back up, or it went down.
    pub fn turned(&self, to: Turned) {
        let to = match to {
            Turned::Up => "up",
            Turned::Down => "down",
        };
        self.transitions.with_label_values(&[self.upstream.as_str(), &self.address, to]).inc();
    }

    /// A check was over. `result` is of a closed set.
    pub fn checked(&self, result: &str, duration: Duration) {
        self.checks.with_label_values(&[self.upstream.as_str(), &self.address, result]).inc();
        self.check_duration.with_label_values(&[self.upstream.as_str()]).observe(duration.as_secs_f64());
    }
}
