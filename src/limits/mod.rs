//! How many at once and how fast, of all clients together and of each: what is taken is given back by itself. It knows no
//! clock and no socket, and does not know what is limited.

mod buckets;
mod client;
mod client_slots;
mod journal;
mod slots;

pub use buckets::{Buckets, Pace};
pub use client::{Client, ClientRules};
pub use client_slots::{ClientSlot, ClientSlots, Full, Taken};
pub use journal::{Count, Journal, Told, Torn};
pub use slots::{Slot, Slots};

use std::sync::Arc;
use std::time::{Duration, Instant};

/// A slot of all clients together, and one of the client's own where that is limited.
#[derive(Debug)]
pub struct Occupied {
    pub of_all: Slot,
    pub of_client: Option<ClientSlot>,
}

impl From<Slot> for Occupied {
    fn from(of_all: Slot) -> Occupied {
        Occupied { of_all, of_client: None }
    }
}

/// What one route allows each client.
#[derive(Clone, Debug)]
pub struct PerClient {
    pub tunnels: ClientSlots,
    pub handshakes: Option<Handshakes>,
}

/// How fast clients may upgrade.
#[derive(Clone, Debug)]
pub struct Handshakes {
    pub buckets: Arc<Buckets>,
    pub pace: Pace,
}

impl Handshakes {
    /// # Errors
    /// How long until there is one.
    pub fn take(&self, client: Client, now: Instant) -> Result<(), Duration> {
        self.buckets.take(client, self.pace, now)
    }

    pub fn put_back(&self, client: Client) {
        self.buckets.put_back(client, self.pace);
    }
}
