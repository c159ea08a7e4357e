//! A handshake with one client: its first bytes, what it is shown, and what came of it. A client that speaks plain HTTP to a
//! TLS port is told apart by its first byte, so that it can be answered. It does not know what is answered.

use std::io;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::time::timeout;
use tokio_rustls::StartHandshake;
use tokio_rustls::rustls::server::Acceptor as Hello;
use tokio_rustls::rustls::{self, HandshakeKind, ProtocolVersion, ServerConnection};
use tokio_rustls::server::TlsStream;

use super::subject::subject;
use super::to_clients::Acceptor;

/// The first byte of a TLS handshake, RFC 8446 §5.1.
const HANDSHAKE_RECORD: u8 = 22;

/// Of a hello, at once; most are shorter.
const READ_BYTES: usize = 2048;

/// A client with which TLS is spoken.
pub struct Accepted<S> {
    pub stream: TlsStream<S>,
    pub met: Met,
}

/// What a handshake came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Met {
    /// `1.2` or `1.3`.
    pub version: &'static str,
    pub is_resumed: bool,
    /// Whose certificate the client showed and proved, by RFC 4514. `None` where it showed none.
    pub subject: Option<Arc<str>>,
}

/// Why there is no TLS with a client: the labels of the metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It did not come to its end in time.
    Timeout,
    /// The client went away.
    Closed,
    /// Something else was spoken, as a rule plain HTTP.
    NotTls,
    /// No version, cipher or protocol in common.
    Incompatible,
    /// The client has to show a certificate and did not.
    CertificateMissing,
    /// The client's certificate is not believed.
    CertificateRefused,
    /// The client refused the handshake, as a rule because it does not believe our certificate.
    RefusedByClient,
    /// TLS was spoken wrongly.
    Protocol,
}

impl Failure {
    pub const ALL: [Failure; 8] = [
        Failure::Timeout,
        Failure::Closed,
        Failure::NotTls,
        Failure::Incompatible,
        Failure::CertificateMissing,
        Failure::CertificateRefused,
        Failure::RefusedByClient,
        Failure::Protocol,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Failure::Timeout => "timeout",
            Failure::Closed => "closed",
            Failure::NotTls => "not-tls",
            Failure::Incompatible => "incompatible",
            Failure::CertificateMissing => "certificate-missing",
            Failure::CertificateRefused => "certificate-refused",
            Failure::RefusedByClient => "refused-by-client",
            Failure::Protocol => "protocol",
        }
    }

    fn of(error: &io::Error) -> Failure {
        use rustls::Error;
        let Some(inner) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) else {
            return Failure::Closed;
        };
        match inner {
            Error::PeerIncompatible(_) | Error::NoApplicationProtocol => Failure::Incompatible,
            Error::NoCertificatesPresented => Failure::CertificateMissing,
            Error::InvalidCertificate(_) => Failure::CertificateRefused,
            Error::AlertReceived(_) => Failure::RefusedByClient,
            _ => Failure::Protocol,
        }
    }
}

/// A client with which TLS is not spoken.
pub struct NotAccepted<S> {
    pub failure: Failure,
    /// More than the label says, for the log.
    pub detail: Option<String>,
    /// The connection, where there may be somebody left to hear an answer: one in the clear after [`Failure::NotTls`], else
    /// nothing more than the end, behind the alert that was sent already.
    pub stream: Option<S>,
}

impl Acceptor {
    /// Shakes hands with a client that has just come.
    ///
    /// # Errors
    /// When TLS is not agreed on in time.
    pub async fn accept<S>(&self, stream: S) -> Result<Accepted<S>, NotAccepted<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        match timeout(self.handshake_timeout(), self.shake_hands(stream)).await {
            Ok(done) => done,
            Err(_) => Err(NotAccepted { failure: Failure::Timeout, detail: None, stream: None }),
        }
    }

    async fn shake_hands<S>(&self, mut stream: S) -> Result<Accepted<S>, NotAccepted<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut hello = Hello::default();
        let mut buffer = [0; READ_BYTES];
        let mut is_first = true;
        let hello = loop {
            let bytes = match stream.read(&mut buffer).await {
                Ok(0) | Err(_) => return Err(NotAccepted { failure: Failure::Closed, detail: None, stream: None }),
                Ok(length) => &buffer[..length],
            };
            if is_first && bytes[0] != HANDSHAKE_RECORD {
                return Err(NotAccepted { failure: Failure::NotTls, detail: None, stream: Some(stream) });
            }
            is_first = false;
            match take(&mut hello, bytes) {
                Ok(Some(hello)) => break hello,
                Ok(None) => {}
                Err(refusal) => return Err(refuse(refusal, stream).await),
            }
        };
        let shaken = StartHandshake::from_parts(hello, stream).into_stream(Arc::clone(self.config()));
        let stream = match shaken.into_fallible().await {
            Ok(stream) => stream,
            Err((error, stream)) => {
                let stream = Some(stream);
                return Err(NotAccepted { failure: Failure::of(&error), detail: Some(error.to_string()), stream });
            }
        };
        match met(stream.get_ref().1) {
            Some(met) => Ok(Accepted { stream, met }),
            None => {
                let detail = Some("the subject of its certificate cannot be told".to_owned());
                Err(NotAccepted { failure: Failure::CertificateRefused, detail, stream: None })
            }
        }
    }
}

type Refusal = (rustls::Error, rustls::server::AcceptedAlert);

/// Gives a hello more of its bytes.
fn take(hello: &mut Hello, mut bytes: &[u8]) -> Result<Option<rustls::server::Accepted>, Refusal> {
    while !bytes.is_empty() {
        // Reading from memory fails only where a message is without measure, which the next line says better.
        let taken = hello.read_tls(&mut bytes).unwrap_or(0);
        let accepted = hello.accept()?;
        if accepted.is_some() || taken == 0 {
            return Ok(accepted);
        }
    }
    Ok(None)
}

async fn refuse<S: AsyncWrite + Unpin>((error, mut alert): Refusal, mut stream: S) -> NotAccepted<S> {
    use tokio::io::AsyncWriteExt;
    let error = io::Error::new(io::ErrorKind::InvalidData, error);
    let mut bytes = Vec::new();
    let written = alert.write_all(&mut bytes);
    let sent = written.is_ok() && stream.write_all(&bytes).await.is_ok();
    let stream = sent.then_some(stream);
    NotAccepted { failure: Failure::of(&error), detail: Some(error.to_string()), stream }
}

/// `None` where a certificate was shown and nobody can say whose it is.
fn met(connection: &ServerConnection) -> Option<Met> {
    let shown = connection.peer_certificates().and_then(<[_]>::first);
    let subject = match shown {
        Some(certificate) => Some(Arc::from(subject(certificate)?)),
        None => None,
    };
    Some(Met {
        version: if connection.protocol_version() == Some(ProtocolVersion::TLSv1_2) { "1.2" } else { "1.3" },
        is_resumed: connection.handshake_kind() == Some(HandshakeKind::Resumed),
        subject,
    })
}
