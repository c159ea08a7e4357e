//! What the files say that a configuration names, all read at one moment. It does not know what they are for.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use tokio_rustls::rustls::pki_types::CertificateDer;

use super::problem::Fault;
use crate::config::Config;

/// A bundle of all certificates that the web believes in has a quarter of it.
const BYTES_MAX: u64 = 1 << 20;

/// Equal if nothing has changed. They hold private keys, so they are never shown.
#[derive(Default, PartialEq, Eq)]
pub struct Files {
    contents: BTreeMap<PathBuf, Result<Vec<u8>, io::ErrorKind>>,
    /// Whom the system believes; empty where nobody asks, and where there is nobody.
    system: Vec<CertificateDer<'static>>,
}

impl Files {
    /// Reads what the configuration names. What cannot be read is remembered as such.
    pub fn read(config: &Config) -> Files {
        let contents = Files::named_in(config).into_iter().map(|path| {
            let content = read(&path).map_err(|error| error.kind());
            (path, content)
        });
        let contents = contents.collect();
        let asks_system = config.upstreams.iter().flat_map(|upstream| &upstream.tls).any(|tls| tls.ca.is_none());
        let system = if asks_system { rustls_native_certs::load_native_certs() } else { Ok(Vec::new()) };
        Files { contents, system: system.unwrap_or_default() }
    }

    /// Every file that the configuration names for TLS.
    pub fn named_in(config: &Config) -> BTreeSet<PathBuf> {
        let mut named = BTreeSet::new();
        for tls in config.listeners.iter().flat_map(|listener| &listener.tls) {
            named.extend(tls.certificates.iter().flat_map(|pair| [&pair.certificate, &pair.key]).cloned());
            named.extend(tls.client_ca.clone());
        }
        for tls in config.upstreams.iter().flat_map(|upstream| &upstream.tls) {
            named.extend(tls.ca.clone());
            named.extend(tls.identity.iter().flat_map(|pair| [&pair.certificate, &pair.key]).cloned());
        }
        named
    }

    pub(super) fn get(&self, path: &Path) -> Result<&[u8], Fault> {
        match self.contents.get(path) {
            Some(Ok(bytes)) => Ok(bytes),
            Some(Err(kind)) => Err(Fault::Unreadable(*kind)),
            None => Err(Fault::Unreadable(io::ErrorKind::NotFound)),
        }
    }

    pub(super) fn system(&self) -> &[CertificateDer<'static>] {
        &self.system
    }

    /// Those of a few paths.
    pub(super) fn only<'p>(&self, paths: impl IntoIterator<Item = &'p PathBuf>) -> Files {
        let contents = paths.into_iter().filter_map(|path| Some((path.clone(), self.contents.get(path)?.clone())));
        Files { contents: contents.collect(), system: Vec::new() }
    }

    pub(super) fn with_system(mut self, system: &[CertificateDer<'static>]) -> Files {
        system.clone_into(&mut self.system);
        self
    }

    #[cfg(test)]
    pub(super) fn of(files: impl IntoIterator<Item = (&'static str, Vec<u8>)>) -> Files {
        let contents = files.into_iter().map(|(path, bytes)| (PathBuf::from(path), Ok(bytes)));
        Files { contents: contents.collect(), system: Vec::new() }
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let length = File::open(path)?.take(BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if length as u64 > BYTES_MAX { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(bytes) }
}
