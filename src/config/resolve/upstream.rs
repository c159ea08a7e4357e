//! `[[upstream]]`. It does not know which routes use it.

use std::ops::Range;

use toml::Spanned;

use super::address;
use super::findings::Findings;
use super::health;
use super::name::name;
use super::tls;
use super::versions::spoken;
use crate::config::bounds;
use crate::config::file;
use crate::config::model::{Balance, Location, ProxyProtocol, SameSite, Server, Sticky, Upstream};
use crate::config::problem::{Problem, ProblemCode};

pub fn upstream(findings: &mut Findings<'_>, given: &file::Upstream, table: &Range<usize>) -> Option<Upstream> {
    let name = name(findings, &given.name, table, "name = \"chat\"");
    let versions = spoken(findings, &given.versions);
    let servers = servers(findings, given, table);
    let balance = findings.choice(&given.balance, Balance::LeastTunnels);
    let hash_header = hash_header(findings, given, balance);
    let slow_start = findings.optional_duration(&given.slow_start, bounds::SLOW_START).value();
    let queue = findings.whole(&given.queue, bounds::QUEUE);
    let queue_timeout = findings.duration(&given.queue_timeout, bounds::QUEUE_TIMEOUT);
    let sticky = sticky(findings, &given.sticky);
    let connect_timeout = findings.duration(&given.connect_timeout, bounds::CONNECT_TIMEOUT);
    let handshake_timeout = findings.duration(&given.handshake_timeout, bounds::HANDSHAKE_TIMEOUT);
    let response_timeout = findings.duration(&given.response_timeout, bounds::RESPONSE_TIMEOUT);
    let header_limit = findings.size(&given.header_limit, bounds::HEADER_LIMIT);
    let tries = findings.whole(&given.tries, bounds::TRIES);
    let proxy_protocol = findings.choice(&given.proxy_protocol, ProxyProtocol::Off);
    let health = health::health(findings, &given.health);
    let tls = given.tls.as_ref().map(|section| tls::of_upstream(findings, section.get_ref(), &section.span()));
    Some(Upstream {
        name: name?,
        versions: versions?,
        servers: servers?,
        balance,
        hash_header,
        slow_start,
        queue,
        queue_timeout,
        sticky,
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
    let drain = given.drain.as_ref().is_some_and(|switch| *switch.get_ref());
    Some(Server { address: address?, weight, max_tunnels, drain })
}

/// The header that decides; always there where `header-hash` is the balance.
fn hash_header(findings: &mut Findings<'_>, given: &file::Upstream, balance: Balance) -> Option<String> {
    match (&given.hash_header, balance) {
        (Some(header), _) => token(findings, header, "hash_header = \"X-User\""),
        (None, Balance::HeaderHash) => {
            let span = given.balance.as_ref().map_or(0..0, Spanned::span);
            let problem = Problem::new(ProblemCode::Contradiction, span, "no header to hash").label("which one?");
            findings.report(problem.hint("add `hash_header = \"X-User\"`, or whatever says who a client is"));
            None
        }
        (None, Balance::LeastTunnels | Balance::RoundRobin | Balance::ClientHash) => None,
    }
}

fn sticky(findings: &mut Findings<'_>, given: &file::Sticky) -> Option<Sticky> {
    let is_on = |switch: &file::Switch| switch.as_ref().map(|switch| *switch.get_ref());
    let max_age = findings.optional_duration(&given.max_age, bounds::STICKY_MAX_AGE).value();
    let same_site = findings.choice(&given.same_site, SameSite::Lax);
    let Some(cookie) = &given.cookie else {
        let texts = [&given.max_age, &given.same_site].into_iter().flatten().map(Spanned::span);
        let switches = [&given.secure, &given.http_only].into_iter().flatten().map(Spanned::span);
        if let Some(span) = texts.chain(switches).next() {
            let problem = Problem::new(ProblemCode::Contradiction, span, "a cookie without a name");
            findings.report(problem.label("nothing is set without one").hint("add `cookie = \"wsgate\"`"));
        }
        return None;
    };
    let secure = is_on(&given.secure);
    if let (SameSite::None, Some(false) | None, Some(text)) = (same_site, secure, &given.same_site) {
        let problem =
            Problem::new(ProblemCode::Contradiction, text.span(), "a cookie of every site that is not secure");
        findings.report(problem.label("browsers drop it").hint("add `secure = true`"));
    }
    let cookie = token(findings, cookie, "cookie = \"wsgate\"");
    let (secure, http_only) = (secure.unwrap_or(false), is_on(&given.http_only).unwrap_or(true));
    Some(Sticky { cookie: cookie?, max_age, secure, http_only, same_site })
}

/// The name of a header or cookie (RFC 9110 §5.6.2, RFC 6265 §4.1.1).
fn token(findings: &mut Findings<'_>, text: &Spanned<String>, example: &str) -> Option<String> {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let name = text.get_ref();
    if name.is_empty() || !name.bytes().all(is_token) {
        let message = format!("bad name: `{name}`");
        let problem = Problem::new(ProblemCode::BadToken, text.span(), message).label("not a token of HTTP");
        findings.report(problem.hint(format!("letters, digits and `-`: `{example}`")));
        return None;
    }
    Some(name.clone())
}
