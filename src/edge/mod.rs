//! Every connection of a listener: accepted here, one head at a time, under a deadline and a cap; of HTTP/2, one stream at a time. A head that tries
//! to upgrade is dealt with here; any other goes to pingora-proxy with its bytes, and the connection comes back.

mod accept;
mod admission;
mod arrival;
mod caller;
mod connection;
mod greeting;
mod head_reader;
mod http2;
mod lent;
mod plain;
mod question;
mod reach;
mod refusal;
mod relayed;
mod secure;
mod upgrade;
mod waiting;

use std::sync::Arc;

use pingora_proxy::HttpProxy;

use crate::fleet::Fleet;
use crate::generation::Current;
use crate::lifecycle::Lifecycle;
use crate::limits::Slots;
use crate::proxy::PlainProxy;

/// One listener's edge.
pub struct Edge {
    /// Index of the listener in the configuration.
    listener: usize,
    current: Arc<Current>,
    lifecycle: Arc<Lifecycle>,
    proxy: Arc<HttpProxy<PlainProxy>>,
    fleet: Arc<Fleet>,
    /// Connections over the cap that are still being told so.
    turned_away: Slots,
}

impl Edge {
    pub fn new(
        listener: usize,
        current: Arc<Current>,
        lifecycle: Arc<Lifecycle>,
        proxy: Arc<HttpProxy<PlainProxy>>,
        fleet: Arc<Fleet>,
    ) -> Edge {
        let turned_away = Slots::new(Some(admission::TURNED_AWAY_MAX));
        Edge { listener, current, lifecycle, proxy, fleet, turned_away }
    }
}
