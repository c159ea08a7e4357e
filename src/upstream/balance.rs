//! Which of the servers that may be picked is next.

use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::Server;
use crate::config::model;

#[derive(Debug)]
pub(super) enum Balancer {
    /// The fewest live tunnels for its weight; among equals the next in turn, so that none is favoured.
    LeastTunnels { turn: AtomicUsize },
    /// Smooth weighted round robin, as nginx has it: each turn every server gains its weight, the richest is picked and
    /// pays the sum, so that a heavy server's turns are spread out.
    RoundRobin { credit: Mutex<Vec<i64>> },
}

impl Balancer {
    pub fn new(rules: &model::Upstream) -> Balancer {
        match rules.balance {
            model::Balance::RoundRobin => Balancer::RoundRobin { credit: Mutex::new(vec![0; rules.servers.len()]) },
            // Hashing is not in force yet; the configuration says so at start.
            model::Balance::LeastTunnels | model::Balance::ClientHash => {
                Balancer::LeastTunnels { turn: AtomicUsize::new(0) }
            }
        }
    }

    pub fn next(&self, servers: &[Server], may: impl Fn(usize) -> bool) -> Option<usize> {
        match self {
            Balancer::LeastTunnels { turn } => least_tunnels(servers, turn.fetch_add(1, Ordering::Relaxed), may),
            Balancer::RoundRobin { credit } => round_robin(servers, &mut credit.lock(), may),
        }
    }
}

fn least_tunnels(servers: &[Server], turn: usize, may: impl Fn(usize) -> bool) -> Option<usize> {
    let in_turn = (0..servers.len()).map(|step| (turn + step) % servers.len());
    in_turn.filter(|&index| may(index)).min_by(|&a, &b| {
        // (tunnels + 1) / weight, compared without a division.
        let load =
            |index: usize, other: usize| (servers[index].tunnels() as u128 + 1) * u128::from(servers[other].weight());
        load(a, b).cmp(&load(b, a))
    })
}

fn round_robin(servers: &[Server], credit: &mut [i64], may: impl Fn(usize) -> bool) -> Option<usize> {
    let mut total = 0;
    let mut best: Option<usize> = None;
    for (index, server) in servers.iter().enumerate() {
        if !may(index) {
            continue;
        }
        let weight = i64::from(server.weight());
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
