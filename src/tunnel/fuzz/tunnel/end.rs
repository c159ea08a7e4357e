//! One end of a tunnel, and what is known of it from outside.

use std::time::Instant;

use crate::bridge::Fault;
use crate::wire::PING_BYTES;

/// One side, and what lies between it and the session.
pub struct End {
    /// Sent, but not there yet.
    pub coming: Vec<u8>,
    pub arrived: Vec<u8>,
    pub last: Last,
    /// All that was read from it.
    pub read: Vec<u8>,
    pub held: Vec<u8>,
    /// A part of what was read was thrown away, Pongs to our Pings not counted.
    pub is_dropped: bool,
    pub undecodable: Option<Fault>,
    /// A part of what was to be written to it could not be said.
    pub unencodable: Option<Fault>,
    pub heard_at: Instant,
    /// All that was written to it.
    pub written: Vec<u8>,
    pub takes: Takes,
    pub is_spilled: bool,
    pub took_at: Instant,
    pub is_shut: bool,
    pub pings: Vec<[u8; PING_BYTES]>,
    pub pinged_at: Instant,
    pub closed_by: Option<By>,
    pub closed_at: Instant,
}

/// What comes behind the bytes of a side.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Last {
    More,
    End,
    Failure,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Takes {
    Everything,
    Nothing,
    Gone,
}

/// Whose Close a side was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    Gateway,
    OtherSide,
}

impl End {
    pub fn new(now: Instant) -> End {
        End {
            coming: Vec::new(),
            arrived: Vec::new(),
            last: Last::More,
            read: Vec::new(),
            held: Vec::new(),
            is_dropped: false,
            undecodable: None,
            unencodable: None,
            heard_at: now,
            written: Vec::new(),
            takes: Takes::Everything,
            is_spilled: false,
            took_at: now,
            is_shut: false,
            pings: Vec::new(),
            pinged_at: now,
            closed_by: None,
            closed_at: now,
        }
    }

    pub fn close(&mut self, by: By, now: Instant) {
        (self.closed_by, self.closed_at) = (Some(by), now);
    }
}
