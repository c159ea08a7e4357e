//! Sends the gateway's own answer, counts it, and ends the connection so that the client can read it.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::arrival::Arrival;
use crate::answer;
use crate::handshake::request::Head;
use crate::observe::event::Refused;
use crate::policy::Decision;
use crate::reason::Reason;
use crate::stream::Stream;

/// How long an answer may take to be sent, and how long the client's unread bytes are thrown away after it.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES_MAX: usize = 1024 * 1024;

/// The side that is answered.
pub enum Client<'s> {
    /// All it sent was read, so closing does not reset the connection.
    Read(&'s mut Stream),
    /// Bytes may be unread. Closed with them, the kernel would reset the connection and the answer could be lost.
    Unread(&'s mut Stream),
}

/// What is known of a request whose head could be read.
#[derive(Clone, Copy)]
pub struct About<'a> {
    pub head: &'a Head<'a>,
    pub decision: &'a Decision,
}

/// Why a request is refused, and what else there is to say of that.
#[derive(Clone, Copy)]
pub struct Why<'d> {
    pub reason: Reason,
    /// For the log.
    pub detail: Option<&'d str>,
    /// How long it would be refused, where that is known.
    pub wait: Option<Duration>,
}

impl From<Reason> for Why<'_> {
    fn from(reason: Reason) -> Self {
        Why { reason, detail: None, wait: None }
    }
}

/// Answers, counts and logs one refused request.
pub async fn refuse(
    client: Client<'_>,
    arrival: &Arrival<'_>,
    about: Option<About<'_>>,
    reason: Reason,
    detail: Option<&str>,
) {
    refuse_for(client, arrival, about, Why { reason, detail, wait: None }).await;
}

/// Counts and logs a refusal of which the client hears nothing: it would take words for TLS.
pub fn note(arrival: &Arrival<'_>, reason: Reason) {
    let (request, status) = (arrival.event(None, None), answer::status(reason));
    arrival.edge.current.observer().refused(&Refused { request, reason, status, detail: None });
}

/// As [`refuse`].
pub async fn refuse_for(client: Client<'_>, arrival: &Arrival<'_>, about: Option<About<'_>>, why: Why<'_>) {
    let Why { reason, detail, wait } = why;
    let versions = about.and_then(|about| arrival.generation.policy.advertised(about.decision, reason));
    let request = arrival.event(about.map(|about| about.head), about.and_then(|about| about.decision.route));
    let status = arrival.carrier.status(answer::status(reason));
    arrival.edge.current.observer().refused(&Refused { request, reason, status, detail });
    let answer = match wait {
        Some(wait) => answer::refusal_until(reason, wait),
        None => answer::refusal(reason, versions),
    };
    send(client, &answer).await;
}

/// Sends the last bytes that a client gets.
pub async fn send(client: Client<'_>, bytes: &[u8]) {
    let (stream, unread) = match client {
        Client::Read(stream) => (stream, false),
        Client::Unread(stream) => (stream, true),
    };
    let sent = timeout(ANSWER_TIMEOUT, stream.write_all(bytes)).await;
    // Over TLS the end is said, or the client could not tell it from a cut.
    let says_end = unread || stream.is_tls();
    let shut = async { says_end && matches!(sent, Ok(Ok(()))) && stream.shutdown().await.is_ok() };
    if matches!(timeout(ANSWER_TIMEOUT, shut).await, Ok(true)) && unread {
        linger(stream).await;
    }
}

/// Reads and throws away until the client is done, for a while.
async fn linger(stream: &mut Stream) {
    let mut rest = [0; 4096];
    let drain = async {
        let mut total = 0;
        while total < LINGER_BYTES_MAX {
            match stream.read(&mut rest).await {
                Ok(0) | Err(_) => return,
                Ok(length) => total += length,
            }
        }
    };
    // Time is up or not: the connection ends now.
    let _ = timeout(LINGER, drain).await;
}
