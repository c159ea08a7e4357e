//! Addresses: IP and port, or a Unix socket, as listeners bind them and servers are dialled; and names in their place, which it
//! checks and does not resolve.

use std::net::{IpAddr, SocketAddr};

use toml::Spanned;

use super::findings::Findings;
use crate::address::{Address, AddressError};
use crate::config::location::{self, Location, NameError, SERVICE};
use crate::config::problem::{Problem, ProblemCode};

/// An address to listen on; port 0 lets the system choose.
pub fn to_listen(findings: &mut Findings<'_>, text: &Spanned<String>) -> Option<Address> {
    if text.get_ref().starts_with("unix:") {
        return socket(findings, text);
    }
    parsed(findings, text).map(Address::from)
}

/// As [`to_listen`], for what listens on IP addresses alone.
pub fn to_listen_on_ip(findings: &mut Findings<'_>, text: &Spanned<String>) -> Option<SocketAddr> {
    if text.get_ref().starts_with("unix:") {
        let problem = bad_address(text).label("the admin listener has no Unix socket");
        findings.report(problem.hint("write an IP address and a port, such as `127.0.0.1:9090`, or `off`"));
        return None;
    }
    parsed(findings, text)
}

/// An address to connect to, or a name of some.
pub fn to_dial(findings: &mut Findings<'_>, text: &Spanned<String>) -> Option<Location> {
    if text.get_ref().starts_with("unix:") {
        return socket(findings, text).map(Location::At);
    }
    if let Some(name) = text.get_ref().strip_prefix(SERVICE) {
        return service(findings, text, name);
    }
    if let Ok(host) = location::host_name(text.get_ref()) {
        findings.report(bad_address(text).label("no port").hint(format!("add the port: `{host}:9001`")));
        return None;
    }
    if let Some((host, port)) = host_and_port(text.get_ref()) {
        return named(findings, text, host, port);
    }
    let address = parsed(findings, text)?;
    if address.port() == 0 {
        let problem = bad_address(text).label("no server listens on port 0");
        findings.report(problem);
        return None;
    }
    Some(Location::At(address.into()))
}

/// A text that is meant as a name and a port: it is no address, and neither a URL nor one with parts left out.
fn host_and_port(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let port = port.parse().ok()?;
    let is_address = text.parse::<SocketAddr>().is_ok() || host.contains(['/', ':', '[', '*']) || host.is_empty();
    (!is_address).then_some((host, port))
}

fn named(findings: &mut Findings<'_>, text: &Spanned<String>, host: &str, port: u16) -> Option<Location> {
    match location::host_name(host) {
        Ok(_) if port == 0 => {
            findings.report(bad_address(text).label("no server listens on port 0"));
            None
        }
        Ok(host) => Some(Location::Name { host, port }),
        Err(error) => {
            let hint = match error {
                NameError::Underscore => {
                    "the name of a host has none (RFC 1123 §2.1); one of a service is written `srv:_ws._tcp.app.example`"
                }
                NameError::Number => "write an IP address and a port, or a name: `app.example:9001`",
                NameError::Character => {
                    "a name has letters, digits and hyphens; one in another script is written in punycode"
                }
                _ => "write it as `app.example:9001`",
            };
            findings.report(bad_address(text).label(error.to_string()).hint(hint));
            None
        }
    }
}

fn service(findings: &mut Findings<'_>, text: &Spanned<String>, name: &str) -> Option<Location> {
    match location::service_name(name) {
        Ok(name) => Some(Location::Service(name)),
        Err(error) => {
            let hint = match name.contains(':') {
                true => "the port comes with the answer: write the name alone, `srv:_ws._tcp.app.example`",
                false => "write it as `srv:_ws._tcp.app.example`",
            };
            findings.report(bad_address(text).label(error.to_string()).hint(hint));
            None
        }
    }
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
            _ => "a listener is bound to an address of this machine: write it as `127.0.0.1:8080`".to_owned(),
        },
        _ => "write it as `127.0.0.1:8080` or `[::1]:8080`".to_owned(),
    }
}
