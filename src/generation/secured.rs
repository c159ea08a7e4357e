//! TLS of one configuration. Each piece is replaced by itself when its files change; whoever shook hands before keeps what
//! came of it.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::config::Config;
use crate::tls::{Acceptor, Certificate, Connector, Known, Loaded};

/// What listeners and upstreams shake hands with.
pub struct Secured {
    /// As `config.listeners`; `None` where clients speak plainly.
    listeners: Vec<Option<ArcSwap<Acceptor>>>,
    /// As `config.upstreams`; `None` where servers are spoken to plainly.
    upstreams: Vec<Option<ArcSwap<Connector>>>,
    upstreams_by_name: HashMap<String, usize>,
    /// The fields that tell backends of client certificates, those of all listeners: a backend behind two of them could
    /// not tell through which a field came.
    reserved: Vec<String>,
}

impl Secured {
    pub fn new(config: &Config, loaded: Loaded) -> Secured {
        let names = config.upstreams.iter().enumerate().map(|(index, upstream)| (upstream.name.clone(), index));
        let rules = config.listeners.iter().flat_map(|listener| &listener.tls);
        Secured {
            listeners: loaded.listeners.into_iter().map(|made| made.map(ArcSwap::new)).collect(),
            upstreams: loaded.upstreams.into_iter().map(|made| made.map(ArcSwap::new)).collect(),
            upstreams_by_name: names.collect(),
            reserved: rules.filter_map(|rules| rules.client_certificate_header.clone()).collect(),
        }
    }

    pub fn listener(&self, index: usize) -> Option<Arc<Acceptor>> {
        self.listeners.get(index)?.as_ref().map(ArcSwap::load_full)
    }

    pub fn upstream(&self, name: &str) -> Option<Arc<Connector>> {
        self.upstreams.get(*self.upstreams_by_name.get(name)?)?.as_ref().map(ArcSwap::load_full)
    }

    /// Fields that no client can send.
    pub fn reserved(&self) -> &[String] {
        &self.reserved
    }

    /// New handshakes get these from here on. They are made of the same configuration.
    pub fn replace(&self, loaded: Loaded) {
        for (place, made) in self.listeners.iter().zip(loaded.listeners) {
            if let (Some(place), Some(made)) = (place, made) {
                place.store(made);
            }
        }
        for (place, made) in self.upstreams.iter().zip(loaded.upstreams) {
            if let (Some(place), Some(made)) = (place, made) {
                place.store(made);
            }
        }
    }

    /// What is in force, for the next configuration.
    pub fn known(&self, config: &Config) -> Known {
        let listeners = config.listeners.iter().enumerate();
        let upstreams = config.upstreams.iter();
        Known {
            listeners: listeners
                .filter_map(|(index, listener)| Some((listener.name.clone(), self.listener(index)?)))
                .collect(),
            upstreams: upstreams
                .filter_map(|upstream| Some((upstream.name.clone(), self.upstream(&upstream.name)?)))
                .collect(),
        }
    }

    /// Every certificate that the gateway shows.
    pub fn certificates(&self) -> Vec<Certificate> {
        let to_clients = (0..self.listeners.len()).filter_map(|index| self.listener(index));
        let to_servers = self.upstreams.iter().flatten().map(ArcSwap::load_full);
        let of_clients = to_clients.flat_map(|acceptor| acceptor.certificates().to_vec());
        of_clients
            .chain(to_servers.flat_map(|connector| connector.certificates().cloned().collect::<Vec<_>>()))
            .collect()
    }
}
