//! One request as it arrived: who it is from, what holds for it, and what the log says of it. It does not know what becomes
//! of it.

use std::sync::Arc;
use std::time::Instant;

use super::Edge;
use crate::address::ClientAddr;
use crate::answer::Carrier;
use crate::caller::{Caller, Trust};
use crate::dial::head::{Certified, Scheme};
use crate::generation::Generation;
use crate::handshake::request::{Head, Intent};
use crate::observe::event::{Request, RequestId};
use crate::tls::Met;

#[derive(Clone, Copy)]
pub struct Arrival<'a> {
    pub edge: &'a Edge,
    /// The configuration that holds for it to its end.
    pub generation: &'a Arc<Generation>,
    pub id: RequestId,
    /// Who is at the other end of the connection.
    pub caller: Caller,
    /// Who it comes from, as far as somebody who is believed has said so.
    pub client: ClientAddr,
    /// What came of the TLS handshake; `None` where the client speaks plainly.
    pub met: Option<&'a Met>,
    pub carrier: Carrier,
    /// When its head was complete.
    pub at: Instant,
}

impl<'a> Arrival<'a> {
    pub fn new(edge: &'a Edge, generation: &'a Arc<Generation>, caller: Caller, met: Option<&'a Met>) -> Arrival<'a> {
        let (id, client) = (RequestId(fastrand::u64(..)), caller.peer());
        Arrival { edge, generation, id, caller, client, met, carrier: Carrier::Http1, at: Instant::now() }
    }

    /// With what its head says of where it comes from.
    pub fn with_head(self, head: &Head<'_>) -> Arrival<'a> {
        let rules = self.generation.listener(self.edge.listener);
        Arrival { client: self.caller.client(rules, &head.fields), ..self }
    }

    pub fn scheme(&self) -> Scheme {
        if self.met.is_some() { Scheme::Https } else { Scheme::Http }
    }

    /// What backends are told of the client's certificate.
    pub fn certified(&self) -> Certified<'a> {
        let rules = self.generation.listener(self.edge.listener).tls.as_ref();
        let name = rules.and_then(|tls| tls.client_certificate_header.as_deref());
        Certified { reserved: self.generation.secured.reserved(), field: name.zip(self.client_certificate()) }
    }

    fn client_certificate(&self) -> Option<&'a str> {
        self.met.and_then(|met| met.subject.as_deref())
    }

    pub fn listener(&self) -> &str {
        &self.generation.listeners[self.edge.listener].name
    }

    /// Whether the listener's configuration names the peer as a proxy whose word counts.
    pub fn trust(&self) -> Trust {
        self.caller.trust(&self.generation.listener(self.edge.listener).trusted_proxies)
    }

    /// What the log says; of a request without a readable head, little. `route` is an index.
    pub fn event<'e>(&'e self, head: Option<&'e Head<'e>>, route: Option<usize>) -> Request<'e> {
        let upgrade = head.filter(|head| head.intent() == Intent::Upgrade);
        Request {
            id: self.id,
            listener: self.listener(),
            route: route.map(|route| self.generation.routes[route].name.as_str()),
            client: self.client,
            client_certificate: self.client_certificate(),
            peer: self.caller.socket,
            http: self.carrier.as_str(),
            method: head.map_or("-", |head| head.method),
            host: head.and_then(|head| head.host).map(|host| host.authority),
            path: head.map_or("-", |head| head.path),
            origin: head.and_then(|head| head.text("Origin").or_else(|| head.text("Sec-WebSocket-Origin"))),
            user_agent: head.and_then(|head| head.text("User-Agent")),
            asked: upgrade.map(|head| head.asked().label()),
        }
    }
}
