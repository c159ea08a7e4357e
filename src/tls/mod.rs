//! TLS on both sides: from the configuration and the files that it names to what shakes hands with clients and with
//! servers. It knows no HTTP, and not what the streams are made of.
//!
//! Files are read in one place ([`Files`]) and compared by what is in them; the rest is made of bytes. What is made of the
//! same rules and the same bytes is kept, so that sessions can be resumed across reloads.

mod accept;
mod chooser;
mod files;
mod pair;
mod problem;
mod subject;
mod to_clients;
mod to_servers;

use std::collections::HashMap;
use std::sync::Arc;

use tokio_rustls::rustls::crypto::{CryptoProvider, ring};

pub use accept::{Accepted, Failure, Met, NotAccepted};
pub use files::Files;
pub use pair::Certificate;
pub use problem::{Fault, Problem};
pub use to_clients::Acceptor;
pub use to_servers::{Connector, NotConnected};

use crate::config::Config;

/// What is made of one configuration. There is no empty one: whoever has rules has what they come to.
pub struct Loaded {
    /// As `config.listeners`; `None` where clients speak plainly.
    pub listeners: Vec<Option<Arc<Acceptor>>>,
    /// As `config.upstreams`; `None` where servers are spoken to plainly.
    pub upstreams: Vec<Option<Arc<Connector>>>,
}

/// What is in force, by name.
#[derive(Default)]
pub struct Known {
    pub listeners: HashMap<String, Arc<Acceptor>>,
    pub upstreams: HashMap<String, Arc<Connector>>,
}

/// Makes what the configuration asks for, or finds it among what is known.
///
/// # Errors
/// Every problem of every file.
pub fn load(config: &Config, files: &Files, known: &Known) -> Result<Loaded, Vec<Problem>> {
    let (loaded, problems) = renew(config, files, known);
    if problems.is_empty() { Ok(loaded) } else { Err(problems) }
}

/// As [`load`], but where something is wrong, what is known stays.
pub fn renew(config: &Config, files: &Files, known: &Known) -> (Loaded, Vec<Problem>) {
    let mut loaded = Loaded { listeners: Vec::new(), upstreams: Vec::new() };
    let mut problems = Vec::new();
    for listener in &config.listeners {
        let before = known.listeners.get(&listener.name);
        let made = listener.tls.as_ref().map(|rules| {
            let key = format!("listener.{}.tls", listener.name);
            Acceptor::make(&key, rules, files, before)
        });
        loaded.listeners.push(settle(made, before, &mut problems));
    }
    for upstream in &config.upstreams {
        let before = known.upstreams.get(&upstream.name);
        let made = upstream.tls.as_ref().map(|rules| {
            let key = format!("upstream.{}.tls", upstream.name);
            Connector::make(&key, rules, files, before)
        });
        loaded.upstreams.push(settle(made, before, &mut problems));
    }
    (loaded, problems)
}

fn settle<T>(
    made: Option<Result<Arc<T>, Vec<Problem>>>,
    before: Option<&Arc<T>>,
    problems: &mut Vec<Problem>,
) -> Option<Arc<T>> {
    match made? {
        Ok(made) => Some(made),
        Err(mut found) => {
            problems.append(&mut found);
            before.cloned()
        }
    }
}

impl Loaded {
    /// Every certificate that the gateway shows, to clients and to servers.
    pub fn certificates(&self) -> impl Iterator<Item = &Certificate> {
        let to_clients = self.listeners.iter().flatten().flat_map(|acceptor| acceptor.certificates());
        let to_servers = self.upstreams.iter().flatten().flat_map(|connector| connector.certificates());
        to_clients.chain(to_servers)
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

#[cfg(test)]
mod tests;
