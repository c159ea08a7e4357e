//! Reads one request head under a total deadline and a size cap. It does not know what the head says.

use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::{Instant, timeout_at};

use crate::handshake::{HeadScan, Scan};
use crate::reason::Reason;

/// Room for a usual head in one piece.
const FIRST_READ_BYTES: usize = 2048;

/// What waiting for a head came to.
#[derive(Debug)]
pub enum Received {
    /// The head's length within the buffer; more may lie behind it.
    Head(usize),
    /// It cannot become a head any more.
    Refused(Reason),
    /// The client went away, or never began.
    Gone,
}

/// How long a client may take.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Until the first byte.
    pub first_byte: Duration,
    /// From the first byte to the end of the head.
    pub whole_head: Duration,
}

/// Reads into `buffer`, which may already hold the beginning.
pub async fn read<S: AsyncRead + Unpin>(
    stream: &mut S,
    buffer: &mut BytesMut,
    limit: usize,
    patience: Patience,
) -> Received {
    let mut scan = HeadScan::new(limit);
    let mut deadline = Instant::now() + if buffer.is_empty() { patience.first_byte } else { patience.whole_head };
    loop {
        match scan.advance(buffer) {
            Scan::Complete(length) => return Received::Head(length),
            Scan::Malformed => return Received::Refused(Reason::HeadMalformed),
            Scan::TooLarge => return Received::Refused(Reason::HeadTooLarge),
            Scan::Incomplete => {}
        }
        let had_none = buffer.is_empty();
        buffer.reserve(FIRST_READ_BYTES);
        match timeout_at(deadline, stream.read_buf(buffer)).await {
            Ok(Ok(0)) | Ok(Err(_)) => return Received::Gone,
            Ok(Ok(_)) if had_none => deadline = Instant::now() + patience.whole_head,
            Ok(Ok(_)) => {}
            Err(_) if had_none => return Received::Gone,
            Err(_) => return Received::Refused(Reason::HeadTimeout),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    const PATIENCE: Patience = Patience { first_byte: Duration::from_secs(60), whole_head: Duration::from_secs(5) };

    #[tokio::test(start_paused = true)]
    async fn a_trickle_is_cut_at_the_total_deadline() {
        let (mut client, mut server) = tokio::io::duplex(64);
        let trickle = tokio::spawn(async move {
            for byte in b"GET / HTTP/1.1\r\nHost: a\r\n" {
                if client.write_all(&[*byte]).await.is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        });
        let start = Instant::now();
        let received = read(&mut server, &mut BytesMut::new(), 1024, PATIENCE).await;
        assert!(matches!(received, Received::Refused(Reason::HeadTimeout)), "{received:?}");
        assert_eq!(start.elapsed(), PATIENCE.whole_head);
        trickle.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_never_begins_is_let_go_without_an_answer() {
        let (_client, mut server) = tokio::io::duplex(64);
        let start = Instant::now();
        let received = read(&mut server, &mut BytesMut::new(), 1024, PATIENCE).await;
        assert!(matches!(received, Received::Gone), "{received:?}");
        assert_eq!(start.elapsed(), PATIENCE.first_byte);
    }

    #[tokio::test]
    async fn keeps_what_lies_behind_the_head() {
        let (mut client, mut server) = tokio::io::duplex(64);
        client.write_all(b"GET / HTTP/1.1\r\n\r\nmore").await.unwrap();
        let mut buffer = BytesMut::new();
        assert!(matches!(read(&mut server, &mut buffer, 1024, PATIENCE).await, Received::Head(18)));
        assert_eq!(&buffer[18..], b"more");
    }
}
