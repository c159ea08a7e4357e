//! The first step of a connection: who is at its other end. Where the listener says so, that is what a PROXY header says, which comes
//! before TLS and before any head. It does not know what follows.

use pingora::server::ShutdownWatch;
use tokio::io::AsyncReadExt;
use tokio::time::{Instant, timeout_at};

use super::Edge;
use crate::caller::{Caller, is_trusted};
use crate::config::model::{ClientAddress, Listener};
use crate::proxy_header::{self, Fault, Said};
use crate::reason::Reason;
use crate::stream::Stream;

/// A usual header is shorter.
const PIECE_BYTES: usize = 256;

/// Why a connection does not go on.
pub enum Stop {
    Refused(Reason),
    /// The peer went away or never began, or the gateway stops.
    Gone,
}

/// # Errors
/// When there has to be a header, and there is none that counts. What follows it is unread.
pub async fn find(
    edge: &Edge,
    rules: &Listener,
    stream: &mut Stream,
    socket: Caller,
    stopping: &ShutdownWatch,
) -> Result<Caller, Stop> {
    if rules.client_address != ClientAddress::ProxyProtocol {
        return Ok(socket);
    }
    if !is_trusted(&rules.trusted_proxies, socket.socket) {
        return Err(Stop::Refused(Reason::ProxyPeerUnlisted));
    }
    let mut header = Header { begun: Vec::new(), until: Instant::now() + rules.header_timeout };
    let mut stopping = stopping.clone();
    let said = tokio::select! {
        biased;
        said = header.read(stream) => Some(said),
        _ = stopping.wait_for(|stopping| *stopping) => None,
    };
    let said = match said {
        Some(said) => said,
        None if header.begun.is_empty() && !edge.lifecycle.is_handed_over() => Err(Stop::Gone),
        // As with a head: who has begun, or whom no other process can serve, may go on.
        None => header.read(stream).await,
    };
    said.map(|said| socket.named(said))
}

/// A header on its way.
struct Header {
    /// As much as was read.
    begun: Vec<u8>,
    until: Instant,
}

impl Header {
    /// Takes the header from the stream and not a byte more: what follows is for whoever comes next, which may be TLS. Bytes are looked
    /// at before they are taken, so a header costs two calls, however long it is.
    async fn read(&mut self, stream: &mut Stream) -> Result<Said, Stop> {
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            let came = match timeout_at(self.until, stream.peek(&mut piece)).await {
                Ok(Ok(0) | Err(_)) => return Err(Stop::Gone),
                Ok(Ok(length)) => length,
                Err(_) if self.begun.is_empty() => return Err(Stop::Gone),
                Err(_) => return Err(Stop::Refused(Reason::ProxyHeaderTimeout)),
            };
            let before = self.begun.len();
            let seen = [&self.begun, &piece[..came]].concat();
            let read = proxy_header::read(&seen).map_err(|fault| {
                Stop::Refused(match fault {
                    Fault::Missing => Reason::ProxyHeaderMissing,
                    Fault::Malformed => Reason::ProxyHeaderMalformed,
                })
            })?;
            let taken = read.map_or(came, |(_, length)| length - before);
            if stream.read_exact(&mut piece[..taken]).await.is_err() {
                return Err(Stop::Gone);
            }
            // Not before: who is interrupted while waiting to take them looks at the same bytes again.
            self.begun.extend_from_slice(&piece[..taken]);
            if let Some((said, _)) = read {
                return Ok(said);
            }
        }
    }
}
