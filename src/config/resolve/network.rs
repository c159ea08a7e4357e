//! Lists of networks. It does not know what being on one means.

use std::str::FromStr;

use ipnet::IpNet;

use super::findings::Findings;
use crate::config::file::Texts;
use crate::config::model::TrustedProxy;
use crate::config::problem::{Problem, ProblemCode};

pub fn networks(findings: &mut Findings<'_>, given: &Texts) -> Option<Vec<IpNet>> {
    parsed(findings, given, "not an address with the length of its prefix", "")
}

/// Networks, and the word for whoever comes over a Unix socket.
pub fn proxies(findings: &mut Findings<'_>, given: &Texts) -> Option<Vec<TrustedProxy>> {
    let or_unix = ", or `unix` for whoever comes over a Unix socket";
    parsed(findings, given, "neither an address with the length of its prefix nor `unix`", or_unix)
}

fn parsed<N: FromStr + PartialEq>(findings: &mut Findings<'_>, given: &Texts, label: &str, or: &str) -> Option<Vec<N>> {
    findings.list(given, |findings, text| {
        let network = text.get_ref().parse().ok();
        if network.is_none() {
            let message = format!("bad network: `{}`", text.get_ref());
            let problem = Problem::new(ProblemCode::BadNetwork, text.span(), message).label(label);
            findings.report(problem.hint(network_hint(text.get_ref(), or)));
        }
        network
    })
}

fn network_hint(text: &str, or: &str) -> String {
    match text.parse() {
        Ok(std::net::IpAddr::V4(ip)) => format!("for one address write `{ip}/32`"),
        Ok(std::net::IpAddr::V6(ip)) => format!("for one address write `{ip}/128`"),
        Err(_) => format!("write it as `10.0.0.0/8` or `2001:db8::/32`{or}"),
    }
}
