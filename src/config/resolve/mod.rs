//! From what the file says to what the gateway runs on: every default filled in, every reference checked, every problem
//! reported. It does not know TOML syntax.

mod address;
mod dns;
mod findings;
mod gateway;
mod health;
mod limits;
mod listener;
mod name;
mod network;
mod route;
mod tls;
mod together;
mod upstream;
mod versions;

use std::num::NonZeroUsize;
use std::ops::Range;

use toml::Spanned;

use super::file::{File, Tables, Text};
use super::model::Config;
use super::problem::{Problem, ProblemCode};
use super::read::Reading;
use findings::Findings;

/// What became of a file: problems, or a configuration.
pub struct Resolution {
    /// `None` if there is a problem.
    pub config: Option<Config>,
    pub problems: Vec<Problem>,
}

/// Resolves as much as was read.
pub fn resolve(reading: &Reading, cores: NonZeroUsize) -> Resolution {
    let file = &reading.file;
    let findings = &mut Findings::new(&reading.holes);
    let gateway = gateway::gateway(findings, &file.gateway, cores);
    let admin = gateway::admin(findings, &file.admin);
    let log = gateway::log(findings, &file.log);
    let limits = limits::limits(findings, &file.limits);
    let dns = dns::dns(findings, &file.dns);
    sections(findings, file, &reading.root);

    let listener_names = names(&file.listener, |listener| &listener.name);
    let route_names = names(&file.route, |route| &route.name);
    let upstream_names = names(&file.upstream, |upstream| &upstream.name);
    for (kind, names) in [("listener", &listener_names), ("route", &route_names), ("upstream", &upstream_names)] {
        together::duplicate_names(findings, kind, names);
    }

    let listeners: Vec<_> = entries(&file.listener)
        .iter()
        .map(|entry| listener::listener(findings, entry.get_ref(), &entry.span()))
        .collect();
    let upstreams: Vec<_> = entries(&file.upstream)
        .iter()
        .map(|entry| upstream::upstream(findings, entry.get_ref(), &entry.span()))
        .collect();
    let known = route::Known {
        listeners: &without_spans(&listener_names),
        upstreams: &without_spans(&upstream_names),
        resolved: &upstreams,
    };
    let routes: Vec<_> = entries(&file.route)
        .iter()
        .map(|entry| route::route(findings, entry.get_ref(), &entry.span(), &known))
        .collect();

    together::duplicate_addresses(findings, file);
    together::unused_upstreams(findings, file, &upstream_names);
    together::unreachable_routes(findings, file, &routes);

    let problems = std::mem::take(&mut findings.problems);
    let complete = problems.is_empty();
    let all = || {
        Some(Config {
            gateway,
            admin,
            log,
            limits: limits?,
            dns,
            listeners: listeners.into_iter().collect::<Option<_>>()?,
            routes: routes.into_iter().collect::<Option<_>>()?,
            upstreams: upstreams.into_iter().collect::<Option<_>>()?,
        })
    };
    let config = if complete { all() } else { None };
    Resolution { config, problems }
}

/// There must be something to listen on, to decide and to forward to.
fn sections(findings: &mut Findings<'_>, file: &File, root: &Range<usize>) {
    let listener = file.listener.as_ref().map(|list| (list.span(), list.get_ref().len()));
    let route = file.route.as_ref().map(|list| (list.span(), list.get_ref().len()));
    let upstream = file.upstream.as_ref().map(|list| (list.span(), list.get_ref().len()));
    for (key, section) in [("listener", listener), ("route", route), ("upstream", upstream)] {
        let (span, label) = match section {
            Some((_, 1..)) => continue,
            Some((span, 0)) => (span, "nothing in it"),
            None if findings.is_hole(root, key) => continue,
            None => (root.clone(), "not in this file"),
        };
        let problem = Problem::new(ProblemCode::MissingSection, span, format!("missing section: `[[{key}]]`"))
            .label(label)
            .hint("the least that works is a listener, a route and an upstream: see `conf/minimal.toml`");
        findings.report(problem);
    }
}

fn entries<T>(tables: &Tables<T>) -> &[Spanned<T>] {
    tables.as_ref().map_or(&[], |list| list.get_ref())
}

/// The names as they are written, and where.
fn names<T>(tables: &Tables<T>, name: impl Fn(&T) -> &Text) -> Vec<Option<&Spanned<String>>> {
    let entries = entries(tables).iter();
    entries.map(|entry| name(entry.get_ref()).as_ref()).collect()
}

fn without_spans<'f>(names: &[Option<&'f Spanned<String>>]) -> Vec<Option<&'f str>> {
    let names = names.iter();
    names.map(|name| name.map(|name| name.get_ref().as_str())).collect()
}
