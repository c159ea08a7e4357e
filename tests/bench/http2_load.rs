//! The clients of HTTP/2: like the load over HTTP/1.1, but several tunnels share a connection. It knows the address
//! of the gateway and nothing else about it.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::rc::Rc;

use crate::client::Step;
use crate::failure::{During, Failure};
use crate::http2::Connection;
use crate::load::Job;
use crate::poll::{Poll, Token, connect};
use crate::wire::Message;

/// 32 tunnels for echoes are 8 on each of 4 connections, 4,000 for memory 100 on each of 40.
const CONNECTIONS_MIN: u64 = 4;
const TUNNELS_PER_CONNECTION_MAX: u64 = 100;

pub struct Http2Load {
    gateway: SocketAddr,
    connections: Vec<Slot>,
    /// Of a connection.
    tunnels_max: usize,
    job: Job,
    to_begin: u64,
    done: u64,
    empty: Rc<Message>,
}

enum Slot {
    Connecting(TcpStream),
    Connected(Box<Connection>),
    /// Between the two, and after a failure.
    Gone,
}

impl Http2Load {
    pub fn new() -> Self {
        Self {
            gateway: (Ipv4Addr::LOCALHOST, 0).into(),
            connections: Vec::new(),
            tunnels_max: 0,
            job: Job::Rest,
            to_begin: 0,
            done: 0,
            empty: Rc::new(Message::text(0)),
        }
    }

    /// Closes every connection and turns to another gateway.
    pub fn aim(&mut self, gateway: SocketAddr) {
        self.gateway = gateway;
        self.connections.clear();
        self.job = Job::Rest;
    }

    /// Begins `count` operations: tunnels one after another on each connection, or echoes in `at_once` tunnels.
    pub fn begin(&mut self, poll: &Poll, job: Job, count: u64, at_once: usize) -> Result<(), Failure> {
        self.job = job;
        self.done = 0;
        self.to_begin = count;
        match &self.job {
            Job::Open(_) => {
                let connections = count.div_ceil(TUNNELS_PER_CONNECTION_MAX).max(CONNECTIONS_MIN);
                self.tunnels_max = count.div_ceil(connections) as usize;
                for slot in 0..connections as usize {
                    let socket = connect(self.gateway, slot as u32).during("connecting to the gateway")?;
                    poll.watch(&socket, Token::Client(slot)).during("watching a connection")?;
                    self.connections.push(Slot::Connecting(socket));
                }
            }
            Job::Echo(message) => {
                let message = message.clone();
                self.begin_echoes(&message, at_once)?;
            }
            // The handshake over HTTP/2 is no case.
            Job::Handshake(_) | Job::Refusal | Job::Rest => {}
        }
        Ok(())
    }

    pub fn done(&self) -> u64 {
        self.done
    }

    pub fn ready(&mut self, slot: usize) -> Result<(), Failure> {
        let Some(place) = self.connections.get_mut(slot) else {
            return Ok(());
        };
        let mut connection = match std::mem::replace(place, Slot::Gone) {
            Slot::Connecting(socket) => Box::new(Connection::new(socket)?),
            Slot::Connected(connection) => connection,
            Slot::Gone => return Ok(()),
        };
        self.serve(&mut connection)?;
        self.connections[slot] = Slot::Connected(connection);
        Ok(())
    }

    /// Until nothing comes of it: a turn that sends may also receive, and no event would tell.
    fn serve(&mut self, connection: &mut Connection) -> Result<(), Failure> {
        let message = match &self.job {
            Job::Open(message) | Job::Echo(message) => message.clone(),
            Job::Handshake(_) | Job::Refusal | Job::Rest => self.empty.clone(),
        };
        loop {
            connection.turn()?;
            let mut has_moved = false;
            if connection.tunnels() == 0 && connection.takes_tunnels() {
                has_moved = self.open(connection)?;
            }
            for tunnel in 0..connection.tunnels() {
                while let Some(step) = connection.next(tunnel, &message)? {
                    has_moved = true;
                    match step {
                        Step::Waiting => {}
                        Step::Answered => connection.begin_echo(tunnel, &message)?,
                        Step::Echoed => self.echoed(connection, tunnel, &message)?,
                    }
                }
            }
            if !has_moved {
                return Ok(());
            }
        }
    }

    fn echoed(&mut self, connection: &mut Connection, tunnel: usize, message: &Message) -> Result<(), Failure> {
        self.done += 1;
        match &self.job {
            Job::Echo(_) if self.to_begin > 0 => {
                self.to_begin -= 1;
                connection.begin_echo(tunnel, message)
            }
            Job::Open(_) => self.open(connection).map(drop),
            Job::Echo(_) | Job::Handshake(_) | Job::Refusal | Job::Rest => Ok(()),
        }
    }

    /// Asks for another tunnel if one is left to open and the connection has room for it.
    fn open(&mut self, connection: &mut Connection) -> Result<bool, Failure> {
        let may_open = self.to_begin > 0 && connection.tunnels() < self.tunnels_max;
        if may_open {
            self.to_begin -= 1;
            connection.open()?;
        }
        Ok(may_open)
    }

    fn begin_echoes(&mut self, message: &Message, at_once: usize) -> Result<(), Failure> {
        let mut left = self.to_begin.min(at_once as u64);
        self.to_begin -= left;
        for place in &mut self.connections {
            if let Slot::Connected(connection) = place {
                for tunnel in 0..connection.tunnels() {
                    if left > 0 {
                        left -= 1;
                        connection.begin_echo(tunnel, message)?;
                    }
                }
            }
        }
        (0..self.connections.len()).try_for_each(|slot| self.ready(slot))
    }
}
