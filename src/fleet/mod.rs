//! Limits per client over a fleet of gateways, which count together in a Redis. It knows neither requests nor how a
//! client is refused: it is asked a [`Question`] and gives a [`Verdict`], or none where Redis is not to be had.
//!
//! A handshake waits for Redis no longer than the configured timeout. The first one that waits for nothing is the last: from then on
//! nobody asks until the heart (`heart.rs`) has a new connection, for which no handshake waits.

mod heart;
mod link;
mod words;

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tracing::{info, warn};

use crate::config::model::SharedLimits;
use crate::generation::Current;
use crate::limits::Journal;
use crate::observe::Metrics;
use link::{Failure, Link};
pub use words::{Question, Verdict};

pub struct Fleet {
    current: Arc<Current>,
    /// `None` while there is no Redis to ask.
    link: ArcSwapOption<Link>,
    /// What was told of it last.
    told: Mutex<Standing>,
    /// The link was lost, and not by the heart.
    lost: Notify,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// Nobody wants it.
    Off,
    Up,
    Down,
}

impl Fleet {
    pub fn new(current: Arc<Current>) -> Fleet {
        Fleet { current, link: ArcSwapOption::empty(), told: Mutex::new(Standing::Off), lost: Notify::new() }
    }

    /// Keeps the connection and what is told over it, for ever.
    pub async fn serve(&self) {
        heart::beat(self).await;
    }

    /// `None` where each gateway has to decide for itself.
    pub async fn ask(&self, question: &Question<'_>) -> Option<Verdict> {
        if question.pace.is_none() && question.tunnels.is_none() {
            return None;
        }
        let link = self.link.load_full()?;
        match link.ask(question).await {
            Ok(verdict) => Some(verdict),
            Err(failure) => {
                self.lose(&link, &failure);
                self.lost.notify_one();
                None
            }
        }
    }

    fn rules(&self) -> SharedLimits {
        self.current.load().config.limits.shared.clone()
    }

    fn journal(&self) -> &Journal {
        &self.current.lasting.journal
    }

    fn metrics(&self) -> &Metrics {
        self.current.observer().metrics()
    }

    /// Whether this link is the one that is asked.
    fn has(&self, link: &Arc<Link>) -> bool {
        self.link.load().as_ref().is_some_and(|current| Arc::ptr_eq(current, link))
    }

    /// Nobody asks this link any more. Of several that find it broken the first one says so.
    fn lose(&self, link: &Arc<Link>, failure: &Failure) {
        let mut told = self.told.lock();
        if self.has(link) {
            self.link.store(None);
            self.failed(&mut told, failure);
        }
    }

    /// There is no link.
    fn fail(&self, failure: &Failure) {
        self.failed(&mut self.told.lock(), failure);
    }

    fn failed(&self, told: &mut Standing, failure: &Failure) {
        self.metrics().shared_limits_failed(failure.code());
        self.metrics().show_shared_limits(Some(false));
        if *told != Standing::Down {
            *told = Standing::Down;
            warn!(reason = failure.code(), detail = %failure, "limits are not shared: each gateway counts for itself");
        }
    }

    /// Everything that this gateway has is known to the fleet.
    fn stand(&self, link: &Arc<Link>) {
        let mut told = self.told.lock();
        if self.has(link) && *told != Standing::Up {
            *told = Standing::Up;
            self.metrics().show_shared_limits(Some(true));
            info!("limits are shared: clients are counted over all gateways");
        }
    }

    /// Nobody wants it any more.
    fn put_off(&self) {
        let mut told = self.told.lock();
        self.link.store(None);
        self.metrics().show_shared_limits(None);
        if *told != Standing::Off {
            *told = Standing::Off;
            info!("limits are not shared any more: the configuration names no Redis");
        }
    }
}
