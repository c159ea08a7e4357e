//! `[[upstream]]`. It does not know which routes use it.

use std::ops::Range;

use toml::Spanned;

use super::address;
use super::findings::Findings;
use super::name::name;
use super::tls;
use super::versions::spoken;
use crate::config::bounds;
use crate::config::file;
use crate::config::model::{Balance, Health, HealthCheck, Location, ProxyProtocol, Server, Upstream};
use crate::config::pattern::PathPattern;
use crate::config::problem::{Problem, ProblemCode};

pub fn upstream(findings: &mut Findings<'_>, given: &file::Upstream, table: &Range<usize>) -> Option<Upstream> {
    let name = name(findings, &given.name, table, "name = \"chat\"");
    let key = format!("upstream.{}", name.as_deref().unwrap_or_default());
    let versions = spoken(findings, &given.versions);
    let servers = servers(findings, given, table);
    let balance = findings.choice(&given.balance, Balance::LeastTunnels);
    if balance == Balance::ClientHash {
        findings.not_in_force(format!("{key}.balance"), "`client-hash` does what `least-tunnels` does");
    }
    let connect_timeout = findings.duration(&given.connect_timeout, bounds::CONNECT_TIMEOUT);
    let handshake_timeout = findings.duration(&given.handshake_timeout, bounds::HANDSHAKE_TIMEOUT);
    let response_timeout = findings.duration(&given.response_timeout, bounds::RESPONSE_TIMEOUT);
    let header_limit = findings.size(&given.header_limit, bounds::HEADER_LIMIT);
    let tries = findings.whole(&given.tries, bounds::TRIES);
    let proxy_protocol = findings.choice(&given.proxy_protocol, ProxyProtocol::Off);
    let health = health(findings, &given.health, &format!("{key}.health"));
    let tls = given.tls.as_ref().map(|section| tls::of_upstream(findings, section.get_ref(), &section.span()));
    Some(Upstream {
        name: name?,
        versions: versions?,
        servers: servers?,
        balance,
        connect_timeout,
        handshake_timeout,
        response_timeout,
        header_limit: usize::try_from(header_limit).unwrap_or(usize::MAX),
        tries,
        proxy_protocol,
        health,
        tls: tls.map_or(Some(None), |tls| tls.map(Some))?,
    })
}

fn servers(findings: &mut Findings<'_>, given: &file::Upstream, table: &Range<usize>) -> Option<Vec<Server>> {
    let example = "servers = [\"127.0.0.1:9001\"]";
    let list = findings.required(&given.servers, table, "servers", example)?;
    let before = findings.problems.len();
    if list.get_ref().is_empty() {
        let problem = Problem::new(ProblemCode::EmptyList, list.span(), "empty list").label("no server at all");
        findings.report(problem.hint("an upstream has at least one server"));
    }
    let mut seen: Vec<(Range<usize>, Location)> = Vec::new();
    let mut servers = Vec::new();
    for entry in list.get_ref() {
        let Some(server) = server(findings, entry) else {
            continue;
        };
        if let Some((first, _)) = seen.iter().find(|(_, address)| *address == server.address) {
            let message = format!("duplicate server: `{}`", server.address);
            let problem = Problem::new(ProblemCode::DuplicateServer, entry.span(), message)
                .label("again")
                .context(first.clone(), "first here")
                .hint("give one server more of the load with `weight`");
            findings.report(problem);
        }
        seen.push((entry.span(), server.address.clone()));
        servers.push(server);
    }
    let all_right = findings.problems.len() == before;
    all_right.then_some(servers)
}

fn server(findings: &mut Findings<'_>, entry: &Spanned<file::Server>) -> Option<Server> {
    let given = entry.get_ref();
    let example = "address = \"127.0.0.1:9001\"";
    let address = findings.required(&given.address, &entry.span(), "address", example);
    let address = address.and_then(|text| address::to_dial(findings, text));
    let weight = findings.whole(&given.weight, bounds::WEIGHT);
    let max_tunnels = findings.optional_whole(&given.max_tunnels, bounds::MAX_TUNNELS);
    Some(Server { address: address?, weight, max_tunnels })
}

fn health(findings: &mut Findings<'_>, given: &file::Health, key: &str) -> Health {
    let check = findings.choice(&given.check, HealthCheck::Off);
    if check != HealthCheck::Off {
        findings.not_in_force(format!("{key}.check"), "no server is probed: failed dials of clients take one out");
    }
    for (name, is_set) in
        [("path", given.path.is_some()), ("interval", given.interval.is_some()), ("rise", given.rise.is_some())]
    {
        if is_set {
            findings.not_in_force(format!("{key}.{name}"), "no server is probed");
        }
    }
    Health {
        check,
        path: health_path(findings, given),
        interval: findings.duration(&given.interval, bounds::HEALTH_INTERVAL),
        rise: findings.whole(&given.rise, bounds::HEALTH_RISE),
        fall: findings.whole(&given.fall, bounds::HEALTH_FALL),
        eject_time: findings.duration(&given.eject_time, bounds::EJECT_TIME),
    }
}

/// One path, so a pattern that is exact or a prefix only by its spelling.
fn health_path(findings: &mut Findings<'_>, given: &file::Health) -> String {
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
