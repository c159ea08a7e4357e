//! Everything that ends the benchmark early. A slow gateway is no failure: its figures are printed and the exit
//! code is 0.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("no program for {peer}: `{}`\nhint: {hint}", program.display())]
    PeerMissing { peer: &'static str, program: PathBuf, hint: &'static str },
    #[error("{peer} did not become ready in {tries} tries, last output:\n{output}")]
    PeerNotReady { peer: &'static str, tries: u32, output: String },
    #[error("{during}, {peer}: {failure}")]
    During { peer: &'static str, during: &'static str, failure: Box<Failure> },
    #[error("the answer to an upgrade is wrong, {what}: `{head}`")]
    WrongAnswer { what: &'static str, head: String },
    #[error("an echo differs from what was sent at byte: {at}")]
    WrongEcho { at: usize },
    #[error("a connection ended while it was {doing}: {reason}")]
    ConnectionLost { doing: &'static str, reason: String },
    #[error("a session of TLS came about in the wrong way: {how}")]
    WrongSession { how: String },
    #[error("{done} of {count} operations done after {after:?}")]
    TooSlow { done: u64, count: u64, after: Duration },
    #[error("{what}: {source}")]
    Io { what: String, source: io::Error },
    #[error("unexpected text in `{}`", file.display())]
    Proc { file: PathBuf },
}

/// Says what was being done when an I/O error came.
pub trait During<T> {
    fn during(self, what: impl Into<String>) -> Result<T, Failure>;
}

impl<T, E: Into<io::Error>> During<T> for Result<T, E> {
    fn during(self, what: impl Into<String>) -> Result<T, Failure> {
        self.map_err(|error| Failure::Io { what: what.into(), source: error.into() })
    }
}

pub fn lost<E: std::fmt::Display>(doing: &'static str) -> impl Fn(E) -> Failure {
    move |error| Failure::ConnectionLost { doing, reason: error.to_string() }
}
