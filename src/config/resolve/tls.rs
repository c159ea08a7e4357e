//! `[listener.tls]` and `[upstream.tls]`. It reads none of the files that they name, so it does not know what is in them.

use std::net::IpAddr;
use std::ops::Range;
use std::path::PathBuf;

use toml::Spanned;

use super::findings::Findings;
use super::gateway::absolute_path;
use crate::config::bounds;
use crate::config::file::{self, Tables, Text};
use crate::config::model::{ClientCertificates, ListenerTls, Pair, TlsVersion, UpstreamTls};
use crate::config::pattern::HostPattern;
use crate::config::problem::{Problem, ProblemCode};

pub fn of_listener(
    findings: &mut Findings<'_>,
    given: &file::ListenerTls,
    table: &Range<usize>,
    offers_http2: bool,
) -> Option<ListenerTls> {
    let certificates = pairs(findings, &given.certificates, table);
    let client_certificates = findings.choice(&given.client_certificates, ClientCertificates::Off);
    let client_ca = client_ca(findings, given, table, client_certificates);
    let min_version = findings.choice(&given.min_version, TlsVersion::V1_2);
    let client_certificate_header = header(findings, &given.client_certificate_header, client_certificates);
    let handshake_timeout = findings.duration(&given.handshake_timeout, bounds::TLS_HANDSHAKE_TIMEOUT);
    Some(ListenerTls {
        certificates: certificates?,
        min_version,
        client_certificates,
        client_ca,
        client_certificate_header,
        handshake_timeout,
        offers_http2,
    })
}

pub fn of_upstream(
    findings: &mut Findings<'_>,
    given: &file::UpstreamTls,
    table: &Range<usize>,
) -> Option<UpstreamTls> {
    let server_name = findings.required(&given.server_name, table, "server_name", "server_name = \"app.example.com\"");
    let server_name = server_name.and_then(|text| server(findings, text));
    let ca = given.ca.as_ref().map(|text| absolute_path(findings, text));
    let identity = if given.certificate.is_some() || given.key.is_some() {
        let given = file::Pair { certificate: given.certificate.clone(), key: given.key.clone() };
        Some(pair(findings, &given, table)?)
    } else {
        None
    };
    let min_version = findings.choice(&given.min_version, TlsVersion::V1_2);
    Some(UpstreamTls { server_name: server_name?, ca, identity, min_version })
}

fn pairs(findings: &mut Findings<'_>, given: &Tables<file::Pair>, table: &Range<usize>) -> Option<Vec<Pair>> {
    let example = "certificates = [{ certificate = \"/etc/wsgate/tls/cert.pem\", key = \"/etc/wsgate/tls/key.pem\" }]";
    let list = findings.required(given, table, "certificates", example)?;
    if list.get_ref().is_empty() {
        let problem = Problem::new(ProblemCode::EmptyList, list.span(), "empty list").label("no certificate at all");
        findings.report(problem.hint("TLS needs at least one, for clients that ask for no name"));
    }
    let mut seen: Vec<(Range<usize>, PathBuf)> = Vec::new();
    let mut pairs = Vec::new();
    for entry in list.get_ref() {
        let pair = pair(findings, entry.get_ref(), &entry.span())?;
        if let Some((first, _)) = seen.iter().find(|(_, certificate)| *certificate == pair.certificate) {
            let message = format!("duplicate entry: `{}`", pair.certificate.display());
            let problem = Problem::new(ProblemCode::DuplicateEntry, entry.span(), message)
                .label("again")
                .context(first.clone(), "first here")
                .hint("take one of them out");
            findings.report(problem);
        }
        seen.push((entry.span(), pair.certificate.clone()));
        pairs.push(pair);
    }
    Some(pairs)
}

fn pair(findings: &mut Findings<'_>, given: &file::Pair, table: &Range<usize>) -> Option<Pair> {
    let certificate =
        findings.required(&given.certificate, table, "certificate", "certificate = \"/etc/wsgate/tls/cert.pem\"");
    let key = findings.required(&given.key, table, "key", "key = \"/etc/wsgate/tls/key.pem\"");
    let certificate = certificate.map(|text| absolute_path(findings, text));
    let key = key.map(|text| absolute_path(findings, text));
    Some(Pair { certificate: certificate?, key: key? })
}

/// Without it nobody could tell a right client certificate from a wrong one, and without client certificates nobody asks.
fn client_ca(
    findings: &mut Findings<'_>,
    given: &file::ListenerTls,
    table: &Range<usize>,
    wanted: ClientCertificates,
) -> Option<PathBuf> {
    if wanted != ClientCertificates::Off {
        let example = "client_ca = \"/etc/wsgate/tls/clients.pem\"";
        return findings
            .required(&given.client_ca, table, "client_ca", example)
            .map(|text| absolute_path(findings, text));
    }
    let text = given.client_ca.as_ref()?;
    findings.report(in_vain(text, "client_ca"));
    Some(absolute_path(findings, text))
}

/// A field of its own: none that the gateway writes, or that has a meaning to a hop.
fn header(findings: &mut Findings<'_>, value: &Text, wanted: ClientCertificates) -> Option<String> {
    let text = value.as_ref()?;
    let name = text.get_ref();
    if wanted == ClientCertificates::Off {
        findings.report(in_vain(text, "client_certificate_header"));
    }
    let problem = Problem::new(ProblemCode::BadHeader, text.span(), format!("bad header: `{name}`"));
    if !is_plain_name(name) {
        findings.report(problem.label("not a plain name of a field").hint("letters, digits and `-`"));
    } else if is_taken(name) {
        let hint = "choose one that nothing else has a meaning for: `X-Client-Certificate-Subject`";
        findings.report(problem.label("this field has another meaning").hint(hint));
    }
    Some(name.clone())
}

fn in_vain(text: &Spanned<String>, key: &str) -> Problem {
    Problem::new(ProblemCode::Contradiction, text.span(), format!("{key} without client certificates"))
        .label("nobody is asked for a certificate")
        .hint("add `client_certificates = \"required\"` or `\"optional\"`, or take this out")
}

/// Narrower than RFC 9110 §5.1: `_` and `-` are the same to some servers, and other marks are nobody's habit.
fn is_plain_name(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphabetic())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

fn is_taken(name: &str) -> bool {
    const NAMES: [&str; 20] = [
        "accept",
        "authorization",
        "connection",
        "content-length",
        "content-type",
        "cookie",
        "date",
        "expect",
        "forwarded",
        "host",
        "keep-alive",
        "origin",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "user-agent",
        "via",
        "x-real-ip",
    ];
    let name = name.to_ascii_lowercase();
    NAMES.contains(&name.as_str())
        || ["sec-", "x-forwarded-", "proxy-", "websocket-"].iter().any(|prefix| name.starts_with(prefix))
}

/// One host, so a pattern of hosts that has no wildcard; or an address as it stands.
fn server(findings: &mut Findings<'_>, text: &Spanned<String>) -> Option<String> {
    let name = text.get_ref();
    if let Ok(address) = name.parse::<IpAddr>() {
        return Some(address.to_string());
    }
    let message = format!("bad host: `{name}`");
    let problem = Problem::new(ProblemCode::BadHost, text.span(), message)
        .hint("write the name that is in the servers' certificates, or an IP address");
    match name.parse::<HostPattern>() {
        Err(error) => findings.report(problem.label(error.to_string())),
        Ok(_) if name.starts_with('*') => findings.report(problem.label("a server has one name")),
        Ok(_) if name.starts_with('[') => findings.report(problem.label("an address has no brackets here")),
        Ok(host) => return Some(host.to_string()),
    }
    None
}
