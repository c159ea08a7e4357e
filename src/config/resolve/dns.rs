//! `[dns]`. It does not know which servers are given as names.

use std::net::{IpAddr, SocketAddr};

use toml::Spanned;

use super::findings::Findings;
use super::gateway::absolute_path;
use crate::config::bounds;
use crate::config::file;
use crate::config::model::Dns;
use crate::config::problem::{Problem, ProblemCode};
use crate::config::units::format_duration;

pub fn dns(findings: &mut Findings<'_>, given: &file::Dns) -> Dns {
    let servers = findings.list_of_some(&given.servers, name_server);
    let resolv_conf = match &given.resolv_conf {
        Some(text) => absolute_path(findings, text),
        None => bounds::RESOLV_CONF_DEFAULT.into(),
    };
    let min_ttl = findings.duration(&given.min_ttl, bounds::DNS_MIN_TTL);
    let max_ttl = findings.duration(&given.max_ttl, bounds::DNS_MAX_TTL);
    if min_ttl > max_ttl {
        let (text, label, other) = match (&given.min_ttl, &given.max_ttl) {
            (Some(min), max) => (min, format!("longer than {}", format_duration(max_ttl)), max),
            // The defaults do not contradict each other, so one of the two is there.
            (None, Some(max)) => (max, format!("shorter than {}", format_duration(min_ttl)), &None),
            (None, None) => return Dns::default(),
        };
        let message = format!("min_ttl is longer than max_ttl: `{}`", text.get_ref());
        let problem = Problem::new(ProblemCode::Contradiction, text.span(), message).label(label);
        let problem = problem.hint("an answer is kept for at least `min_ttl` and at most `max_ttl`");
        findings.report(match other {
            Some(other) => problem.context(other.span(), "the other one"),
            None => problem,
        });
    }
    Dns {
        servers: servers.unwrap_or_default(),
        resolv_conf,
        timeout: findings.duration(&given.timeout, bounds::DNS_TIMEOUT),
        attempts: findings.whole(&given.attempts, bounds::DNS_ATTEMPTS),
        min_ttl,
        max_ttl,
        empty_after: findings.duration(&given.empty_after, bounds::DNS_EMPTY_AFTER),
    }
}

/// An address, with or without a port.
fn name_server(findings: &mut Findings<'_>, text: &Spanned<String>) -> Option<SocketAddr> {
    let given = text.get_ref();
    let address = given.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, bounds::DNS_PORT)).or_else(|_| given.parse());
    let address = address.ok().filter(|address: &SocketAddr| address.port() != 0);
    if address.is_none() {
        let problem = Problem::new(ProblemCode::BadAddress, text.span(), format!("bad address: `{given}`"))
            .label("not an IP address, with or without a port")
            .hint("a name server cannot be given by a name: write `10.0.0.2`, `10.0.0.2:5353` or `[2001:db8::2]:5353`");
        findings.report(problem);
    }
    address
}
