//! Fresh connections to one server, with or without TLS. It does not know what is said over them.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::net::{TcpStream, lookup_host};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use super::target::{Security, Target};

/// Whose certificates are believed.
#[derive(Clone, Debug)]
pub enum Trust {
    System,
    /// Those of a file, and no others.
    File(PathBuf),
    Anyone,
}

/// Why the certificates that are to be believed are not at hand.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    #[error("cannot read the system's certificates: {0}")]
    System(io::Error),
    #[error("the system has no certificates to believe; `--ca FILE` names some")]
    Empty,
    #[error("no certificate in PEM can be read from `{0}`")]
    File(PathBuf),
    #[error("no certificate can be for such a host")]
    Name,
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] Error),
}

#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("no such host: {0}")]
    Lookup(io::Error),
    #[error("the host has no address")]
    NoAddress,
    #[error("cannot connect: {0}")]
    Connect(io::Error),
    #[error("no TLS: {0}")]
    Tls(io::Error),
    #[error("its certificate is not believed: {0}")]
    Certificate(io::Error),
    #[error("no connection in time")]
    Timeout,
}

/// Makes connections, all of them to the address that took the first one.
pub struct Connector {
    target: Target,
    address: Option<SocketAddr>,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

#[derive(Debug)]
pub enum Connection {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connector {
    /// # Errors
    /// When there are no certificates to believe in, where they are needed.
    pub fn new(target: Target, trust: &Trust) -> Result<Connector, TrustError> {
        let tls = match target.security {
            Security::Plain => None,
            Security::Tls => {
                let name = ServerName::try_from(target.host.clone());
                let name = name.map_err(|_| TrustError::Name)?;
                Some((TlsConnector::from(Arc::new(client(trust)?)), name))
            }
        };
        Ok(Connector { target, address: None, tls })
    }

    /// # Errors
    /// When there is none, or TLS cannot be agreed on.
    pub async fn connect(&mut self) -> Result<Connection, ConnectError> {
        let stream = match self.address {
            Some(address) => TcpStream::connect(address).await.map_err(ConnectError::Connect)?,
            None => self.first().await?,
        };
        self.address = stream.peer_addr().ok();
        stream.set_nodelay(true).map_err(ConnectError::Connect)?;
        let Some((connector, name)) = &self.tls else { return Ok(Connection::Plain(stream)) };
        match connector.connect(name.clone(), stream).await {
            Ok(stream) => Ok(Connection::Tls(Box::new(stream))),
            Err(error) if is_about_certificate(&error) => Err(ConnectError::Certificate(error)),
            Err(error) => Err(ConnectError::Tls(error)),
        }
    }

    /// The address that is asked, once one took a connection.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    async fn first(&self) -> Result<TcpStream, ConnectError> {
        let host = (self.target.host.as_str(), self.target.port);
        let addresses: Vec<SocketAddr> = lookup_host(host).await.map_err(ConnectError::Lookup)?.collect();
        if addresses.is_empty() {
            return Err(ConnectError::NoAddress);
        }
        TcpStream::connect(addresses.as_slice()).await.map_err(ConnectError::Connect)
    }
}

fn is_about_certificate(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    matches!(inner, Some(Error::InvalidCertificate(_)))
}

fn client(trust: &Trust) -> Result<ClientConfig, TrustError> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    let mut config = match trust {
        Trust::System => builder.with_root_certificates(system()?).with_no_client_auth(),
        Trust::File(path) => builder.with_root_certificates(file(path)?).with_no_client_auth(),
        Trust::Anyone => {
            let verifier = Arc::new(BelieveAnyone(provider));
            builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()
        }
    };
    // A server that also speaks HTTP/2 would choose it where it may, and its WebSockets are others.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn system() -> Result<RootCertStore, TrustError> {
    let certificates = rustls_native_certs::load_native_certs().map_err(TrustError::System)?;
    roots(certificates).ok_or(TrustError::Empty)
}

fn file(path: &Path) -> Result<RootCertStore, TrustError> {
    let unreadable = || TrustError::File(path.to_owned());
    let certificates = CertificateDer::pem_file_iter(path).map_err(|_| unreadable())?;
    let certificates: Vec<_> = certificates.collect::<Result<_, _>>().map_err(|_| unreadable())?;
    roots(certificates).ok_or_else(unreadable)
}

/// Those that are certificates; `None` if none is.
fn roots(certificates: Vec<CertificateDer<'static>>) -> Option<RootCertStore> {
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(certificates);
    (added > 0).then_some(roots)
}

/// Checks that the server holds the key of the certificate that it shows, whoever signed that.
#[derive(Debug)]
struct BelieveAnyone(Arc<CryptoProvider>);

impl ServerCertVerifier for BelieveAnyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(url: &str) -> Target {
        url.parse().unwrap()
    }

    #[test]
    fn certificates_are_wanted_where_there_is_tls_only() {
        let missing = Trust::File("/nonexistent/ca.pem".into());
        assert!(Connector::new(target("ws://a.example/"), &missing).is_ok());
        assert!(matches!(Connector::new(target("wss://a.example/"), &missing), Err(TrustError::File(_))));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        std::fs::write(&path, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
        assert!(matches!(Connector::new(target("wss://a.example/"), &Trust::File(path)), Err(TrustError::File(_))));
        assert!(matches!(Connector::new(target("wss://a_b*/"), &Trust::Anyone), Err(TrustError::Name)));
        assert!(Connector::new(target("wss://127.0.0.1/"), &Trust::Anyone).is_ok());
        assert!(Connector::new(target("wss://[::1]/"), &Trust::Anyone).is_ok());
    }
}
