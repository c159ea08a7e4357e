//! What one direction of a tunnel holds between two looks at it: nothing, as a rule.

use std::cell::RefCell;
use std::pin::Pin;
use std::task::{Context, Poll};

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

/// One direction: at most one read ahead of its writer.
#[derive(Debug, Default)]
pub struct Flow {
    // Both boxed, because a tunnel at rest should not pay for them.
    /// Read, but not to be passed on before more is read: less than a header or a control frame.
    held: Option<Box<HeldBack>>,
    /// What the writer has not taken yet.
    spill: Option<Box<Spill>>,
    /// The writer was told that nothing more comes.
    is_shut: bool,
}

/// A thin pointer to a fat one: eight bytes less of every tunnel for an allocation more of few.
#[derive(Debug)]
struct HeldBack {
    bytes: Box<[u8]>,
}

#[derive(Debug)]
struct Spill {
    bytes: Vec<u8>,
    /// Already written: `0 <= written < bytes.len()`.
    written: usize,
}

/// The writer takes no more, for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriterGone;

/// What became of bytes that the writer did not take at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spilled {
    Nothing,
    /// The writer took a part.
    Some,
    /// The writer took none.
    All,
}

impl Flow {
    pub fn is_spilled(&self) -> bool {
        self.spill.is_some()
    }

    pub fn is_shut(&self) -> bool {
        self.is_shut
    }

    /// Reads into `scratch`, behind what is held back. What is still held when the reader is done was the beginning of a
    /// frame that never came, and goes nowhere.
    pub fn read<R: AsyncRead + Unpin>(
        &mut self,
        reader: &mut R,
        cx: &mut Context<'_>,
        scratch: &mut [u8],
    ) -> Poll<std::io::Result<Read>> {
        let held = self.held.as_ref().map_or(0, |held| held.bytes.len());
        if let Some(back) = &self.held {
            scratch[..held].copy_from_slice(&back.bytes);
        }
        let mut buffer = ReadBuf::new(&mut scratch[held..]);
        std::task::ready!(Pin::new(reader).poll_read(cx, &mut buffer))?;
        let fresh = buffer.filled().len();
        self.held = None;
        Poll::Ready(Ok(Read { held, fresh }))
    }

    /// Keeps what was read and cannot be passed on yet.
    pub fn hold(&mut self, bytes: &[u8]) {
        self.held = Some(Box::new(HeldBack { bytes: bytes.into() }));
    }

    /// What was kept, if anything: nobody waits for the rest of a frame any more.
    pub fn take_held(&mut self) -> Option<Box<[u8]>> {
        self.held.take().map(|held| held.bytes)
    }

    /// Writes behind what waits already.
    ///
    /// # Errors
    /// When the writer is gone.
    pub fn write<W: AsyncWrite + Unpin>(
        &mut self,
        bytes: &[u8],
        writer: &mut W,
        cx: &mut Context<'_>,
    ) -> Result<(), WriterGone> {
        if let Some(spill) = &mut self.spill {
            // Not doubled for a frame of a few bytes behind a whole read.
            spill.bytes.reserve_exact(bytes.len());
            spill.bytes.extend_from_slice(bytes);
            return Ok(());
        }
        let written = match Pin::new(writer).poll_write(cx, bytes) {
            Poll::Ready(Ok(0) | Err(_)) => return Err(WriterGone),
            Poll::Ready(Ok(written)) if written == bytes.len() => return Ok(()),
            Poll::Ready(Ok(written)) => written,
            Poll::Pending => 0,
        };
        self.spill = Some(Box::new(Spill { bytes: bytes[written..].to_vec(), written: 0 }));
        Ok(())
    }

    /// Writes on what waits. `cx` is woken when there is more to do.
    ///
    /// # Errors
    /// When the writer is gone.
    pub fn write_spill<W: AsyncWrite + Unpin>(
        &mut self,
        writer: &mut W,
        cx: &mut Context<'_>,
    ) -> Result<Spilled, WriterGone> {
        let Some(spill) = &mut self.spill else { return Ok(Spilled::Nothing) };
        let mut left = Spilled::All;
        while spill.written < spill.bytes.len() {
            match Pin::new(&mut *writer).poll_write(cx, &spill.bytes[spill.written..]) {
                Poll::Pending => return Ok(left),
                Poll::Ready(Ok(0) | Err(_)) => {
                    self.spill = None;
                    return Err(WriterGone);
                }
                Poll::Ready(Ok(written)) => {
                    spill.written += written;
                    left = Spilled::Some;
                }
            }
        }
        self.spill = None;
        Ok(Spilled::Nothing)
    }

    /// Tells the writer that nothing more comes. A writer that is gone already needs no telling.
    pub fn shut<W: AsyncWrite + Unpin>(&mut self, writer: &mut W, cx: &mut Context<'_>) -> Poll<()> {
        std::task::ready!(Pin::new(writer).poll_shutdown(cx)).ok();
        self.is_shut = true;
        Poll::Ready(())
    }

    /// The writer is gone: what waits for it is lost.
    pub fn drop_spill(&mut self) {
        self.spill = None;
    }
}

/// What lies in the scratch buffer.
#[derive(Clone, Copy, Debug)]
pub struct Read {
    /// Of an earlier read.
    pub held: usize,
    /// 0 when the reader is done.
    pub fresh: usize,
}
