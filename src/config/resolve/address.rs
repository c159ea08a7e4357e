//! Addresses: IP and port, or a Unix socket, as listeners bind them and servers are dialled. It resolves no names.

use std::net::{IpAddr, SocketAddr};

use toml::Spanned;

use super::findings::Findings;
use crate::address::{Address, AddressError};
use crate::config::problem::{Problem, ProblemCode};

/// An address to listen on; port 0 lets the system choose.
pub fn to_listen(findings: &mut Findings<'_>, text: &Spanned<String>) -> Option<SocketAddr> {
    parsed(findings, text)
}

/// An address to connect to.
pub fn to_dial(findings: &mut Findings<'_>, text: &Spanned<String>) -> Option<Address> {
    if text.get_ref().starts_with("unix:") {
        return socket(findings, text);
    }
    let address = parsed(findings, text)?;
    if address.port() == 0 {
        let problem = bad_address(text).label("no server listens on port 0");
        findings.report(problem);
        return None;
    }
    Some(address.into())
}

fn socket(findings: &mut Findings<'_>, text: &Spanned<String>) -> Option<Address> {
    let parsed = text.get_ref().parse();
    parsed
        .map_err(|error: AddressError| findings.report(bad_address(text).label(error.to_string()).hint(UNIX_HINT)))
        .ok()
}

const UNIX_HINT: &str = "a Unix socket is written with its whole path: `unix:/run/app.sock`";

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
    if text.starts_with('/') {
        return UNIX_HINT.to_owned();
    }
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
