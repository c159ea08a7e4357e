//! The listening sockets. It does not know who accepts on them.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};
use tracing::{info, warn};

use super::StartError;
use crate::config::Config;
use crate::lifecycle::handover::Handed;
use crate::lifecycle::{Place, Role};

/// Connections that the kernel holds for a listener before they are accepted.
const BACKLOG: i32 = 4096;

/// The listening sockets, bound before anything else starts, so that a taken address is an error and not a panic.
pub struct Sockets {
    pub listeners: Vec<Bound>,
    pub admin: Option<Bound>,
}

pub struct Bound {
    role: Role,
    pub name: String,
    pub address: SocketAddr,
    pub socket: TcpListener,
}

/// A socket that the configuration asks for.
struct Wanted<'c> {
    role: Role,
    name: &'c str,
    address: SocketAddr,
}

impl Sockets {
    /// What was handed over is taken where the configuration asks for it. What is missing is bound, and what is too much is
    /// closed.
    pub fn open(config: &Config, mut handed: Handed) -> Result<Sockets, StartError> {
        let listeners = config.listeners.iter();
        let wanted = listeners.map(|rules| Wanted { role: Role::Listener, name: &rules.name, address: rules.listen });
        let admin = config.admin.listen.map(|address| Wanted { role: Role::Admin, name: "admin", address });
        let wanted: Vec<Wanted<'_>> = wanted.chain(admin).collect();
        // An address that is written down goes before a port that was chosen: only one socket can have it.
        let mut taken: Vec<Option<TcpListener>> = wanted.iter().map(|wanted| handed.take_at(wanted.address)).collect();
        for (wanted, taken) in wanted.iter().zip(&mut taken).filter(|(wanted, _)| wanted.address.port() == 0) {
            *taken = handed.take_named(wanted.role, wanted.name, wanted.address.ip());
        }
        for place in handed.left() {
            warn!(listener = place.name, address = %place.address, "closing a socket that came and that no listener has");
        }
        let (mut listeners, mut admin) = (Vec::new(), None);
        for (wanted, taken) in wanted.iter().zip(taken) {
            let bound = Bound::new(wanted, taken)?;
            match wanted.role {
                Role::Listener => listeners.push(bound),
                Role::Admin => admin = Some(bound),
            }
        }
        Ok(Sockets { listeners, admin })
    }

    pub fn count(&self) -> usize {
        self.listeners.len() + usize::from(self.admin.is_some())
    }

    /// What the system chose for port 0 is what the configuration says from here on.
    pub fn tell(&self, mut config: Config) -> Config {
        for (rules, bound) in config.listeners.iter_mut().zip(&self.listeners) {
            rules.listen = bound.address;
        }
        config.admin.listen = self.admin.as_ref().map(|bound| bound.address);
        config
    }
}

impl Bound {
    pub fn place(&self) -> Place {
        Place { role: self.role, name: self.name.clone(), address: self.address }
    }

    /// Says where it listens: with port 0 nobody else knows.
    fn new(wanted: &Wanted<'_>, taken: Option<TcpListener>) -> Result<Bound, StartError> {
        let Wanted { role, name, address } = *wanted;
        let taken_over = taken.is_some();
        let socket = taken.map_or_else(|| listen(address), Ok);
        match socket.and_then(|socket| Ok((socket.local_addr()?, socket))) {
            Ok((address, socket)) => {
                info!(listener = name, %address, taken_over, "listening");
                Ok(Bound { role, name: name.to_owned(), address, socket })
            }
            Err(source) => Err(StartError::Listen { name: name.to_owned(), address, source }),
        }
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    // Accepted sockets inherit it, which saves a call for each.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
