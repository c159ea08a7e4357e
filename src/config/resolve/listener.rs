//! `[[listener]]`. It does not know that two listeners must differ.

use std::ops::Range;

use super::address;
use super::findings::Findings;
use super::name::name;
use super::network::networks;
use super::tls;
use crate::config::bounds;
use crate::config::file;
use crate::config::model::Listener;

pub fn listener(findings: &mut Findings<'_>, given: &file::Listener, table: &Range<usize>) -> Option<Listener> {
    let name = name(findings, &given.name, table, "name = \"public\"");
    let listen = findings.required(&given.listen, table, "listen", "listen = \"0.0.0.0:80\"");
    let listen = listen.and_then(|text| address::to_listen(findings, text));
    let max_connections = findings.whole(&given.max_connections, bounds::MAX_CONNECTIONS);
    let connections_per_client = findings.optional_whole(&given.connections_per_client, bounds::CONNECTIONS_PER_CLIENT);
    let header_timeout = findings.duration(&given.header_timeout, bounds::HEADER_TIMEOUT);
    let header_limit = findings.size(&given.header_limit, bounds::HEADER_LIMIT);
    let body_timeout = findings.duration(&given.body_timeout, bounds::BODY_TIMEOUT);
    let keepalive_timeout = findings.duration(&given.keepalive_timeout, bounds::KEEPALIVE_TIMEOUT);
    let trusted_proxies = networks(findings, &given.trusted_proxies);
    let tls = given.tls.as_ref().map(|section| tls::of_listener(findings, section.get_ref(), &section.span()));
    Some(Listener {
        name: name?,
        listen: listen?,
        max_connections,
        connections_per_client,
        header_timeout,
        header_limit: usize::try_from(header_limit).unwrap_or(usize::MAX),
        body_timeout,
        keepalive_timeout,
        trusted_proxies: trusted_proxies?,
        tls: tls.map_or(Some(None), |tls| tls.map(Some))?,
    })
}
