//! What a tunnel is counted under: its slots while it lives, its bytes and messages as they pass, its record when it ends.

use std::sync::Arc;
use std::time::Instant;

use crate::generation::RouteHandle;
use crate::limits::Occupied;
use crate::observe::metrics::NO_CLOSE_CODE;
use crate::observe::{Closed, Observer, OpenTunnel, Passed, RequestId};
use crate::reason::Reason;
use crate::roster::Membership;
use crate::tunnel::{Seen, Session, Side, Taken};
use crate::upstream::TunnelSlot;
use crate::wire::{CloseCode, OwnFrame};

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
    /// None where the connection carries more than the tunnel.
    pub connection: Option<Occupied>,
    pub route: Occupied,
    pub server: TunnelSlot,
    pub gauge: OpenTunnel,
    pub membership: Membership,
    pub alive: tokio_util::task::task_tracker::TaskTrackerToken,
}

impl Account {
    /// What a side sent went on.
    pub fn moved(&self, from: Side, taken: &Taken) {
        let metrics = match from {
            Side::Client => &self.route.metrics.from_client,
            Side::Backend => &self.route.metrics.from_backend,
        };
        if taken.forward > 0 {
            metrics.bytes.inc_by(taken.forward as u64);
        }
        if taken.seen == Seen::NOTHING {
            return;
        }
        let seen = &taken.seen;
        for (counter, count) in [
            (&metrics.text, seen.text),
            (&metrics.binary, seen.binary),
            (&metrics.ping, seen.ping),
            (&metrics.pong, seen.pong),
            (&metrics.close, seen.close),
            (&metrics.broken, seen.broken),
        ] {
            if count > 0 {
                counter.inc_by(u64::from(count));
            }
        }
    }

    /// The gateway sent a frame of its own.
    pub fn sent(&self, to: Side, frame: OwnFrame) {
        if let OwnFrame::Ping(_) = frame {
            self.observer.pinged(to.as_str());
        }
    }

    pub fn ended(&self, session: &Session, reason: Reason, now: Instant) {
        if let Reason::ClientUnresponsive | Reason::BackendUnresponsive = reason {
            self.observer.pong_missed(reason.by().as_str());
        }
        let passed = |from: Side| Passed {
            bytes: session.bytes_from(from),
            messages: session.messages_from(from),
            close_code: session.close_code_from(from).map(|code| code.0),
        };
        self.observer.closed(&Closed {
            id: self.id,
            route: &self.route.name,
            reason,
            code: first_close(session, reason).map_or(NO_CLOSE_CODE, CloseCode::label),
            duration: now.saturating_duration_since(self.opened_at),
            from_client: passed(Side::Client),
            from_backend: passed(Side::Backend),
        });
    }
}

/// The code of the Close frame that began the end, a side's or the gateway's.
fn first_close(session: &Session, reason: Reason) -> Option<CloseCode> {
    match reason {
        Reason::ClientClosed => session.close_code_from(Side::Client),
        Reason::BackendClosed => session.close_code_from(Side::Backend),
        // Who vanished said nothing.
        Reason::ClientLost | Reason::BackendLost | Reason::ClientUnresponsive | Reason::BackendUnresponsive => None,
        Reason::BackendMessageTooBig if session.told(Side::Backend) => reason.code_to_backend(),
        _ if session.told(Side::Client) => reason.code_to_client(),
        _ if session.told(Side::Backend) => reason.code_to_backend(),
        _ => None,
    }
}
