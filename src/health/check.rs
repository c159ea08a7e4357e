//! One check of one server, from its connection to its end, within its time. It does not know what becomes of the outcome.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::address::Address;
use crate::config::model::{self, HealthCheck, Spoken};
use crate::dial::deadline::Deadline;
use crate::dial::head::field;
use crate::dial::{self, DialError, Reply};
use crate::dialect::Dialect;
use crate::handshake::ask::Ask;
use crate::proxy_header;
use crate::stream::Stream;
use crate::tls::Connector;
use crate::upstream::CheckFailure;
use crate::wire::{self, CloseCode, OwnFrame};

/// What a check came to.
#[derive(Debug)]
pub enum Outcome {
    Passed,
    Failed {
        failure: CheckFailure,
        /// More than the label says, for the log.
        detail: String,
    },
    /// For want of descriptors, ports or memory, which says nothing of the server.
    NotMade {
        detail: String,
    },
}

/// How long the server may take to answer a Close. Whatever it does then, it passed.
const CLOSE_MAX: Duration = Duration::from_millis(500);

/// What it may send until then.
const UNTIL_CLOSE_BYTES_MAX: usize = 64 * 1024;

/// The server that is checked.
pub struct Target<'a> {
    pub server: &'a Address,
    /// `None` where it is spoken to plainly.
    pub connector: Option<&'a Connector>,
    pub rules: &'a model::Upstream,
}

impl Target<'_> {
    /// As clients' connections begin, but on the gateway's own behalf.
    async fn connect(&self, deadline: &mut Deadline) -> Result<Stream, Outcome> {
        let announced = proxy_header::own_header(self.rules.proxy_protocol);
        dial::connect(self.server, &announced, self.connector, deadline).await.map_err(|error| failed(&error))
    }

    fn host(&self) -> String {
        let own = || self.server.ip().map_or("localhost".to_owned(), |address| address.to_string());
        self.rules.health.host.clone().unwrap_or_else(own)
    }
}

pub async fn run(target: &Target<'_>) -> Outcome {
    let limit = target.rules.health.timeout;
    let check = async {
        match target.rules.health.check {
            HealthCheck::Off => Ok(()),
            HealthCheck::Tcp => target.connect(&mut Deadline::within(limit)).await.map(drop),
            HealthCheck::Http => http(target).await,
            HealthCheck::WebSocket => websocket(target).await,
        }
    };
    match timeout(limit, check).await {
        Ok(Ok(())) => Outcome::Passed,
        Ok(Err(outcome)) => outcome,
        Err(_) => timed_out(),
    }
}

/// A redirection is an answer of a server that works.
async fn http(target: &Target<'_>) -> Result<(), Outcome> {
    let mut head = start(target);
    head.extend_from_slice(b"Accept: */*\r\nConnection: close\r\n\r\n");
    let reply = exchange(target, &head, 0).await?;
    match reply.answer().status {
        200..400 => Ok(()),
        status => Err(bad(CheckFailure::Status, status.to_string())),
    }
}

async fn websocket(target: &Target<'_>) -> Result<(), Outcome> {
    let dialect = match &target.rules.versions {
        Spoken::Listed(list) => list.first().copied().unwrap_or(Dialect::Rfc6455),
        Spoken::Auto => Dialect::Rfc6455,
    };
    let ask = Ask::new(dialect, &mut fastrand::Rng::new());
    let reply = exchange(target, &question(target, &ask), ask.proof_bytes()).await?;
    let answer = reply.answer();
    if answer.status != 101 {
        return Err(bad(CheckFailure::Status, answer.status.to_string()));
    }
    ask.check(&answer, &[], reply.behind_head())
        .map_err(|wrong| bad(CheckFailure::Handshake, wrong.as_str().to_owned()))?;
    // It said what it had to. How it takes a farewell is no part of the verdict.
    let _ = timeout(CLOSE_MAX.min(target.rules.health.timeout / 2), close(reply, &ask)).await;
    Ok(())
}

/// The first lines have the order of the drafts, which some servers count on.
fn question(target: &Target<'_>, ask: &Ask) -> Vec<u8> {
    let mut head = Vec::with_capacity(512);
    head.extend_from_slice(format!("GET {} HTTP/1.1\r\n", target.rules.health.path).as_bytes());
    field(&mut head, "Upgrade", ask.upgrade().as_bytes());
    field(&mut head, "Connection", b"Upgrade");
    let host = target.host();
    field(&mut head, "Host", host.as_bytes());
    if !ask.dialect().has_frames() {
        field(&mut head, ask.origin_field(), format!("http://{host}").as_bytes());
    }
    for (name, value) in ask.lines() {
        field(&mut head, name, value.as_bytes());
    }
    field(&mut head, "User-Agent", USER_AGENT);
    head.extend_from_slice(b"\r\n");
    head.extend_from_slice(ask.behind_head());
    head
}

const USER_AGENT: &[u8] = b"wsgate-check";

fn start(target: &Target<'_>) -> Vec<u8> {
    let mut head = Vec::with_capacity(256);
    head.extend_from_slice(format!("GET {} HTTP/1.1\r\n", target.rules.health.path).as_bytes());
    field(&mut head, "Host", target.host().as_bytes());
    field(&mut head, "User-Agent", USER_AGENT);
    head
}

async fn exchange(target: &Target<'_>, head: &[u8], proof_bytes: usize) -> Result<Reply, Outcome> {
    let mut deadline = Deadline::within(target.rules.health.timeout);
    let stream = target.connect(&mut deadline).await?;
    dial::exchange(stream, head, proof_bytes, target.rules, deadline).await.map_err(|error| failed(&error))
}

/// Says goodbye and waits for the end of the connection, which a server brings about once it has answered (RFC 6455 §7.1.1).
async fn close(mut reply: Reply, ask: &Ask) -> std::io::Result<()> {
    let goodbye = match ask.dialect() {
        Dialect::Rfc6455 | Dialect::Hybi8 | Dialect::Hybi7 => {
            let close = OwnFrame::Close { code: CloseCode(1000), reason: "" };
            close.to_bytes(Some(fastrand::u32(..).to_ne_bytes()))
        }
        Dialect::Hixie76 => wire::CLOSE.to_vec(),
        Dialect::Hixie75 => return reply.stream.shutdown().await,
    };
    reply.stream.write_all(&goodbye).await?;
    let mut left = UNTIL_CLOSE_BYTES_MAX;
    let mut scratch = [0; 1024];
    while left > 0 {
        let read = reply.stream.read(&mut scratch).await?;
        // A Close at the end of what came is the answer: nothing may follow it.
        if read == 0 || ends_in_close(&scratch[..read]) {
            break;
        }
        left = left.saturating_sub(read);
    }
    reply.stream.shutdown().await
}

/// Whether these bytes are a bare Close frame, or end in one with the code that was sent.
fn ends_in_close(bytes: &[u8]) -> bool {
    bytes.ends_with(&[0x88, 0x02, 0x03, 0xE8]) || matches!(bytes, [0x88, 0x00] | [0xFF, 0x00])
}

fn failed(error: &DialError) -> Outcome {
    let failure = match error {
        DialError::Local(_) => return Outcome::NotMade { detail: error.to_string() },
        DialError::Connect(_) => CheckFailure::Unreachable,
        DialError::Tls(_) => CheckFailure::Tls,
        DialError::ConnectTimeout | DialError::AnswerTimeout => CheckFailure::TimedOut,
        DialError::Lost(_) | DialError::Garbage | DialError::TooLarge => CheckFailure::Lost,
    };
    bad(failure, error.to_string())
}

fn timed_out() -> Outcome {
    bad(CheckFailure::TimedOut, "not over in time".to_owned())
}

fn bad(failure: CheckFailure, detail: String) -> Outcome {
    Outcome::Failed { failure, detail }
}
