//! How Pingora connects to a server over TLS, or to one that is told who the client is: by our own dial, so that a plain request goes through the same verification as
//! an upgrade. Pingora's own TLS turns verification off for an empty name, and makes all of it anew for each connection where a
//! CA of one's own is used.
//!
//! Pingora keeps no such connection for a next request, because it tells kept ones apart by their descriptors; a next one
//! resumes the session. One that begins with a PROXY header serves the client that it names, and nobody else.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use pingora::connectors::L4Connect;
use pingora::protocols::l4::socket::SocketAddr;
use pingora::protocols::l4::stream::Stream as L4Stream;
use pingora::protocols::l4::virt::{VirtualSockOpt, VirtualSocket, VirtualSocketStream};
use pingora::{Error, ErrorType, Result};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::address::Address;
use crate::dial::deadline::Deadline;
use crate::dial::{self, DialError};
use crate::stream::Stream;
use crate::tls::Connector;

/// One server, dialled by us.
pub struct Dialled {
    pub address: Address,
    /// A PROXY header, or nothing.
    pub announced: Vec<u8>,
    /// `None` where servers are spoken to plainly.
    pub connector: Option<Arc<Connector>>,
    pub connect_timeout: Duration,
}

impl fmt::Debug for Dialled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Dialled").field(&self.address).finish()
    }
}

#[async_trait]
impl L4Connect for Dialled {
    async fn connect(&self, _: &SocketAddr) -> Result<L4Stream> {
        let mut deadline = Deadline::within(self.connect_timeout);
        match dial::connect(&self.address, &self.announced, self.connector.as_deref(), &mut deadline).await {
            Ok(stream) => Ok(VirtualSocketStream::new(Box::new(Carried(stream))).into()),
            Err(error) => {
                let kind = match &error {
                    DialError::Tls(_) => ErrorType::TLSHandshakeFailure,
                    DialError::ConnectTimeout => ErrorType::ConnectTimedout,
                    _ => ErrorType::ConnectError,
                };
                Error::e_because(kind, "no connection of our own", error)
            }
        }
    }
}

/// A stream in the form that Pingora takes.
#[derive(Debug)]
struct Carried(Stream);

impl VirtualSocket for Carried {
    /// It has what it needs already.
    fn set_socket_option(&self, _: VirtualSockOpt) -> io::Result<()> {
        Ok(())
    }
}

impl AsyncRead for Carried {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Carried {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
