//! Finds a server that answers: one try after the other, each counted, until one switches protocols, one refuses, or the
//! tries are used up.

use std::net::SocketAddr;
use std::time::Instant;

use super::arrival::Arrival;
use crate::dial::deadline::Deadline;
use crate::dial::head::Offers;
use crate::dial::{self, DialError, Reply};
use crate::generation::UpstreamHandle;
use crate::handshake::request::Head;
use crate::handshake::response::{Answer, AnswerBody, Wrong};
use crate::handshake::subprotocol::{self, Chosen};
use crate::handshake::{Asked, Field, Key, Version, extension};
use crate::policy::{Permit, Route};
use crate::reason::Reason;
use crate::upstream::{Picked, Tried, TunnelSlot};

/// What every server is sent.
#[derive(Clone, Copy)]
pub struct Offer<'a> {
    pub head: &'a Head<'a>,
    /// The bytes of it.
    pub request: &'a [u8],
    pub offers: Offers,
}

/// A server answered.
pub enum Reached {
    /// With a 101 that was checked in full.
    Switching(Switching),
    /// With any other final answer, which is the client's to read.
    Refused { reply: Reply, framing: AnswerBody },
}

pub struct Switching {
    pub reply: Reply,
    pub server: SocketAddr,
    pub slot: TunnelSlot,
}

/// What one server's answer amounts to.
enum Judged {
    Switching,
    Refused(AnswerBody),
    Wrong(Wrong),
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
    offer: Offer<'_>,
    noted: &mut Vec<Reason>,
) -> Result<Reached, Failure> {
    let upstream = arrival.generation.upstream(permit);
    let route = arrival.generation.policy.route(permit.route());
    let mut tried = Tried::default();
    let mut last = None;
    while tried.count() < upstream.cluster.rules().tries {
        let picked = match upstream.cluster.pick(permit, &mut tried, Instant::now()) {
            Ok(picked) => picked,
            Err(reason) => return Err(last.unwrap_or(Failure { reason, detail: None })),
        };
        let failure = match dial_one(arrival, upstream, picked.index(), offer).await {
            Ok(reply) => match judge(&reply.answer(), route, offer) {
                Judged::Switching => return Ok(switching(picked, reply)),
                Judged::Refused(framing) => return Ok(Reached::Refused { reply, framing }),
                Judged::Wrong(wrong) if route.relaxes(Reason::BackendHandshakeWrong) && wrong != Wrong::Framing => {
                    noted.push(Reason::BackendHandshakeWrong);
                    arrival.edge.current.observer().would_refuse(route.name(), Reason::BackendHandshakeWrong);
                    return Ok(switching(picked, reply));
                }
                Judged::Wrong(wrong) => {
                    let server = picked.server.address();
                    tracing::warn!(id = %arrival.id, %server, wrong = wrong.as_str(), "backend answered a wrong handshake");
                    upstream.not_used(picked.index(), Reason::BackendHandshakeWrong);
                    Failure { reason: Reason::BackendHandshakeWrong, detail: Some(wrong.as_str().to_owned()) }
                }
            },
            Err(error) => Failure { reason: error.reason(), detail: Some(error.to_string()) },
        };
        last = Some(failure);
    }
    Err(last.unwrap_or(Failure { reason: Reason::BackendUnavailable, detail: None }))
}

fn switching(picked: Picked<'_>, reply: Reply) -> Reached {
    Reached::Switching(Switching { reply, server: picked.server.address(), slot: picked.slot })
}

/// One server: connect, ask, and let its standing know how that went.
async fn dial_one(
    arrival: &Arrival<'_>,
    upstream: &UpstreamHandle,
    server: usize,
    offer: Offer<'_>,
) -> Result<Reply, DialError> {
    let rules = upstream.cluster.rules();
    let address = upstream.cluster.servers()[server].address();
    let begun = Instant::now();
    let answered = async {
        let mut deadline = Deadline::within(rules.connect_timeout);
        let stream = dial::connect(address, &mut deadline).await?;
        arrival.edge.current.observer().connected(&rules.name, begun.elapsed());
        dial::exchange(stream, offer.request, rules, deadline).await
    };
    let answered = answered.await;
    match &answered {
        Ok(_) => upstream.reached(server),
        Err(DialError::Local(error)) => {
            tracing::error!(id = %arrival.id, server = %address, %error, "the gateway cannot connect to anything");
            upstream.not_used(server, Reason::BackendUnavailable);
        }
        Err(error) => {
            tracing::debug!(id = %arrival.id, server = %address, %error, "dial failed");
            upstream.not_reached(server, error.reason(), Instant::now());
        }
    }
    answered
}

fn judge(answer: &Answer<'_>, route: &Route, offer: Offer<'_>) -> Judged {
    if answer.status != 101 {
        return match answer.body() {
            Ok(framing) => Judged::Refused(framing),
            Err(_) => Judged::Wrong(Wrong::Framing),
        };
    }
    let accept = match offer.head.asked() {
        // Its proof is not `Sec-WebSocket-Accept`; a route that serves this version does not exist yet.
        Asked::Version(Version::HIXIE_76) => None,
        Asked::Version(_) | Asked::Missing | Asked::Malformed => {
            Key::as_it_stands(&offer.head.fields).map(|key| key.accept())
        }
    };
    let offered: Vec<Field<'_>> = offer
        .head
        .fields
        .iter()
        .filter(|line| offer.offers == Offers::Forward || !line.is(extension::FIELD))
        .copied()
        .collect();
    match answer.check_101(&offered, accept.as_ref()) {
        Ok(()) if !chose_welcome_subprotocol(answer, route) => Judged::Wrong(Wrong::Subprotocol),
        Ok(()) => Judged::Switching,
        Err(wrong) => Judged::Wrong(wrong),
    }
}

/// The client may have offered more than the route welcomes; the choice has to be among the welcome.
fn chose_welcome_subprotocol(answer: &Answer<'_>, route: &Route) -> bool {
    let welcome = &route.rules().handshake.subprotocols;
    match subprotocol::chosen(&answer.fields) {
        Chosen::One(name) if !welcome.is_empty() => welcome.iter().any(|welcome| welcome.as_bytes() == name),
        Chosen::One(_) | Chosen::None | Chosen::Malformed => true,
    }
}
