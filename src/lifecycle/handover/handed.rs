//! The sockets that came, and which of them a configuration asks for. It does not know how they came.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;

use socket2::{Protocol, Socket, Type};

use crate::lifecycle::accepting::{Place, Role};

/// None, at a start of its own. What is not taken is closed when this is dropped.
#[derive(Debug, Default)]
pub struct Handed(Vec<(Place, TcpListener)>);

/// A descriptor that is not the socket it is said to be.
#[derive(Debug, thiserror::Error)]
#[error("what came as `{name}` is not a socket that listens there: `{address}`")]
pub struct Mistaken {
    name: String,
    address: SocketAddr,
}

impl Handed {
    /// # Errors
    /// When a descriptor is something else, or there are more or fewer than places.
    pub fn new(places: Vec<Place>, descriptors: Vec<OwnedFd>) -> Result<Handed, Mistaken> {
        let mut descriptors = descriptors.into_iter();
        let sockets = places.into_iter().map(|place| {
            let socket = descriptors.next().and_then(|descriptor| listening(descriptor, place.address));
            socket.map(|socket| (place.clone(), socket)).ok_or(Mistaken { name: place.name, address: place.address })
        });
        Ok(Handed(sockets.collect::<Result<_, _>>()?))
    }

    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The socket that is bound to this very address.
    pub fn take_at(&mut self, address: SocketAddr) -> Option<TcpListener> {
        self.take(|place| place.address == address)
    }

    /// For an address whose port the system chooses, the one that it chose for the same listener before.
    pub fn take_named(&mut self, role: Role, name: &str, ip: IpAddr) -> Option<TcpListener> {
        self.take(|place| place.role == role && place.name == name && place.address.ip() == ip)
    }

    /// What nobody asked for.
    pub fn left(&self) -> impl Iterator<Item = &Place> {
        self.0.iter().map(|(place, _)| place)
    }

    fn take(&mut self, wanted: impl Fn(&Place) -> bool) -> Option<TcpListener> {
        let found = self.0.iter().position(|(place, _)| wanted(place))?;
        Some(self.0.swap_remove(found).1)
    }
}

fn listening(descriptor: OwnedFd, address: SocketAddr) -> Option<TcpListener> {
    let socket = Socket::from(descriptor);
    let is_tcp = socket.r#type().ok()? == Type::STREAM && socket.protocol().ok()? == Some(Protocol::TCP);
    let is_there = socket.local_addr().ok()?.as_socket() == Some(address) && socket.is_listener().ok()?;
    socket.set_nonblocking(true).ok()?;
    (is_tcp && is_there).then(|| socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listener() -> (TcpListener, SocketAddr) {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        (socket, address)
    }

    fn place(role: Role, name: &str, address: SocketAddr) -> Place {
        Place { role, name: name.to_owned(), address }
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
        assert!(handed.take_at("127.0.0.1:1".parse().unwrap()).is_none());
        assert!(handed.take_named(Role::Listener, "public", "::1".parse().unwrap()).is_none());
        assert!(handed.take_named(Role::Admin, "public", public.ip()).is_none());
        assert_eq!(handed.take_at(public).unwrap().local_addr().unwrap(), public);
        assert!(handed.take_at(public).is_none(), "it is taken");
        assert_eq!(handed.take_named(Role::Admin, "admin", admin.ip()).unwrap().local_addr().unwrap(), admin);
        assert_eq!(handed.left().map(|place| place.address).collect::<Vec<_>>(), [namesake]);
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
}
