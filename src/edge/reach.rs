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

/// # Errors
/// The reason of the last try, when no server switched or refused.
pub async fn reach(
    arrival: &Arrival<'_>,
    permit: &Permit,
    offer: Offer<'_>,
    noted: &mut Vec<Reason>,
) -> Result<Reached, Reason> {
    let upstream = arrival.generation.upstream(permit);
    let route = arrival.generation.policy.route(permit.route());
    let mut tried = Tried::default();
    let mut last = None;
    while tried.count() < upstream.cluster.rules().tries {
        let picked = match upstream.cluster.pick(permit, &mut tried, Instant::now()) {
            Ok(picked) => picked,
            Err(reason) => return Err(last.unwrap_or(reason)),
        };
        let reason = match dial_one(arrival, upstream, picked.index(), offer).await {
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
                    tracing::warn!(id = %arrival.id, %server, wrong = wrong.as_str(), "backend answered a wrong 101");
                    upstream.answered_wrong(picked.index(), Reason::BackendHandshakeWrong);
                    Reason::BackendHandshakeWrong
                }
            },
            Err(error) => error.reason(),
        };
        last = Some(reason);
    }
    Err(last.unwrap_or(Reason::BackendUnavailable))
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
