//! `wsgate probe`: which versions of the protocol a server speaks, by real handshakes, each on a connection of its own. This file
//! has the command line and the order of things; what is said, and what it means, have files of their own.

mod connect;
mod dialogue;
mod finding;
mod hearing;
mod json;
mod opening;
mod question;
mod table;
mod target;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use tokio::time::timeout_at;

use crate::config::units::parse_duration;
use connect::{ConnectError, Connection, Connector, Trust, TrustError};
use dialogue::{Patience, hold};
use finding::{Finding, Outcome, Verdict};
use question::{Common, Question};
use target::{Line, Origin, Target};

#[derive(clap::Args)]
pub struct Arguments {
    /// Where the server is: `ws://`, `wss://`, `http://` or `https://`.
    #[arg(value_name = "URL")]
    target: Target,
    /// One JSON document instead of the table.
    #[arg(long)]
    json: bool,
    /// A header line for every request, `Name: value`; may be given several times.
    #[arg(long = "header", value_name = "LINE")]
    headers: Vec<Line>,
    /// The origin that is shown; the server's own by default.
    #[arg(long)]
    origin: Option<Origin>,
    /// Believe any certificate.
    #[arg(long, conflicts_with = "ca")]
    insecure: bool,
    /// Believe the certificates of a PEM file, and no others.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// For each handshake, its connection included, from 1ms to 1h.
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = handshake_time)]
    timeout: Duration,
}

/// What a shell shows for a program that Control-C ended.
const INTERRUPTED: u8 = 130;

const TIMEOUT_MAX: Duration = Duration::from_secs(3600);

/// All that a probe came to know.
struct Report {
    url: String,
    /// What was asked, of what the host's name stands for.
    address: Option<SocketAddr>,
    findings: Vec<Finding>,
    verdict: Verdict,
}

pub fn probe(arguments: &Arguments) -> ExitCode {
    let trust = match (&arguments.ca, arguments.insecure) {
        (Some(path), _) => Trust::File(path.clone()),
        (None, true) => Trust::Anyone,
        (None, false) => Trust::System,
    };
    let connector = match Connector::new(arguments.target.clone(), &trust) {
        Ok(connector) => connector,
        Err(error) => {
            eprintln!("error: {error}");
            return match error {
                TrustError::File(_) | TrustError::Name => ExitCode::from(super::USAGE),
                TrustError::System(_) | TrustError::Empty | TrustError::Tls(_) => ExitCode::FAILURE,
            };
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(async {
        tokio::select! {
            code = ask_and_tell(arguments, connector) => code,
            _ = tokio::signal::ctrl_c() => ExitCode::from(INTERRUPTED),
        }
    });
    // A name that is still being looked up is not waited for.
    runtime.shutdown_background();
    code
}

async fn ask_and_tell(arguments: &Arguments, connector: Connector) -> ExitCode {
    match ask(arguments, connector).await {
        Ok(report) => {
            let text = if arguments.json { json::render(&report) } else { table::render(&report) };
            let is_told = io::stdout().write_all(text.as_bytes()).is_ok();
            if is_told && report.verdict.is_right_13 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("error: cannot reach `{}`: {error}", url(&arguments.target));
            if matches!(error, ConnectError::Certificate(_)) {
                eprintln!("hint: `--ca FILE` has it believed, `--insecure` believes anyone");
            }
            ExitCode::FAILURE
        }
    }
}

/// # Errors
/// When not even the first connection comes about: nothing is known of such a server.
async fn ask(arguments: &Arguments, mut connector: Connector) -> Result<Report, ConnectError> {
    let target = &arguments.target;
    let origin = arguments.origin.as_ref().map_or_else(|| target.origin(), |origin| origin.0.clone());
    let common = Common { target: target.clone(), origin, lines: arguments.headers.clone() };
    let mut chance = fastrand::Rng::new();
    let mut findings = Vec::new();
    for question in Question::ALL {
        let outcome = attempt(&mut connector, question, &common, arguments.timeout, &mut chance).await;
        match outcome {
            Outcome::Unconnected(error) if findings.is_empty() => return Err(error),
            outcome => findings.push(Finding { question, outcome }),
        }
    }
    let verdict = Verdict::of(&findings);
    Ok(Report { url: url(target), address: connector.address(), findings, verdict })
}

async fn attempt(
    connector: &mut Connector,
    question: Question,
    common: &Common,
    limit: Duration,
    chance: &mut fastrand::Rng,
) -> Outcome {
    let patience = Patience::new(limit);
    match timeout_at(patience.until, connector.connect()).await {
        Ok(Ok(Connection::Plain(stream))) => hold(stream, question, common, patience, chance).await,
        Ok(Ok(Connection::Tls(stream))) => hold(stream, question, common, patience, chance).await,
        Ok(Err(error)) => Outcome::Unconnected(error),
        Err(_) => Outcome::Unconnected(ConnectError::Timeout),
    }
}

/// As a WebSocket is called (RFC 6455 §3).
fn url(target: &Target) -> String {
    let scheme = match target.security {
        target::Security::Plain => "ws",
        target::Security::Tls => "wss",
    };
    format!("{scheme}://{}{}", target.authority, target.path_and_query)
}

fn handshake_time(text: &str) -> Result<Duration, String> {
    match parse_duration(text) {
        Ok(time) if time.is_zero() || time > TIMEOUT_MAX => Err("neither 0 nor more than 1h".to_owned()),
        Ok(time) => Ok(time),
        Err(error) => Err(error.to_string()),
    }
}
