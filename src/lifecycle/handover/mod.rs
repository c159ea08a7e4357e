//! Gives the listening sockets of a running process to its successor, so that no client ever finds the door closed: the
//! kernel's queue of a socket is one, whoever accepts from it. It does not know what is served on them.
//!
//! ```text
//!   the running process                                   its successor, `run --upgrade`
//!                                                         checks the configuration, opens the Door
//!   SIGQUIT: Offer, with the descriptors ──────────────►  builds everything on them, accepts, is Ready
//!                                         ◄─── Serving ──
//!   hands over: accepts no more, drains; closes ───────►  in charge: speaks to the service manager
//!
//!   or, at any fault or out of patience: Withdrawn ────►  hands over again, and leaves
//! ```
//!
//! Until Serving is read, the running process serves as if nothing had happened, and every fault of the successor leaves it
//! at that. From Offer on, both accept, which is no fault either: each serves what it accepted. If the running process dies
//! with neither closing in order nor Withdrawn, the successor is the only one left, and serves on.

mod channel;
mod door;
mod give;
mod handed;
mod message;
mod take;

use std::time::Duration;

pub use give::Giver;
pub use handed::Handed;
pub use take::{Predecessor, TakeError, take};

/// So many descriptors go with one message (`SCM_MAX_FD` of Linux), so many sockets can be handed over.
pub const SOCKETS_MAX: usize = 253;

/// How long a successor waits for SIGQUIT to the running process.
pub const WAIT_MAX: Duration = Duration::from_secs(60);

/// How long whoever has come to a successor's door may take to make its offer.
const OFFERED_WITHIN: Duration = Duration::from_secs(5);

/// How long the running process waits for its successor to serve.
const SERVING_WITHIN: Duration = Duration::from_secs(30);
