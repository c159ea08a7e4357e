//! What comes out of an open tunnel: the echo of one message at a time, and Pings between. Every byte is compared.
//! It knows no socket and no connection; what carries the tunnel sends what it owes.

use std::io;

use crate::failure::{Failure, lost};
use crate::wire::{self, Message};

#[derive(Default)]
pub struct Tunnel {
    /// How much is back of the echo that is awaited.
    awaited: Option<usize>,
    /// Pongs that wait for the end of the message that is being sent.
    owed: Vec<u8>,
}

/// What the arrival of bytes led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// More must come, or nothing was awaited.
    Part,
    /// The whole echo is back.
    Echo,
}

impl Tunnel {
    pub fn await_echo(&mut self) {
        self.awaited = Some(0);
    }

    pub fn awaits_echo(&self) -> bool {
        self.awaited.is_some()
    }

    /// Compares what arrived with the echo; whole Pings may stand before and behind it, and nothing else may.
    pub fn take(&mut self, message: &Message, bytes: &[u8]) -> Result<Arrival, Failure> {
        let Some(received) = self.awaited else {
            return self.take_pings(bytes);
        };
        let bytes = if received == 0 { self.owe_pongs(bytes) } else { bytes };
        let expected = &message.echo[received..];
        let (echo, rest) = bytes.split_at(bytes.len().min(expected.len()));
        if !expected.starts_with(echo) {
            return Err(Failure::WrongEcho { at: received });
        }
        if echo.len() < expected.len() {
            self.awaited = Some(received + echo.len());
            return Ok(Arrival::Part);
        }
        self.awaited = None;
        self.take_pings(rest)?;
        Ok(Arrival::Echo)
    }

    /// What must be sent between two messages.
    pub fn pay(&mut self) -> Option<Vec<u8>> {
        (!self.owed.is_empty()).then(|| std::mem::take(&mut self.owed))
    }

    fn take_pings(&mut self, bytes: &[u8]) -> Result<Arrival, Failure> {
        if self.owe_pongs(bytes).is_empty() {
            Ok(Arrival::Part)
        } else {
            Err(lost("idle")(io::Error::other("unexpected bytes")))
        }
    }

    /// What is behind the Pings at the beginning.
    fn owe_pongs<'a>(&mut self, mut bytes: &'a [u8]) -> &'a [u8] {
        while let Some(frame) = wire::frame(bytes).filter(|frame| frame.opcode == wire::PING) {
            self.owed.extend(wire::masked_pong(&bytes[frame.header_bytes..frame.frame_bytes]));
            bytes = &bytes[frame.frame_bytes..];
        }
        bytes
    }
}
