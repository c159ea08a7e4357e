//! A tunnel without sockets that is driven as `relay` drives one, and what must be true of it whatever happens: nothing is
//! lost or put where it does not belong, no deadline is missed, nobody who lives is given up, and it ends.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::{Frames, Rules, Session, Side, Speech};
use super::KEY;
use crate::reason::Reason;
use crate::wire::fuzz::Plain;
use crate::wire::{CONTROL_FRAME_MAX, CloseCode, FrameHeader, Masking, Opcode, OwnFrame, PING_BYTES, Reserved, mask};

/// Nothing that happens at one moment takes the relay so often around.
const TURNS_MAX: usize = 40;

/// How many times its `close_timeout` a tunnel may take to close (`docs/configuration.md`).
const CLOSING_PATIENCE: u32 = 12;

pub struct Tunnel {
    session: Session,
    rules: Arc<Rules>,
    speech: Speech,
    now: Instant,
    timer: Instant,
    changes_timed: Option<u32>,
    ends: [End; 2],
}

/// One side, and what lies between it and the session.
struct End {
    /// Sent, but not there yet.
    coming: Vec<u8>,
    arrived: Vec<u8>,
    last: Last,
    /// All that was read from it.
    read: Vec<u8>,
    held: Vec<u8>,
    /// A part of what was read was thrown away, Pongs to our Pings not counted.
    is_dropped: bool,
    heard_at: Instant,
    /// All that was written to it.
    written: Vec<u8>,
    takes: Takes,
    is_spilled: bool,
    took_at: Instant,
    is_shut: bool,
    pings: Vec<[u8; PING_BYTES]>,
    pinged_at: Instant,
    closed_by: Option<By>,
    closed_at: Instant,
}

/// What comes behind the bytes of a side.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Last {
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
enum By {
    Gateway,
    OtherSide,
}

pub fn at(side: Side) -> usize {
    match side {
        Side::Client => 0,
        Side::Backend => 1,
    }
}

impl Tunnel {
    pub fn new(rules: Rules, speech: Speech, chance: u64, now: Instant) -> Tunnel {
        let rules = Arc::new(rules);
        let session = Session::new(Arc::clone(&rules), speech, chance, now);
        Tunnel { session, rules, speech, now, timer: now, changes_timed: None, ends: [End::new(now), End::new(now)] }
    }

    pub fn has_ended(&self) -> bool {
        self.session.ended().is_some()
    }

    pub fn send(&mut self, from: Side, bytes: &[u8]) {
        self.end(from).coming.extend_from_slice(bytes);
    }

    pub fn arrive(&mut self, from: Side, count: usize) {
        let end = self.end(from);
        let count = count.min(end.coming.len());
        end.arrived.extend(end.coming.drain(..count));
    }

    /// It sends no more.
    pub fn end_line(&mut self, of: Side) {
        self.end(of).last = Last::End;
    }

    pub fn fail(&mut self, side: Side) {
        let end = self.end(side);
        end.coming.clear();
        end.last = Last::Failure;
    }

    pub fn take(&mut self, side: Side, takes: Takes) {
        let end = self.end(side);
        if end.takes != Takes::Gone {
            end.takes = takes;
        }
    }

    /// A side that took nothing takes a few bytes.
    pub fn take_some(&mut self, side: Side) {
        let now = self.now;
        if self.end(side).is_spilled && self.session.is_written(side) {
            self.end(side).took_at = now;
            self.session.handle_stuck(side, now);
        }
    }

    pub fn last_ping(&self, to: Side) -> Option<[u8; PING_BYTES]> {
        self.ends[at(to)].pings.last().copied()
    }

    /// RSV1, where it is known what it means.
    pub fn compressed_bit(&self) -> u8 {
        if self.speech == Speech::Frames(Reserved::None) { 0 } else { 0x40 }
    }

    pub fn ask(&mut self, reason: Reason) {
        if !(reason == Reason::Drained && self.session.is_blind()) {
            self.session.end(reason, self.now);
        }
    }

    /// Lets time pass, and the timer fire on the way.
    pub fn wait(&mut self, duration: Duration) {
        let until = self.now + duration;
        while !self.has_ended() && self.timer > self.now && self.timer <= until {
            self.now = self.timer;
            self.turn();
        }
        self.now = until;
    }

    /// All that there is to do now, as one wake-up of the relay does it.
    pub fn turn(&mut self) {
        for _ in 0..TURNS_MAX {
            let changes = self.session.changes();
            for from in Side::BOTH {
                self.pump(from);
            }
            if self.has_ended() {
                return;
            }
            if self.is_time() {
                self.handle_time();
            } else if self.session.changes() == changes {
                let deadline = self.session.poll_deadline();
                assert!(deadline.is_none_or(|at| self.timer > self.now && self.timer <= at), "a deadline is missed");
                return self.check_end_is_near();
            }
        }
        panic!("it finds no rest: {:?}", self.session);
    }

    /// Both sides send no more and take everything: that is the end, without a wait.
    pub fn finish(mut self) -> Reason {
        for side in Side::BOTH {
            self.take(side, Takes::Everything);
            self.arrive(side, usize::MAX);
            if self.end(side).last == Last::More {
                self.end_line(side);
            }
        }
        self.turn();
        for from in Side::BOTH {
            self.check_streams(from);
        }
        self.session.ended().unwrap_or_else(|| panic!("it does not end: {:?}", self.session))
    }

    fn end(&mut self, side: Side) -> &mut End {
        &mut self.ends[at(side)]
    }

    fn is_time(&mut self) -> bool {
        let changes = self.session.changes();
        if self.changes_timed == Some(changes) && self.timer > self.now {
            return false;
        }
        self.changes_timed = Some(changes);
        let Some(deadline) = self.session.poll_deadline() else { return false };
        self.timer = deadline.max(self.now);
        deadline <= self.now
    }

    fn handle_time(&mut self) {
        let (before, changes) = (Side::BOTH.map(|side| self.session.is_written(side)), self.session.changes());
        self.session.handle_time(self.now);
        assert_ne!(changes, self.session.changes(), "nothing happens at a deadline");
        for (side, was_written) in Side::BOTH.into_iter().zip(before) {
            if was_written && !self.session.is_written(side) {
                self.check_given_up(side);
            }
        }
    }

    /// As `relay` moves what one side sent.
    fn pump(&mut self, from: Side) {
        while !self.has_ended() {
            if self.is_waiting_for(from.other()) || !self.session.is_read(from) {
                return;
            }
            let (now, is_blind) = (self.now, self.session.is_blind());
            let end = self.end(from);
            if end.arrived.is_empty() && (!is_blind || end.held.is_empty()) {
                match end.last {
                    Last::End if end.coming.is_empty() => self.session.handle_end(from, now),
                    Last::Failure => self.session.handle_unreadable(from, now),
                    Last::More | Last::End => return,
                }
                continue;
            }
            end.heard_at = now;
            end.read.extend_from_slice(&end.arrived);
            let mut bytes = std::mem::take(&mut end.held);
            bytes.append(&mut end.arrived);
            self.pass(from, &bytes);
        }
    }

    fn is_waiting_for(&mut self, to: Side) -> bool {
        if !self.session.is_written(to) {
            self.end(to).is_spilled = false;
            return false;
        }
        if self.end(to).is_spilled {
            match self.end(to).takes {
                Takes::Nothing => return true,
                Takes::Gone => {
                    self.end(to).is_spilled = false;
                    self.session.handle_unwritable(to, self.now);
                    return false;
                }
                Takes::Everything => self.flow(to),
            }
        }
        self.send_own(to);
        let may_finish = self.session.may_finish(to);
        let end = self.end(to);
        end.is_shut |= !end.is_spilled && may_finish;
        end.is_spilled
    }

    /// What waited for it is written, and the other side is read again.
    fn flow(&mut self, to: Side) {
        let now = self.now;
        self.end(to).is_spilled = false;
        self.end(to).pinged_at = now;
        self.end(to.other()).heard_at = now;
        self.session.handle_flowing(to, now);
    }

    fn pass(&mut self, from: Side, mut bytes: &[u8]) {
        let (to, now) = (from.other(), self.now);
        while !bytes.is_empty() {
            let is_closed = self.session.told(to) || self.session.close_code_from(from).is_some();
            let is_wanted = self.session.is_written(to) && !is_closed && !self.end(from).is_dropped;
            let taken = self.session.handle_bytes(from, bytes, now);
            let (forward, rest) = bytes.split_at(taken.forward);
            let (skip, rest) = rest.split_at(taken.skip);
            if !forward.is_empty() {
                assert_eq!(self.end(to).closed_by, None, "bytes behind a Close");
                self.write(to, forward);
            }
            if taken.seen.close > 0 {
                self.end(to).close(By::OtherSide, now);
            }
            let is_our_pong = is_wanted && !skip.is_empty() && self.answers_ours(from, skip);
            if !is_our_pong && !skip.is_empty() {
                let may_drop = !is_wanted || taken.seen.broken > 0 && self.rules.frames == Frames::Enforce;
                assert!(may_drop, "thrown away: {skip:?}");
                self.end(from).is_dropped = true;
            }
            bytes = rest;
            if !self.send_own(to) && taken.forward + taken.skip == 0 {
                assert!(bytes.len() < CONTROL_FRAME_MAX && !self.session.is_blind(), "held back: {bytes:?}");
                self.end(from).held = bytes.to_vec();
                return;
            }
        }
    }

    /// Whether these bytes are the Pong to a Ping of ours, whole and nothing else.
    fn answers_ours(&mut self, from: Side, bytes: &[u8]) -> bool {
        let Ok(Some((header, header_bytes))) = FrameHeader::parse(bytes) else { return false };
        let mut payload = bytes[header_bytes..].to_vec();
        mask(&mut payload, header.mask.unwrap_or_default(), 0);
        let pings = &mut self.end(from).pings;
        let answered = pings.iter().position(|ping| header.opcode == Opcode::Pong && *ping == payload[..]);
        answered.map(|answered| pings.remove(answered)).is_some()
    }

    fn send_own(&mut self, to: Side) -> bool {
        let now = self.now;
        let Some(frame) = self.session.poll_frame(to, now) else { return false };
        assert_eq!(self.end(to).closed_by, None, "{frame:?} to a side that is closed");
        self.write(to, &frame.to_bytes((to == Side::Backend).then_some(KEY)));
        match frame {
            OwnFrame::Ping(payload) => {
                self.end(to).pings.push(payload);
                self.end(to).pinged_at = now;
            }
            OwnFrame::Close { .. } => self.end(to).close(By::Gateway, now),
        }
        if !self.end(to).is_spilled {
            self.session.handle_flowing(to, now);
        }
        true
    }

    fn write(&mut self, to: Side, bytes: &[u8]) {
        let now = self.now;
        let end = self.end(to);
        assert!(!end.is_shut, "bytes behind the end");
        end.written.extend_from_slice(bytes);
        if end.is_spilled {
            return;
        }
        match end.takes {
            Takes::Everything => {}
            Takes::Nothing => {
                (end.is_spilled, end.took_at) = (true, now);
                self.session.handle_stuck(to, now);
            }
            Takes::Gone => self.session.handle_unwritable(to, now),
        }
    }

    /// A side that was sent a Close is rid of the tunnel in a time that nobody can draw out.
    fn check_end_is_near(&self) {
        let most = self.rules.close_timeout * CLOSING_PATIENCE;
        let is_late = |end: &End| end.closed_by.is_some() && self.now - end.closed_at >= most;
        assert!(!self.ends.iter().any(is_late), "it is still closing: {:?}", self.session);
    }

    /// Only a side that could have been heard, or could have taken something, and long enough, is taken for dead.
    fn check_given_up(&self, side: Side) {
        let Some(ping) = self.rules.ping else { panic!("{side:?} was given up, and nobody asked it") };
        let (end, other) = (&self.ends[at(side)], &self.ends[at(side.other())]);
        let (since, least) = if end.is_spilled {
            (end.took_at.max(end.heard_at), ping.interval + ping.timeout)
        } else {
            assert!(!other.is_spilled, "{side:?} was given up while nobody read what it says");
            (end.pinged_at.max(end.heard_at), ping.timeout)
        };
        assert!(self.now - since >= least, "{side:?} was given up after {:?}", self.now - since);
    }

    /// What a side got is a legal stream if the other one sent such, and in any case where frames are enforced.
    fn check_streams(&self, from: Side) {
        let (sender, receiver) = (&self.ends[at(from)], &self.ends[at(from.other())]);
        let Speech::Frames(reserved) = self.speech else { return };
        let masking = if from == Side::Client { Masking::Required } else { Masking::Forbidden };
        let (sent, got) =
            (Plain::read(&sender.read, masking, reserved), Plain::read(&receiver.written, masking, reserved));
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
}

impl End {
    fn new(now: Instant) -> End {
        End {
            coming: Vec::new(),
            arrived: Vec::new(),
            last: Last::More,
            read: Vec::new(),
            held: Vec::new(),
            is_dropped: false,
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

    fn close(&mut self, by: By, now: Instant) {
        (self.closed_by, self.closed_at) = (Some(by), now);
    }
}
