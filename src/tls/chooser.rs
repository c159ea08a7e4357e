//! Which certificate a client is shown: by the name that it asks for (SNI, RFC 6066 §3), exactly, then by a wildcard of one
//! label (RFC 9525 §6.3), else the first of the list.

use std::collections::HashMap;
use std::sync::Arc;

use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;

use super::pair::Pair;

#[derive(Debug)]
pub struct Chooser {
    /// Never empty; in the order of the file.
    all: Vec<Arc<CertifiedKey>>,
    /// By name in lower case, or by what is behind the `*` of one: indices into `all`.
    exact: HashMap<String, Vec<usize>>,
    below: HashMap<String, Vec<usize>>,
}

impl Chooser {
    pub fn new(pairs: &[Pair]) -> Chooser {
        let mut chooser = Chooser {
            all: pairs.iter().map(|pair| Arc::clone(&pair.key)).collect(),
            exact: HashMap::new(),
            below: HashMap::new(),
        };
        for (index, pair) in pairs.iter().enumerate() {
            for name in &pair.certificate.names {
                let (map, name) = match name.strip_prefix('*') {
                    Some(domain) => (&mut chooser.below, domain),
                    None => (&mut chooser.exact, name.as_str()),
                };
                map.entry(name.to_owned()).or_default().push(index);
            }
        }
        chooser
    }

    /// Those that are for a name, the best first; all of them where none is.
    fn candidates(&self, name: Option<&str>) -> Vec<usize> {
        let found = name.and_then(|name| {
            let name = name.to_ascii_lowercase();
            let domain = name.find('.').map(|dot| &name[dot..]);
            let below = domain.and_then(|domain| self.below.get(domain));
            let found: Vec<usize> = self.exact.get(&name).into_iter().chain(below).flatten().copied().collect();
            (!found.is_empty()).then_some(found)
        });
        found.unwrap_or_else(|| (0..self.all.len()).collect())
    }
}

impl ResolvesServerCert for Chooser {
    /// One that the client can verify, where several would do. A client that can verify none is told so by the handshake.
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let candidates = self.candidates(hello.server_name());
        let suits = |index: &&usize| self.all[**index].key.choose_scheme(hello.signature_schemes()).is_some();
        let chosen = candidates.iter().find(suits).or(candidates.first())?;
        self.all.get(*chosen).cloned()
    }
}

#[cfg(test)]
impl Chooser {
    pub fn choose(&self, name: Option<&str>) -> usize {
        self.candidates(name)[0]
    }
}
