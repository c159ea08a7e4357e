//! One direction of a tunnel: at most one read ahead of its writer.

use std::cell::RefCell;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes read at once. Room for a message of 64 KiB with its header: with less, its last bytes cost a read and a write of
/// their own.
const SCRATCH_BYTES: usize = 128 * 1024;

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH_BYTES].into_boxed_slice());
}

/// Lends the thread's scratch buffer. Nothing in it outlives the call.
pub fn with_scratch<T>(act: impl FnOnce(&mut [u8]) -> T) -> T {
    SCRATCH.with_borrow_mut(|scratch| act(scratch))
}

/// ```text
///   Reading ──writer is slow──► Spilled ──writer took all──► Reading
///      ├──────end of reader──────► Closing ──shut down──► Finished
///      └──writer is gone──► Discarding ──end of reader──► Finished
/// ```
#[derive(Debug)]
pub struct Flow {
    state: State,
}

#[derive(Debug)]
enum State {
    Reading,
    /// What the writer has not taken yet. Boxed, because a tunnel at rest should not pay for it.
    Spilled(Box<Spill>),
    Closing,
    /// Reads and throws away.
    Discarding,
    Finished,
}

#[derive(Debug)]
struct Spill {
    bytes: Vec<u8>,
    /// Already written: `0 <= written < bytes.len()`.
    written: usize,
}

/// What one step came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Moved,
    /// The context is woken when there is more to do.
    Waiting,
    /// The reader is done and all it sent is written. The next step tells the writer.
    ReaderDone,
    /// Nothing more comes from it; all that came is written. The next step tells the writer.
    ReaderLost,
    WriterLost,
}

impl Flow {
    /// The writer is gone: from now on what the reader sends is thrown away.
    pub fn discard(&mut self) {
        if !matches!(self.state, State::Finished) {
            self.state = State::Discarding;
        }
    }

    pub fn with_spill(bytes: Vec<u8>) -> Flow {
        let state = if bytes.is_empty() { State::Reading } else { State::spilled(bytes) };
        Flow { state }
    }

    /// `read` is told of every byte read, once.
    pub fn step<R, W>(
        &mut self,
        reader: &mut R,
        writer: &mut W,
        cx: &mut Context<'_>,
        scratch: &mut [u8],
        read: impl FnOnce(&[u8]),
    ) -> Step
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        match &mut self.state {
            State::Reading => self.read_and_write(reader, writer, cx, scratch, read),
            State::Spilled(spill) => match spill.write(writer, cx) {
                Poll::Pending => Step::Waiting,
                Poll::Ready(Err(_)) => Step::WriterLost,
                Poll::Ready(Ok(())) => {
                    self.state = State::Reading;
                    Step::Moved
                }
            },
            State::Closing => match Pin::new(writer).poll_shutdown(cx) {
                Poll::Pending => Step::Waiting,
                // A writer that is gone already needs no telling.
                Poll::Ready(_) => {
                    self.state = State::Finished;
                    Step::Waiting
                }
            },
            State::Finished => Step::Waiting,
            State::Discarding => {
                let mut buffer = ReadBuf::new(scratch);
                match Pin::new(reader).poll_read(cx, &mut buffer) {
                    Poll::Pending => Step::Waiting,
                    Poll::Ready(Ok(())) if !buffer.filled().is_empty() => Step::Moved,
                    Poll::Ready(Ok(()) | Err(_)) => {
                        self.state = State::Finished;
                        Step::ReaderDone
                    }
                }
            }
        }
    }

    fn read_and_write<R, W>(
        &mut self,
        reader: &mut R,
        writer: &mut W,
        cx: &mut Context<'_>,
        scratch: &mut [u8],
        read: impl FnOnce(&[u8]),
    ) -> Step
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let mut buffer = ReadBuf::new(scratch);
        match Pin::new(reader).poll_read(cx, &mut buffer) {
            Poll::Pending => match Pin::new(writer).poll_flush(cx) {
                Poll::Ready(Err(_)) => return Step::WriterLost,
                Poll::Ready(Ok(())) | Poll::Pending => return Step::Waiting,
            },
            Poll::Ready(Err(_)) => {
                self.state = State::Closing;
                return Step::ReaderLost;
            }
            Poll::Ready(Ok(())) => {}
        }
        let bytes = buffer.filled();
        if bytes.is_empty() {
            self.state = State::Closing;
            return Step::ReaderDone;
        }
        read(bytes);
        match Pin::new(writer).poll_write(cx, bytes) {
            Poll::Ready(Ok(written)) if written == bytes.len() => Step::Moved,
            Poll::Ready(Ok(0) | Err(_)) => Step::WriterLost,
            Poll::Ready(Ok(written)) => {
                self.state = State::spilled(bytes[written..].to_vec());
                Step::Moved
            }
            Poll::Pending => {
                self.state = State::spilled(bytes.to_vec());
                Step::Moved
            }
        }
    }
}

impl State {
    fn spilled(bytes: Vec<u8>) -> State {
        State::Spilled(Box::new(Spill { bytes, written: 0 }))
    }
}

impl Spill {
    fn write<W: AsyncWrite + Unpin>(&mut self, writer: &mut W, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        while self.written < self.bytes.len() {
            match ready!(Pin::new(&mut *writer).poll_write(cx, &self.bytes[self.written..]))? {
                0 => return Poll::Ready(Err(std::io::ErrorKind::WriteZero.into())),
                written => self.written += written,
            }
        }
        Poll::Ready(Ok(()))
    }
}
