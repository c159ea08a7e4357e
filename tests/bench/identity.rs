//! Who the gateways are in TLS, and how clients ask them for it: one certificate of ECDSA with P-256, made for this
//! run, and clients that offer one version, one cipher and one key exchange, so that all gateways compute the same.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{CipherSuite, ClientConfig, RootCertStore, version};

const NAME: &str = "bench.example.com";

/// A connection gets two tickets and uses one, each once.
const TICKETS_MAX: usize = 4;

pub struct Identity {
    certificate: String,
    key: String,
    client: ClientConfig,
}

/// The files that a gateway reads its identity from.
pub struct Files {
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// Certificate and key in one.
    pub both: PathBuf,
}

impl Identity {
    pub fn new() -> io::Result<Self> {
        let made = rcgen::generate_simple_self_signed([NAME.to_owned()]).map_err(io::Error::other)?;
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).map_err(io::Error::other)?;
        let client = ClientConfig::builder_with_provider(Arc::new(provider()))
            .with_protocol_versions(&[&version::TLS13])
            .map_err(io::Error::other)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { certificate: made.cert.pem(), key: made.signing_key.serialize_pem(), client })
    }

    pub fn write(&self, folder: &Path) -> io::Result<Files> {
        let files =
            Files { certificate: folder.join("cert.pem"), key: folder.join("key.pem"), both: folder.join("both.pem") };
        fs::write(&files.certificate, &self.certificate)?;
        fs::write(&files.key, &self.key)?;
        fs::write(&files.both, [self.certificate.as_str(), &self.key].concat())?;
        Ok(files)
    }

    /// The name that the certificate is for and clients ask for.
    pub fn name() -> Result<ServerName<'static>, io::Error> {
        ServerName::try_from(NAME).map_err(io::Error::other)
    }

    /// A client that never resumes.
    pub fn forgetful_client(&self) -> Arc<ClientConfig> {
        let mut client = self.client.clone();
        client.resumption = Resumption::disabled();
        Arc::new(client)
    }

    /// A client that keeps its tickets to itself and resumes with them.
    pub fn resuming_client(&self) -> Arc<ClientConfig> {
        let mut client = self.client.clone();
        client.resumption = Resumption::in_memory_sessions(TICKETS_MAX);
        Arc::new(client)
    }
}

fn provider() -> CryptoProvider {
    let mut provider = ring::default_provider();
    provider.cipher_suites.retain(|suite| suite.suite() == CipherSuite::TLS13_AES_128_GCM_SHA256);
    provider.kx_groups = vec![ring::kx_group::X25519];
    provider
}
