//! A server with room for a handshake: at once where there is one, else after a bounded, timed wait in the upstream's line. It
//! does not know what the handshake asks.

use std::future::{pending, poll_fn};
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use tokio::io::AsyncReadExt;
use tokio::time::{Sleep, sleep, sleep_until};

use super::arrival::Arrival;
use crate::generation::{Generation, UpstreamHandle};
use crate::policy::Permit;
use crate::reason::Reason;
use crate::stream::Stream;
use crate::upstream::{Affinity, Picked, Place, Tried, TunnelSlot};

/// The client that waits.
pub struct Caller<'a> {
    pub stream: &'a mut Stream,
    /// What it sent behind its head.
    pub early: &'a mut Vec<u8>,
}

/// Where a server is sought.
pub struct Servers {
    /// What the servers are of: their TLS is found there. The route, and all else that holds for the request, are of the one
    /// that it arrived with.
    pub generation: Arc<Generation>,
    pub upstream: Arc<UpstreamHandle>,
}

impl Servers {
    pub fn new(arrival: &Arrival<'_>, permit: &Permit) -> Servers {
        let generation = Arc::clone(arrival.generation);
        Servers { upstream: generation.upstream(permit), generation }
    }

    /// Those that the upstream has by now: one that drains or is gone meanwhile gets nothing, and one that was added is used. Where
    /// nobody names the upstream any more, they stay. Returns whether they are those of now.
    fn renew(&mut self, arrival: &Arrival<'_>, tried: &mut Tried) -> bool {
        let generation = arrival.edge.current.load();
        let Some(now) = generation.upstream_named(&self.upstream.cluster.rules().name) else { return false };
        if !Arc::ptr_eq(&now, &self.upstream) {
            tried.carry_over(&self.upstream.cluster, &now.cluster);
            (self.generation, self.upstream) = (generation, now);
        }
        true
    }
}

/// What is sought.
pub struct Seek<'a> {
    pub permit: &'a Permit,
    pub affinity: &'a Affinity,
}

impl Seek<'_> {
    fn try_once<'s>(&self, servers: &'s Servers, tried: &mut Tried, now: Instant) -> Result<Picked<'s>, Reason> {
        servers.upstream.cluster.pick(self.permit, self.affinity, tried, now)
    }
}

/// A server of [`Servers`] as they were left, with its slot.
pub struct Found {
    pub index: usize,
    pub slot: TunnelSlot,
}

impl Found {
    fn new(picked: Picked<'_>) -> Found {
        Found { index: picked.index(), slot: picked.slot }
    }
}

/// What a client may send while it waits, before nobody listens any more whether it is still there.
const EARLY_BYTES_MAX: usize = 16 * 1024;

/// Takes the servers of the moment at each call, so `servers` may be others afterwards.
///
/// # Errors
/// As [`crate::upstream::Cluster::pick`], for want of room once the line is full or the time is up; [`Reason::ClientLost`] and
/// [`Reason::Draining`] where the wait ends before.
pub async fn pick(
    arrival: &Arrival<'_>,
    seek: &Seek<'_>,
    servers: &mut Servers,
    tried: &mut Tried,
    caller: &mut Caller<'_>,
) -> Result<Found, Reason> {
    let cluster = &servers.upstream.cluster;
    // Who comes later does not overtake.
    if cluster.waiting() == 0 {
        match seek.try_once(servers, tried, Instant::now()) {
            Err(Reason::LimitBackendTunnels) => {}
            found => return found.map(Found::new),
        }
    }
    let Some(place) = cluster.wait(tried) else { return Err(Reason::LimitBackendTunnels) };
    let time = sleep(cluster.rules().queue_timeout);
    tokio::pin!(time);
    let mut looked = None;
    loop {
        let trial = servers.upstream.cluster.next_trial(looked);
        wait(arrival, &place, (time.as_mut(), trial), caller).await.inspect_err(|reason| {
            if *reason == Reason::LimitBackendTunnels {
                arrival.edge.current.observer().waited_in_vain(&servers.upstream.cluster.rules().name);
            }
        })?;
        let are_of_now = servers.renew(arrival, tried);
        let now = Instant::now();
        looked = Some(now);
        match seek.try_once(servers, tried, now) {
            Err(Reason::LimitBackendTunnels) => {}
            found => return found.map(Found::new),
        }
        // Somebody behind may find room where this one may not look. Otherwise there is none for anybody.
        if tried.count() > 0 || !are_of_now {
            place.pass_on();
        }
    }
}

/// Until there may be room: for a call, or for the trial of a server, if one is ahead.
async fn wait(
    arrival: &Arrival<'_>,
    place: &Place,
    (mut time, trial): (std::pin::Pin<&mut Sleep>, Option<Instant>),
    caller: &mut Caller<'_>,
) -> Result<(), Reason> {
    let lifecycle = &arrival.edge.lifecycle;
    let mut stopping = lifecycle.watch_accepting();
    let called = poll_fn(|context| match place.was_called(context.waker()) {
        true => Poll::Ready(()),
        false => Poll::Pending,
    });
    let trial = async {
        match trial {
            Some(due) => sleep_until(due.into()).await,
            None => pending().await,
        }
    };
    tokio::pin!(called, trial);
    loop {
        tokio::select! {
            biased;
            () = &mut called => return Ok(()),
            () = &mut trial => return Ok(()),
            () = time.as_mut() => return Err(Reason::LimitBackendTunnels),
            // After a hand-over, what was accepted here is served here.
            _ = stopping.wait_for(|stopping| *stopping), if !lifecycle.is_handed_over() => {
                if lifecycle.refuses_tunnels() {
                    return Err(Reason::Draining);
                }
            }
            read = caller.stream.read_buf(caller.early), if caller.early.len() < EARLY_BYTES_MAX => {
                if !matches!(read, Ok(1..)) {
                    return Err(Reason::ClientLost);
                }
            }
        }
    }
}
