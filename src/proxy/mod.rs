//! Plain HTTP by pingora-proxy's ordinary way, as thin as it goes: one call a phase. What it may do was decided before; it
//! never upgrades anything, whatever arrives.

mod connect;
mod failure;
mod forwarded;
mod service;

pub use service::{Next, PlainProxy, Ticket};
