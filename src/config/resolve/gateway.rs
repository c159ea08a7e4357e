//! `[gateway]`, `[admin]` and `[log]`. It does not know listeners, routes or upstreams.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use toml::Spanned;

use super::address;
use super::findings::{Findings, suggest};
use crate::config::bounds;
use crate::config::file;
use crate::config::model::{AccessLog, Admin, Drain, Gateway, Log, LogFormat, LogLevel};
use crate::config::problem::{Problem, ProblemCode};
use crate::config::units::format_duration;

pub fn gateway(findings: &mut Findings<'_>, given: &file::Gateway, cores: NonZeroUsize) -> Gateway {
    let threads = match findings.whole(&given.threads, bounds::THREADS) {
        0 => cores.get(),
        threads => threads,
    };
    let upgrade_socket = match &given.upgrade_socket {
        Some(text) => absolute_path(findings, text),
        None => PathBuf::from(bounds::UPGRADE_SOCKET_DEFAULT),
    };
    let reload_on_change = given.reload_on_change.as_ref();
    let reload_on_change = reload_on_change.is_some_and(|switch| *switch.get_ref());
    Gateway { threads, upgrade_socket, reload_on_change, drain: drain(findings, &given.drain) }
}

fn drain(findings: &mut Findings<'_>, given: &file::Drain) -> Drain {
    let delay = findings.duration(&given.delay, bounds::DRAIN_DELAY);
    let timeout = findings.duration(&given.timeout, bounds::DRAIN_TIMEOUT);
    let Some(text) = &given.spread else {
        let spread = bounds::DRAIN_SPREAD.default.min(timeout);
        return Drain { delay, spread, timeout };
    };
    let spread = findings.duration(&given.spread, bounds::DRAIN_SPREAD);
    if spread > timeout {
        let message = format!("spread is longer than timeout: `{}`", text.get_ref());
        let problem = Problem::new(ProblemCode::Contradiction, text.span(), message)
            .label(format!("longer than {}", format_duration(timeout)))
            .hint("after `timeout` there is no tunnel left to be asked: make it longer, or `spread` shorter");
        findings.report(match &given.timeout {
            Some(timeout) => problem.context(timeout.span(), "the timeout"),
            None => problem,
        });
    }
    Drain { delay, spread, timeout }
}

pub fn admin(findings: &mut Findings<'_>, given: &file::Admin) -> Admin {
    let listen = match &given.listen {
        Some(text) if text.get_ref() == "off" => None,
        Some(text) => address::to_listen_on_ip(findings, text),
        None => Some(bounds::ADMIN_LISTEN_DEFAULT),
    };
    Admin { listen }
}

pub fn log(findings: &mut Findings<'_>, given: &file::Log) -> Log {
    let access = match &given.access {
        Some(text) => access_log(findings, text),
        None => AccessLog::Stdout,
    };
    Log {
        level: findings.choice(&given.level, LogLevel::Info),
        format: findings.choice(&given.format, LogFormat::Text),
        access,
    }
}

fn access_log(findings: &mut Findings<'_>, text: &Spanned<String>) -> AccessLog {
    match text.get_ref().as_str() {
        "stdout" => AccessLog::Stdout,
        "off" => AccessLog::Off,
        word if !word.contains('/') => {
            let message = format!("unknown choice: `{word}`");
            let problem = Problem::new(ProblemCode::UnknownChoice, text.span(), message)
                .label("neither a word that is known nor an absolute path");
            findings.report(suggest(problem, word, vec!["stdout", "off"], "an absolute path, or one of"));
            AccessLog::Stdout
        }
        _ => AccessLog::File(absolute_path(findings, text)),
    }
}

/// The gateway's working directory is not the operator's, so a relative path would be somewhere else.
pub fn absolute_path(findings: &mut Findings<'_>, text: &Spanned<String>) -> PathBuf {
    let path = Path::new(text.get_ref());
    if !path.is_absolute() || text.get_ref().ends_with('/') || text.get_ref().contains('\0') {
        let message = format!("bad file: `{}`", text.get_ref());
        let problem = Problem::new(ProblemCode::BadFile, text.span(), message)
            .label("not the absolute path of a file")
            .hint("begin it with `/` and end it with the name of the file");
        findings.report(problem);
    }
    path.to_owned()
}
