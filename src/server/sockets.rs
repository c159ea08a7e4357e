//! The listening sockets. It does not know who accepts on them.

use std::io;
use std::net::SocketAddr;
use std::path::Path;

use socket2::{Domain, Protocol, Socket, Type};
use tracing::{info, warn};

use super::StartError;
use super::socket_file::{self, ListenError, SocketFile};
use crate::address::Address;
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
    pub address: Address,
    pub socket: Socket,
}

/// A socket that the configuration asks for.
struct Wanted<'c> {
    role: Role,
    name: &'c str,
    address: Address,
    /// Of the file of a Unix socket.
    mode: u32,
}

impl Sockets {
    /// What was handed over is taken where the configuration asks for it. What is missing is bound, and what is too much is
    /// closed.
    pub fn open(config: &Config, mut handed: Handed) -> Result<Sockets, StartError> {
        let listeners = config.listeners.iter();
        let wanted = listeners.map(|rules| Wanted {
            role: Role::Listener,
            name: &rules.name,
            address: rules.listen.clone(),
            mode: rules.socket_mode,
        });
        let admin = config.admin.listen.map(Address::from);
        let admin = admin.map(|address| Wanted { role: Role::Admin, name: "admin", address, mode: 0 });
        let wanted: Vec<Wanted<'_>> = wanted.chain(admin).collect();
        // An address that is written down goes before a port that was chosen: only one socket can have it.
        let mut taken: Vec<Option<Socket>> = wanted.iter().map(|wanted| handed.take_at(&wanted.address)).collect();
        for (wanted, taken) in wanted.iter().zip(&mut taken) {
            if let Some(any_port) = wanted.address.ip().filter(|address| address.port() == 0) {
                *taken = handed.take_named(wanted.role, wanted.name, any_port.ip());
            }
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
            rules.listen = bound.address.clone();
        }
        config.admin.listen = self.admin.as_ref().and_then(|bound| bound.address.ip());
        config
    }

    /// The files of Unix sockets. Who has the sockets last removes them.
    pub fn files(&self) -> Vec<SocketFile> {
        let paths = self.listeners.iter().filter_map(|bound| match &bound.address {
            Address::Ip(_) => None,
            Address::Unix(path) => Some(path),
        });
        // One that is gone already is not to be removed.
        paths.filter_map(|path| SocketFile::find(path).ok()).collect()
    }
}

impl Bound {
    pub fn place(&self) -> Place {
        Place { role: self.role, name: self.name.clone(), address: self.address.clone() }
    }

    /// Says where it listens: with port 0 nobody else knows.
    fn new(wanted: &Wanted<'_>, taken: Option<Socket>) -> Result<Bound, StartError> {
        let Wanted { role, name, address, mode } = wanted;
        let taken_over = taken.is_some();
        let socket = match (address, taken) {
            (_, Some(socket)) => Ok(socket),
            (Address::Ip(address), None) => listen(*address).map_err(ListenError::from),
            (Address::Unix(path), None) => listen_at(path, *mode),
        };
        let bound = socket.and_then(|socket| Ok((place_of(&socket, address)?, socket)));
        let (address, socket) = bound.map_err(|source| StartError::Listen {
            name: (*name).to_owned(),
            address: address.clone(),
            source,
        })?;
        if let (Address::Unix(path), true) = (&address, taken_over)
            && let Err(error) = socket_file::set_mode(path, *mode)
        {
            warn!(listener = name, %address, %error, "the file of a socket that was taken over keeps its mode");
        }
        info!(listener = name, %address, taken_over, "listening");
        Ok(Bound { role: *role, name: (*name).to_owned(), address, socket })
    }
}

/// What the system chose for port 0.
fn place_of(socket: &Socket, asked: &Address) -> io::Result<Address> {
    let local = socket.local_addr()?;
    Ok(local.as_socket().map_or_else(|| asked.clone(), Address::Ip))
}

fn listen_at(path: &Path, mode: u32) -> Result<Socket, ListenError> {
    let socket = socket_file::bind(path, mode)?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

fn listen(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    // Accepted sockets inherit it, which saves a call for each.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}
