//! One handshake and the conversation after it, over any stream of bytes: what is sent when, and how long each answer may take.
//! What an answer means is decided in `opening` and `hearing`.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout, timeout_at};

use super::finding::{Ending, Outcome, Reply, Talk};
use super::hearing::{Fault, Heard, Hearing, frame};
use super::opening::{Flaw, Opening, judge};
use super::question::{Common, Question, Request};
use crate::dialect::Dialect;
use crate::handshake::hixie::DIGEST_BYTES;
use crate::handshake::{HeadScan, Scan};
use crate::wire::{CLOSE, CloseCode, Opcode, OwnFrame, TEXT_END, TEXT_START};

/// Bytes of a head, at most.
const HEAD_BYTES_MAX: usize = 16 << 10;

/// Interim answers before the final one, at most.
const INTERIM_MAX: usize = 8;

/// What each thing that is said after the handshake may take: most servers echo nothing, and that is waited for in full.
const REPLY_TIME_MAX: Duration = Duration::from_secs(2);

const READ_BYTES: usize = 4096;

/// When to give up.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// The end of the handshake, its connection included.
    pub until: Instant,
    /// For each reply after it.
    pub reply: Duration,
}

impl Patience {
    pub fn new(handshake: Duration) -> Patience {
        Patience { until: Instant::now() + handshake, reply: handshake.min(REPLY_TIME_MAX) }
    }
}

/// Asks, judges the answer, and talks if it is right. The connection is dropped in the end, however that comes.
pub async fn hold(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    question: Question,
    common: &Common,
    patience: Patience,
    chance: &mut fastrand::Rng,
) -> Outcome {
    let request = Request::new(question, common, chance);
    let mut bytes = Vec::new();
    let opened = open(&mut stream, question, &request, common, &mut bytes);
    match timeout_at(patience.until, opened).await {
        Ok(Ok(Opening::Refused(refusal))) => return Outcome::Refused(refusal),
        Ok(Ok(Opening::Wrong(flaw))) => return Outcome::Wrong(flaw),
        Ok(Ok(Opening::RightBefore(digest))) => {
            match timeout_at(patience.until, proof(&mut stream, &mut bytes)).await {
                Ok(Ok(answered)) if answered == digest => {}
                Ok(Ok(_)) => return Outcome::Wrong(Flaw::Digest),
                Ok(Err(_)) | Err(_) => return Outcome::Wrong(Flaw::DigestMissing),
            }
        }
        Ok(Ok(Opening::Right)) => {}
        // More of them than anybody has a use for.
        Ok(Ok(Opening::Interim)) => return Outcome::NotHttp,
        Ok(Err(failure)) => return failure,
        Err(_) => return Outcome::Silent,
    }
    let mut line = Line::new(stream, question, &bytes, chance);
    Outcome::Right(line.talk(question.dialect(), patience.reply).await)
}

/// Sends the request and reads heads up to the final one. What arrived behind it is left in `bytes`.
async fn open(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    question: Question,
    request: &Request,
    common: &Common,
    bytes: &mut Vec<u8>,
) -> Result<Opening, Outcome> {
    let failed = |error: &io::Error| Outcome::Ended(ending(error));
    stream.write_all(&request.bytes).await.map_err(|error| failed(&error))?;
    stream.flush().await.map_err(|error| failed(&error))?;
    for _ in 0..INTERIM_MAX {
        let length = read_head(stream, bytes).await?;
        let opening = judge(question, &request.ask, &common.offer(), &bytes[..length]);
        bytes.drain(..length);
        match opening {
            Ok(Opening::Interim) => {}
            Ok(opening) => return Ok(opening),
            Err(_) => return Err(Outcome::NotHttp),
        }
    }
    Ok(Opening::Interim)
}

async fn read_head(stream: &mut (impl AsyncRead + Unpin), bytes: &mut Vec<u8>) -> Result<usize, Outcome> {
    let mut scan = HeadScan::new(HEAD_BYTES_MAX);
    loop {
        match scan.advance(bytes) {
            Scan::Complete(length) => return Ok(length),
            Scan::Malformed => return Err(Outcome::NotHttp),
            Scan::TooLarge => return Err(Outcome::TooLarge),
            Scan::Incomplete => {}
        }
        read_more(stream, bytes).await.map_err(Outcome::Ended)?;
    }
}

/// The bytes behind the head of hixie-76, which may come apart from it.
async fn proof(stream: &mut (impl AsyncRead + Unpin), bytes: &mut Vec<u8>) -> Result<[u8; DIGEST_BYTES], Ending> {
    loop {
        if let Some(digest) = bytes.first_chunk::<DIGEST_BYTES>().copied() {
            bytes.drain(..DIGEST_BYTES);
            return Ok(digest);
        }
        read_more(stream, bytes).await?;
    }
}

async fn read_more(stream: &mut (impl AsyncRead + Unpin), bytes: &mut Vec<u8>) -> Result<(), Ending> {
    bytes.reserve(READ_BYTES);
    match stream.read_buf(bytes).await {
        Ok(0) => Err(Ending::Fin),
        Ok(_) => Ok(()),
        Err(error) => Err(ending(&error)),
    }
}

/// A server that ends TLS without a word has ended all the same.
fn ending(error: &io::Error) -> Ending {
    if error.kind() == io::ErrorKind::UnexpectedEof { Ending::Fin } else { Ending::Reset }
}

/// An open WebSocket.
struct Line<'c, S> {
    stream: S,
    hearing: Hearing,
    heard: VecDeque<Heard>,
    /// What ends it, once everything before is taken from `heard`.
    end: Option<End>,
    chance: &'c mut fastrand::Rng,
}

#[derive(Clone, Copy, Debug)]
enum End {
    Ending(Ending),
    Fault(Fault),
}

impl From<End> for Reply {
    fn from(end: End) -> Reply {
        match end {
            End::Ending(ending) => Reply::Ended(ending),
            End::Fault(fault) => Reply::Broken(fault),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Line<'_, S> {
    fn new<'c>(stream: S, question: Question, behind_head: &[u8], chance: &'c mut fastrand::Rng) -> Line<'c, S> {
        let mut line = Line { stream, hearing: Hearing::new(question), heard: VecDeque::new(), end: None, chance };
        line.handle_bytes(behind_head);
        line
    }

    /// A text, a Ping, a Close, each followed by its reply; what cannot be said any more is left out.
    async fn talk(&mut self, dialect: Dialect, limit: Duration) -> Talk {
        let mut talk = Talk::default();
        let text = format!("wsgate probe {:016x}", self.chance.u64(..)).into_bytes();
        let said = if dialect.has_frames() { self.framed(Opcode::Text, &text) } else { hixie_text(&text) };
        let echo = self.ask(&said, &Heard::Text(text), limit).await;
        talk.echo = Some(echo);
        if is_over(echo) {
            return talk;
        }
        if dialect.has_frames() {
            let payload = self.chance.u64(..).to_ne_bytes();
            let said = OwnFrame::Ping(payload).to_bytes(Some(self.key()));
            let ping = self.ask(&said, &Heard::Pong(payload.to_vec()), limit).await;
            talk.ping = Some(ping);
            if is_over(ping) {
                return talk;
            }
        }
        talk.close = Some(self.part(dialect, limit).await);
        talk
    }

    /// Says something, and waits for one thing that may come of it.
    async fn ask(&mut self, said: &[u8], expected: &Heard, limit: Duration) -> Reply {
        let mut other = false;
        let asked = async {
            self.send(said).await;
            loop {
                match self.hear().await {
                    Ok(heard) if heard == *expected => return Reply::Right,
                    Ok(Heard::Close(code)) => return Reply::Closed(code),
                    Ok(heard) => other |= is_alike(&heard, expected),
                    Err(end) => return end.into(),
                }
            }
        };
        match timeout(limit, asked).await {
            Ok(reply) => reply,
            Err(_) if other => Reply::Other,
            Err(_) => Reply::Silent,
        }
    }

    /// Says that it is over, in the way of the version.
    async fn part(&mut self, dialect: Dialect, limit: Duration) -> Reply {
        let parted = async {
            match dialect {
                Dialect::Rfc6455 | Dialect::Hybi8 | Dialect::Hybi7 => {
                    let close = OwnFrame::Close { code: CloseCode(1000), reason: "" }.to_bytes(Some(self.key()));
                    self.send(&close).await;
                }
                Dialect::Hixie76 => self.send(&CLOSE).await,
                // As in `Line::send`.
                Dialect::Hixie75 => drop(self.stream.shutdown().await),
            }
            loop {
                match self.hear().await {
                    Ok(Heard::Close(code)) => return Reply::Closed(code),
                    Ok(Heard::Text(_) | Heard::Binary | Heard::Ping(_) | Heard::Pong(_)) => {}
                    Err(end) => return end.into(),
                }
            }
        };
        timeout(limit, parted).await.unwrap_or(Reply::Silent)
    }

    /// The next thing that the server says. Its Pings are answered, as any client would.
    async fn hear(&mut self) -> Result<Heard, End> {
        loop {
            if let Some(heard) = self.heard.pop_front() {
                if let Heard::Ping(payload) = &heard {
                    let pong = self.framed(Opcode::Pong, payload);
                    self.send(&pong).await;
                }
                return Ok(heard);
            }
            if let Some(end) = self.end {
                return Err(end);
            }
            let mut bytes = Vec::new();
            match read_more(&mut self.stream, &mut bytes).await {
                Ok(()) => self.handle_bytes(&bytes),
                Err(ending) => self.end = Some(End::Ending(ending)),
            }
        }
    }

    fn handle_bytes(&mut self, bytes: &[u8]) {
        if let Err(fault) = self.hearing.handle_bytes(bytes, &mut self.heard) {
            self.end = Some(End::Fault(fault));
        }
    }

    /// Whoever reads next sees why it cannot be sent, and maybe a Close before that.
    async fn send(&mut self, bytes: &[u8]) {
        if self.stream.write_all(bytes).await.is_ok() {
            let _ = self.stream.flush().await;
        }
    }

    fn framed(&mut self, opcode: Opcode, payload: &[u8]) -> Vec<u8> {
        frame(opcode, payload, self.key())
    }

    fn key(&mut self) -> [u8; 4] {
        self.chance.u32(..).to_ne_bytes()
    }
}

fn hixie_text(text: &[u8]) -> Vec<u8> {
    [&[TEXT_START], text, &[TEXT_END]].concat()
}

/// Nothing more can be said.
fn is_over(reply: Reply) -> bool {
    match reply {
        Reply::Closed(_) | Reply::Ended(_) | Reply::Broken(_) => true,
        Reply::Right | Reply::Other | Reply::Silent => false,
    }
}

/// Whether it may be meant as the answer, although it is not the right one.
fn is_alike(heard: &Heard, expected: &Heard) -> bool {
    match expected {
        Heard::Text(_) => matches!(heard, Heard::Text(_) | Heard::Binary),
        Heard::Pong(_) => matches!(heard, Heard::Pong(_)),
        Heard::Binary | Heard::Ping(_) | Heard::Close(_) => false,
    }
}

#[cfg(test)]
mod tests;
