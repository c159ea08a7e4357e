//! A stream of an HTTP/2 connection, made to look like a connection of HTTP/1.1 that carries one request: what is read from it
//! is the request's body or a tunnel's bytes, and an answer in the words of HTTP/1.1 that is written to it goes out in those of
//! HTTP/2. So whoever answers an HTTP/1.1 client answers this one. It does not know what is asked, nor who answers.
//!
//! Nothing is queued beyond what the windows allow: bytes are taken from a writer only as far as the client and
//! [`SEND_BYTES_MAX`] let them go, and what arrived is counted as read only when it was (RFC 9113 §5.2).

mod answer;
mod body;
pub mod meter;
pub mod request;
mod streams;

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use answer::Outward;
use body::Inward;
pub use request::Framing;
pub use streams::{OpenStream, Streams};

/// Bytes that a stream's client may send before they are read.
pub const WINDOW_BYTES: u32 = 64 * 1024;

/// Bytes that wait in a stream for the connection to take them, at most.
pub const SEND_BYTES_MAX: usize = 64 * 1024;

/// One stream, from its request's head to its end. Dropped before its end, it is reset.
pub struct Carried {
    inward: Inward,
    outward: Outward,
    /// Given back with the stream.
    _open: OpenStream,
}

impl Carried {
    /// A stream whose request was read.
    pub fn new(body: RecvStream, respond: SendResponse<Bytes>, framing: Framing, open: OpenStream) -> Carried {
        Carried { inward: Inward::new(body, framing), outward: Outward::new(respond, framing), _open: open }
    }
}

/// A tunnel whose client has finished is over, as a socket that is closed is; any other end is a cut, which h2 makes a reset.
impl Drop for Carried {
    fn drop(&mut self) {
        if self.inward.is_ended() && self.outward.is_tunnel() {
            // The client may be gone, and needs no end then.
            let _ = self.outward.finish();
        }
    }
}

impl std::fmt::Debug for Carried {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Carried").finish_non_exhaustive()
    }
}

impl AsyncRead for Carried {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        // Whoever has answered in full does not care for the rest of the request (RFC 9113 §8.1).
        if self.outward.is_done() {
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        ready!(self.inward.poll_read(cx, buffer))?;
        if buffer.filled().len() > before || self.outward.is_tunnel() {
            return Poll::Ready(Ok(()));
        }
        // Behind a whole request, a connection of HTTP/1.1 would wait for the next one; its end would say that nobody waits.
        self.outward.poll_reset(cx)
    }
}

impl AsyncWrite for Carried {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.outward.poll_write(cx, bytes)
    }

    /// What was taken is on its way: the connection's own task writes it.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.outward.finish())
    }
}

/// The connection or the stream broke; what h2 says of it is for no one's eyes but a debugger's.
fn broken(error: h2::Error) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, error)
}

/// As much as the client's windows allow now, but no more than `wanted`; at least 1.
fn poll_capacity(send: &mut h2::SendStream<Bytes>, cx: &mut Context<'_>, wanted: usize) -> Poll<io::Result<usize>> {
    send.reserve_capacity(wanted.min(SEND_BYTES_MAX));
    while send.capacity() == 0 {
        match ready!(send.poll_capacity(cx)) {
            Some(Ok(_)) => {}
            Some(Err(error)) => return Poll::Ready(Err(broken(error))),
            None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }
    Poll::Ready(Ok(send.capacity().min(wanted)))
}
