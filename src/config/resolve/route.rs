//! `[[route]]`. It does not know the routes before and after it.

use std::fmt::Display;
use std::ops::Range;
use std::str::FromStr;

use toml::Spanned;

use super::findings::{Findings, Optional, suggest};
use super::name::name;
use super::versions::versions;
use crate::config::bounds;
use crate::config::choice::check_from_word;
use crate::config::file;
use crate::config::model::{Binary, Bridge, Check, Extensions, Frames, Handshake, Mode, OnRemove, PlainHttp, Route};
use crate::config::model::{RouteLimits, Spoken, Tunnel, Upstream, Versions};
use crate::config::pattern::{HostPattern, OriginPattern, PathPattern, PatternError};
use crate::config::problem::{Problem, ProblemCode};
use crate::config::units::{format_duration, format_size};
use crate::dialect::Dialect;

/// What a route can refer to, in the order of the file. The names stand even where the rest had a problem.
pub struct Known<'a> {
    pub listeners: &'a [Option<&'a str>],
    pub upstreams: &'a [Option<&'a str>],
    /// What became of the upstreams.
    pub resolved: &'a [Option<Upstream>],
}

pub fn route(
    findings: &mut Findings<'_>,
    given: &file::Route,
    table: &Range<usize>,
    known: &Known<'_>,
) -> Option<Route> {
    let name = name(findings, &given.name, table, "name = \"chat\"");
    let listeners = listeners(findings, given, known);
    let hosts = patterns::<HostPattern>(findings, &given.hosts, ProblemCode::BadHost, "host");
    let paths = patterns::<PathPattern>(findings, &given.paths, ProblemCode::BadPath, "path");
    let upstream = upstream(findings, given, table, known);
    let plain_http = findings.choice(&given.plain_http, PlainHttp::Forward);
    let spoken = upstream.and_then(|at| known.resolved[at].as_ref());
    let versions = route_versions(findings, &given.versions);
    let handshake = handshake(findings, &given.handshake);
    let bridge = bridge(findings, &given.bridge);
    let tunnel = tunnel(findings, &given.tunnel);
    if let (Some(versions), Some(upstream), Frames::Blind) = (&versions, spoken, tunnel.frames) {
        bridges(findings, given, table, versions, upstream);
    }
    let limits = limits(findings, &given.limits);
    let paths = paths.map(|paths| match paths.as_slice() {
        [] => vec![PathPattern::root()],
        _ => paths,
    });
    Some(Route {
        name: name?,
        listeners: listeners?,
        hosts: hosts?,
        paths: paths?,
        upstream: upstream?,
        plain_http,
        versions: versions?,
        handshake: handshake?,
        bridge,
        tunnel,
        limits,
    })
}

fn patterns<P>(findings: &mut Findings<'_>, value: &file::Texts, code: ProblemCode, what: &str) -> Option<Vec<P>>
where
    P: FromStr<Err = PatternError> + PartialEq + Display,
{
    findings.list_of_some(value, |findings, text| match text.get_ref().parse::<P>() {
        Ok(pattern) => Some(pattern),
        Err(error) => {
            let message = format!("bad {what}: `{}`", text.get_ref());
            let problem = Problem::new(code, text.span(), message).label(error.to_string());
            findings.report(match error.hint() {
                Some(hint) => problem.hint(hint),
                None => problem,
            });
            None
        }
    })
}

/// Every listener where the file names none.
fn listeners(findings: &mut Findings<'_>, given: &file::Route, known: &Known<'_>) -> Option<Vec<usize>> {
    let named = findings.list_of_some(&given.listeners, |findings, text| {
        let at = position(known.listeners, text.get_ref());
        if at.is_none() {
            let code = ProblemCode::UnknownListener;
            let problem = Problem::new(code, text.span(), format!("unknown listener: `{}`", text.get_ref()));
            let names = known.listeners.iter().copied().flatten().collect();
            findings.report(suggest(problem, text.get_ref(), names, "listeners of this file:"));
        }
        at
    })?;
    Some(match named.as_slice() {
        [] => (0..known.listeners.len()).collect(),
        _ => named,
    })
}

fn upstream(
    findings: &mut Findings<'_>,
    given: &file::Route,
    table: &Range<usize>,
    known: &Known<'_>,
) -> Option<usize> {
    let text = findings.required(&given.upstream, table, "upstream", "upstream = \"chat\"")?;
    let at = position(known.upstreams, text.get_ref());
    if at.is_none() {
        let code = ProblemCode::UnknownUpstream;
        let problem = Problem::new(code, text.span(), format!("unknown upstream: `{}`", text.get_ref()));
        let names = known.upstreams.iter().copied().flatten().collect();
        findings.report(suggest(problem, text.get_ref(), names, "upstreams of this file:"));
    }
    at
}

fn position(names: &[Option<&str>], name: &str) -> Option<usize> {
    names.iter().position(|known| *known == Some(name))
}

fn route_versions(findings: &mut Findings<'_>, given: &file::Versions) -> Option<Versions> {
    let mode = findings.choice(&given.mode, Mode::Enforce);
    let accept = versions(findings, &given.accept)?;
    Some(Versions { accept, mode })
}

/// A blind tunnel leaves bytes as they are, so both its sides have to speak one version.
fn bridges(
    findings: &mut Findings<'_>,
    given: &file::Route,
    table: &Range<usize>,
    versions: &Versions,
    upstream: &Upstream,
) {
    let (spoken, speaks) = match &upstream.versions {
        Spoken::Listed(list) => (list.as_slice(), format!("`[{}]`", listed(list))),
        Spoken::Auto => (&[][..], "what it says when asked".to_owned()),
    };
    let Some(version) = versions.accept.iter().find(|version| !spoken.contains(version)) else { return };
    let list = given.versions.accept.as_ref();
    let place = list.and_then(|list| list.get_ref().iter().find(|name| name.get_ref() == version.name()));
    let span = place.map_or(table.clone(), Spanned::span);
    let problem = Problem::new(ProblemCode::NoBridge, span, format!("no bridge for version: `{version}`"))
        .label(format!("upstream `{}` speaks {speaks}", upstream.name))
        .hint("a bridge changes bytes, and a blind tunnel does not: say `frames = \"track\"`, or take the version out");
    findings.report(with_context(problem, &given.tunnel.frames, "the frames"));
}

fn listed(versions: &[Dialect]) -> String {
    let words: Vec<&str> = versions.iter().map(|version| version.name()).collect();
    words.join(", ")
}

fn bridge(findings: &mut Findings<'_>, given: &file::Bridge) -> Bridge {
    Bridge {
        binary: findings.choice(&given.binary, Binary::Refuse),
        max_message_bytes: findings.size(&given.max_message, bounds::BRIDGE_MAX_MESSAGE),
    }
}

fn handshake(findings: &mut Findings<'_>, given: &file::Handshake) -> Option<Handshake> {
    let origins = patterns::<OriginPattern>(findings, &given.origins, ProblemCode::BadOrigin, "origin");
    let subprotocols = findings.list_of_some(&given.subprotocols, |findings, text| {
        if is_token(text.get_ref()) {
            return Some(text.get_ref().clone());
        }
        let message = format!("bad subprotocol: `{}`", text.get_ref());
        let problem = Problem::new(ProblemCode::BadSubprotocol, text.span(), message)
            .label("not a token of RFC 9110 §5.6.2")
            .hint("letters, digits and any of !#$%&'*+-.^_`|~");
        findings.report(problem);
        None
    });
    let relax = findings.list(&given.relax, |findings, text| {
        let check = check_from_word(text.get_ref());
        if check.is_none() {
            let message = format!("unknown check: `{}`", text.get_ref());
            let problem = Problem::new(ProblemCode::UnknownCheck, text.span(), message);
            let names = Check::ALL.map(Check::name).to_vec();
            findings.report(suggest(problem, text.get_ref(), names, "one of"));
        }
        check
    });
    let extensions = findings.choice(&given.extensions, Extensions::Pass);
    Some(Handshake { origins: origins?, subprotocols: subprotocols?, extensions, relax: relax? })
}

fn is_token(text: &str) -> bool {
    let is_token_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(is_token_byte)
}

fn tunnel(findings: &mut Findings<'_>, given: &file::Tunnel) -> Tunnel {
    let idle_timeout = match findings.optional_duration(&given.idle_timeout, bounds::IDLE_TIMEOUT.bounds) {
        Optional::Unset => Some(bounds::IDLE_TIMEOUT.default),
        given => given.value(),
    };
    let ping_interval = findings.optional_duration(&given.ping_interval, bounds::PING_INTERVAL).value();
    let max_age = findings.optional_duration(&given.max_age, bounds::MAX_AGE).value();
    let max_frame_bytes = findings.optional_size(&given.max_frame, bounds::MAX_FRAME).value();
    let max_message_bytes = findings.optional_size(&given.max_message, bounds::MAX_MESSAGE).value();
    let tunnel = Tunnel {
        frames: findings.choice(&given.frames, Frames::Track),
        idle_timeout,
        ping_interval,
        ping_timeout: findings.duration(&given.ping_timeout, bounds::PING_TIMEOUT),
        max_age,
        close_timeout: findings.duration(&given.close_timeout, bounds::CLOSE_TIMEOUT),
        max_frame_bytes,
        max_message_bytes,
        on_remove: findings.choice(&given.on_remove, OnRemove::Keep),
    };
    contradictions(findings, given, &tunnel);
    if tunnel.frames == Frames::Blind {
        blindness(findings, given, &tunnel);
    }
    tunnel
}

/// Keys that a tunnel without frames cannot keep to.
fn blindness(findings: &mut Findings<'_>, given: &file::Tunnel, tunnel: &Tunnel) {
    for (name, text, is_set) in [
        ("ping_interval", &given.ping_interval, tunnel.ping_interval.is_some()),
        ("max_frame", &given.max_frame, tunnel.max_frame_bytes.is_some()),
        ("max_message", &given.max_message, tunnel.max_message_bytes.is_some()),
    ] {
        if let (Some(text), true) = (text, is_set) {
            let message = format!("{name} needs to know frames: `{}`", text.get_ref());
            let problem = Problem::new(ProblemCode::Contradiction, text.span(), message)
                .label("without frames it would have no effect")
                .hint(format!("leave `{name}` out, or say `frames = \"track\"`"));
            findings.report(with_context(problem, &given.frames, "the frames"));
        }
    }
}

fn contradictions(findings: &mut Findings<'_>, given: &file::Tunnel, tunnel: &Tunnel) {
    if let (Some(text), Some(interval), Some(idle)) = (&given.ping_interval, tunnel.ping_interval, tunnel.idle_timeout)
        && interval >= idle
    {
        let message = format!("no ping before idle_timeout: `{}`", text.get_ref());
        let problem = Problem::new(ProblemCode::Contradiction, text.span(), message)
            .label(format!("not shorter than {}", format_duration(idle)))
            .hint("a quiet tunnel ends before it is pinged: make `ping_interval` shorter or `idle_timeout` longer");
        findings.report(with_context(problem, &given.idle_timeout, "the idle_timeout"));
    }
    if let (Some(text), Some(frame), Some(message)) =
        (&given.max_frame, tunnel.max_frame_bytes, tunnel.max_message_bytes)
        && frame > message
    {
        let text_of = format!("max_frame is more than max_message: `{}`", text.get_ref());
        let problem = Problem::new(ProblemCode::Contradiction, text.span(), text_of)
            .label(format!("more than {}", format_size(message)))
            .hint("a frame is part of a message, so it can be no larger");
        findings.report(with_context(problem, &given.max_message, "the max_message"));
    }
}

fn with_context(problem: Problem, other: &file::Text, label: &str) -> Problem {
    match other {
        Some(other) => problem.context(other.span(), label),
        None => problem,
    }
}

fn limits(findings: &mut Findings<'_>, given: &file::Limits) -> RouteLimits {
    RouteLimits {
        tunnels: findings.optional_whole(&given.tunnels, bounds::TUNNELS),
        tunnels_per_client: findings.optional_whole(&given.tunnels_per_client, bounds::TUNNELS_PER_CLIENT),
        handshakes_per_client: findings.rate(&given.handshakes_per_client),
    }
}
