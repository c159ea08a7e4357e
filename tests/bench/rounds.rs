//! The order of a run: in each round the gateways start afresh and take turns case by case, so that whatever else
//! the machine does falls on all of them; memory is then measured with one gateway running at a time.

use std::rc::Rc;
use std::time::Duration;

use crate::args::Args;
use crate::cases::{Carrier, Case, Quantity};
use crate::client::Session;
use crate::failure::Failure;
use crate::identity::Identity;
use crate::load::Job;
use crate::machine::Cores;
use crate::peers::{Peer, Program, Running, Setting};
use crate::process::{CpuSample, CpuUse, Process};
use crate::stage::{Performed, Stage};
use crate::wire::Message;

/// Tunnels of an echo case, connections at once of the others.
const AT_ONCE: usize = 32;

/// Turns of each gateway at a case within a round; short, because the minimum finds a quiet moment sooner.
const SLICES: u32 = 3;

/// One operation in so many is done once more beforehand, uncounted.
const WARM_UP_PART: u64 = 10;

const IDLE_TIME: Duration = Duration::from_mins(1);

/// All values of one case and one gateway.
#[derive(Clone, Debug)]
pub struct Series {
    pub case: Case,
    pub peer: Peer,
    /// In the case's unit.
    pub values: Vec<f64>,
    /// Which part of the wall time the gateway was on its core; empty where it makes no sense.
    pub busy: Vec<f64>,
    /// CPU time of clients and backend, µs an operation.
    pub load: Vec<f64>,
    /// How often the gateway was put on its core, an operation.
    pub turns: Vec<f64>,
}

/// What one slice came to.
struct Slice {
    performed: Performed,
    gateway: CpuUse,
}

impl Series {
    pub fn min(&self) -> f64 {
        self.values.iter().copied().fold(f64::INFINITY, f64::min)
    }

    pub fn median(&self) -> f64 {
        median(&self.values)
    }

    fn push(&mut self, slice: &Slice, operations: u64) {
        let operations = operations as f64;
        self.values.push(micros(slice.gateway.time) / operations);
        self.busy.push(slice.gateway.time.as_secs_f64() / slice.performed.wall.as_secs_f64());
        self.load.push(micros(slice.performed.load_cpu) / operations);
        self.turns.push(slice.gateway.turns as f64 / operations);
    }
}

/// The middle value or the mean of the middle two; NaN of none.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        count => (sorted[(count - 1) / 2] + sorted[count / 2]) / 2.0,
    }
}

pub struct Rounds<'a> {
    pub args: &'a Args,
    pub programs: &'a [Program],
    pub cores: Cores,
    pub identity: Rc<Identity>,
}

impl Rounds<'_> {
    pub fn run(&self) -> Result<Vec<Series>, Failure> {
        let mut stage = Stage::new(self.identity.clone())?;
        let mut all = Vec::new();
        for round in 0..self.args.rounds {
            for carrier in Carrier::ALL {
                let cases: Vec<Case> =
                    self.cases(Quantity::CpuOfOperation).filter(|case| case.carrier() == carrier).collect();
                self.operations(round, &cases, &mut stage, &mut all)?;
            }
        }
        for round in 0..self.args.rounds {
            for case in self.cases(Quantity::MemoryOfTunnel) {
                self.memory(round, case, &mut stage, &mut all)?;
            }
        }
        if self.args.measures(Case::IdleCpu) {
            self.idle(&mut stage, &mut all)?;
        }
        Ok(all)
    }

    fn cases(&self, quantity: Quantity) -> impl Iterator<Item = Case> {
        Case::ALL.into_iter().filter(move |case| case.quantity() == quantity && self.args.measures(*case))
    }

    /// The cases have one carrier: a gateway listens for nothing else.
    fn operations(&self, round: u32, cases: &[Case], stage: &mut Stage, all: &mut Vec<Series>) -> Result<(), Failure> {
        let mut running: Vec<Running> = Vec::new();
        for program in self.programs {
            if let Some(case) = cases.iter().find(|case| program.peer.is_measured_in(**case)) {
                running.push(self.start(program, case.carrier(), stage)?);
            }
        }
        // Nobody is always the first.
        let turn = round as usize % running.len().max(1);
        running.rotate_left(turn);
        for &case in cases {
            self.progress(round, case);
            let measured = |peer: &&Running| peer.peer.is_measured_in(case);
            for peer in std::iter::repeat_n(&running, SLICES as usize).flatten().filter(measured) {
                let slice = self.slice(stage, peer, case).map_err(|failure| during(peer.peer, case, failure))?;
                series(all, case, peer.peer).push(&slice, self.slice_operations(case));
            }
        }
        Ok(())
    }

    fn slice_operations(&self, case: Case) -> u64 {
        self.args.operations(case).div_ceil(u64::from(SLICES))
    }

    /// A part of a round: one case on one gateway.
    fn slice(&self, stage: &mut Stage, peer: &Running, case: Case) -> Result<Slice, Failure> {
        let count = self.slice_operations(case);
        stage.aim(peer.carrier, peer.address);
        let job = match case {
            Case::Echo64 | Case::TlsEcho64 | Case::Http2Echo64 => Job::Echo(Rc::new(Message::text(64))),
            Case::Echo64K => Job::Echo(Rc::new(Message::text(64 * 1024))),
            Case::Refusal => Job::Refusal,
            Case::Handshake | Case::TlsHandshake => Job::Handshake(Session::Full),
            Case::TlsResumed => Job::Handshake(Session::Resumed),
            Case::Memory | Case::TlsMemory | Case::Http2Memory | Case::IdleCpu => Job::Rest,
        };
        if let Job::Echo(message) = &job {
            stage.perform(Job::Open(message.clone()), AT_ONCE as u64, AT_ONCE)?;
        }
        if let Job::Handshake(Session::Resumed) = job {
            // Each slot gets its first ticket.
            stage.perform(Job::Handshake(Session::Kept), AT_ONCE as u64, AT_ONCE)?;
        }
        stage.perform(job.clone(), count.div_ceil(WARM_UP_PART), AT_ONCE)?;
        let before = settled(stage, &peer.process)?;
        let performed = stage.perform(job, count, AT_ONCE)?;
        // Closing the last connections is a part of the work.
        let gateway = settled(stage, &peer.process)?.since(&before);
        stage.aim(peer.carrier, peer.address);
        settled(stage, &peer.process)?;
        Ok(Slice { performed, gateway })
    }

    fn memory(&self, round: u32, case: Case, stage: &mut Stage, all: &mut Vec<Series>) -> Result<(), Failure> {
        let tunnels = case.operations();
        self.progress(round, case);
        for program in self.programs.iter().filter(|program| program.peer.is_measured_in(case)) {
            let peer = self.start(program, case.carrier(), stage)?;
            let bytes = tunnel_memory(stage, &peer, tunnels).map_err(|failure| during(peer.peer, case, failure))?;
            series(all, case, peer.peer).values.push(bytes);
            stage.aim(peer.carrier, peer.address);
        }
        Ok(())
    }

    /// Only wsgate: its peers do not ping.
    fn idle(&self, stage: &mut Stage, all: &mut Vec<Series>) -> Result<(), Failure> {
        let ours = |program: &&Program| matches!(program.peer, Peer::Wsgate | Peer::Other);
        for program in self.programs.iter().filter(ours) {
            let peer = self.start(program, Case::IdleCpu.carrier(), stage)?;
            self.progress(0, Case::IdleCpu);
            let percent = idle_cpu(stage, &peer).map_err(|failure| during(peer.peer, Case::IdleCpu, failure))?;
            series(all, Case::IdleCpu, peer.peer).values.push(percent);
            stage.aim(peer.carrier, peer.address);
        }
        Ok(())
    }

    fn progress(&self, round: u32, case: Case) {
        eprintln!("round {} of {}: {}", round + 1, self.args.rounds, case.title());
    }

    /// The process's number is for whoever wants to trace or profile it.
    fn start(&self, program: &Program, carrier: Carrier, stage: &Stage) -> Result<Running, Failure> {
        let setting = Setting { cores: self.cores, backend: stage.backend()?, carrier, identity: &self.identity };
        let running = program.start(setting)?;
        eprintln!("{} is process {}", program.peer.name(), running.process.id());
        Ok(running)
    }
}

/// Bytes that a tunnel adds to a fresh process.
fn tunnel_memory(stage: &mut Stage, peer: &Running, tunnels: u64) -> Result<f64, Failure> {
    stage.aim(peer.carrier, peer.address);
    settled(stage, &peer.process)?;
    let before = peer.process.memory()?;
    stage.perform(Job::Open(Rc::new(Message::text(64))), tunnels, AT_ONCE)?;
    settled(stage, &peer.process)?;
    let after = peer.process.memory()?;
    Ok((after as f64 - before as f64) / tunnels as f64)
}

/// Percent of a core, over two rounds of Pings.
fn idle_cpu(stage: &mut Stage, peer: &Running) -> Result<f64, Failure> {
    stage.aim(peer.carrier, peer.address);
    let message = Rc::new(Message::text(64));
    stage.perform(Job::Open(message), Case::IdleCpu.operations(), AT_ONCE)?;
    let before = settled(stage, &peer.process)?;
    stage.rest(IDLE_TIME)?;
    let used = peer.process.cpu()?.since(&before).time;
    Ok(100.0 * used.as_secs_f64() / IDLE_TIME.as_secs_f64())
}

/// Serves on until the gateway has nothing left to do, at most for a second; then its CPU time.
fn settled(stage: &mut Stage, process: &Process) -> Result<CpuSample, Failure> {
    const SLICE: Duration = Duration::from_millis(10);
    const QUIET: Duration = Duration::from_micros(100);
    const SLICES_MAX: u32 = 100;
    let mut sample = process.cpu()?;
    for _ in 0..SLICES_MAX {
        stage.rest(SLICE)?;
        let next = process.cpu()?;
        let used = next.since(&sample).time;
        sample = next;
        if used < QUIET {
            break;
        }
    }
    Ok(sample)
}

fn series(all: &mut Vec<Series>, case: Case, peer: Peer) -> &mut Series {
    let known = all.iter().position(|series| series.case == case && series.peer == peer);
    let index = known.unwrap_or_else(|| {
        all.push(Series { case, peer, values: Vec::new(), busy: Vec::new(), load: Vec::new(), turns: Vec::new() });
        all.len() - 1
    });
    &mut all[index]
}

fn during(peer: Peer, case: Case, failure: Failure) -> Failure {
    Failure::During { peer: peer.name(), during: case.title(), failure: Box::new(failure) }
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
