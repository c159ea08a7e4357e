//! What only shows when the parts of a file are looked at together: names and addresses given twice, upstreams that
//! nothing uses, routes that nothing can reach. It does not know what a single key may say.

use std::ops::Range;

use toml::Spanned;

use super::entries;
use super::findings::Findings;
use crate::address::Address;
use crate::config::bounds::ADMIN_LISTEN_DEFAULT;
use crate::config::file::File;
use crate::config::model::Route;
use crate::config::problem::{Problem, ProblemCode};
use crate::config::suggest::nearest;

pub fn duplicate_names(findings: &mut Findings<'_>, kind: &str, names: &[Option<&Spanned<String>>]) {
    for (at, name) in names.iter().enumerate() {
        let Some(name) = name else {
            continue;
        };
        let first = names[..at].iter().flatten().find(|earlier| earlier.get_ref() == name.get_ref());
        if let Some(first) = first {
            let message = format!("duplicate {kind} name: `{}`", name.get_ref());
            let problem = Problem::new(ProblemCode::DuplicateName, name.span(), message)
                .label("again")
                .context(first.span(), "first here")
                .hint("names tell them apart in metrics and logs: choose another one");
            findings.report(problem);
        }
    }
}

/// Two sockets cannot be bound to one port of one address, nor to one path; `0.0.0.0` and `[::]` are every address of their family.
pub fn duplicate_addresses(findings: &mut Findings<'_>, file: &File) {
    let mut bound: Vec<(Option<Range<usize>>, Address)> = Vec::new();
    match &file.admin.listen {
        Some(text) => bound.extend(text.get_ref().parse().ok().map(|address| (Some(text.span()), address))),
        None => bound.push((None, ADMIN_LISTEN_DEFAULT.into())),
    }
    for listener in entries(&file.listener) {
        let Some(text) = &listener.get_ref().listen else {
            continue;
        };
        let Ok(address) = text.get_ref().parse() else {
            continue;
        };
        if let Some((first, other)) = bound.iter().find(|(_, other)| collide(&address, other)) {
            let message = format!("duplicate listen address: `{address}`");
            let problem = Problem::new(ProblemCode::DuplicateListen, text.span(), message);
            findings.report(match first {
                Some(first) => problem
                    .label("cannot be bound too")
                    .context(first.clone(), "first here")
                    .hint("choose another port, or an address that does not include the other"),
                None => problem
                    .label(format!("`admin.listen` is {other} by default"))
                    .hint("choose another port, or write `listen = \"off\"` under `[admin]`"),
            });
        }
        bound.push((Some(text.span()), address));
    }
}

fn collide(one: &Address, other: &Address) -> bool {
    let (Some(one), Some(other)) = (one.ip(), other.ip()) else { return one == other };
    let same_family = one.is_ipv4() == other.is_ipv4();
    let same_ip = one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() != 0 && one.port() == other.port() && same_family && same_ip
}

/// A misspelt name counts as the one that was meant, and a route without an upstream may have meant any.
pub fn unused_upstreams(findings: &mut Findings<'_>, file: &File, names: &[Option<&Spanned<String>>]) {
    let routes = entries(&file.route).iter();
    let Some(used) = routes.map(|route| route.get_ref().upstream.as_ref()).collect::<Option<Vec<_>>>() else {
        return;
    };
    if used.is_empty() {
        return;
    }
    let known: Vec<&str> = names.iter().flatten().map(|name| name.get_ref().as_str()).collect();
    let meant = |used: &str| match known.iter().find(|name| **name == used) {
        Some(exact) => Some(*exact),
        None => nearest(used, known.iter().copied()),
    };
    let used: Vec<&str> = used.iter().filter_map(|used| meant(used.get_ref())).collect();
    for name in names.iter().flatten() {
        if !used.contains(&name.get_ref().as_str()) {
            let message = format!("upstream that no route uses: `{}`", name.get_ref());
            let problem = Problem::new(ProblemCode::UnusedUpstream, name.span(), message)
                .label("not named in any route")
                .hint("name it in a route, or take it out of the file");
            findings.report(problem);
        }
    }
}

/// The first route in the order of the file that matches decides, so one whose every listener, host and path some earlier
/// route takes is never asked. `routes` are those of the file, in its order.
pub fn unreachable_routes(findings: &mut Findings<'_>, file: &File, routes: &[Option<Route>]) {
    let entries = entries(&file.route);
    for (at, route) in routes.iter().enumerate() {
        let Some(route) = route.as_ref().filter(|_| is_whole(findings, &entries[at].span())) else {
            continue;
        };
        let earlier: Vec<(usize, &Route)> = routes[..at]
            .iter()
            .enumerate()
            .filter(|(earlier, _)| is_whole(findings, &entries[*earlier].span()))
            .filter_map(|(earlier, route)| route.as_ref().map(|route| (earlier, route)))
            .collect();
        let Some(first) = taken_by(route, &earlier) else {
            continue;
        };
        let message = format!("route that can never be reached: `{}`", route.name);
        let problem = Problem::new(ProblemCode::UnreachableRoute, entries[at].span(), message)
            .label("everything it would match is taken before")
            .context(entries[first].span(), "by this route")
            .hint("the first route that matches decides: put the narrower one first");
        findings.report(problem);
    }
}

/// Whether the file's own lists of listeners, hosts and paths were readable.
fn is_whole(findings: &Findings<'_>, table: &Range<usize>) -> bool {
    ["listeners", "hosts", "paths"].iter().all(|key| !findings.is_hole(table, key))
}

/// The first of the earlier routes that take something from `route`, if together they take everything.
fn taken_by(route: &Route, earlier: &[(usize, &Route)]) -> Option<usize> {
    let mut first = None;
    for listener in &route.listeners {
        // A route without hosts matches any; only another without hosts takes that.
        let hosts = route.hosts.iter().map(Some);
        let any_host = route.hosts.is_empty().then_some(None);
        for host in hosts.chain(any_host) {
            for path in &route.paths {
                let taker = earlier.iter().find(|(_, other)| {
                    let takes_host = other.hosts.is_empty()
                        || host.is_some_and(|host| other.hosts.iter().any(|taken| taken.covers(host)));
                    other.listeners.contains(listener)
                        && takes_host
                        && other.paths.iter().any(|taken| taken.covers(path))
                });
                let (at, _) = taker?;
                first = Some(first.map_or(*at, |first: usize| first.min(*at)));
            }
        }
    }
    first
}
