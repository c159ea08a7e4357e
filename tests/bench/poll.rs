//! One epoll for both ends of the load: the clients and the backend live in one thread, so that an echo costs the
//! load's core as few wake-ups as possible. It does not know what the sockets carry.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::{Timespec, epoll};
use socket2::{Domain, Protocol, Socket, Type};

const EVENTS_MAX: usize = 256;

/// Source addresses that the clients take in turn, so that connections in TIME_WAIT never exhaust the ports of one.
const SOURCES: u32 = 64;

/// Whom an event is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token {
    Listener,
    /// A connection of the backend.
    Echo(usize),
    Client(usize),
}

impl Token {
    fn encode(self) -> u64 {
        match self {
            Token::Listener => 0,
            Token::Echo(slot) => (slot as u64) << 2 | 1,
            Token::Client(slot) => (slot as u64) << 2 | 2,
        }
    }

    fn decode(data: u64) -> Self {
        let slot = (data >> 2) as usize;
        match data & 3 {
            1 => Token::Echo(slot),
            2 => Token::Client(slot),
            _ => Token::Listener,
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Ready {
    pub token: Token,
    /// The peer has closed: one more read is needed to see it, even if the last one was short.
    pub hung_up: bool,
}

/// Edge-triggered: whoever gets an event writes what it has and reads until a read is short.
pub struct Poll {
    epoll: OwnedFd,
}

impl Poll {
    pub fn new() -> io::Result<Self> {
        Ok(Self { epoll: epoll::create(epoll::CreateFlags::CLOEXEC)? })
    }

    pub fn watch(&self, socket: impl AsFd, token: Token) -> io::Result<()> {
        let edges = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::RDHUP | epoll::EventFlags::ET;
        epoll::add(&self.epoll, socket, epoll::EventData::new_u64(token.encode()), edges)?;
        Ok(())
    }

    /// Waits for events, at most so long, and replaces what is in `ready`.
    pub fn wait(&self, ready: &mut Vec<Ready>, timeout: Duration) -> io::Result<()> {
        let empty = epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) };
        let mut events = [empty; EVENTS_MAX];
        let timeout = Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: i64::from(timeout.subsec_nanos()) };
        ready.clear();
        let count = match epoll::wait(&self.epoll, &mut events, Some(&timeout)) {
            Ok(count) => count,
            Err(rustix::io::Errno::INTR) => 0,
            Err(errno) => return Err(errno.into()),
        };
        let gone = epoll::EventFlags::RDHUP | epoll::EventFlags::HUP | epoll::EventFlags::ERR;
        ready.extend(
            events[..count].iter().map(|event| Ready {
                token: Token::decode(event.data.u64()),
                hung_up: { event.flags }.intersects(gone),
            }),
        );
        Ok(())
    }
}

/// Begins to connect, without waiting, from the `turn`-th source address.
pub fn connect(target: SocketAddr, turn: u32) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    let source = Ipv4Addr::new(127, 0, 1, (1 + turn % SOURCES) as u8);
    socket.bind(&SocketAddr::new(IpAddr::V4(source), 0).into())?;
    socket.set_tcp_nodelay(true)?;
    match socket.connect(&target.into()) {
        Err(error) if error.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => Err(error),
        _ => Ok(socket.into()),
    }
}

/// A read or write that would have to wait is `None`.
pub fn unless_blocked(result: io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Ok(count) => Ok(Some(count)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}
