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
