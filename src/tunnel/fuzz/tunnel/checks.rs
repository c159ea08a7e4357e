//! What is looked at while a tunnel runs, and when it has ended.

use super::super::super::{Frames, Side, Speech};
use super::end::End;
use super::{Tunnel, at};
use crate::bridge::Fault;
use crate::bridge::fuzz::{Way, heard_in_frames, heard_in_texts, messages_of, texts_of};
use crate::reason::Reason;
use crate::wire::fuzz::Plain;
use crate::wire::{CloseCode, FrameHeader, Lengths, Masking, Opcode, mask};

/// How many times its `close_timeout` a tunnel may take to close (`docs/configuration.md`).
const CLOSING_PATIENCE: u32 = 12;

impl Tunnel {
    /// Whether these bytes are the Pong to a Ping of ours, whole and nothing else.
    pub(super) fn answers_ours(&mut self, from: Side, bytes: &[u8]) -> bool {
        let Ok(Some((header, header_bytes))) = FrameHeader::parse(bytes) else { return false };
        let mut payload = bytes[header_bytes..].to_vec();
        mask(&mut payload, header.mask.unwrap_or_default(), 0);
        let pings = &mut self.end(from).pings;
        let answered = pings.iter().position(|ping| header.opcode == Opcode::Pong && *ping == payload[..]);
        answered.map(|answered| pings.remove(answered)).is_some()
    }

    /// A side that was sent a Close is rid of the tunnel in a time that nobody can draw out.
    pub(super) fn check_end_is_near(&self) {
        let most = self.rules.close_timeout * CLOSING_PATIENCE;
        let is_late = |end: &End| end.closed_by.is_some() && self.now - end.closed_at >= most;
        assert!(!self.ends.iter().any(is_late), "it is still closing: {:?}", self.session);
    }

    /// Only a side that could have been heard, or could have taken something, and long enough, is taken for dead.
    pub(super) fn check_given_up(&self, side: Side) {
        let Some(ping) = self.rules.ping else { panic!("{side:?} was given up, and nobody asked it") };
        let (end, other) = (&self.ends[at(side)], &self.ends[at(side.other())]);
        let (since, least) = if end.is_spilled {
            (end.took_at.max(end.heard_at), ping.interval + ping.timeout)
        } else {
            assert!(!self.is_frameless(side), "{side:?} was given up, and cannot be asked");
            assert!(!other.is_spilled, "{side:?} was given up while nobody read what it says");
            (end.pinged_at.max(end.heard_at), ping.timeout)
        };
        assert!(self.now - since >= least, "{side:?} was given up after {:?}", self.now - since);
    }

    /// A port's answer only waits for a side that does not take what is there already.
    pub(super) fn check_replies(&self) {
        let Some(bridge) = &self.bridge else { return };
        for (port, to) in [(&bridge.client, Side::Backend), (&bridge.backend, Side::Client)] {
            let can_wait = self.ends[at(to)].is_spilled || !self.session.is_written(to);
            assert!(can_wait || !port.has_reply(), "nobody takes its answer: {port:?}");
        }
    }

    /// A side that cannot be told what the other one says is told that it is over, unless it said so itself.
    pub(super) fn check_told_of_fault(&self, side: Side) {
        let end = &self.ends[at(side)];
        let has_said = self.session.close_code_from(side).is_some();
        let is_told = end.closed_by.is_some() || has_said || !self.session.is_written(side);
        assert!(
            end.unencodable.is_none() || is_told || self.has_ended(),
            "{side:?} is left in the dark: {:?}",
            self.session
        );
    }

    /// The first cause of the end stands.
    pub(super) fn check_cause(&self, reason: Reason) {
        let Some((from, fault)) = self.first_fault else { return };
        let reasons = match fault {
            Fault::Frame => [Reason::ClientFrameBroken, Reason::BackendFrameBroken],
            Fault::Text => [Reason::ClientTextInvalid, Reason::BackendTextInvalid],
            Fault::Binary => [Reason::ClientBinary, Reason::BackendBinary],
            Fault::TooBig => [Reason::ClientMessageTooBig, Reason::BackendMessageTooBig],
        };
        // What is behind it in the same read may have ended the tunnel before, but not a Close.
        let behind = [
            [Reason::ClientMessageTooBig, Reason::ClientFrameBroken],
            [Reason::BackendMessageTooBig, Reason::BackendFrameBroken],
        ];
        let is_known = reason == reasons[at(from)] || behind[at(from)].contains(&reason);
        assert!(is_known, "it ended by {fault:?} of {from:?}, not by {reason}");
    }

    /// What a side got is a legal stream if the other one sent such, and in any case where frames are enforced.
    pub(super) fn check_streams(&self, from: Side) {
        if self.bridge.is_some() {
            return self.check_bridged(from);
        }
        let (sender, receiver) = (&self.ends[at(from)], &self.ends[at(from.other())]);
        let Speech::Frames(reserved) = self.speech else { return };
        let masking = if from == Side::Client { Masking::Required } else { Masking::Forbidden };
        let (sent, got) = (
            Plain::read(&sender.read, masking, reserved, Lengths::Shortest),
            Plain::read(&receiver.written, masking, reserved, Lengths::Shortest),
        );
        let is_strict = self.rules.frames == Frames::Enforce;
        assert!(sent.broken_at.is_some() && !is_strict || got.broken_at.is_none(), "sent {sent:?}, got {got:?}");
        if !self.session.is_blind() && !sender.is_dropped && sent.broken_at.is_none() {
            assert_eq!(self.session.messages_from(from), sent.messages);
        }
        for frame in got.frames.iter().filter(|frame| is_strict && frame.opcode == Opcode::Close) {
            let length = usize::try_from(frame.payload_bytes).unwrap_or(usize::MAX);
            let mut payload = receiver.written[frame.payload_at..][..length].to_vec();
            if from == Side::Client {
                let key = &receiver.written[frame.payload_at - 4..][..4];
                mask(&mut payload, [key[0], key[1], key[2], key[3]], 0);
            }
            let code = payload.first_chunk::<2>().map(|code| CloseCode(u16::from_be_bytes(*code)));
            assert!(
                payload.is_empty() || code.is_some_and(CloseCode::may_be_sent),
                "a bad close code passed: {code:?}"
            );
        }
    }

    /// What a side got through a bridge is a legal stream of its version, and begins as what the other one said.
    fn check_bridged(&self, from: Side) {
        let (sender, receiver) = (&self.ends[at(from)], &self.ends[at(from.other())]);
        let (Some(own), Some(other)) = (self.dialect(from), self.dialect(from.other())) else { return };
        let masking = if from == Side::Client { Masking::Required } else { Masking::Forbidden };
        let way = Way { from: own, to: other, masking, terms: self.terms };
        let said = way.said(&sender.read, false);
        let messages = messages_of(said.items);
        if other.has_frames() {
            let got = messages_of(heard_in_frames(&receiver.written, masking).0);
            assert!(messages.starts_with(&got), "{got:?} came of {messages:?}");
        } else {
            let got = heard_in_texts(&receiver.written, other).0;
            assert!(texts_of(&messages).starts_with(&got), "{got:?} came of {messages:?}");
        }
        let is_whole = !sender.is_dropped && self.session.close_code_from(from).is_none();
        if is_whole && said.ends_at.is_none() && said.faults.is_empty() {
            assert_eq!(self.session.messages_from(from), messages.len() as u64);
        }
    }
}
