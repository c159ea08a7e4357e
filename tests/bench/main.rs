//! `cargo bench --bench peers`: what wsgate costs next to nginx, HAProxy and Envoy, doing the same work under the
//! same load, in one run on one machine. Clients and backend are in this process; nothing leaves the loopback
//! interface.
//!
//! It measures and tells. It does not judge: the exit code says only whether every operation of every gateway was
//! right.
#![expect(clippy::cast_possible_truncation, reason = "counts and lengths of the load are its own constants")]

mod args;
mod cases;
mod client;
mod echo;
mod failure;
mod guard;
mod http2;
mod http2_load;
mod identity;
mod load;
mod machine;
mod peer_config;
mod peers;
mod poll;
mod process;
mod report;
mod rounds;
mod stage;
mod stream;
mod tunnel;
mod wire;

use std::fs;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use clap::Parser;

use crate::args::Args;
use crate::failure::{During, Failure};
use crate::identity::Identity;
use crate::machine::Cores;
use crate::peers::Program;
use crate::report::Report;
use crate::rounds::Rounds;

/// A round of everything takes a minute, several times that on a busy machine; whatever takes longer hangs.
const ROUND_TIME_MAX: Duration = Duration::from_mins(5);

fn main() -> ExitCode {
    let args = Args::parse();
    if !args.bench {
        println!("this is a benchmark: `cargo bench --bench peers` runs it");
        return ExitCode::SUCCESS;
    }
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("bench: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), Failure> {
    let cores = Cores::choose().during("reading which cores are ours")?;
    machine::pin(cores.load).during("pinning the load")?;
    machine::raise_file_limit().during("raising the limit of open files")?;
    // One round more for the start and the idle tunnels.
    guard::stand(ROUND_TIME_MAX * (args.rounds + 1)).during("starting the guard")?;
    let find = |peer: peers::Peer| peer.find(args.ab.as_deref());
    let programs = args.peers().into_iter().map(find).collect::<Result<Vec<Program>, _>>()?;
    let identity = Rc::new(Identity::new().during("making a certificate")?);
    let all = Rounds { args, programs: &programs, cores, identity }.run()?;
    let report = Report { programs: &programs, cores, rounds: args.rounds, all: &all };
    print!("{}", report.tables());
    if let Some(folder) = args.json.parent() {
        fs::create_dir_all(folder).during("making the result's folder")?;
    }
    let json = format!("{:#}\n", report.json());
    fs::write(&args.json, json).during(format!("writing {}", args.json.display()))
}
