//! Finds a server that answers: one try after the other, each counted, until one switches protocols, one refuses, or the
//! tries are used up.

use std::borrow::Cow;
use std::time::Instant;

use super::arrival::Arrival;
use super::question::{Judged, Question, Wish};
use super::waiting::{self, Caller, Found, Seek, Servers};
use crate::address::Address;
use crate::dial::deadline::Deadline;
use crate::dial::{self, DialError, Reply};
use crate::handshake::response::{AnswerBody, Wrong};
use crate::handshake::version::advertised;
use crate::policy::Permit;
use crate::proxy_header;
use crate::reason::Reason;
use crate::upstream::{Tried, TunnelSlot};

/// A server answered.
pub enum Reached {
    /// With a 101 that was checked in full.
    Switching(Switching),
    /// With any other final answer, which is the client's to read.
    Refused { reply: Reply, framing: AnswerBody },
}

pub struct Switching {
    pub reply: Reply,
    /// What it answered.
    pub question: Question,
    pub server: Address,
    pub slot: TunnelSlot,
    /// By which the client comes back to the server, where it has to be told.
    pub cookie: Option<String>,
}

/// Why no server could be used: what the last try came to.
pub struct Failure {
    pub reason: Reason,
    /// More than the code says, for the log.
    pub detail: Option<String>,
}

/// # Errors
/// When no server switched or refused.
pub async fn reach(
    arrival: &Arrival<'_>,
    permit: &Permit,
    wish: &Wish<'_>,
    noted: &mut Vec<Reason>,
    caller: &mut Caller<'_>,
) -> Result<Reached, Failure> {
    let mut servers = Servers::new(arrival, permit);
    let affinity = servers.upstream.cluster.affinity(arrival.client, &wish.head.fields);
    let mut tried = Tried::default();
    let mut last = None;
    let seek = Seek { permit, affinity: &affinity };
    while tried.count() < servers.upstream.cluster.rules().tries {
        let found = match waiting::pick(arrival, &seek, &mut servers, &mut tried, caller).await {
            Ok(found) => found,
            Err(reason @ (Reason::ClientLost | Reason::Draining)) => return Err(Failure { reason, detail: None }),
            Err(reason) => return Err(last.unwrap_or(Failure { reason, detail: None })),
        };
        let (upstream, index) = (&servers.upstream, found.index);
        let server = upstream.cluster.servers()[index].address();
        let cookie = upstream.cluster.cookie(index, &affinity);
        let failure = match ask(arrival, &servers, index, wish).await {
            Ok((question, reply)) => match wish.judge(&question, &reply.answer(), reply.behind_head()) {
                Judged::Switching => {
                    if let Some(own) = wish.speaks.filter(|_| upstream.cluster.asks_for_versions()) {
                        upstream.proved(index, question.own_dialect().unwrap_or(own));
                    }
                    return Ok(switching(found, server, (cookie, question, reply)));
                }
                Judged::Refused(framing) => return Ok(Reached::Refused { reply, framing }),
                Judged::Wrong(wrong) if may_pass(wrong, &question, wish) => {
                    noted.push(Reason::BackendHandshakeWrong);
                    let route = wish.route.name();
                    arrival.edge.current.observer().would_refuse(route, Reason::BackendHandshakeWrong);
                    return Ok(switching(found, server, (cookie, question, reply)));
                }
                Judged::Wrong(wrong) => {
                    tracing::warn!(id = %arrival.id, %server, wrong = wrong.as_str(), "backend answered a wrong handshake");
                    upstream.not_used(index, Reason::BackendHandshakeWrong);
                    upstream.cluster.forget(index);
                    Failure { reason: Reason::BackendHandshakeWrong, detail: Some(wrong.as_str().to_owned()) }
                }
            },
            Err(error) => Failure { reason: error.reason(), detail: Some(error.to_string()) },
        };
        last = Some(failure);
    }
    Err(last.unwrap_or(Failure { reason: Reason::BackendUnavailable, detail: None }))
}

/// A relaxed route lets a client judge for itself what it asked itself. What the gateway asked, it has to believe.
fn may_pass(wrong: Wrong, question: &Question, wish: &Wish<'_>) -> bool {
    wish.route.relaxes(Reason::BackendHandshakeWrong) && wrong != Wrong::Framing && question.own_dialect().is_none()
}

fn switching(found: Found, server: &Address, (cookie, question, reply): (Option<String>, Question, Reply)) -> Reached {
    Reached::Switching(Switching { reply, question, server: server.clone(), slot: found.slot, cookie })
}

/// One server: asked in a version that it speaks, as far as is known. A server of an upstream that is asked for its versions
/// may refuse and list them, and is then asked once more, in the best that it listed (RFC 6455 §4.4). One that refuses what it was
/// heard to speak, and lists nothing, is another one by now, and asked as if nothing were known.
async fn ask(
    arrival: &Arrival<'_>,
    servers: &Servers,
    server: usize,
    wish: &Wish<'_>,
) -> Result<(Question, Reply), DialError> {
    let upstream = &servers.upstream;
    let question = wish.question(&upstream.cluster.spoken(server));
    let reply = dial_one(arrival, servers, server, &question).await?;
    let Some(own) = wish.speaks.filter(|_| upstream.cluster.asks_for_versions()) else { return Ok((question, reply)) };
    let answer = reply.answer();
    if !matches!(answer.status, 400 | 426) {
        return Ok((question, reply));
    }
    match advertised(&answer.fields) {
        Some(listed) if !listed.is_empty() => upstream.learned(server, &listed),
        Some(_) | None => upstream.cluster.forget(server),
    }
    let asked = question.own_dialect().unwrap_or(own);
    let spoken = upstream.cluster.spoken(server);
    if own.towards(&spoken) == Some(asked) {
        return Ok((question, reply));
    }
    let question = wish.question(&spoken);
    let reply = dial_one(arrival, servers, server, &question).await?;
    Ok((question, reply))
}

/// Connects, asks, and lets the server's standing know how that went.
async fn dial_one(
    arrival: &Arrival<'_>,
    servers: &Servers,
    server: usize,
    question: &Question,
) -> Result<Reply, DialError> {
    let upstream = &servers.upstream;
    let rules = upstream.cluster.rules();
    let address = upstream.cluster.servers()[server].address();
    // Who the client is, in front of everything else, where the servers ask for it.
    let announced = proxy_header::header(rules.proxy_protocol, arrival.client, arrival.caller.reached);
    let connector = servers.generation.secured.upstream(&rules.name);
    // Without TLS in between, one write is enough for both.
    let (announced, sent) = match &connector {
        None if !announced.is_empty() => (Vec::new(), Cow::Owned([announced.as_slice(), &question.bytes].concat())),
        _ => (announced, Cow::Borrowed(question.bytes.as_slice())),
    };
    let begun = Instant::now();
    let answered = async {
        let mut deadline = Deadline::within(rules.connect_timeout);
        let stream = dial::connect(address, &announced, connector.as_deref(), &mut deadline).await?;
        arrival.edge.current.observer().connected(&rules.name, begun.elapsed());
        dial::exchange(stream, &sent, question.proof_bytes(), rules, deadline).await
    };
    let answered = answered.await;
    match &answered {
        Ok(_) => upstream.reached(server, Instant::now()),
        Err(DialError::Local(error)) => {
            tracing::error!(id = %arrival.id, server = %address, %error, "the gateway cannot connect to anything");
            upstream.not_used(server, Reason::BackendUnavailable);
        }
        Err(error @ DialError::Tls(_)) => {
            tracing::warn!(id = %arrival.id, server = %address, %error, "a server is not spoken to without TLS");
            upstream.not_reached(server, error.reason(), Instant::now());
        }
        Err(error) => {
            tracing::debug!(id = %arrival.id, server = %address, %error, "dial failed");
            upstream.not_reached(server, error.reason(), Instant::now());
        }
    }
    answered
}
