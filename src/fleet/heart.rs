//! Keeps a link to Redis: makes one, tells it all that is open here, renews the lease, tells what is given back, and begins
//! anew when it broke or the configuration changed. No client waits for anything here.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval, timeout};

use super::Fleet;
use super::link::{Failure, Link, TOLD_AT_ONCE};
use crate::config::model::SharedLimits;
use crate::limits::{ClientSlots, Told, Torn};

/// Beats in the length of a lease: two may be missed.
const BEATS: u32 = 3;

/// Every client's counts are told anew in one round of the parts of the tables, a part a beat; they are kept for three rounds.
const ROUNDS_KEPT: u32 = 3;

/// Why the heart stopped.
enum Stop {
    /// The configuration wants something else.
    Changed,
    Failed,
}

pub async fn beat(fleet: &Fleet) {
    // The name that the gateway had last, which may still count.
    let mut before: Option<String> = None;
    loop {
        let rules = fleet.rules();
        if rules.redis.is_none() {
            before = None;
            fleet.journal().close();
            fleet.put_off();
            until_changed(fleet, &rules).await;
            continue;
        }
        if let Stop::Failed = live(fleet, &rules, &mut before).await {
            fleet.journal().close();
            // Whether or not it changed: it is tried again.
            let _ = timeout(rules.retry, until_changed(fleet, &rules)).await;
        }
    }
}

/// One link, from its beginning to its end.
async fn live(fleet: &Fleet, rules: &SharedLimits, before: &mut Option<String>) -> Stop {
    // First, so that nothing is missed that is given back while the rest is told.
    fleet.journal().open();
    let parts = u32::try_from(ClientSlots::PARTS).unwrap_or(u32::MAX);
    let every = rules.lease / BEATS;
    let keep = every * parts * ROUNDS_KEPT;
    let link = match Link::open(rules, before.as_deref(), keep).await {
        Ok(link) => Arc::new(link),
        Err(failure) => {
            fleet.fail(&failure);
            return Stop::Failed;
        }
    };
    *before = Some(link.gateway().to_owned());
    // From here on handshakes tell their own; what was there before is told by us.
    fleet.link.store(Some(Arc::clone(&link)));
    match keep_up(fleet, &link, rules, every).await {
        Ok(()) => {
            fleet.link.store(None);
            link.give_up().await;
            *before = None;
            Stop::Changed
        }
        Err(failure) => {
            if let Some(failure) = failure {
                fleet.lose(&link, &failure);
            }
            Stop::Failed
        }
    }
}

/// Ends well when the configuration wants something else.
///
/// # Errors
/// What broke; nothing where a handshake found it broken and said so.
async fn keep_up(
    fleet: &Fleet,
    link: &Arc<Link>,
    rules: &SharedLimits,
    every: Duration,
) -> Result<(), Option<Failure>> {
    for part in 0..ClientSlots::PARTS {
        link.tell(&counts(fleet, part)).await?;
    }
    fleet.stand(link);
    let mut beats = interval(every);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut part = 0;
    loop {
        tokio::select! {
            _ = beats.tick() => {
                link.renew().await?;
                link.tell(&counts(fleet, part)).await?;
                part = (part + 1) % ClientSlots::PARTS;
            }
            entries = poll_fn(|cx| fleet.journal().poll_entries(TOLD_AT_ONCE, cx)) => {
                let entries = entries.map_err(|Torn| Some(Failure::Torn))?;
                if entries.is_empty() && fleet.rules() != *rules {
                    return Ok(());
                }
                link.tell(&entries).await?;
            }
            () = fleet.lost.notified() => if !fleet.has(link) {
                return Err(None);
            }
        }
    }
}

/// What the clients of one part of all tables have.
fn counts(fleet: &Fleet, part: usize) -> Vec<Told> {
    fleet.current.lasting.client_tunnels().iter().flat_map(|tunnels| tunnels.counts(part)).collect()
}

/// Until the configuration wants something else.
async fn until_changed(fleet: &Fleet, rules: &SharedLimits) {
    while fleet.rules() == *rules {
        // Nothing is written down now, so it is a reload that wakes us.
        let _ = poll_fn(|cx| fleet.journal().poll_entries(1, cx)).await;
    }
}
