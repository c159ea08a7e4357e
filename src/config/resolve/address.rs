//! Addresses: IP and port, as listeners bind them and servers are dialled. It resolves no names.

use std::net::{IpAddr, SocketAddr};

use toml::Spanned;

use super::findings::Findings;
use crate::config::problem::{Problem, ProblemCode};

/// An address to listen on; port 0 lets the system choose.
pub fn to_listen(findings: &mut Findings<'_>, text: &Spanned<String>) -> Option<SocketAddr> {
    parsed(findings, text)
}

/// An address to connect to.
pub fn to_dial(findings: &mut Findings<'_>, text: &Spanned<String>) -> Option<SocketAddr> {
    let address = parsed(findings, text)?;
    if address.port() == 0 {
        let problem = bad_address(text).label("no server listens on port 0");
        findings.report(problem);
        return None;
    }
    Some(address)
}

fn parsed(findings: &mut Findings<'_>, text: &Spanned<String>) -> Option<SocketAddr> {
    let address = text.get_ref().parse().ok();
    if address.is_none() {
        let problem = bad_address(text).label("not an IP address and a port");
        findings.report(problem.hint(hint(text.get_ref())));
    }
    address
}

fn bad_address(text: &Spanned<String>) -> Problem {
    let message = format!("bad address: `{}`", text.get_ref());
    Problem::new(ProblemCode::BadAddress, text.span(), message)
}

/// What the author could write instead.
fn hint(text: &str) -> String {
    if text.contains("://") {
        return "write the address alone, without a scheme".to_owned();
    }
    match text.parse() {
        Ok(IpAddr::V4(ip)) => return format!("add the port: `{ip}:8080`"),
        // The last part may be meant as the port.
        Ok(IpAddr::V6(_)) => return "write the IPv6 address in brackets and the port behind: `[::1]:8080`".to_owned(),
        Err(_) => {}
    }
    match text.rsplit_once(':') {
        Some((host, port)) if port.parse::<u16>().is_ok() => match host {
            "" | "*" => format!("for every address of this machine write `0.0.0.0:{port}` or `[::]:{port}`"),
            "localhost" => format!("write `127.0.0.1:{port}`"),
            _ => "names are resolved by discovery, which comes with a later release".to_owned(),
        },
        _ => "write it as `127.0.0.1:8080` or `[::1]:8080`".to_owned(),
    }
}
