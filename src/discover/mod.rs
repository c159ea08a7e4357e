//! Asks for names of servers when it is time.

mod dns;
pub use dns::{Dns, Failure};
