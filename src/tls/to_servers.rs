//! What servers are spoken to with: whose certificates are believed, for which name, and what is shown to them. There is no
//! way not to verify. It does not know which server is dialled.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};

use super::files::Files;
use super::pair::{Certificate, pair, roots};
use super::problem::{Fault, Problem};
use super::provider;
use super::to_clients::versions;
use crate::config::model::UpstreamTls;

/// TLS to the servers of one upstream. It remembers their sessions.
pub struct Connector {
    rules: UpstreamTls,
    files: Files,
    certificate: Option<Certificate>,
    name: ServerName<'static>,
    config: Arc<ClientConfig>,
}

/// Why there is no TLS with a server.
#[derive(Debug, thiserror::Error)]
pub enum NotConnected {
    /// It spoke TLS wrongly, not in our version, not with whom we are, or showed a certificate that is not believed.
    #[error(transparent)]
    Tls(rustls::Error),
    /// The connection ended.
    #[error("{0}")]
    Lost(io::Error),
}

impl NotConnected {
    /// What came of a handshake, or of what was read after one: in TLS 1.3 a server judges our certificate only then.
    pub fn from(error: io::Error) -> NotConnected {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(inner) => NotConnected::Tls(inner.clone()),
            None => NotConnected::Lost(error),
        }
    }
}

impl Connector {
    /// `key` is the path of the section. What was made `before` of the same rules and the same bytes is taken again, with the
    /// sessions that it remembers.
    ///
    /// # Errors
    /// Every problem of every file.
    pub fn make(
        key: &str,
        rules: &UpstreamTls,
        files: &Files,
        before: Option<&Arc<Connector>>,
    ) -> Result<Arc<Connector>, Vec<Problem>> {
        let files = match &rules.ca {
            Some(_) => files.only(named(rules)),
            None => files.only(named(rules)).with_system(files.system()),
        };
        if let Some(before) = before.filter(|before| before.rules == *rules && before.files == files) {
            return Ok(Arc::clone(before));
        }
        Connector::from_files(key, rules, files).map(Arc::new).map_err(|problem| vec![problem])
    }

    fn from_files(key: &str, rules: &UpstreamTls, files: Files) -> Result<Connector, Problem> {
        let of = |name: &str, file: PathBuf| {
            let key = format!("{key}.{name}");
            move |fault| Problem { key, file, fault }
        };
        let name = ServerName::try_from(rules.server_name.clone())
            .map_err(|_| of("server_name", rules.server_name.clone().into())(Fault::BadName))?;
        let ca = rules.ca.clone().unwrap_or_else(|| PathBuf::from("the system's"));
        let roots = believed(rules, &files).map_err(of("ca", ca.clone()))?;
        let provider = provider();
        let identity = rules.identity.as_ref();
        let pair = identity.map(|rules| pair(&format!("{key}.certificate"), rules, &files, &provider)).transpose()?;
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions(rules.min_version))
            .map_err(|error| of("min_version", ca)(Fault::Setup(error)))?
            .with_root_certificates(roots);
        let (mut config, certificate) = match pair {
            Some(pair) => {
                let resolver = Arc::new(rustls::sign::SingleCertAndKey::from(pair.key));
                (builder.with_client_cert_resolver(resolver), Some(pair.certificate))
            }
            None => (builder.with_no_client_auth(), None),
        };
        // What is sent behind is a head of HTTP/1.1, and a server that could choose might choose another.
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Connector { rules: rules.clone(), files, certificate, name, config: Arc::new(config) })
    }

    pub fn certificates(&self) -> impl Iterator<Item = &Certificate> {
        self.certificate.iter()
    }

    /// # Errors
    /// When there is no connection that is believed.
    pub async fn connect<S>(&self, stream: S) -> Result<TlsStream<S>, NotConnected>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let connector = TlsConnector::from(Arc::clone(&self.config));
        connector.connect(self.name.clone(), stream).await.map_err(NotConnected::from)
    }
}

fn named(rules: &UpstreamTls) -> impl Iterator<Item = &PathBuf> {
    rules.ca.iter().chain(rules.identity.iter().flat_map(|pair| [&pair.certificate, &pair.key]))
}

fn believed(rules: &UpstreamTls, files: &Files) -> Result<RootCertStore, Fault> {
    match &rules.ca {
        Some(file) => roots(files.get(file)?),
        None => {
            let mut roots = RootCertStore::empty();
            // A system's list may have what this library does not understand.
            let (added, _) = roots.add_parsable_certificates(files.system().iter().cloned());
            if added > 0 { Ok(roots) } else { Err(Fault::NoSystemRoots) }
        }
    }
}
