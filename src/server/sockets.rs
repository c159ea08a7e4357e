//! The listening sockets. It does not know who accepts on them.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};
use tracing::info;

use super::StartError;
use crate::config::Config;
use crate::lifecycle::{Place, Role};

/// Connections that the kernel holds for a listener before they are accepted.
const BACKLOG: i32 = 4096;

/// The listening sockets, bound before anything else starts, so that a taken address is an error and not a panic.
pub struct Sockets {
    pub listeners: Vec<Bound>,
    pub admin: Option<Bound>,
}

pub struct Bound {
    pub name: String,
    pub address: SocketAddr,
    pub socket: TcpListener,
}

impl Sockets {
    pub fn bind(config: &Config) -> Result<Sockets, StartError> {
        let listeners = config.listeners.iter().map(|listener| Bound::new(&listener.name, listener.listen));
        Ok(Sockets {
            listeners: listeners.collect::<Result<_, _>>()?,
            admin: config.admin.listen.map(|address| Bound::new("admin", address)).transpose()?,
        })
    }
}

impl Sockets {
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
    pub fn place(&self, role: Role) -> Place {
        Place { role, name: self.name.clone(), address: self.address }
    }

    /// Says where it listens: with port 0 nobody else knows.
    fn new(name: &str, address: SocketAddr) -> Result<Bound, StartError> {
        let bound = listen(address).and_then(|socket| Ok((socket.local_addr()?, socket)));
        match bound {
            Ok((address, socket)) => {
                info!(listener = name, %address, "listening");
                Ok(Bound { name: name.to_owned(), address, socket })
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
