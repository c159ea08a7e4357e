//! Certificates for tests: authorities, what they sign, and the files that it goes into.

use std::path::PathBuf;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};

/// Somebody who signs certificates.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its own certificate.
    pub pem: String,
}

/// In PEM.
#[derive(Clone)]
pub struct Signed {
    pub certificate: String,
    pub key: String,
}

impl Authority {
    pub fn new(name: &str) -> Authority {
        let mut params = params(name, &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Authority { issuer: Issuer::new(params, key), pem }
    }

    /// For the names of a server.
    pub fn server(&self, names: &[&str]) -> Signed {
        self.sign(&params(names[0], names))
    }

    /// Good until yesterday.
    pub fn expired(&self, names: &[&str]) -> Signed {
        let mut params = params(names[0], names);
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2021, 1, 1);
        self.sign(&params)
    }

    /// For a client of this name.
    pub fn client(&self, name: &str) -> Signed {
        let mut params = params(name, &[]);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(&params)
    }

    fn sign(&self, params: &CertificateParams) -> Signed {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        Signed { certificate, key: key.serialize_pem() }
    }
}

/// Signed by nobody else.
pub fn self_signed(names: &[&str]) -> Signed {
    let key = KeyPair::generate().unwrap();
    let certificate = params(names[0], names).self_signed(&key).unwrap().pem();
    Signed { certificate, key: key.serialize_pem() }
}

fn params(name: &str, names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

/// A folder of such files.
pub struct Files(tempfile::TempDir);

impl Files {
    pub fn new() -> Files {
        Files(tempfile::tempdir().unwrap())
    }

    /// In one step, as whoever renews certificates does it.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let (path, beside) = (self.0.path().join(name), self.0.path().join(format!("{name}.new")));
        std::fs::write(&beside, text).unwrap();
        std::fs::rename(&beside, &path).unwrap();
        path
    }

    /// `certificate = …, key = …` of a pair in files of this name.
    pub fn pair(&self, name: &str, signed: &Signed) -> String {
        let key = self.write(&format!("{name}.key"), &signed.key);
        let certificate = self.write(&format!("{name}.pem"), &signed.certificate);
        format!("certificate = '{}', key = '{}'", certificate.display(), key.display())
    }
}
