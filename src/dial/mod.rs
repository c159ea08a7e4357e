//! Connects to a picked server, sends it our head, and reads its answer's head, each under a deadline. It does not pick
//! the server, and does not judge the answer.

pub mod deadline;
pub mod head;

use std::io;
use std::ops::Range;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use crate::address::Address;
use crate::config::model;
use crate::handshake::response::Answer;
use crate::handshake::{HeadScan, Scan};
use crate::reason::Reason;
use crate::stream::Stream;
use crate::tls::{Connector, NotConnected};
use deadline::{Deadline, TimedOut};

/// Interim answers (1xx) before the final one, at most.
const INTERIM_MAX: usize = 8;

/// A server answered; its head is complete and readable.
#[derive(Debug)]
pub struct Reply {
    pub stream: Stream,
    /// The timer of the dial, for what comes next.
    pub deadline: Deadline,
    bytes: Vec<u8>,
    head: Range<usize>,
}

/// Why a server gave no readable answer.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    #[error("connect failed: {0}")]
    Connect(io::Error),
    /// Out of descriptors, ports or memory: no fault of the server.
    #[error("cannot connect to anything: {0}")]
    Local(io::Error),
    /// Its certificate is not believed, or there is no TLS that both speak.
    #[error("no TLS: {0}")]
    Tls(NotConnected),
    #[error("connect timed out")]
    ConnectTimeout,
    #[error("connection ended before an answer: {0}")]
    Lost(io::Error),
    #[error("no answer in time")]
    AnswerTimeout,
    #[error("answer is not HTTP/1.x")]
    Garbage,
    #[error("answer head is too large")]
    TooLarge,
}

impl DialError {
    pub fn reason(&self) -> Reason {
        match self {
            DialError::Connect(_) | DialError::Local(_) => Reason::BackendUnavailable,
            DialError::Tls(_) => Reason::BackendTls,
            DialError::ConnectTimeout | DialError::AnswerTimeout => Reason::BackendTimeout,
            DialError::Lost(_) | DialError::Garbage | DialError::TooLarge => Reason::BackendHandshakeWrong,
        }
    }
}

/// A fresh connection: nothing of another client's can be on it. `announced` is said first, before any TLS. With a connector, over TLS
/// or not at all.
///
/// # Errors
/// When it is refused, unreachable, not believed, or not there in time.
pub async fn connect(
    server: &Address,
    announced: &[u8],
    tls: Option<&Connector>,
    deadline: &mut Deadline,
) -> Result<Stream, DialError> {
    let connecting = async {
        let mut stream = match open(server).await {
            Ok(stream) => stream,
            Err(error) if is_local(&error) => return Err(DialError::Local(error)),
            Err(error) => return Err(DialError::Connect(error)),
        };
        if !announced.is_empty() {
            stream.write_all(announced).await.map_err(DialError::Connect)?;
        }
        match tls {
            Some(connector) => connector.connect(stream).await.map(Stream::from).map_err(DialError::Tls),
            None => Ok(stream),
        }
    };
    deadline.hold(connecting).await.unwrap_or(Err(DialError::ConnectTimeout))
}

/// In TLS 1.3 a server judges our certificate only after the handshake.
fn lost(error: io::Error) -> DialError {
    match NotConnected::from(error) {
        tls @ NotConnected::Tls(_) => DialError::Tls(tls),
        NotConnected::Lost(error) => DialError::Lost(error),
    }
}

async fn open(server: &Address) -> io::Result<Stream> {
    match server {
        Address::Ip(address) => {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Ok(Stream::Tcp(stream))
        }
        Address::Unix(path) => UnixStream::connect(path).await.map(Stream::from),
    }
}

fn is_local(error: &io::Error) -> bool {
    use rustix::io::Errno;
    const LOCAL: [Errno; 5] = [Errno::MFILE, Errno::NFILE, Errno::ADDRNOTAVAIL, Errno::NOBUFS, Errno::NOMEM];
    Errno::from_io_error(error).is_some_and(|errno| LOCAL.contains(&errno))
}

/// Sends the head and what belongs behind it in one write, and waits for the final answer's head, and for as many bytes behind
/// that of a 101 as its proof has.
///
/// # Errors
/// When the connection ends, the time is up, or the answer cannot be read in only one way.
pub async fn exchange(
    mut stream: Stream,
    head: &[u8],
    proof_bytes: usize,
    rules: &model::Upstream,
    mut deadline: Deadline,
) -> Result<Reply, DialError> {
    let exchange = async {
        stream.write_all(head).await.map_err(lost)?;
        stream.flush().await.map_err(lost)?;
        let mut bytes = Vec::new();
        let mut start = 0;
        for _ in 0..INTERIM_MAX {
            let length = read_head(&mut stream, &mut bytes, start, rules.header_limit).await?;
            let head = start..start + length;
            let answer = Answer::parse(&bytes[head.clone()]).map_err(|_| DialError::Garbage)?;
            if !answer.is_interim() {
                if answer.status == 101 {
                    read_up_to(&mut stream, &mut bytes, head.end + proof_bytes).await?;
                }
                return Ok((bytes, head));
            }
            start = head.end;
        }
        Err(DialError::Garbage)
    };
    deadline.restart(rules.handshake_timeout);
    match deadline.hold(exchange).await {
        Ok(Ok((bytes, head))) => Ok(Reply { stream, deadline, bytes, head }),
        Ok(Err(error)) => Err(error),
        Err(TimedOut) => Err(DialError::AnswerTimeout),
    }
}

/// Reads until the head that begins at `start` is complete; returns its length.
async fn read_head(stream: &mut Stream, bytes: &mut Vec<u8>, start: usize, limit: usize) -> Result<usize, DialError> {
    let mut scan = HeadScan::new(limit);
    loop {
        match scan.advance(&bytes[start..]) {
            Scan::Complete(length) => return Ok(length),
            Scan::Malformed => return Err(DialError::Garbage),
            Scan::TooLarge => return Err(DialError::TooLarge),
            Scan::Incomplete => {}
        }
        read_some(stream, bytes).await?;
    }
}

async fn read_up_to(stream: &mut Stream, bytes: &mut Vec<u8>, length: usize) -> Result<(), DialError> {
    while bytes.len() < length {
        read_some(stream, bytes).await?;
    }
    Ok(())
}

async fn read_some(stream: &mut Stream, bytes: &mut Vec<u8>) -> Result<(), DialError> {
    bytes.reserve(512);
    match stream.read_buf(bytes).await {
        Ok(0) => Err(DialError::Lost(io::ErrorKind::UnexpectedEof.into())),
        Ok(_) => Ok(()),
        Err(error) => Err(lost(error)),
    }
}

impl Reply {
    pub fn answer(&self) -> Answer<'_> {
        Answer::parse(&self.bytes[self.head.clone()]).expect("the head was parsed once already, when it arrived")
    }

    /// What arrived behind the head.
    pub fn behind_head(&self) -> &[u8] {
        &self.bytes[self.head.end..]
    }
}
