//! Asks name servers, through hickory: `/etc/hosts` first, then each name of the search list. It does not know what becomes of
//! an answer, nor when to ask.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{join, join_all};
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ProtocolConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::ProtoError;
use hickory_resolver::proto::op::Query;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::system_conf::parse_resolv_conf;
use hickory_resolver::{Hosts, TokioResolver};
use tracing::warn;

use crate::config::model;
use crate::config::model::Location;
use crate::names::answer::{self, Answer, Family, Found, Outcome, Service};
use crate::names::search::{Search, is_top_level};

/// Why there is no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Failure {
    #[error(transparent)]
    Asking(#[from] NetError),
    #[error(transparent)]
    Name(#[from] ProtoError),
    #[error("no answer in time")]
    Late,
}

pub struct Dns {
    resolver: TokioResolver,
    search: Search,
    rules: model::Dns,
    /// What `resolv.conf` said.
    text: String,
}

/// How long an address of `/etc/hosts` holds, which says nothing of it.
const LOCAL_TTL: Duration = Duration::from_secs(5);

/// Targets of one name's SRV records whose addresses are asked for; more are left out.
const TARGETS_MAX: usize = 256;

impl Dns {
    /// For the runtime on which it is made.
    ///
    /// # Errors
    /// When hickory refuses what it is told.
    pub fn new(rules: &model::Dns) -> Result<Dns, Failure> {
        let text = fs::read_to_string(&rules.resolv_conf).unwrap_or_else(|error| {
            if rules.servers.is_empty() {
                warn!(file = %rules.resolv_conf.display(), %error, "cannot read which name servers there are");
            }
            String::new()
        });
        let (system, options) = system_config(&text)?;
        let name_servers = match rules.servers.as_slice() {
            [] => system.name_servers,
            servers => servers.iter().map(|server| name_server(server.ip(), server.port())).collect(),
        };
        let domains = system.search.iter().map(Name::to_ascii).collect();
        let search = Search { domains, ndots: options.ndots };
        let config = ResolverConfig::from_parts(None, Vec::new(), name_servers);
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        *builder.options_mut() = hickory_options(rules, &options);
        Ok(Dns { resolver: builder.build()?, search, rules: rules.clone(), text })
    }

    /// Whether it was made for other rules, or `resolv.conf` says something else by now.
    pub fn is_outdated(&self, rules: &model::Dns) -> bool {
        self.rules != *rules || fs::read_to_string(&rules.resolv_conf).is_ok_and(|text| text != self.text)
    }

    /// The servers that a name stands for. `before` is what was known of it.
    ///
    /// # Errors
    /// When name servers failed in such a way that nothing can be said.
    pub async fn find(&self, name: &Location, before: &[Found]) -> Outcome<Found, Failure> {
        match name {
            Location::At(_) => Ok(Answer::Nobody { ttl: None }),
            Location::Name { host, port } => {
                let host: Arc<str> = host.as_str().into();
                let addresses = self.host(&host, before).await?;
                Ok(addresses.map(|ips| answer::of_host(&host, *port, &ips)))
            }
            Location::Service(name) => self.service(name, before).await,
        }
    }

    async fn service(&self, name: &str, before: &[Found]) -> Outcome<Found, Failure> {
        let mut nobody = None;
        for name in self.search.candidates(name) {
            match self.services(&name).await? {
                Answer::Some { records, ttl } => return self.targets(records, ttl, before).await,
                Answer::Nobody { ttl } => nobody = nobody.into_iter().chain(ttl).min(),
            }
        }
        Ok(Answer::Nobody { ttl: nobody })
    }

    /// The first priority of which somebody is there.
    async fn targets(&self, records: Vec<Service>, mut ttl: Duration, before: &[Found]) -> Outcome<Found, Failure> {
        for mut group in answer::by_priority(records) {
            group.truncate(TARGETS_MAX);
            let asked = group.iter().map(|record| self.host(&record.target, before));
            let (mut targets, mut failed) = (Vec::new(), None);
            for (record, addresses) in group.iter().zip(join_all(asked).await) {
                match addresses {
                    Ok(Answer::Some { records: ips, ttl: other }) => {
                        ttl = ttl.min(other);
                        targets.push((record.clone(), ips));
                    }
                    Ok(Answer::Nobody { ttl: other }) => ttl = ttl.min(other.unwrap_or(ttl)),
                    Err(failure) => {
                        let known =
                            [Family::V4, Family::V6].map(|family| answer::known_before(before, &record.target, family));
                        targets.push((record.clone(), known.concat()));
                        failed = Some(failure);
                    }
                }
            }
            let servers = answer::of_services(&targets);
            match failed {
                _ if !servers.is_empty() => return Ok(Answer::Some { records: servers, ttl }),
                Some(failure) => return Err(failure),
                None => {}
            }
        }
        Ok(Answer::Nobody { ttl: Some(ttl) })
    }

    /// A name that cannot be asked for ends the search: nobody knows whether it is there, and what the next one stands for may be
    /// somebody else. Only a name without a dot, which is asked for last, may be refused by whoever knows no such names.
    async fn host(&self, host: &str, before: &[Found]) -> Outcome<IpAddr, Failure> {
        if let Some(records) = local(host)? {
            return Ok(Answer::Some { records, ttl: LOCAL_TTL });
        }
        let mut nobody = None;
        for (at, name) in self.search.candidates(host).into_iter().enumerate() {
            let (v4, v6) = join(self.ips(&name, RecordType::A), self.ips(&name, RecordType::AAAA)).await;
            let is_known_to_nobody = at > 0 && is_top_level(&name);
            let known =
                |family| if is_known_to_nobody { Vec::new() } else { answer::known_before(before, host, family) };
            match answer::addresses(v4, v6, known) {
                Ok(Answer::Nobody { ttl }) => nobody = nobody.into_iter().chain(ttl).min(),
                Ok(some @ Answer::Some { .. }) => return Ok(some),
                Err(_) if is_known_to_nobody => {}
                Err(failure) => return Err(failure),
            }
        }
        Ok(Answer::Nobody { ttl: nobody })
    }

    async fn ips(&self, name: &str, kind: RecordType) -> Outcome<IpAddr, Failure> {
        // Some name servers block a name by such an address, which would be this very machine.
        let can_be_dialled = |ip: &IpAddr| !ip.is_unspecified() && !ip.is_multicast();
        self.ask(name, kind, |data| data.ip_addr().filter(can_be_dialled)).await
    }

    async fn services(&self, name: &str) -> Outcome<Service, Failure> {
        let service = |data: &RData| match data {
            RData::SRV(srv) => Some(Service {
                priority: srv.priority,
                weight: srv.weight,
                port: srv.port,
                target: srv.target.to_ascii().into(),
            }),
            _ => None,
        };
        self.ask(name, RecordType::SRV, service).await
    }

    async fn ask<T>(&self, name: &str, kind: RecordType, record: impl Fn(&RData) -> Option<T>) -> Outcome<T, Failure> {
        match self.resolver.lookup(Name::from_ascii(name)?, kind).await {
            Ok(lookup) => Ok(read(&lookup, record)),
            Err(NetError::Dns(DnsError::NoRecordsFound(none))) => {
                Ok(Answer::Nobody { ttl: none.negative_ttl.map(|ttl| Duration::from_secs(ttl.into())) })
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// Without a name server in the file there is one on this machine, `resolv.conf(5)`.
fn system_config(text: &str) -> Result<(ResolverConfig, ResolverOpts), NetError> {
    let names_one = text.lines().any(|line| line.trim_start().starts_with("nameserver"));
    let parsed = if names_one { parse_resolv_conf(text) } else { parse_resolv_conf(format!("{text}\n{LOCAL_SERVER}")) };
    parsed.or_else(|error| {
        warn!(%error, "resolv.conf is not understood");
        parse_resolv_conf(LOCAL_SERVER)
    })
}

const LOCAL_SERVER: &str = "nameserver 127.0.0.1\n";

fn name_server(ip: IpAddr, port: u16) -> NameServerConfig {
    let connections = [ProtocolConfig::Udp, ProtocolConfig::Tcp].map(|protocol| {
        let mut connection = ConnectionConfig::new(protocol);
        connection.port = port;
        connection
    });
    NameServerConfig::new(ip, true, connections.to_vec())
}

/// Nothing is kept in between: how long an answer holds is decided elsewhere.
fn hickory_options(rules: &model::Dns, system: &ResolverOpts) -> ResolverOpts {
    let mut options = ResolverOpts::default();
    options.timeout = rules.timeout;
    // Of hickory it is how often it tries again.
    options.attempts = rules.attempts.saturating_sub(1);
    options.edns0 = system.edns0;
    options.cache_size = 0;
    options.use_hosts_file = ResolveHosts::Never;
    options
}

/// What this machine knows by itself: `/etc/hosts`, and `localhost`, for which no name server is asked (RFC 6761 §6.3).
fn local(host: &str) -> Result<Option<Vec<IpAddr>>, Failure> {
    let mut name = Name::from_ascii(host.to_ascii_lowercase())?;
    name.set_fqdn(true);
    // Without the file there is nothing in it.
    let hosts = Hosts::from_system().unwrap_or_default();
    let ips: Vec<IpAddr> = [RecordType::A, RecordType::AAAA]
        .into_iter()
        .filter_map(|kind| hosts.lookup_static_host(&Query::query(name.clone(), kind)))
        .flat_map(|lookup| lookup.answers().iter().filter_map(|record| record.data.ip_addr()).collect::<Vec<_>>())
        .collect();
    Ok(match ips.is_empty() {
        false => Some(ips),
        true if name.is_localhost() => Some(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]),
        true => None,
    })
}

fn read<T>(lookup: &Lookup, record: impl Fn(&RData) -> Option<T>) -> Answer<T> {
    let records: Vec<T> = lookup.answers().iter().filter_map(|answer| record(&answer.data)).collect();
    let ttl = lookup.answers().iter().map(|answer| answer.ttl).min();
    let ttl = ttl.map(|ttl| Duration::from_secs(ttl.into()));
    match records.is_empty() {
        true => Answer::Nobody { ttl },
        false => Answer::Some { records, ttl: ttl.unwrap_or_default() },
    }
}
