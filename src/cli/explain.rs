//! `wsgate explain`: one request head through routing and policy, step by step, with the very code that serves.

use std::io::{self, Read};
use std::path::Path;
use std::process::ExitCode;

use super::source;
use crate::answer;
use crate::config::Config;
use crate::config::model::{Spoken, Upstream};
use crate::handshake::request::{Head, HeadError, Intent};
use crate::handshake::{HeadScan, Scan};
use crate::policy::{Outcome, Permit, Policy};
use crate::reason::Reason;

pub fn explain(config: &Path, listener: Option<&str>, head: Option<&Path>) -> ExitCode {
    let config = match source::load(config) {
        Ok(config) => config,
        Err(code) => return code,
    };
    let Some(listener) = listener_index(&config, listener) else {
        eprintln!("error: unknown listener: `{}`", listener.unwrap_or_default());
        return ExitCode::from(super::USAGE);
    };
    let bytes = match read(head) {
        Ok(bytes) => with_line_ends(&bytes),
        Err(error) => {
            eprintln!("error: cannot read the head: {error}");
            return ExitCode::from(super::USAGE);
        }
    };
    let told = tell(&config, listener, &bytes.text);
    if bytes.completed {
        println!("       (line ends completed to CR LF, as a client would send them)");
    }
    print!("{}", told.text);
    if told.passes { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What there is to say of one head.
struct Told {
    text: String,
    passes: bool,
}

impl Told {
    fn line(&mut self, mark: &str, what: &str, more: &str) {
        let line = format!("{mark:<6} {what:<48} {more}");
        self.text += line.trim_end();
        self.text.push('\n');
    }

    fn refuse(mut self, answer: &[u8]) -> Told {
        self.text += "\nanswer:\n";
        self.text += &String::from_utf8_lossy(answer).replace("\r\n", "\n");
        self
    }
}

fn tell(config: &Config, listener: usize, bytes: &[u8]) -> Told {
    let mut told = Told { text: String::new(), passes: false };
    let rules = &config.listeners[listener];
    told.line("", "listener", &rules.name);
    let length = match HeadScan::new(rules.header_limit).advance(bytes) {
        Scan::Complete(length) => length,
        Scan::Incomplete => return refused(told, "head is complete", Reason::HeadTimeout),
        Scan::Malformed => return refused(told, "head has whole lines and no control bytes", Reason::HeadMalformed),
        Scan::TooLarge => return refused(told, "head is within `header_limit`", Reason::HeadTooLarge),
    };
    let head = match Head::parse(&bytes[..length]) {
        Ok(head) => head,
        Err(HeadError::Host) => return refused(told, "exactly one valid Host", Reason::HostMissing),
        Err(HeadError::TooManyFields) => return refused(told, "number of fields", Reason::HeadTooLarge),
        Err(error) => return refused(told, &format!("head is unambiguous ({error:?})"), Reason::HeadMalformed),
    };
    told.line("ok", "head is unambiguous", "RFC 9112 §3, §5, §6");
    decide(told, config, listener, &head)
}

fn decide(mut told: Told, config: &Config, listener: usize, head: &Head<'_>) -> Told {
    let policy = Policy::new(config);
    let mut steps = Vec::new();
    let decision =
        policy.decide_and_tell(listener, head, |check, outcome| steps.push((check.name, check.source, outcome)));
    let Some(route) = decision.route else { return refused(told, "a route matches", Reason::NoRoute) };
    told.line("ok", "a route matches", &config.routes[route].name);
    let intent = match head.intent() {
        Intent::Plain => "a plain request",
        Intent::Upgrade => "an attempt to upgrade",
    };
    told.line("", "intent", intent);
    for (name, source, outcome) in steps {
        match outcome {
            Outcome::Passed => told.line("ok", name, source),
            Outcome::Noted(reason) => told.line("noted", name, &format!("{source}: {reason}, let through")),
            Outcome::Refused(reason) => told.line("REFUSE", name, &format!("{source}: {reason}")),
        }
    }
    match &decision.verdict {
        Ok(permit) => {
            let upstream = &config.upstreams[config.routes[permit.route()].upstream];
            told.line("pass", "goes to upstream", &format!("{}{}", upstream.name, spoken(permit, upstream)));
            told.passes = true;
            told
        }
        Err(reason) => told.refuse(&answer::refusal(*reason, policy.advertised(&decision, *reason))),
    }
}

/// In which version a server is asked.
fn spoken(permit: &Permit, upstream: &Upstream) -> String {
    let Some(own) = permit.speaks() else { return String::new() };
    match &upstream.versions {
        Spoken::Auto => ", in a version that its server says it speaks".to_owned(),
        Spoken::Listed(list) => match own.towards(list) {
            Some(other) if other != own => format!(", translated from version {own} to {other}"),
            Some(_) | None => format!(", in version {own}"),
        },
    }
}

fn refused(mut told: Told, step: &str, reason: Reason) -> Told {
    told.line("REFUSE", step, reason.code());
    told.refuse(&answer::refusal(reason, None))
}

fn listener_index(config: &Config, name: Option<&str>) -> Option<usize> {
    match name {
        None => Some(0),
        Some(name) => config.listeners.iter().position(|listener| listener.name == name),
    }
}

fn read(head: Option<&Path>) -> io::Result<Vec<u8>> {
    match head {
        Some(path) => std::fs::read(path),
        None => {
            let mut bytes = Vec::new();
            io::stdin().lock().read_to_end(&mut bytes)?;
            Ok(bytes)
        }
    }
}

/// A head that a person typed has bare line feeds, and often no empty line. One with a carriage return is taken as it is.
fn with_line_ends(bytes: &[u8]) -> Typed {
    if bytes.contains(&b'\r') {
        return Typed { text: bytes.to_vec(), completed: false };
    }
    let mut out = Vec::with_capacity(bytes.len() + 64);
    for line in bytes.trim_ascii_end().split(|&byte| byte == b'\n') {
        out.extend_from_slice(line);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
    Typed { text: out, completed: true }
}

/// A head as it was given, or with the line ends that its author left out.
struct Typed {
    text: Vec<u8>,
    completed: bool,
}
