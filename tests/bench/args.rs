//! The command line.

use std::path::PathBuf;

use clap::Parser;

use crate::cases::{Case, Quantity};
use crate::peers::Peer;

/// CPU per operation and memory per tunnel of wsgate and its peers, on this machine, side by side.
#[derive(Debug, Parser)]
#[command(name = "peers")]
pub struct Args {
    /// Measure only these cases
    #[arg(long, value_delimiter = ',', value_name = "CASE")]
    pub only: Vec<Case>,
    /// Measure only these gateways
    #[arg(long, value_delimiter = ',', value_name = "PEER")]
    pub peers: Vec<Peer>,
    /// Leave these gateways out
    #[arg(long, value_delimiter = ',', value_name = "PEER")]
    pub without: Vec<Peer>,
    /// Rounds; the gateways take turns in each
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: u32,
    /// A second wsgate program to measure a change with
    #[arg(long, value_name = "OTHER_BIN")]
    pub ab: Option<PathBuf>,
    /// Also measure the gateway's CPU with 9,000 idle tunnels and a Ping every 30 s
    #[arg(long)]
    pub idle_cpu: bool,
    /// Operations of each round (for a profile)
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub operations: Option<u64>,
    /// Where the result goes as JSON
    #[arg(long, default_value = "target/bench/result.json")]
    pub json: PathBuf,
    /// Given by `cargo bench`; without it nothing is measured
    #[arg(long, hide = true)]
    pub bench: bool,
}

impl Args {
    pub fn measures(&self, case: Case) -> bool {
        match (self.only.is_empty(), case) {
            (true, Case::IdleCpu) => self.idle_cpu,
            (true, _) => true,
            (false, Case::IdleCpu) if self.idle_cpu => true,
            (false, _) => self.only.contains(&case),
        }
    }

    /// In the order of the tables.
    pub fn peers(&self) -> Vec<Peer> {
        let wanted = |peer: &Peer| {
            let named = match peer {
                Peer::Other => return self.ab.is_some(),
                _ => self.peers.is_empty() || self.peers.contains(peer),
            };
            named && !self.without.contains(peer)
        };
        Peer::ALL.into_iter().filter(wanted).collect()
    }

    pub fn operations(&self, case: Case) -> u64 {
        match case.quantity() {
            Quantity::CpuOfOperation => self.operations.unwrap_or(case.operations()),
            Quantity::MemoryOfTunnel | Quantity::CpuOfRest => case.operations(),
        }
    }
}
