//! The backend: accepts upgrades and sends each message back unmasked, in as few system calls as that can be done.
//! It does not judge what arrives; the clients check what comes out at their end.

use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::ops::Range;

use rustix::buffer::spare_capacity;
use rustix::net::SocketFlags;
use socket2::{Domain, Protocol, Socket, Type};

use crate::poll::{Poll, Ready, Token, unless_blocked};
use crate::wire::{self, Frame, Framing};

const BACKLOG: i32 = 4096;

/// More than the longest message, so that a read that fills it is rare.
const BUFFER_BYTES: usize = 256 * 1024;

pub struct Echo {
    listener: TcpListener,
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
    /// Buffers that no connection has on loan.
    buffers: Vec<Vec<u8>>,
}

struct Connection {
    stream: TcpStream,
    framing: Option<Framing>,
    /// What arrived; on loan while something in it is unfinished, else without capacity.
    bytes: Vec<u8>,
    /// `0 <= done <= bytes.len()`: what is dealt with.
    done: usize,
    /// The part of `bytes` that the socket did not take yet.
    unsent: Range<usize>,
}

enum Next {
    Wait,
    Close,
}

impl Echo {
    pub fn new(poll: &Poll) -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
        // Accepted sockets inherit it.
        socket.set_tcp_nodelay(true)?;
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
        socket.listen(BACKLOG)?;
        let listener = TcpListener::from(socket);
        poll.watch(&listener, Token::Listener)?;
        Ok(Self { listener, connections: Vec::new(), free: Vec::new(), buffers: Vec::new() })
    }

    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    pub fn accept(&mut self, poll: &Poll) -> io::Result<()> {
        loop {
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            let stream = match rustix::net::accept_with(&self.listener, flags) {
                Ok(stream) => TcpStream::from(stream),
                Err(rustix::io::Errno::AGAIN) => return Ok(()),
                Err(rustix::io::Errno::CONNABORTED) => continue,
                Err(errno) => return Err(errno.into()),
            };
            let slot = self.free.pop().unwrap_or_else(|| {
                self.connections.push(None);
                self.connections.len() - 1
            });
            poll.watch(&stream, Token::Echo(slot))?;
            self.connections[slot] =
                Some(Connection { stream, framing: None, bytes: Vec::new(), done: 0, unsent: 0..0 });
        }
    }

    pub fn serve(&mut self, slot: usize, ready: Ready) {
        let Some(connection) = self.connections[slot].as_mut() else {
            return;
        };
        if connection.bytes.capacity() == 0 {
            let spare = self.buffers.pop();
            connection.bytes = spare.unwrap_or_else(|| Vec::with_capacity(BUFFER_BYTES));
        }
        let next = connection.serve(ready);
        if connection.is_idle() {
            connection.done = 0;
            let mut buffer = std::mem::take(&mut connection.bytes);
            buffer.clear();
            self.buffers.push(buffer);
        }
        if matches!(next, Ok(Next::Close) | Err(_)) {
            self.connections[slot] = None;
            self.free.push(slot);
        }
    }
}

impl Connection {
    fn is_idle(&self) -> bool {
        self.done == self.bytes.len() && self.unsent.is_empty()
    }

    fn serve(&mut self, ready: Ready) -> io::Result<Next> {
        self.send_rest()?;
        loop {
            self.answer()?;
            if !self.unsent.is_empty() {
                return Ok(Next::Wait);
            }
            let room = self.make_room();
            let received = rustix::io::read(&self.stream, spare_capacity(&mut self.bytes));
            match unless_blocked(received.map_err(io::Error::from))? {
                None => return Ok(Next::Wait),
                Some(0) => return Ok(Next::Close),
                Some(count) if count < room && !ready.hung_up => {
                    self.answer()?;
                    return Ok(Next::Wait);
                }
                Some(_) => {}
            }
        }
    }

    /// Answers every whole head or frame that has arrived, until the socket takes no more.
    fn answer(&mut self) -> io::Result<()> {
        while self.unsent.is_empty() {
            let rest = &mut self.bytes[self.done..];
            let Some(framing) = self.framing else {
                let Some(answer) = wire::backend_answer(rest) else {
                    return Ok(());
                };
                self.done += answer.head_bytes;
                self.framing = Some(answer.framing);
                // An empty socket takes an answer of this size whole.
                self.stream.write_all(&answer.bytes)?;
                continue;
            };
            if framing == Framing::Hixie {
                let Some(length) = wire::hixie_text(rest) else {
                    return Ok(());
                };
                self.unsent = self.done..self.done + length;
                self.done += length;
                self.send_rest()?;
                continue;
            }
            let Some(frame) = wire::frame(rest) else {
                return Ok(());
            };
            if !frame.is_masked {
                return Err(io::Error::other("a frame from a client is not masked"));
            }
            let length = echoed(rest, frame).len();
            self.done += frame.frame_bytes;
            self.unsent = self.done - length..self.done;
            self.send_rest()?;
        }
        Ok(())
    }

    fn send_rest(&mut self) -> io::Result<()> {
        while !self.unsent.is_empty() {
            let sent = self.stream.write(&self.bytes[self.unsent.clone()]);
            match unless_blocked(sent)? {
                Some(count) => self.unsent.start += count,
                None => return Ok(()),
            }
        }
        Ok(())
    }

    /// Room for another read, in bytes, where need be by forgetting what is done.
    fn make_room(&mut self) -> usize {
        if self.bytes.capacity() - self.bytes.len() < BUFFER_BYTES / 2 {
            self.bytes.drain(..self.done);
            self.done = 0;
            self.bytes.reserve(BUFFER_BYTES / 2);
        }
        self.bytes.capacity() - self.bytes.len()
    }
}

/// What goes back for a frame: itself unmasked, a Pong for a Ping, nothing for a Pong.
fn echoed(bytes: &mut [u8], frame: Frame) -> &[u8] {
    match frame.opcode {
        wire::PONG => return &[],
        wire::PING => bytes[0] = bytes[0] & 0xf0 | wire::PONG,
        _ => {}
    }
    wire::unmask_in_place(bytes, frame)
}
