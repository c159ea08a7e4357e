//! What is wrong with a file that the configuration names: which key names it, what it lacks, and what could be done.

use std::io;
use std::path::PathBuf;

use tokio_rustls::rustls;

/// One thing that is wrong.
#[derive(Debug, PartialEq, thiserror::Error)]
#[error("{key}: {fault}: `{}`", .file.display())]
pub struct Problem {
    /// The path of the key that names the file, such as `listener.public.tls.client_ca`.
    pub key: String,
    pub file: PathBuf,
    pub fault: Fault,
}

#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Fault {
    #[error("cannot be read, {0}")]
    Unreadable(io::ErrorKind),
    #[error("no certificate in PEM is in it")]
    NoCertificate,
    #[error("a certificate in it cannot be understood")]
    BadCertificate,
    #[error("no private key in PEM is in it")]
    NoKey,
    #[error("the private key in it cannot be used")]
    BadKey,
    #[error("the key is not that of the certificate")]
    Mismatch,
    #[error("the system has no certificates to believe")]
    NoSystemRoots,
    #[error("no certificate can be for such a name")]
    BadName,
    #[error("TLS cannot be set up, {0}")]
    Setup(rustls::Error),
}

impl Fault {
    /// What could be done about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Fault::Unreadable(io::ErrorKind::NotFound) => "the path is read as it stands, by the user that runs this",
            Fault::Unreadable(_) => "make the file, and the folders above it, readable for the user that runs this",
            Fault::NoCertificate => "it begins with `-----BEGIN CERTIFICATE-----`; the server's own comes first",
            Fault::BadCertificate => "`openssl x509 -in FILE -text` shows what is in it",
            Fault::NoKey => "it begins with `-----BEGIN PRIVATE KEY-----` or the like, and has no passphrase",
            Fault::BadKey => "RSA from 2048 bits, ECDSA on P-256 or P-384, and Ed25519 can be used",
            Fault::Mismatch => "`openssl pkey -in KEY -pubout` and `openssl x509 -in CERTIFICATE -pubkey` say the same",
            Fault::NoSystemRoots => "install the package `ca-certificates`, or name a file with `ca`",
            Fault::BadName => "write the name that is in the servers' certificates, or an IP address",
            Fault::Setup(_) => "this is what the TLS library says",
        }
    }
}
