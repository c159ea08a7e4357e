//! A session after its handshake, without its sockets: which bytes pass, where frames of the gateway's own may be put in
//! between, what has been still for too long, and how it ends. Bytes, time and chance are arguments; it copies and unmasks no
//! payload, and never sleeps: who drives it asks when to wake it.

#[doc(hidden)]
pub mod fuzz;
mod keepalive;
mod leg;
mod session;

use std::time::Duration;

pub use session::Session;

use crate::dialect::Dialect;
use crate::wire::Reserved;

/// One of the two sides of a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Client,
    Backend,
}

impl Side {
    pub const BOTH: [Side; 2] = [Side::Client, Side::Backend];

    pub fn other(self) -> Side {
        match self {
            Side::Client => Side::Backend,
            Side::Backend => Side::Client,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Side::Client => "client",
            Side::Backend => "backend",
        }
    }
}

/// How much a route wants to know of the frames that pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frames {
    /// Borders, messages and codes are known; the first broken frame is counted, and from there on the tunnel is blind.
    Track,
    /// As `Track`, but a broken frame ends the tunnel.
    Enforce,
    /// Bytes are bytes: nothing is put in between, nothing is limited.
    Blind,
}

/// What a route asks of its tunnels.
#[derive(Clone, Debug)]
pub struct Rules {
    pub frames: Frames,
    /// Without a message, or a part of one, from either side. In a blind tunnel: without a byte.
    pub idle_timeout: Option<Duration>,
    pub ping: Option<PingRules>,
    pub max_age: Option<Duration>,
    /// How long a closing tunnel may stand still.
    pub close_timeout: Duration,
    /// Payload bytes as they are on the wire, compressed or not.
    pub max_frame_bytes: Option<u64>,
    /// As `max_frame_bytes`, over all fragments of a message.
    pub max_message_bytes: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
pub struct PingRules {
    /// Without a byte from a side.
    pub interval: Duration,
    /// Without a byte from a side after a Ping.
    pub timeout: Duration,
}

/// What the two sides agreed to speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speech {
    /// The framing of RFC 6455, which versions 7, 8 and 13 share.
    Frames(Reserved),
    /// Two versions, or one without frames: a bridge makes frames of RFC 6455 of both, and nobody may lose sight of them.
    Bridged { client: Dialect, backend: Dialect },
    /// Another framing, or none that is known.
    Opaque,
}

/// What becomes of bytes that were read from a side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// So many go to the other side as they are.
    pub forward: usize,
    /// So many behind these go nowhere.
    pub skip: usize,
    pub seen: Seen,
}

/// What ended within bytes that go on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    pub text: u32,
    pub binary: u32,
    pub ping: u32,
    pub pong: u32,
    pub close: u32,
    /// A frame broke RFC 6455: at most one in the life of a tunnel.
    pub broken: u32,
}

impl Seen {
    pub const NOTHING: Seen = Seen { text: 0, binary: 0, ping: 0, pong: 0, close: 0, broken: 0 };

    pub fn messages(self) -> u32 {
        self.text + self.binary
    }
}

#[cfg(test)]
mod tests;
