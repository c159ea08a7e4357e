//! A certificate and its key, from the bytes of two files: parsed, found to belong together, and what is to be known of the
//! certificate. It does not know who is shown it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio_rustls::rustls::crypto::CryptoProvider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{Error, InconsistentKeys, RootCertStore};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::files::Files;
use super::problem::{Fault, Problem};
use crate::config::model;

/// What is to be known of a certificate that the gateway shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    pub file: PathBuf,
    /// In lower case, wildcards as they stand.
    pub names: Vec<String>,
    pub not_after: SystemTime,
}

impl Certificate {
    pub fn is_expired(&self, now: SystemTime) -> bool {
        self.not_after < now
    }
}

/// What signs, and what is known of it.
pub struct Pair {
    pub key: Arc<CertifiedKey>,
    pub certificate: Certificate,
}

/// `key` is the path of the key of the configuration.
pub fn pair(key: &str, rules: &model::Pair, files: &Files, provider: &CryptoProvider) -> Result<Pair, Problem> {
    let of = |file: &PathBuf| {
        let file = file.clone();
        move |fault| Problem { key: key.to_owned(), file, fault }
    };
    let chain = files.get(&rules.certificate).and_then(certificates).map_err(of(&rules.certificate))?;
    let certificate = certificate(&rules.certificate, &chain[0]).map_err(of(&rules.certificate))?;
    let private = files.get(&rules.key).map_err(of(&rules.key))?;
    let private = PrivateKeyDer::from_pem_slice(private).map_err(|_| of(&rules.key)(Fault::NoKey))?;
    let signing = provider.key_provider.load_private_key(private).map_err(|_| of(&rules.key)(Fault::BadKey))?;
    let certified = CertifiedKey::new(chain, signing);
    match certified.keys_match() {
        // A key that cannot say so is believed; those of this provider can.
        Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
        Err(Error::InconsistentKeys(_)) => return Err(of(&rules.key)(Fault::Mismatch)),
        Err(_) => return Err(of(&rules.certificate)(Fault::BadCertificate)),
    }
    Ok(Pair { key: Arc::new(certified), certificate })
}

/// Never empty.
pub fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Fault> {
    let found: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|_| Fault::BadCertificate)?;
    if found.is_empty() { Err(Fault::NoCertificate) } else { Ok(found) }
}

/// All of the file have to be certificates: one that is left out by mistake would lock somebody out.
pub fn roots(pem: &[u8]) -> Result<RootCertStore, Fault> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem)? {
        roots.add(certificate).map_err(|_| Fault::BadCertificate)?;
    }
    Ok(roots)
}

fn certificate(file: &std::path::Path, der: &CertificateDer<'_>) -> Result<Certificate, Fault> {
    let (_, parsed) = X509Certificate::from_der(der).map_err(|_| Fault::BadCertificate)?;
    let alternatives = parsed.subject_alternative_name().map_err(|_| Fault::BadCertificate)?;
    let names = alternatives.iter().flat_map(|extension| &extension.value.general_names);
    let names = names.filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    });
    let not_after = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0);
    let not_after = UNIX_EPOCH + Duration::from_secs(not_after);
    Ok(Certificate { file: file.to_owned(), names: names.collect(), not_after })
}
