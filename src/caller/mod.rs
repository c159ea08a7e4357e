//! Who a request comes from, and whose word counts for that: the peer of the connection, what a PROXY header said in front of it, and
//! what a trusted proxy wrote into the request. It knows no socket.

mod forwarded;

use std::net::SocketAddr;

use crate::address::ClientAddr;
use crate::config::model::{ClientAddress, Listener, TrustedProxy};
use crate::handshake::Field;
use crate::proxy_header::Said;

/// Who is at the other end of a connection, for as long as it lives.
#[derive(Clone, Copy, Debug)]
pub struct Caller {
    /// The peer of the socket.
    pub socket: ClientAddr,
    word: Word,
    /// The address that the client reached, where that is known.
    pub reached: Option<SocketAddr>,
}

/// What a PROXY header said.
#[derive(Clone, Copy, Debug)]
enum Word {
    /// The listener asks for none.
    NotAsked,
    Nobody,
    Client(ClientAddr),
}

/// Whether the peer's own word on where a request comes from is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Its `Forwarded` and `X-Forwarded-*` are dropped.
    Client,
    /// It is a listed proxy: its fields are kept and extended.
    Proxy,
}

impl Caller {
    /// As the socket has it. `reached` is its own end.
    pub fn of_socket(peer: ClientAddr, reached: Option<SocketAddr>) -> Caller {
        Caller { socket: peer, word: Word::NotAsked, reached }
    }

    /// As a header says it that was sent by somebody whose word counts.
    pub fn named(self, said: Said) -> Caller {
        match said {
            Said::Client { client, reached } => Caller { word: Word::Client(client), reached, ..self },
            Said::Nobody => Caller { word: Word::Nobody, ..self },
        }
    }

    /// Whose bytes the connection carries: what the next hop is told.
    pub fn peer(&self) -> ClientAddr {
        match self.word {
            Word::Client(client) => client,
            Word::NotAsked | Word::Nobody => self.socket,
        }
    }

    /// Whether the peer is a proxy whose word on its own clients counts. Behind a header that names nobody may be anybody, and behind
    /// one that names no address too.
    pub fn trust(&self, trusted: &[TrustedProxy]) -> Trust {
        let is_trusted = match self.word {
            Word::NotAsked => is_trusted(trusted, self.socket),
            Word::Client(client) => client.ip().is_some() && is_trusted(trusted, client),
            Word::Nobody => false,
        };
        if is_trusted { Trust::Proxy } else { Trust::Client }
    }

    /// Who a request on this connection comes from: whom limits, logs and hashes mean.
    pub fn client(&self, listener: &Listener, fields: &[Field<'_>]) -> ClientAddr {
        match listener.client_address {
            ClientAddress::Peer | ClientAddress::ProxyProtocol => self.peer(),
            ClientAddress::Forwarded => match self.trust(&listener.trusted_proxies) {
                Trust::Client => self.peer(),
                Trust::Proxy => forwarded::client(listener, fields).unwrap_or(self.peer()),
            },
        }
    }
}

pub fn is_trusted(trusted: &[TrustedProxy], peer: ClientAddr) -> bool {
    trusted.iter().any(|proxy| match (proxy, peer.ip()) {
        (TrustedProxy::Network(network), Some(ip)) => network.contains(&ip),
        (TrustedProxy::Unix, None) => true,
        (TrustedProxy::Network(_), None) | (TrustedProxy::Unix, Some(_)) => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> ClientAddr {
        text.parse::<SocketAddr>().unwrap().into()
    }

    fn trusted() -> Vec<TrustedProxy> {
        vec!["10.0.0.0/8".parse().unwrap(), "2001:db8::/32".parse().unwrap()]
    }

    fn check(caller: Caller, peer: ClientAddr, trust: Trust) {
        assert_eq!((caller.peer(), caller.trust(&trusted())), (peer, trust), "{caller:?}");
    }

    #[test]
    fn the_peer_is_who_sent_the_bytes_and_its_own_address_decides_whether_it_is_believed() {
        check(Caller::of_socket(ip("10.0.0.1:5"), None), ip("10.0.0.1:5"), Trust::Proxy);
        check(Caller::of_socket(ip("[::ffff:10.0.0.1]:5"), None), ip("[::ffff:10.0.0.1]:5"), Trust::Proxy);
        check(Caller::of_socket(ip("192.0.2.1:5"), None), ip("192.0.2.1:5"), Trust::Client);
        check(Caller::of_socket(ClientAddr::Local, None), ClientAddr::Local, Trust::Client);
        assert!(is_trusted(&[TrustedProxy::Unix], ClientAddr::Local));
        assert!(!is_trusted(&[TrustedProxy::Unix], ip("10.0.0.1:5")));
    }

    #[test]
    fn behind_a_proxy_header_the_one_that_it_names_is_the_peer_and_nobody_else_is_believed() {
        let socket = Caller::of_socket(ip("10.0.0.1:5"), None);
        let named = |client| socket.named(Said::Client { client, reached: None });
        check(named(ip("192.0.2.1:7")), ip("192.0.2.1:7"), Trust::Client);
        check(named(ip("10.0.0.9:7")), ip("10.0.0.9:7"), Trust::Proxy);
        check(named(ClientAddr::Local), ClientAddr::Local, Trust::Client);
        assert_eq!(named(ClientAddr::Local).trust(&[TrustedProxy::Unix]), Trust::Client, "not our own Unix socket");
        check(socket.named(Said::Nobody), ip("10.0.0.1:5"), Trust::Client);
    }
}
