//! `[[listener]]`. It does not know that two listeners must differ.

use std::ops::Range;

use super::address;
use super::findings::Findings;
use super::name::name;
use super::network::proxies;
use super::tls;
use crate::address::Address;
use crate::config::bounds;
use crate::config::file;
use crate::config::model::{ClientAddress, ForwardedField, Listener};
use crate::config::problem::{Problem, ProblemCode};

pub fn listener(findings: &mut Findings<'_>, given: &file::Listener, table: &Range<usize>) -> Option<Listener> {
    let name = name(findings, &given.name, table, "name = \"public\"");
    let listen = findings.required(&given.listen, table, "listen", "listen = \"0.0.0.0:80\"");
    let listen = listen.and_then(|text| address::to_listen(findings, text));
    let socket_mode = socket_mode(findings, given, listen.as_ref());
    let max_connections = findings.whole(&given.max_connections, bounds::MAX_CONNECTIONS);
    let connections_per_client = findings.optional_whole(&given.connections_per_client, bounds::CONNECTIONS_PER_CLIENT);
    let header_timeout = findings.duration(&given.header_timeout, bounds::HEADER_TIMEOUT);
    let header_limit = findings.size(&given.header_limit, bounds::HEADER_LIMIT);
    let body_timeout = findings.duration(&given.body_timeout, bounds::BODY_TIMEOUT);
    let keepalive_timeout = findings.duration(&given.keepalive_timeout, bounds::KEEPALIVE_TIMEOUT);
    let trusted_proxies = proxies(findings, &given.trusted_proxies);
    let http2 = given.http2.as_ref().is_some_and(|switch| *switch.get_ref());
    let http2_streams = findings.whole(&given.http2_streams, bounds::HTTP2_STREAMS);
    let tls = given.tls.as_ref().map(|section| tls::of_listener(findings, section.get_ref(), &section.span(), http2));
    let client_address = findings.choice(&given.client_address, ClientAddress::Peer);
    let forwarded_field = findings.choice(&given.forwarded_field, ForwardedField::XForwardedFor);
    believed(findings, given, client_address, table);
    is_read(findings, given, client_address, forwarded_field);
    Some(Listener {
        name: name?,
        listen: listen?,
        socket_mode,
        max_connections,
        connections_per_client,
        header_timeout,
        header_limit: usize::try_from(header_limit).unwrap_or(usize::MAX),
        body_timeout,
        keepalive_timeout,
        client_address,
        forwarded_field,
        trusted_proxies: trusted_proxies?,
        http2,
        http2_streams,
        tls: tls.map_or(Some(None), |tls| tls.map(Some))?,
    })
}

/// Three octal digits, as `chmod` takes them; a zero in front does no harm.
fn socket_mode(findings: &mut Findings<'_>, given: &file::Listener, listen: Option<&Address>) -> u32 {
    let Some(text) = &given.socket_mode else { return bounds::SOCKET_MODE_DEFAULT };
    let is_octal = matches!(text.get_ref().len(), 3 | 4) && text.get_ref().bytes().all(|digit| digit.is_ascii_digit());
    let mode = u32::from_str_radix(text.get_ref(), 8).ok().filter(|mode| is_octal && *mode <= bounds::SOCKET_MODE_MAX);
    if mode.is_none() {
        let message = format!("bad mode of a file: `{}`", text.get_ref());
        let problem = Problem::new(ProblemCode::BadMode, text.span(), message).label("not three octal digits");
        findings.report(problem.hint("write who may read and write, which is to connect: `0660` is user and group"));
    }
    let is_in_vain = mode.is_some_and(|mode| mode != bounds::SOCKET_MODE_DEFAULT);
    if let (Some(Address::Ip(_)), true) = (listen, is_in_vain) {
        let message = format!("socket_mode of a listener without a file: `{}`", text.get_ref());
        let problem =
            Problem::new(ProblemCode::Contradiction, text.span(), message).label("there is no file to have it");
        findings.report(problem.hint("it is for Unix sockets: `listen = \"unix:/run/wsgate.sock\"`"));
    }
    mode.unwrap_or(bounds::SOCKET_MODE_DEFAULT)
}

/// Somebody has to be believed where not the peer says who the client is.
fn believed(findings: &mut Findings<'_>, given: &file::Listener, from: ClientAddress, table: &Range<usize>) {
    let nobody = given.trusted_proxies.as_ref().is_none_or(|list| list.get_ref().is_empty());
    let is_hole = findings.is_hole(table, "trusted_proxies");
    if let Some(word) = given.client_address.as_ref().filter(|_| from != ClientAddress::Peer && nobody && !is_hole) {
        let message = format!("client_address without trusted_proxies: `{}`", word.get_ref());
        let problem = Problem::new(ProblemCode::Contradiction, word.span(), message).label("nobody is believed");
        findings
            .report(problem.hint("list the networks of the proxies in front: `trusted_proxies = [\"10.0.0.0/8\"]`"));
    }
}

/// A field that is chosen has to be read.
fn is_read(findings: &mut Findings<'_>, given: &file::Listener, from: ClientAddress, field: ForwardedField) {
    let is_in_vain = from != ClientAddress::Forwarded && field != ForwardedField::XForwardedFor;
    if let Some(word) = given.forwarded_field.as_ref().filter(|_| is_in_vain) {
        let message = format!("forwarded_field that is not read: `{}`", word.get_ref());
        let problem = Problem::new(ProblemCode::Contradiction, word.span(), message);
        findings.report(
            problem.label("not asked for").hint("write `client_address = \"forwarded\"`, or take this key away"),
        );
    }
}
