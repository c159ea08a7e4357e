//! `[[listener]]`. It does not know that two listeners must differ.

use std::ops::Range;

use super::address;
use super::findings::Findings;
use super::name::name;
use crate::config::bounds;
use crate::config::file;
use crate::config::model::Listener;
use crate::config::problem::{Problem, ProblemCode};

pub fn listener(findings: &mut Findings<'_>, given: &file::Listener, table: &Range<usize>) -> Option<Listener> {
    let name = name(findings, &given.name, table, "name = \"public\"");
    let listen = findings.required(&given.listen, table, "listen", "listen = \"0.0.0.0:80\"");
    let listen = listen.and_then(|text| address::to_listen(findings, text));
    let max_connections = findings.whole(&given.max_connections, bounds::MAX_CONNECTIONS);
    let header_timeout = findings.duration(&given.header_timeout, bounds::HEADER_TIMEOUT);
    let header_limit = findings.size(&given.header_limit, bounds::HEADER_LIMIT);
    let body_timeout = findings.duration(&given.body_timeout, bounds::BODY_TIMEOUT);
    let keepalive_timeout = findings.duration(&given.keepalive_timeout, bounds::KEEPALIVE_TIMEOUT);
    let trusted_proxies = findings.list(&given.trusted_proxies, |findings, text| {
        let network = text.get_ref().parse().ok();
        if network.is_none() {
            let message = format!("bad network: `{}`", text.get_ref());
            let problem = Problem::new(ProblemCode::BadNetwork, text.span(), message)
                .label("not an address with the length of its prefix")
                .hint(network_hint(text.get_ref()));
            findings.report(problem);
        }
        network
    });
    Some(Listener {
        name: name?,
        listen: listen?,
        max_connections,
        header_timeout,
        header_limit: usize::try_from(header_limit).unwrap_or(usize::MAX),
        body_timeout,
        keepalive_timeout,
        trusted_proxies: trusted_proxies?,
    })
}

fn network_hint(text: &str) -> String {
    match text.parse() {
        Ok(std::net::IpAddr::V4(ip)) => format!("for one address write `{ip}/32`"),
        Ok(std::net::IpAddr::V6(ip)) => format!("for one address write `{ip}/128`"),
        Err(_) => "write it as `10.0.0.0/8` or `2001:db8::/32`".to_owned(),
    }
}
