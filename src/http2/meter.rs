//! The socket below an HTTP/2 connection: it gives back what was read of it to tell which protocol is spoken, and counts the frames that cost
//! their sender nothing and carry nothing. h2 bounds the memory that they take but answers them for ever. It knows no more of
//! a frame than its header (RFC 9113 §4.1).

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// What a client begins with (RFC 9113 §3.4). Its first line is that of a request which no server of HTTP/1.1 can serve.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// As much of [`PREFACE`] as looks like a whole head.
pub const PREFACE_HEAD_BYTES: usize = 18;

/// Frames that carry nothing, in each [`PERIOD`], beside those that end streams.
const IDLE_FRAMES_MAX: u32 = 1000;
/// A client may close all streams of a full connection at once, open as many anew, and close them too.
const IDLE_FRAMES_PER_STREAM: u32 = 2;
const PERIOD: Duration = Duration::from_secs(10);

const HEADER_BYTES: usize = 9;

pub struct Metered<S> {
    stream: S,
    /// Read before.
    first: BytesMut,
    counter: FrameCounter,
    is_exhausted: Arc<AtomicBool>,
}

impl<S> Metered<S> {
    /// `first` was read from the stream already; the client may have so many `streams` at once.
    pub fn new(stream: S, first: BytesMut, streams: u32) -> Metered<S> {
        Metered { stream, first, counter: FrameCounter::new(Instant::now(), streams), is_exhausted: Arc::default() }
    }

    /// Turns true when the client has sent too much of nothing; then nothing more is read.
    pub fn watch(&self) -> Exhausted {
        Exhausted(Arc::clone(&self.is_exhausted))
    }
}

pub struct Exhausted(Arc<AtomicBool>);

impl Exhausted {
    pub fn is(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.is_exhausted.load(Ordering::Relaxed) {
            // The connection's task looks at the flag after each poll.
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        if this.first.is_empty() {
            std::task::ready!(Pin::new(&mut this.stream).poll_read(cx, buffer))?;
        } else {
            let length = this.first.len().min(buffer.remaining());
            buffer.put_slice(&this.first[..length]);
            this.first.advance(length);
            if this.first.is_empty() {
                this.first = BytesMut::new();
            }
        }
        if this.counter.advance(&buffer.filled()[before..]) > 0 && this.counter.is_exceeded(Instant::now()) {
            this.is_exhausted.store(true, Ordering::Relaxed);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Finds the headers of frames in bytes that come in any pieces.
#[derive(Debug)]
struct FrameCounter {
    header: [u8; HEADER_BYTES],
    /// Bytes of the header that are there: `filled < HEADER_BYTES`.
    filled: usize,
    /// Bytes until the next header.
    skip: usize,
    idle_frames: u32,
    idle_frames_max: u32,
    since: Instant,
}

impl FrameCounter {
    fn new(now: Instant, streams: u32) -> FrameCounter {
        let idle_frames_max = IDLE_FRAMES_MAX.saturating_add(streams.saturating_mul(IDLE_FRAMES_PER_STREAM));
        let (header, skip) = ([0; HEADER_BYTES], PREFACE.len());
        FrameCounter { header, filled: 0, skip, idle_frames: 0, idle_frames_max, since: now }
    }

    /// How many frames that carry nothing began in these bytes.
    fn advance(&mut self, mut bytes: &[u8]) -> u32 {
        let before = self.idle_frames;
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            let length = (HEADER_BYTES - self.filled).min(bytes.len());
            self.header[self.filled..self.filled + length].copy_from_slice(&bytes[..length]);
            self.filled += length;
            bytes = &bytes[length..];
            if self.filled == HEADER_BYTES {
                self.filled = 0;
                self.skip = payload_bytes(&self.header);
                self.idle_frames = self.idle_frames.saturating_add(u32::from(carries_nothing(&self.header)));
            }
        }
        self.idle_frames - before
    }

    fn is_exceeded(&mut self, now: Instant) -> bool {
        if now.saturating_duration_since(self.since) >= PERIOD {
            self.since = now;
            self.idle_frames = 0;
        }
        self.idle_frames > self.idle_frames_max
    }
}

fn payload_bytes(header: &[u8; HEADER_BYTES]) -> usize {
    usize::from(header[0]) << 16 | usize::from(header[1]) << 8 | usize::from(header[2])
}

/// HEADERS and DATA are what a connection is for, and WINDOW_UPDATE is what DATA of ours asks for. All others are rare where
/// nobody means harm, those included that nobody knows (RFC 9113 §5.5).
fn carries_nothing(header: &[u8; HEADER_BYTES]) -> bool {
    const DATA: u8 = 0x0;
    const HEADERS: u8 = 0x1;
    const WINDOW_UPDATE: u8 = 0x8;
    match header[3] {
        DATA => payload_bytes(header) == 0,
        HEADERS | WINDOW_UPDATE => false,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, payload: usize) -> Vec<u8> {
        let length = u32::try_from(payload).unwrap().to_be_bytes();
        let mut bytes = vec![length[1], length[2], length[3], kind, 0, 0, 0, 0, 1];
        bytes.extend(std::iter::repeat_n(0xFF, payload));
        bytes
    }

    fn talk() -> Vec<u8> {
        let frames =
            [(4, 12), (1, 40), (0, 300), (0, 0), (6, 8), (8, 4), (3, 4), (2, 5), (9, 10), (0, 1), (0xFA, 70_000)];
        [PREFACE.to_vec()].into_iter().chain(frames.map(|(kind, payload)| frame(kind, payload))).flatten().collect()
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_ordinary_is_not_counted() {
        let mut counter = FrameCounter::new(Instant::now(), 100);
        assert_eq!(
            counter.advance(&talk()),
            7,
            "SETTINGS, empty DATA, PING, RST_STREAM, PRIORITY, CONTINUATION, unknown"
        );
        assert!(!counter.is_exceeded(Instant::now()));
    }

    #[tokio::test(start_paused = true)]
    async fn too_many_in_a_period_are_too_many() {
        let mut counter = FrameCounter::new(Instant::now(), 100);
        counter.advance(PREFACE);
        let ping = frame(6, 8);
        for round in 0..3 {
            for _ in 0..IDLE_FRAMES_MAX + 200 {
                counter.advance(&ping);
                assert!(!counter.is_exceeded(Instant::now()), "in round {round}");
            }
            tokio::time::advance(PERIOD).await;
        }
        for _ in 0..=IDLE_FRAMES_MAX + 201 {
            counter.advance(&ping);
        }
        assert!(!counter.is_exceeded(Instant::now()), "a period has passed");
        (0..=IDLE_FRAMES_MAX + 200).for_each(|_| _ = counter.advance(&ping));
        assert!(counter.is_exceeded(Instant::now()));
    }

    proptest! {
        #[test]
        fn any_split_counts_the_same(cuts in proptest::collection::vec(1usize..5000, 1..100)) {
            let (mut counter, bytes) = (FrameCounter::new(Instant::now(), 100), talk());
            let mut rest = &bytes[..];
            for cut in cuts {
                let (piece, after) = rest.split_at(cut.min(rest.len()));
                counter.advance(piece);
                rest = after;
            }
            counter.advance(rest);
            prop_assert_eq!(counter.idle_frames, 7);
        }
    }
}
