//! What a client sends on its stream, as HTTP/1.1 would have it: bare, or in chunks where no length was announced. It does not
//! know what the bytes mean.

use std::io;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h2::RecvStream;
use tokio::io::ReadBuf;

use super::{Framing, broken};

/// The direction from the client. It holds one DATA frame at most, and none while it waits.
pub struct Inward {
    body: RecvStream,
    /// Of the frame that arrived last, what was not read yet, framed.
    rest: Bytes,
    /// Bytes of that frame which the client may send again once `rest` is read.
    owed: usize,
    wrap: Wrap,
}

/// How DATA becomes a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrap {
    Bare,
    Chunks,
    /// The last chunk was given.
    Ended,
}

impl Inward {
    pub fn new(body: RecvStream, framing: Framing) -> Inward {
        let wrap = if framing == Framing::Chunked { Wrap::Chunks } else { Wrap::Bare };
        Inward { body, rest: Bytes::new(), owed: 0, wrap }
    }

    pub fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.rest.is_empty() {
            match ready!(self.body.poll_data(cx)) {
                Some(Ok(data)) => self.take(data)?,
                Some(Err(error)) => return Poll::Ready(Err(broken(error))),
                None if self.wrap == Wrap::Chunks => {
                    self.rest = Bytes::from_static(b"0\r\n\r\n");
                    self.wrap = Wrap::Ended;
                }
                None => return Poll::Ready(Ok(())),
            }
        }
        let length = self.rest.len().min(buffer.remaining());
        buffer.put_slice(&self.rest[..length]);
        self.rest.advance(length);
        if self.rest.is_empty() {
            // Let go of the buffer that all frames of one read share.
            self.rest = Bytes::new();
            self.release()?;
        }
        Poll::Ready(Ok(()))
    }

    /// Whether the client said that nothing more comes.
    pub fn is_ended(&self) -> bool {
        self.body.is_end_stream()
    }

    /// An empty frame says nothing, and as a chunk it would be the last.
    fn take(&mut self, data: Bytes) -> io::Result<()> {
        self.owed = data.len();
        self.rest = match self.wrap {
            Wrap::Chunks if !data.is_empty() => {
                let mut chunk = format!("{:x}\r\n", data.len()).into_bytes();
                chunk.extend_from_slice(&data);
                chunk.extend_from_slice(b"\r\n");
                chunk.into()
            }
            Wrap::Bare | Wrap::Chunks | Wrap::Ended => data,
        };
        if self.rest.is_empty() { self.release() } else { Ok(()) }
    }

    fn release(&mut self) -> io::Result<()> {
        let owed = std::mem::take(&mut self.owed);
        if owed == 0 {
            return Ok(());
        }
        self.body.flow_control().release_capacity(owed).map_err(broken)
    }
}
