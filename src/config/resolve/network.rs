//! Lists of networks. It does not know what being on one means.

use ipnet::IpNet;

use super::findings::Findings;
use crate::config::file::Texts;
use crate::config::problem::{Problem, ProblemCode};

pub fn networks(findings: &mut Findings<'_>, given: &Texts) -> Option<Vec<IpNet>> {
    findings.list(given, |findings, text| {
        let network = text.get_ref().parse().ok();
        if network.is_none() {
            let message = format!("bad network: `{}`", text.get_ref());
            let problem = Problem::new(ProblemCode::BadNetwork, text.span(), message)
                .label("not an address with the length of its prefix")
                .hint(network_hint(text.get_ref()));
            findings.report(problem);
        }
        network
    })
}

fn network_hint(text: &str) -> String {
    match text.parse() {
        Ok(std::net::IpAddr::V4(ip)) => format!("for one address write `{ip}/32`"),
        Ok(std::net::IpAddr::V6(ip)) => format!("for one address write `{ip}/128`"),
        Err(_) => "write it as `10.0.0.0/8` or `2001:db8::/32`".to_owned(),
    }
}
