//! What a listener shakes hands with: its certificates, whom it asks for one, which versions it speaks, and how sessions
//! are resumed. It does not know how a handshake goes.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio_rustls::rustls::crypto::CryptoProvider;
use tokio_rustls::rustls::crypto::ring::Ticketer;
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::server::{
    ProducesTickets, ServerSessionMemoryCache, StoresServerSessions, WebPkiClientVerifier,
};
use tokio_rustls::rustls::{Error, ServerConfig, SupportedProtocolVersion, version};

use super::chooser::Chooser;
use super::files::Files;
use super::pair::{Certificate, Pair, pair, roots};
use super::problem::{Fault, Problem};
use super::provider;
use crate::config::model::{ClientCertificates, ListenerTls, TlsVersion};

/// Sessions that are remembered for clients without tickets: of TLS 1.2, and old.
const SESSIONS_REMEMBERED: usize = 1024;

/// What clients may speak over TLS, the most welcome first (RFC 7301).
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// TLS of one listener.
pub struct Acceptor {
    rules: ListenerTls,
    files: Files,
    certificates: Vec<Certificate>,
    resumption: Resumption,
    config: Arc<ServerConfig>,
}

/// What lets a client come back without the whole handshake. A session that is resumed keeps the client certificate that was
/// verified when it began, so it ends with whom the listener believes.
#[derive(Clone)]
struct Resumption {
    /// New keys every six hours; a ticket is good for twelve.
    tickets: Arc<dyn ProducesTickets>,
    sessions: Arc<dyn StoresServerSessions>,
}

impl Acceptor {
    /// `key` is the path of the section. What was made `before` of the same rules and the same bytes is taken again.
    ///
    /// # Errors
    /// Every problem of every file.
    pub fn make(
        key: &str,
        rules: &ListenerTls,
        files: &Files,
        before: Option<&Arc<Acceptor>>,
    ) -> Result<Arc<Acceptor>, Vec<Problem>> {
        let files = files.only(named(rules));
        if let Some(before) = before.filter(|before| before.rules == *rules && before.files == files) {
            return Ok(Arc::clone(before));
        }
        let provider = provider();
        let mut problems = Vec::new();
        let mut pairs = Vec::new();
        for rules in &rules.certificates {
            match pair(&format!("{key}.certificates"), rules, &files, &provider) {
                Ok(pair) => pairs.push(pair),
                Err(problem) => problems.push(problem),
            }
        }
        let verifier = verifier(key, rules, &files, &provider).map_err(|problem| problems.push(problem));
        let Ok(verifier) = verifier else { return Err(problems) };
        if !problems.is_empty() {
            return Err(problems);
        }
        let setup = |error| {
            let file = rules.certificates.first().map(|pair| pair.certificate.clone()).unwrap_or_default();
            vec![Problem { key: key.to_owned(), file, fault: Fault::Setup(error) }]
        };
        let kept = before.filter(|before| before.believes_as(rules, &files)).map(|before| before.resumption.clone());
        let resumption = kept.map_or_else(Resumption::new, Ok).map_err(setup)?;
        let config = config(rules, &pairs, verifier, &resumption).map_err(setup)?;
        let certificates = pairs.into_iter().map(|pair| pair.certificate).collect();
        Ok(Arc::new(Acceptor { rules: rules.clone(), files, certificates, resumption, config: Arc::new(config) }))
    }

    /// Whether the same clients would be believed.
    fn believes_as(&self, rules: &ListenerTls, files: &Files) -> bool {
        let same_rules =
            self.rules.client_certificates == rules.client_certificates && self.rules.min_version == rules.min_version;
        same_rules && self.files.only(&self.rules.client_ca) == files.only(&rules.client_ca)
    }

    pub fn certificates(&self) -> &[Certificate] {
        &self.certificates
    }

    pub fn handshake_timeout(&self) -> Duration {
        self.rules.handshake_timeout
    }

    pub(super) fn config(&self) -> &Arc<ServerConfig> {
        &self.config
    }
}

impl Resumption {
    fn new() -> Result<Resumption, Error> {
        Ok(Resumption { tickets: Ticketer::new()?, sessions: ServerSessionMemoryCache::new(SESSIONS_REMEMBERED) })
    }
}

fn named(rules: &ListenerTls) -> impl Iterator<Item = &PathBuf> {
    rules.certificates.iter().flat_map(|pair| [&pair.certificate, &pair.key]).chain(&rules.client_ca)
}

/// `None` where nobody is asked for a certificate.
fn verifier(
    key: &str,
    rules: &ListenerTls,
    files: &Files,
    provider: &Arc<CryptoProvider>,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, Problem> {
    let (ClientCertificates::Optional | ClientCertificates::Required, Some(ca)) =
        (rules.client_certificates, &rules.client_ca)
    else {
        return Ok(None);
    };
    let of = |fault| Problem { key: format!("{key}.client_ca"), file: ca.clone(), fault };
    let roots = files.get(ca).and_then(roots).map_err(of)?;
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    let builder = match rules.client_certificates {
        ClientCertificates::Optional => builder.allow_unauthenticated(),
        ClientCertificates::Required | ClientCertificates::Off => builder,
    };
    let verifier = builder.build().map_err(|_| of(Fault::BadCertificate))?;
    Ok(Some(verifier))
}

fn config(
    rules: &ListenerTls,
    pairs: &[Pair],
    verifier: Option<Arc<dyn ClientCertVerifier>>,
    resumption: &Resumption,
) -> Result<ServerConfig, Error> {
    let builder =
        ServerConfig::builder_with_provider(provider()).with_protocol_versions(versions(rules.min_version))?;
    let builder = match verifier {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(Arc::new(Chooser::new(pairs)));
    let offered = if rules.offers_http2 { &PROTOCOLS[..] } else { &PROTOCOLS[1..] };
    config.alpn_protocols = offered.iter().map(|name| name.to_vec()).collect();
    config.ticketer = Arc::clone(&resumption.tickets);
    config.session_storage = Arc::clone(&resumption.sessions);
    // A request in early data could be sent a second time by whoever recorded it (RFC 8446 §8).
    config.max_early_data_size = 0;
    Ok(config)
}

/// From the oldest that may be spoken.
pub fn versions(min: TlsVersion) -> &'static [&'static SupportedProtocolVersion] {
    static FROM_1_2: [&SupportedProtocolVersion; 2] = [&version::TLS13, &version::TLS12];
    static FROM_1_3: [&SupportedProtocolVersion; 1] = [&version::TLS13];
    match min {
        TlsVersion::V1_2 => &FROM_1_2,
        TlsVersion::V1_3 => &FROM_1_3,
    }
}
