//! What the messages of one version become in another. Inside the gateway everything is a frame of RFC 6455; a [`Port`] stands
//! at a side that speaks anything else, and makes a peer of RFC 6455 of it. Two ports make a bridge between any two versions.
//!
//! | of the side | 8, 7 | 0 (hixie-76) | hixie-75 |
//! |---|---|---|---|
//! | text | as it is; UTF-8 is checked towards 13 | `00` … `FF`, whole towards it, in fragments from it; UTF-8 is checked both ways | as 0 |
//! | binary | as it is | refused, or base64 in a text | as 0 |
//! | length | any form from it, the shortest to it | none | none |
//! | Ping | as it is | answered by its port | as 0 |
//! | Close | code and reason cleaned | `FF 00`; the port answers with the closer's own code | FIN |
//! | FIN between frames | a loss | Close 1000 | Close 1000 |
//!
//! A port knows no socket and no clock. It holds a part of a message, and only for a side that needs it whole.

mod framed;
#[doc(hidden)]
pub mod fuzz;
mod hixie;

use crate::dialect::Dialect;
use crate::wire::OwnFrame;
use framed::FramedPort;
use hixie::HixiePort;

/// Both sides of a tunnel, each with its port.
#[derive(Debug)]
pub struct Bridge {
    pub client: Port,
    pub backend: Port,
}

/// What a route asks of a bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    pub binary: Binary,
    /// Of a message that is collected, and of a frame that is dropped.
    pub message_bytes_max: usize,
}

/// What becomes of binary messages towards a side that knows only texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binary {
    Refuse,
    /// Every text of that side is base64 of a binary message, as websockify has it.
    Base64,
}

/// Why what one side sent cannot be carried to the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// A frame that no version has, or one to be dropped that does not end.
    Frame,
    /// Not UTF-8, or not base64 where it has to be.
    Text,
    Binary,
    TooBig,
}

/// Whose side of the gateway a port stands at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    AtClient,
    AtBackend,
}

/// A fault is final: who goes on asking hears it again.
#[derive(Debug)]
pub struct Port {
    framing: Framing,
    undecodable: Option<Fault>,
    unencodable: Option<Fault>,
}

#[derive(Debug)]
enum Framing {
    Framed(FramedPort),
    Hixie(Box<HixiePort>),
}

impl Bridge {
    /// `chance` makes the masks of what a client without masks sends.
    pub fn between(client: Dialect, backend: Dialect, terms: Terms, chance: u64) -> Bridge {
        Bridge {
            client: Port::at(Place::AtClient, client, backend, terms, chance),
            backend: Port::at(Place::AtBackend, backend, client, terms, chance),
        }
    }
}

impl Port {
    fn at(place: Place, own: Dialect, other: Dialect, terms: Terms, chance: u64) -> Port {
        let framing = match own {
            Dialect::Rfc6455 | Dialect::Hybi8 | Dialect::Hybi7 => Framing::Framed(FramedPort::new(own, other)),
            Dialect::Hixie76 | Dialect::Hixie75 => Framing::Hixie(Box::new(HixiePort::new(place, own, terms, chance))),
        };
        Port { framing, undecodable: None, unencodable: None }
    }

    /// What the peer sent becomes frames of RFC 6455 in `out`. Returns how many bytes are done with; the rest is less than a
    /// frame's header or a control frame, and comes again with more behind it.
    ///
    /// # Errors
    /// When the rest cannot be carried. What came before is in `out`, and nothing can be decoded any more.
    pub fn decode(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<usize, Fault> {
        if let Some(fault) = self.undecodable {
            return Err(fault);
        }
        let decoded = match &mut self.framing {
            Framing::Framed(port) => port.decode(bytes, out),
            Framing::Hixie(port) => port.decode(bytes, out).map(|()| bytes.len()),
        };
        self.undecodable = decoded.err();
        decoded
    }

    /// The peer sends no more.
    pub fn decode_end(&mut self, out: &mut Vec<u8>) {
        match &mut self.framing {
            Framing::Hixie(port) if self.undecodable.is_none() => port.decode_end(out),
            Framing::Framed(_) | Framing::Hixie(_) => {}
        }
    }

    /// Whether what goes to the peer has to go through [`Port::encode`].
    pub fn encodes(&self) -> bool {
        matches!(self.framing, Framing::Hixie(_))
    }

    /// Frames of RFC 6455, in any pieces, become what goes to the peer. What the peer cannot do itself its port does, see
    /// [`Port::take_reply`].
    ///
    /// # Errors
    /// When a message cannot be carried; the peer has seen none of it.
    pub fn encode(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
        if let Some(fault) = self.unencodable {
            return Err(fault);
        }
        let encoded = match &mut self.framing {
            Framing::Framed(_) => {
                out.extend_from_slice(bytes);
                Ok(())
            }
            Framing::Hixie(port) => port.encode(bytes, out),
        };
        self.unencodable = encoded.err();
        encoded
    }

    /// A frame of the gateway's own, in the peer's way. `key` is its mask, where it has one.
    pub fn encode_own(&mut self, frame: OwnFrame, key: Option<[u8; 4]>, out: &mut Vec<u8>) {
        match &mut self.framing {
            Framing::Framed(_) => out.extend(frame.to_bytes(key)),
            Framing::Hixie(port) => port.encode_own(frame, out),
        }
    }

    /// Whether [`Port::take_reply`] has something.
    pub fn has_reply(&self) -> bool {
        match &self.framing {
            Framing::Framed(_) => false,
            Framing::Hixie(port) => port.has_reply(),
        }
    }

    /// What the port answers in the peer's stead, as frames from the peer: a Pong, a Close.
    pub fn take_reply(&mut self) -> Vec<u8> {
        match &mut self.framing {
            Framing::Framed(_) => Vec::new(),
            Framing::Hixie(port) => port.take_reply(),
        }
    }

    /// Bytes of messages and frames that are not whole yet.
    #[doc(hidden)]
    pub fn held_bytes(&self) -> usize {
        match &self.framing {
            Framing::Framed(_) => 0,
            Framing::Hixie(port) => port.held_bytes(),
        }
    }

    /// The peer is told by the end of the connection that it was closed.
    pub fn ends_with_fin(&self) -> bool {
        match &self.framing {
            Framing::Framed(_) => false,
            Framing::Hixie(port) => port.ends_with_fin(),
        }
    }
}

#[cfg(test)]
mod tests;
