//! How a tunnel goes through its bridge: as the relay does it, between what is read and what the session is asked.

use super::super::super::{Side, Speech};
use super::{Tunnel, at};
use crate::bridge::{Fault, Port};
use crate::dialect::Dialect;

impl Tunnel {
    /// What a side speaks, where a bridge has to know it.
    pub fn dialect(&self, of: Side) -> Option<Dialect> {
        match (self.speech, of) {
            (Speech::Bridged { client, .. }, Side::Client) => Some(client),
            (Speech::Bridged { backend, .. }, Side::Backend) => Some(backend),
            (Speech::Frames(_) | Speech::Opaque, _) => None,
        }
    }

    /// A side that knows whole texts and nothing else.
    pub fn is_frameless(&self, side: Side) -> bool {
        self.dialect(side).is_some_and(|dialect| !dialect.has_frames())
    }

    pub(super) fn receive(&mut self, from: Side, bytes: &[u8]) {
        if self.bridge.is_some() {
            self.session.handle_sign_of_life(from, self.now);
        }
        let Some(port) = self.port(from) else { return self.pass(from, bytes) };
        let mut frames = Vec::new();
        let decoded = port.decode(bytes, &mut frames);
        self.pass(from, &frames);
        match decoded {
            Ok(taken) => self.end(from).held = bytes[taken..].to_vec(),
            Err(fault) => {
                self.note_fault(from, fault, self.is_quiet());
                self.end(from).undecodable = Some(fault);
                self.session.handle_undecodable(from, fault, self.now);
            }
        }
    }

    pub(super) fn receive_end(&mut self, from: Side) {
        if let Some(port) = self.port(from) {
            let mut last = Vec::new();
            port.decode_end(&mut last);
            self.pass(from, &last);
        }
        self.session.handle_end(from, self.now);
    }

    /// `is_quiet` is whether nothing had happened before these came.
    pub(super) fn send_on(&mut self, from: Side, frames: &[u8], is_quiet: bool) {
        let to = from.other();
        let Some(port) = self.port(to) else { return self.write(to, frames) };
        let mut bytes = Vec::new();
        let fault = port.encode(frames, &mut bytes).err();
        if !bytes.is_empty() {
            self.write(to, &bytes);
        }
        if let Some(fault) = fault {
            self.note_fault(from, fault, is_quiet && self.session.is_written(to));
            self.end(to).unencodable = Some(fault);
            self.session.handle_unencodable(from, fault, self.now);
        }
    }

    fn note_fault(&mut self, from: Side, fault: Fault, is_quiet: bool) {
        if is_quiet && self.first_fault.is_none() {
            self.first_fault = Some((from, fault));
        }
    }

    /// Nothing has happened by which it could end.
    pub(super) fn is_quiet(&self) -> bool {
        let is_quiet = |side| {
            let is_heard = self.session.is_read(side) && self.session.is_written(side);
            is_heard && !self.session.told(side) && self.session.close_code_from(side).is_none()
        };
        !self.is_disturbed && Side::BOTH.into_iter().all(is_quiet)
    }

    pub(super) fn port(&mut self, of: Side) -> Option<&mut Port> {
        let bridge = self.bridge.as_mut()?;
        Some(match of {
            Side::Client => &mut bridge.client,
            Side::Backend => &mut bridge.backend,
        })
    }

    pub(super) fn take_reply(&mut self, of: Side) -> Option<Vec<u8>> {
        let port = self.port(of)?;
        port.has_reply().then(|| port.take_reply())
    }

    /// As the relay looks for one before it rests.
    pub(super) fn has_reply(&self) -> bool {
        let has_reply = self.bridge.as_ref().is_some_and(|bridge| bridge.client.has_reply());
        has_reply && !self.ends[at(Side::Backend)].is_spilled && self.session.is_written(Side::Backend)
    }
}
