//! `[upstream.health]`. It does not know the upstream's servers.

use std::ops::Range;

use super::findings::Findings;
use crate::config::bounds;
use crate::config::file;
use crate::config::model::{Health, HealthCheck};
use crate::config::pattern::{HostPattern, PathPattern};
use crate::config::problem::{Problem, ProblemCode};
use crate::config::units::format_duration;

pub fn health(findings: &mut Findings<'_>, given: &file::Health) -> Health {
    let eject_time = findings.duration(&given.eject_time, bounds::EJECT_TIME);
    Health {
        check: findings.choice(&given.check, HealthCheck::Off),
        path: path(findings, given),
        host: host(findings, given),
        interval: findings.duration(&given.interval, bounds::HEALTH_INTERVAL),
        timeout: findings.duration(&given.timeout, bounds::HEALTH_TIMEOUT),
        rise: findings.whole(&given.rise, bounds::HEALTH_RISE),
        fall: findings.whole(&given.fall, bounds::HEALTH_FALL),
        eject_time,
        eject_time_max: eject_time_max(findings, given, eject_time),
        panic_threshold: findings.whole(&given.panic_threshold, bounds::PANIC_THRESHOLD),
    }
}

/// No shorter than the time that it bounds, and its default no shorter either.
fn eject_time_max(
    findings: &mut Findings<'_>,
    given: &file::Health,
    eject_time: std::time::Duration,
) -> std::time::Duration {
    let Some(text) = &given.eject_time_max else {
        return bounds::EJECT_TIME_MAX.default.max(eject_time);
    };
    let max = findings.duration(&given.eject_time_max, bounds::EJECT_TIME_MAX);
    if max < eject_time {
        let message = format!("eject_time_max is shorter than eject_time: `{}`", text.get_ref());
        let problem = Problem::new(ProblemCode::Contradiction, text.span(), message)
            .label(format!("shorter than {}", format_duration(eject_time)));
        findings.report(problem.hint("a server is out for `eject_time` at first, and longer each time"));
    }
    max
}

/// One path, so a pattern that is exact or a prefix only by its spelling.
fn path(findings: &mut Findings<'_>, given: &file::Health) -> String {
    let Some(text) = &given.path else {
        return bounds::HEALTH_PATH_DEFAULT.to_owned();
    };
    if let Err(error) = format!("={}", text.get_ref()).parse::<PathPattern>() {
        let message = format!("bad path: `{}`", text.get_ref());
        let problem = Problem::new(ProblemCode::BadPath, text.span(), message).label(error.to_string());
        findings.report(problem.hint("write a path and nothing behind it: `/ws`"));
    }
    text.get_ref().clone()
}

/// One host, so a pattern without a wildcard, and a port if it must be.
fn host(findings: &mut Findings<'_>, given: &file::Health) -> Option<String> {
    let text = given.host.as_ref()?;
    let without_port = match text.get_ref().rsplit_once(':') {
        Some((host, port)) if port.parse::<u16>().is_ok() && !host.ends_with(':') => host,
        _ => text.get_ref(),
    };
    let parsed = without_port.parse::<HostPattern>();
    if without_port.starts_with('*') || parsed.is_err() {
        let span: Range<usize> = text.span();
        let problem = Problem::new(ProblemCode::BadHost, span, format!("bad host: `{}`", text.get_ref()));
        findings.report(problem.label("not one host").hint("write it as a client would: `chat.example.com`"));
        return None;
    }
    Some(text.get_ref().clone())
}
