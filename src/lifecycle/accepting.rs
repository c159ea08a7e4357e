//! The sockets on which connections are accepted here and now: what a start waits for, what a hand-over gives away, and
//! whose runtimes the watchdog asks. It does not know what is served on them.

use std::os::fd::AsFd;
use std::sync::{Arc, Weak};

use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::address::Address;

/// What a socket is for. It goes to another process as it is written here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    Listener,
    Admin,
}

/// Which socket it is. A listener may be called `admin` too, so the name alone does not say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    pub role: Role,
    pub name: String,
    /// Where it is bound, never port 0.
    pub address: Address,
}

/// One accept loop.
#[derive(Clone)]
pub struct Accepting {
    pub place: Place,
    /// Dangling once the loop has ended. A second owner would keep clients in the queue of a socket that nobody serves.
    socket: Weak<dyn AsFd + Send + Sync>,
    /// Where the loop runs.
    pub runtime: Handle,
}

impl Accepting {
    /// To be called on the runtime of the loop that owns the socket.
    pub fn new<S: AsFd + Send + Sync + 'static>(place: Place, socket: &Arc<S>) -> Accepting {
        let socket: Weak<S> = Arc::downgrade(socket);
        Accepting { place, socket, runtime: Handle::current() }
    }

    /// The socket, if its loop still runs. It stays open for as long as this lives.
    pub fn socket(&self) -> Option<Arc<dyn AsFd + Send + Sync>> {
        self.socket.upgrade()
    }
}

/// All accept loops that have begun.
pub struct Begun(watch::Sender<Vec<Accepting>>);

impl Default for Begun {
    fn default() -> Begun {
        Begun(watch::Sender::new(Vec::new()))
    }
}

impl Begun {
    pub fn add(&self, accepting: Accepting) {
        self.0.send_modify(|all| all.push(accepting));
    }

    pub fn all(&self) -> Vec<Accepting> {
        self.0.borrow().clone()
    }

    pub async fn wait_for(&self, count: usize) {
        let mut watch = self.0.subscribe();
        // It fails only when there is no sender, and the sender is here.
        let _ = watch.wait_for(|all| all.len() >= count).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_closes_with_its_loop_whoever_knows_of_it() {
        let begun = Begun::default();
        let socket = Arc::new(tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap());
        let address = socket.local_addr().unwrap();
        let place = Place { role: Role::Listener, name: "public".to_owned(), address: address.into() };
        begun.add(Accepting::new(place, &socket));
        begun.wait_for(1).await;
        assert!(begun.all()[0].socket().is_some());
        drop(socket);
        assert!(begun.all()[0].socket().is_none());
        assert!(std::net::TcpStream::connect(address).is_err());
    }
}
