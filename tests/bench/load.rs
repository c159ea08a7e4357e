//! The clients: a fixed number of operations, a bounded number of them at once, each begun when another has ended.
//! It knows the address of the gateway and nothing else about it.

use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;

use crate::client::{Client, Errand, Expected, Step};
use crate::failure::{During, Failure};
use crate::poll::{Poll, Ready, Token, connect};
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
    Handshake,
    /// Connect, upgrade with a version nobody serves, read the 426 with its body, close.
    Refusal,
    /// Nothing but answers to Pings.
    Rest,
}

pub struct Load {
    gateway: SocketAddr,
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

impl Load {
    pub fn new() -> Self {
        Self {
            gateway: (Ipv4Addr::LOCALHOST, 0).into(),
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
        self.clients.clear();
        self.job = Job::Rest;
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
            Job::Open(_) | Job::Handshake | Job::Refusal => {
                let open = self.clients.len();
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
            Job::Handshake | Job::Refusal | Job::Rest => &self.empty,
        };
        let errand = Errand { upgrade: &upgrades[slot % UPGRADES], expected, message };
        match client.ready(ready, errand, &mut self.scratch)? {
            Step::Waiting => Ok(()),
            Step::Answered => self.answered(poll, slot),
            Step::Echoed => self.echoed(poll, slot),
        }
    }

    fn answered(&mut self, poll: &Poll, slot: usize) -> Result<(), Failure> {
        match &self.job {
            Job::Handshake | Job::Refusal => {
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
            Job::Echo(_) | Job::Handshake | Job::Refusal | Job::Rest => Ok(()),
        }
    }

    /// Begins another connection if one is left to begin.
    fn connect(&mut self, poll: &Poll, slot: usize) -> Result<(), Failure> {
        if self.to_begin == 0 {
            return Ok(());
        }
        self.to_begin -= 1;
        self.connected = self.connected.wrapping_add(1);
        let stream = connect(self.gateway, self.connected).during("connecting to the gateway")?;
        poll.watch(&stream, Token::Client(slot)).during("watching a connection")?;
        self.clients[slot] = Some(Client::new(stream));
        Ok(())
    }
}
