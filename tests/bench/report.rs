//! The figures as tables for people and as JSON for programs. A missed target is said and is no error.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::cases::{Carrier, Case, Quantity, Target};
use crate::machine::Cores;
use crate::peers::{Peer, Program};
use crate::rounds::{Series, median};

const BRIDGED_TUNNEL_BYTES_MAX: f64 = 3072.0;

pub struct Report<'a> {
    pub programs: &'a [Program],
    pub cores: Cores,
    pub rounds: u32,
    pub all: &'a [Series],
}

/// How the gateway stands in one case.
struct Standing {
    case: Case,
    ours: f64,
    /// The better of nginx and HAProxy, if both or one of them ran.
    better: Option<(Peer, f64)>,
}

impl Standing {
    /// What the target limits.
    fn reached(&self) -> Option<f64> {
        match self.case.target() {
            Target::Ratio(_) => self.better.map(|(_, theirs)| self.ours / theirs),
            Target::Absolute(_) => Some(self.ours),
        }
    }

    fn verdict(&self) -> String {
        let (Target::Ratio(limit) | Target::Absolute(limit)) = self.case.target();
        match self.reached() {
            None => "nothing to compare with".to_owned(),
            Some(reached) if reached <= limit => "met".to_owned(),
            Some(reached) => format!("missed by {:.0} %", 100.0 * (reached / limit - 1.0)),
        }
    }
}

impl Report<'_> {
    pub fn tables(&self) -> String {
        let mut text = String::new();
        self.head(&mut text);
        Carrier::ALL.into_iter().for_each(|carrier| self.values(&mut text, carrier));
        self.ratios(&mut text);
        self.bridges(&mut text);
        self.conditions(&mut text);
        text
    }

    fn head(&self, text: &mut String) {
        text.push_str("# wsgate and its peers\n\n");
        for program in self.programs {
            line(text, format_args!("- {}: {}", program.peer.name(), program.version));
        }
        line(
            text,
            format_args!(
                "\nOne worker each on core {}, clients and backend on core {}; {} rounds of short turns. CPU time \
                 (user and system) an operation, PSS a tunnel: minimum / median.",
                self.cores.gateway, self.cores.load, self.rounds
            ),
        );
        if self.cores.gateway == self.cores.load {
            text.push_str("\nOnly one core: gateway and load take turns on it, so the figures are high.\n");
        }
    }

    /// Without the bridges where they are not measured.
    fn values(&self, text: &mut String, carrier: Carrier) {
        let cases: Vec<Case> = self.cases().filter(|case| case.carrier() == carrier).collect();
        if cases.is_empty() {
            return;
        }
        let peers = self.programs.iter().map(|program| program.peer);
        let peers: Vec<Peer> =
            peers.filter(|peer| carrier == Carrier::Plain || peer.bridge_limit().is_none()).collect();
        text.push('\n');
        row(text, std::iter::once(carrier.title()).chain(peers.iter().map(|peer| peer.name())).map(str::to_owned));
        rule(text, peers.len());
        for case in cases {
            let title = format!("{}, {}", case.title(), case.unit());
            let cells = peers.iter().map(|peer| {
                self.series(case, *peer).map_or("–".to_owned(), |series| {
                    format!("{} / {}", figure(series.min()), figure(series.median()))
                })
            });
            row(text, std::iter::once(title).chain(cells));
        }
    }

    fn ratios(&self, text: &mut String) {
        let others: Vec<Peer> = self
            .programs
            .iter()
            .map(|program| program.peer)
            .filter(|peer| *peer != Peer::Wsgate && peer.bridge_limit().is_none())
            .collect();
        let standings: Vec<Standing> = self.cases().filter_map(|case| self.standing(case)).collect();
        if standings.is_empty() {
            return;
        }
        text.push_str("\nwsgate as a part of each, by the minima:\n\n");
        let heads = ["", "better of nginx, HAProxy", "target", ""].map(str::to_owned);
        row(text, heads.into_iter().chain(others.iter().map(|peer| peer.name().to_owned())));
        rule(text, 3 + others.len());
        for standing in standings {
            let better = standing
                .better
                .map_or("–".to_owned(), |(peer, theirs)| format!("{:.2} ({})", standing.ours / theirs, peer.name()));
            let target = match standing.case.target() {
                Target::Ratio(limit) => format!("{limit:.2}"),
                Target::Absolute(limit) => format!("{} {}", figure(limit), standing.case.unit()),
            };
            let each = others.iter().map(|peer| {
                self.series(standing.case, *peer)
                    .map_or("–".to_owned(), |theirs| format!("{:.2}", standing.ours / theirs.min()))
            });
            let cells = [standing.case.title().to_owned(), better, target, standing.verdict()];
            row(text, cells.into_iter().chain(each));
        }
    }

    /// What a translated tunnel needs next to an untranslated one.
    fn bridges(&self, text: &mut String) {
        let rows: Vec<String> = self.programs.iter().filter_map(|program| self.bridge(program.peer)).collect();
        if !rows.is_empty() {
            text.push_str("\nTranslated tunnels next to untranslated ones:\n\n");
            rows.iter().for_each(|row| line(text, format_args!("- {row}")));
        }
    }

    fn bridge(&self, peer: Peer) -> Option<String> {
        let limit = peer.bridge_limit()?;
        let mut said = Vec::new();
        if let (Some(bridged), Some(plain)) = (self.series(Case::Echo64, peer), self.series(Case::Echo64, Peer::Wsgate))
        {
            let ratio = bridged.min() / plain.min();
            let verdict = if ratio <= limit { "met" } else { "missed" };
            said.push(format!("{} {ratio:.2} of the CPU (target {limit:.2}, {verdict})", Case::Echo64.title()));
        }
        if let Some(memory) = self.series(Case::Memory, peer) {
            let bytes = memory.min();
            let verdict = if bytes <= BRIDGED_TUNNEL_BYTES_MAX { "met" } else { "missed" };
            let (bytes, most) = (figure(bytes), figure(BRIDGED_TUNNEL_BYTES_MAX));
            said.push(format!("{bytes} bytes an idle tunnel (target {most}, {verdict})"));
        }
        (!said.is_empty()).then(|| format!("{}: {}", peer.name(), said.join(", ")))
    }

    /// What a reader needs to know how far to trust the figures.
    fn conditions(&self, text: &mut String) {
        let timed: Vec<&Series> = self.all.iter().filter(|series| !series.busy.is_empty()).collect();
        if timed.is_empty() {
            return;
        }
        text.push_str(
            "\nMedians of what the load cost (CPU, µs an operation), how busy the gateway kept its core, and how often it \
             was put on it (times an operation):\n\n",
        );
        let names = self.programs.iter().map(|program| program.peer.name().to_owned());
        row(text, std::iter::once(String::new()).chain(names));
        rule(text, self.programs.len());
        for case in self.cases().filter(|case| case.quantity() == Quantity::CpuOfOperation) {
            let cells = self.programs.iter().map(|program| {
                self.series(case, program.peer).map_or("–".to_owned(), |series| {
                    let busy = 100.0 * median(&series.busy);
                    format!("{}, {busy:.0} %, {:.2}", figure(median(&series.load)), median(&series.turns))
                })
            });
            row(text, std::iter::once(case.title().to_owned()).chain(cells));
        }
        let spread = timed.iter().map(|series| series.median() / series.min() - 1.0);
        let widest = spread.fold(0.0, f64::max);
        line(text, format_args!("\nThe medians lie up to {:.0} % above the minima.", 100.0 * widest));
    }

    pub fn json(&self) -> Value {
        let programs =
            self.programs.iter().map(|program| json!({ "name": program.peer.name(), "version": program.version }));
        let results = self.all.iter().map(|series| {
            json!({
                "case": series.case.title(),
                "peer": series.peer.name(),
                "unit": series.case.unit(),
                "minimum": series.min(),
                "median": series.median(),
                "values": series.values,
                "gateway_busy": series.busy,
                "load_us_per_operation": series.load,
                "gateway_turns_per_operation": series.turns,
            })
        });
        let standings = self.cases().filter_map(|case| self.standing(case)).map(|standing| {
            let (Target::Ratio(limit) | Target::Absolute(limit)) = standing.case.target();
            json!({
                "case": standing.case.title(),
                "better_peer": standing.better.map(|(peer, _)| peer.name()),
                "ratio_to_better": standing.better.map(|(_, theirs)| standing.ours / theirs),
                "target": limit,
                "reached": standing.reached(),
                "verdict": standing.verdict(),
            })
        });
        json!({
            "cores": { "gateway": self.cores.gateway, "load": self.cores.load },
            "rounds": self.rounds,
            "peers": programs.collect::<Vec<_>>(),
            "results": results.collect::<Vec<_>>(),
            "standings": standings.collect::<Vec<_>>(),
            "bridges": self.programs.iter().filter_map(|program| self.bridge(program.peer)).collect::<Vec<_>>(),
        })
    }

    /// The cases that were measured, in the order of the tables.
    fn cases(&self) -> impl Iterator<Item = Case> {
        Case::ALL.into_iter().filter(|case| self.has(*case))
    }

    fn has(&self, case: Case) -> bool {
        self.all.iter().any(|series| series.case == case)
    }

    fn series(&self, case: Case, peer: Peer) -> Option<&Series> {
        self.all.iter().find(|series| series.case == case && series.peer == peer)
    }

    fn standing(&self, case: Case) -> Option<Standing> {
        let ours = self.series(case, Peer::Wsgate)?.min();
        let better = [Peer::Nginx, Peer::Haproxy]
            .into_iter()
            .filter_map(|peer| Some((peer, self.series(case, peer)?.min())))
            .min_by(|(_, one), (_, other)| one.total_cmp(other));
        Some(Standing { case, ours, better })
    }
}

/// Three or more digits that mean something.
fn figure(value: f64) -> String {
    match value.abs() {
        0.0..10.0 => format!("{value:.2}"),
        10.0..1000.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

fn row(text: &mut String, cells: impl Iterator<Item = String>) {
    let cells: Vec<String> = cells.collect();
    line(text, format_args!("| {} |", cells.join(" | ")));
}

/// The line below a table's head: a title, then numbers.
fn rule(text: &mut String, numbers: usize) {
    line(text, format_args!("|---|{}", "---:|".repeat(numbers)));
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(text, "{line}").expect("a String takes every write");
}
