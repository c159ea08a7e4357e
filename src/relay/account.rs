//! What a tunnel is counted under: its slots while it lives, its bytes as they pass, its record when it ends.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::generation::RouteHandle;
use crate::limits::Slot;
use crate::observe::event::{Closed, RequestId};
use crate::observe::{Observer, OpenTunnel};
use crate::reason::Reason;
use crate::tunnel::{Session, Side};
use crate::upstream::TunnelSlot;

/// Kept by the tunnel's task; all that it holds is given back when the task ends, however it ends.
pub struct Account {
    pub id: RequestId,
    pub opened_at: Instant,
    pub route: Arc<RouteHandle>,
    pub observer: Arc<Observer>,
    pub held: Held,
}

/// What an open tunnel occupies.
pub struct Held {
    pub connection: Slot,
    pub route: Slot,
    pub server: TunnelSlot,
    pub gauge: OpenTunnel,
    pub alive: tokio_util::task::task_tracker::TaskTrackerToken,
}

impl Account {
    pub fn moved(&self, from: Side, bytes: usize) {
        let counter = match from {
            Side::Client => &self.route.metrics.bytes_to_backend,
            Side::Backend => &self.route.metrics.bytes_to_client,
        };
        counter.inc_by(bytes as u64);
    }

    pub fn ended(&self, session: &Session, reason: Reason, now: Instant) {
        let duration: Duration = now.saturating_duration_since(self.opened_at);
        self.observer.closed(&Closed {
            id: self.id,
            route: &self.route.name,
            reason,
            duration,
            bytes_to_backend: session.bytes_from(Side::Client),
            bytes_to_client: session.bytes_from(Side::Backend),
        });
    }
}
