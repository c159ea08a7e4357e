//! Which of the servers that may be picked is next. Time is an argument.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::Server;
use super::standing::mix;
use crate::config::model;

#[derive(Debug)]
pub(super) enum Balancer {
    /// The fewest live tunnels for its weight; among equals the next in turn, so that none is favoured.
    LeastTunnels { turn: AtomicUsize },
    /// Smooth weighted round robin, as nginx has it: each turn every server gains its weight, the richest is picked and
    /// pays the sum, so that a heavy server's turns are spread out.
    RoundRobin { credit: Mutex<Vec<i64>> },
    /// Weighted rendezvous hashing: every server draws a lot for the key, and the best lot wins. A server that leaves takes
    /// only its own keys with it, and gets the same ones when it comes back. Without a key as `LeastTunnels`.
    Hash { turn: AtomicUsize },
}

/// What a pick goes by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    pub key: Option<u64>,
    pub slow_start: Option<Duration>,
    pub now: Instant,
}

impl Balancer {
    /// Between so many servers.
    pub fn new(rules: &model::Upstream, servers: usize) -> Balancer {
        match rules.balance {
            model::Balance::RoundRobin => Balancer::RoundRobin { credit: Mutex::new(vec![0; servers]) },
            model::Balance::LeastTunnels => Balancer::LeastTunnels { turn: AtomicUsize::new(0) },
            model::Balance::ClientHash | model::Balance::HeaderHash => Balancer::Hash { turn: AtomicUsize::new(0) },
        }
    }

    pub fn next(&self, servers: &[Server], moment: Moment, may: impl Fn(usize) -> bool) -> Option<usize> {
        match (self, moment.key) {
            (Balancer::Hash { .. }, Some(key)) => rendezvous(servers, key, may),
            (Balancer::LeastTunnels { turn } | Balancer::Hash { turn }, _) => {
                least_tunnels(servers, turn.fetch_add(1, Ordering::Relaxed), moment, may)
            }
            (Balancer::RoundRobin { credit }, _) => round_robin(servers, &mut credit.lock(), moment, may),
        }
    }
}

fn least_tunnels(servers: &[Server], turn: usize, moment: Moment, may: impl Fn(usize) -> bool) -> Option<usize> {
    let in_turn = (0..servers.len()).map(|step| (turn + step) % servers.len()).filter(|&index| may(index));
    if servers.iter().any(|server| server.warmup().is_on()) {
        return least_tunnels_while_some_warm_up(servers, in_turn, moment);
    }
    in_turn.min_by(|&a, &b| {
        // (tunnels + 1) / weight, compared without a division.
        let load =
            |index: usize, other: usize| (servers[index].tunnels() as u128 + 1) * u128::from(servers[other].weight());
        load(a, b).cmp(&load(b, a))
    })
}

/// Counts alone would send everybody to a server that comes up empty, whatever its weight. So it has to save up its turns too: of
/// all that are sent somewhere it gets no more than the part of its share that it has grown to.
fn least_tunnels_while_some_warm_up(
    servers: &[Server],
    in_turn: impl Iterator<Item = usize> + Clone,
    moment: Moment,
) -> Option<usize> {
    let weight = |index: usize| weight(&servers[index], moment);
    let total: f64 = in_turn.clone().map(weight).sum();
    let has_a_turn = |index: &usize| {
        let warmup = servers[*index].warmup();
        !warmup.is_on() || warmup.save(weight(*index) / total)
    };
    let load = |index: usize| (servers[index].tunnels() as f64 + 1.0) / weight(index);
    let least = |a: &usize, b: &usize| load(*a).total_cmp(&load(*b));
    let chosen = in_turn.clone().filter(has_a_turn).min_by(least).or_else(|| in_turn.min_by(least))?;
    if servers[chosen].warmup().is_on() {
        servers[chosen].warmup().spend();
    }
    Some(chosen)
}

/// What a server counts for while it warms up, above 0.
fn weight(server: &Server, moment: Moment) -> f64 {
    f64::from(server.weight()) * server.warmup().part(moment.slow_start, moment.now)
}

/// Shares of a weight, so that a server that warms up can have less than one.
const SHARES: f64 = 1000.0;

fn round_robin(servers: &[Server], credit: &mut [i64], moment: Moment, may: impl Fn(usize) -> bool) -> Option<usize> {
    let mut total = 0;
    let mut best: Option<usize> = None;
    for (index, server) in servers.iter().enumerate() {
        if !may(index) {
            continue;
        }
        #[expect(clippy::cast_possible_truncation, reason = "weights have a limit far below")]
        let weight = (weight(server, moment) * SHARES) as i64;
        credit[index] += weight;
        total += weight;
        if best.is_none_or(|best| credit[index] > credit[best]) {
            best = Some(index);
        }
    }
    let best = best?;
    credit[best] -= total;
    Some(best)
}

fn rendezvous(servers: &[Server], key: u64, may: impl Fn(usize) -> bool) -> Option<usize> {
    // An exponential lot of the weight's rate: the smallest of several is a server's with the odds of its weight.
    let lot = |index: usize| {
        let server = &servers[index];
        let drawn = (mix(server.id().0 ^ key) >> 11) as f64 + 1.0;
        -(drawn / (1_u64 << 53) as f64).ln() / f64::from(server.weight())
    };
    (0..servers.len()).filter(|&index| may(index)).min_by(|&a, &b| lot(a).total_cmp(&lot(b)))
}
