//! The clients: a fixed number of operations, a bounded number of them at once, each begun when another has ended.
//! It knows the address of the gateway, whether it speaks TLS, and nothing else about it.

use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

use tokio_rustls::rustls::ClientConfig;

use crate::client::{Client, Errand, Expected, Session, Step};
use crate::failure::{During, Failure, lost};
use crate::identity::Identity;
use crate::poll::{Poll, Ready, Token, connect};
use crate::stream::Stream;
use crate::wire::{Message, Upgrade};

/// Heads that the connections take in turn; made beforehand because a key and its hash cost as much as sending them.
const UPGRADES: usize = 64;

const SCRATCH_BYTES: usize = 256 * 1024;

/// What one operation is.
#[derive(Clone)]
pub enum Job {
    /// A connection that stays, after one message and its echo.
    Open(Rc<Message>),
    /// A message and its echo through an open tunnel.
    Echo(Rc<Message>),
    /// Connect, upgrade, check the 101, close.
    Handshake(Session),
    /// Connect, upgrade with a version nobody serves, read the 426 with its body, close.
    Refusal,
    /// Nothing but answers to Pings.
    Rest,
}

pub struct Load {
    gateway: SocketAddr,
    identity: Rc<Identity>,
    /// Of the gateway that is aimed at; none if it speaks no TLS.
    clients_of_tls: Option<ClientsOfTls>,
    accepted: Vec<Upgrade>,
    refused: Vec<Upgrade>,
    /// Slots; a connection's upgrade is found by its slot.
    clients: Vec<Option<Client>>,
    job: Job,
    to_begin: u64,
    done: u64,
    /// Connections so far, to choose source addresses by.
    connected: u32,
    scratch: Vec<u8>,
    empty: Rc<Message>,
}

struct ClientsOfTls {
    forgetful: Arc<ClientConfig>,
    /// One a slot, so that no connection takes the ticket that another one waits for.
    resuming: Vec<Arc<ClientConfig>>,
}

impl Load {
    pub fn new(identity: Rc<Identity>) -> Self {
        Self {
            gateway: (Ipv4Addr::LOCALHOST, 0).into(),
            identity,
            clients_of_tls: None,
            accepted: (0..UPGRADES).map(|_| Upgrade::new(13)).collect(),
            refused: (0..UPGRADES).map(|_| Upgrade::new(8)).collect(),
            clients: Vec::new(),
            job: Job::Rest,
            to_begin: 0,
            done: 0,
            connected: 0,
            scratch: vec![0; SCRATCH_BYTES],
            empty: Rc::new(Message::text(0)),
        }
    }

    /// Closes every connection and turns to another gateway.
    pub fn aim(&mut self, gateway: SocketAddr) {
        self.gateway = gateway;
        self.clients_of_tls = None;
        self.clients.clear();
        self.job = Job::Rest;
    }

    /// The same with TLS and without a ticket.
    pub fn aim_with_tls(&mut self, gateway: SocketAddr) {
        self.aim(gateway);
        let resuming = (0..UPGRADES).map(|_| self.identity.resuming_client()).collect();
        self.clients_of_tls = Some(ClientsOfTls { forgetful: self.identity.forgetful_client(), resuming });
    }

    /// Begins `count` operations, `at_once` of them now. An echo needs as many open tunnels.
    pub fn begin(&mut self, poll: &Poll, job: Job, count: u64, at_once: usize) -> Result<(), Failure> {
        self.job = job;
        self.done = 0;
        self.to_begin = count;
        match self.job.clone() {
            Job::Echo(message) => {
                for client in self.clients.iter_mut().flatten().take(at_once) {
                    if self.to_begin > 0 {
                        self.to_begin -= 1;
                        client.begin_echo(&message)?;
                    }
                }
            }
            Job::Open(_) | Job::Handshake(_) | Job::Refusal => {
                // The slots of closed connections are used again, and the tickets that belong to them.
                let open = self.clients.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
                self.clients.resize_with(open + at_once, || None);
                for slot in open..open + at_once {
                    self.connect(poll, slot)?;
                }
            }
            Job::Rest => {}
        }
        Ok(())
    }

    pub fn done(&self) -> u64 {
        self.done
    }

    pub fn ready(&mut self, poll: &Poll, slot: usize, ready: Ready) -> Result<(), Failure> {
        let Some(client) = self.clients.get_mut(slot).and_then(Option::as_mut) else {
            return Ok(());
        };
        let (upgrades, expected) = match self.job {
            Job::Refusal => (&self.refused, Expected::Refused),
            _ => (&self.accepted, Expected::Accepted),
        };
        let message = match &self.job {
            Job::Open(message) | Job::Echo(message) => message,
            Job::Handshake(_) | Job::Refusal | Job::Rest => &self.empty,
        };
        let session = match self.job {
            Job::Handshake(session) => session,
            Job::Open(_) | Job::Echo(_) | Job::Refusal | Job::Rest => Session::Full,
        };
        let errand = Errand { session, upgrade: &upgrades[slot % UPGRADES], expected, message };
        match client.ready(ready, errand, &mut self.scratch)? {
            Step::Waiting => Ok(()),
            Step::Answered => self.answered(poll, slot),
            Step::Echoed => self.echoed(poll, slot),
        }
    }

    fn answered(&mut self, poll: &Poll, slot: usize) -> Result<(), Failure> {
        match &self.job {
            Job::Handshake(_) | Job::Refusal => {
                self.clients[slot] = None;
                self.done += 1;
                self.connect(poll, slot)
            }
            Job::Open(message) => match self.clients[slot].as_mut() {
                Some(client) => client.begin_echo(message),
                None => Ok(()),
            },
            Job::Echo(_) | Job::Rest => Ok(()),
        }
    }

    fn echoed(&mut self, poll: &Poll, slot: usize) -> Result<(), Failure> {
        self.done += 1;
        match &self.job {
            Job::Echo(message) if self.to_begin > 0 => {
                self.to_begin -= 1;
                match self.clients[slot].as_mut() {
                    Some(client) => client.begin_echo(message),
                    None => Ok(()),
                }
            }
            Job::Open(_) => {
                self.clients.push(None);
                self.connect(poll, self.clients.len() - 1)
            }
            Job::Echo(_) | Job::Handshake(_) | Job::Refusal | Job::Rest => Ok(()),
        }
    }

    /// Begins another connection if one is left to begin.
    fn connect(&mut self, poll: &Poll, slot: usize) -> Result<(), Failure> {
        if self.to_begin == 0 {
            return Ok(());
        }
        self.to_begin -= 1;
        self.connected = self.connected.wrapping_add(1);
        let socket = connect(self.gateway, self.connected).during("connecting to the gateway")?;
        poll.watch(&socket, Token::Client(slot)).during("watching a connection")?;
        let stream = match &self.clients_of_tls {
            None => Stream::Plain(socket),
            Some(clients) => {
                let config = match self.job {
                    Job::Handshake(Session::Kept | Session::Resumed) => &clients.resuming[slot % UPGRADES],
                    _ => &clients.forgetful,
                };
                Stream::tls(socket, config.clone(), Identity::name().during("naming the gateway")?)
                    .map_err(lost("beginning TLS"))?
            }
        };
        self.clients[slot] = Some(Client::new(stream));
        Ok(())
    }
}
