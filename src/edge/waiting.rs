//! A server with room for a handshake: at once where there is one, else after a bounded, timed wait in the upstream's line. It
//! does not know what the handshake asks.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Instant;

use tokio::io::AsyncReadExt;
use tokio::time::{Sleep, sleep};

use super::arrival::Arrival;
use crate::policy::Permit;
use crate::reason::Reason;
use crate::stream::Stream;
use crate::upstream::{Affinity, Cluster, Picked, Place, Tried};

/// The client that waits.
pub struct Caller<'a> {
    pub stream: &'a mut Stream,
    /// What it sent behind its head.
    pub early: &'a mut Vec<u8>,
}

/// What is sought.
pub struct Seek<'a> {
    pub cluster: &'a Cluster,
    pub permit: &'a Permit,
    pub affinity: &'a Affinity,
}

/// What a client may send while it waits, before nobody listens any more whether it is still there.
const EARLY_BYTES_MAX: usize = 16 * 1024;

/// # Errors
/// As [`Cluster::pick`], for want of room once the line is full or the time is up; [`Reason::ClientLost`] and
/// [`Reason::Draining`] where the wait ends before.
pub async fn pick<'c>(
    arrival: &Arrival<'_>,
    seek: &Seek<'c>,
    tried: &mut Tried,
    caller: &mut Caller<'_>,
) -> Result<Picked<'c>, Reason> {
    // Who comes later does not overtake.
    if seek.cluster.waiting() == 0 {
        match seek.cluster.pick(seek.permit, seek.affinity, tried, Instant::now()) {
            Err(Reason::LimitBackendTunnels) => {}
            found => return found,
        }
    }
    let Some(place) = seek.cluster.wait() else { return Err(Reason::LimitBackendTunnels) };
    let time = sleep(seek.cluster.rules().queue_timeout);
    tokio::pin!(time);
    loop {
        wait(arrival, &place, time.as_mut(), caller).await.inspect_err(|reason| {
            if *reason == Reason::LimitBackendTunnels {
                arrival.edge.current.observer().waited_in_vain(&seek.cluster.rules().name);
            }
        })?;
        match seek.cluster.pick(seek.permit, seek.affinity, tried, Instant::now()) {
            Err(Reason::LimitBackendTunnels) => {}
            found => return found,
        }
    }
}

/// Until there may be room.
async fn wait(
    arrival: &Arrival<'_>,
    place: &Place,
    mut time: std::pin::Pin<&mut Sleep>,
    caller: &mut Caller<'_>,
) -> Result<(), Reason> {
    let lifecycle = &arrival.edge.lifecycle;
    let mut stopping = lifecycle.watch_accepting();
    let called = poll_fn(|context| match place.was_called(context.waker()) {
        true => Poll::Ready(()),
        false => Poll::Pending,
    });
    tokio::pin!(called);
    loop {
        tokio::select! {
            biased;
            () = &mut called => return Ok(()),
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
