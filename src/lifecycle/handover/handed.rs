//! The sockets that came, and which of them a configuration asks for. It does not know how they came.

use std::net::IpAddr;
use std::os::fd::OwnedFd;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::address::Address;
use crate::lifecycle::accepting::{Place, Role};

/// None, at a start of its own. What is not taken is closed when this is dropped.
#[derive(Debug, Default)]
pub struct Handed(Vec<(Place, Socket)>);

/// A descriptor that is not the socket it is said to be.
#[derive(Debug, thiserror::Error)]
#[error("what came as `{name}` is not a socket that listens there: `{address}`")]
pub struct Mistaken {
    name: String,
    address: Address,
}

impl Handed {
    /// # Errors
    /// When a descriptor is something else, or there are more or fewer than places.
    pub fn new(places: Vec<Place>, descriptors: Vec<OwnedFd>) -> Result<Handed, Mistaken> {
        let mut descriptors = descriptors.into_iter();
        let sockets = places.into_iter().map(|place| {
            let socket = descriptors.next().and_then(|descriptor| listening(descriptor, &place.address));
            let Place { name, address, .. } = place.clone();
            socket.map(|socket| (place, socket)).ok_or(Mistaken { name, address })
        });
        Ok(Handed(sockets.collect::<Result<_, _>>()?))
    }

    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The socket that is bound to this very address.
    pub fn take_at(&mut self, address: &Address) -> Option<Socket> {
        self.take(|place| place.address == *address)
    }

    /// For an address whose port the system chooses, the one that it chose for the same listener before.
    pub fn take_named(&mut self, role: Role, name: &str, ip: IpAddr) -> Option<Socket> {
        let is_there = |place: &Place| place.address.ip().is_some_and(|address| address.ip() == ip);
        self.take(|place| place.role == role && place.name == name && is_there(place))
    }

    /// What nobody asked for.
    pub fn left(&self) -> impl Iterator<Item = &Place> {
        self.0.iter().map(|(place, _)| place)
    }

    fn take(&mut self, wanted: impl Fn(&Place) -> bool) -> Option<Socket> {
        let found = self.0.iter().position(|(place, _)| wanted(place))?;
        Some(self.0.swap_remove(found).1)
    }
}

fn listening(descriptor: OwnedFd, address: &Address) -> Option<Socket> {
    let socket = Socket::from(descriptor);
    let is_stream = socket.r#type().ok()? == Type::STREAM && socket.is_listener().ok()?;
    let is_there = is_bound(&socket, &socket.local_addr().ok()?, address);
    socket.set_nonblocking(true).ok()?;
    (is_stream && is_there).then_some(socket)
}

fn is_bound(socket: &Socket, local: &SockAddr, address: &Address) -> bool {
    match address {
        Address::Ip(address) => {
            socket.protocol().is_ok_and(|protocol| protocol == Some(Protocol::TCP))
                && local.as_socket() == Some(*address)
        }
        Address::Unix(path) => local.domain() == Domain::UNIX && local.as_pathname() == Some(path),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, TcpListener};

    use super::*;

    fn listener() -> (TcpListener, SocketAddr) {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        (socket, address)
    }

    fn place(role: Role, name: &str, address: SocketAddr) -> Place {
        Place { role, name: name.to_owned(), address: address.into() }
    }

    #[test]
    fn is_found_by_its_address_or_by_the_name_of_its_listener() {
        let sockets: Vec<_> = (0..3).map(|_| listener()).collect();
        let addresses: Vec<SocketAddr> = sockets.iter().map(|(_, address)| *address).collect();
        let [public, namesake, admin] = addresses[..] else { unreachable!() };
        let places = vec![
            place(Role::Listener, "public", public),
            place(Role::Listener, "admin", namesake),
            place(Role::Admin, "admin", admin),
        ];
        let descriptors = sockets.into_iter().map(|(socket, _)| socket.into()).collect();
        let mut handed = Handed::new(places, descriptors).unwrap();
        assert_eq!(handed.count(), 3);
        assert!(handed.take_at(&"127.0.0.1:1".parse().unwrap()).is_none());
        assert!(handed.take_named(Role::Listener, "public", "::1".parse().unwrap()).is_none());
        assert!(handed.take_named(Role::Admin, "public", public.ip()).is_none());
        assert_eq!(handed.take_at(&public.into()).unwrap().local_addr().unwrap(), public.into());
        assert!(handed.take_at(&public.into()).is_none(), "it is taken");
        assert_eq!(handed.take_named(Role::Admin, "admin", admin.ip()).unwrap().local_addr().unwrap(), admin.into());
        assert_eq!(handed.left().map(|place| place.address.clone()).collect::<Vec<_>>(), [namesake.into()]);
    }

    #[test]
    fn a_descriptor_that_is_something_else_is_refused() {
        let refused = |address: SocketAddr, descriptors: Vec<OwnedFd>| {
            assert!(Handed::new(vec![place(Role::Listener, "public", address)], descriptors).is_err());
        };
        let (socket, address) = listener();
        refused(address, Vec::new());
        refused(address, vec![std::fs::File::open("/dev/null").unwrap().into()]);
        refused(address, vec![std::net::UdpSocket::bind("127.0.0.1:0").unwrap().into()]);
        refused(address, vec![listener().0.into()]);
        refused(address, vec![std::net::TcpStream::connect(address).unwrap().into()]);
        let (accepted, _) = socket.accept().unwrap();
        refused(address, vec![accepted.into()]);
    }

    #[test]
    fn a_unix_socket_is_known_by_its_path() {
        let folder = tempfile::tempdir().unwrap();
        let (path, other) = (folder.path().join("a.sock"), folder.path().join("b.sock"));
        let at = |path: &std::path::Path| Address::Unix(path.into());
        let place =
            |path: &std::path::Path| Place { role: Role::Listener, name: "public".to_owned(), address: at(path) };
        let bind = |path: &std::path::Path| OwnedFd::from(std::os::unix::net::UnixListener::bind(path).unwrap());
        let mut handed = Handed::new(vec![place(&path)], vec![bind(&path)]).unwrap();
        assert!(handed.take_at(&at(&other)).is_none());
        assert!(handed.take_named(Role::Listener, "public", "127.0.0.1".parse().unwrap()).is_none());
        assert!(handed.take_at(&at(&path)).is_some());
        assert!(Handed::new(vec![place(&path)], vec![bind(&other)]).is_err());
        assert!(Handed::new(vec![place(&path)], vec![listener().0.into()]).is_err());
        let connected = std::os::unix::net::UnixStream::pair().unwrap().0;
        assert!(Handed::new(vec![place(&path)], vec![connected.into()]).is_err());
    }
}
