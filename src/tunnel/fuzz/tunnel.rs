//! A tunnel without sockets that is driven as `relay` drives one, through a bridge where its sides need one. What must be true
//! of it whatever happens: nothing is lost or put where it does not belong, no deadline is missed, nobody who lives is given
//! up, and it ends.

mod checks;
mod crossing;
mod end;

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::{Frames, Rules, Session, Side, Speech};
use super::KEY;
use crate::bridge::{Bridge, Fault, Terms};
use crate::reason::Reason;
use crate::wire::{CONTROL_FRAME_MAX, OwnFrame, PING_BYTES, Reserved};
pub use end::Takes;
use end::{By, End, Last};

/// Nothing that happens at one moment takes the relay so often around.
const TURNS_MAX: usize = 40;

pub struct Tunnel {
    session: Session,
    bridge: Option<Bridge>,
    rules: Arc<Rules>,
    speech: Speech,
    terms: Terms,
    now: Instant,
    timer: Instant,
    changes_timed: Option<u32>,
    /// Somebody asked for the end, or a deadline came.
    is_disturbed: bool,
    /// Nothing else had happened before it.
    first_fault: Option<(Side, Fault)>,
    ends: [End; 2],
}

pub fn at(side: Side) -> usize {
    match side {
        Side::Client => 0,
        Side::Backend => 1,
    }
}

impl Tunnel {
    pub fn new(rules: Rules, speech: Speech, terms: Terms, chance: u64, now: Instant) -> Tunnel {
        let rules = Arc::new(rules);
        let bridge = match speech {
            Speech::Bridged { client, backend } => Some(Bridge::between(client, backend, terms, chance)),
            Speech::Frames(_) | Speech::Opaque => None,
        };
        Tunnel {
            session: Session::new(Arc::clone(&rules), speech, chance, now),
            bridge,
            rules,
            speech,
            terms,
            now,
            timer: now,
            changes_timed: None,
            is_disturbed: false,
            first_fault: None,
            ends: [End::new(now), End::new(now)],
        }
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
        match self.speech {
            Speech::Frames(Reserved::None) | Speech::Bridged { .. } => 0,
            Speech::Frames(_) | Speech::Opaque => 0x40,
        }
    }

    pub fn ask(&mut self, reason: Reason) {
        self.is_disturbed = true;
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
            } else if self.session.changes() == changes && !self.has_reply() {
                let deadline = self.session.poll_deadline();
                assert!(deadline.is_none_or(|at| self.timer > self.now && self.timer <= at), "a deadline is missed");
                self.check_replies();
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
        let reason = self.session.ended().unwrap_or_else(|| panic!("it does not end: {:?}", self.session));
        self.check_cause(reason);
        reason
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
        self.is_disturbed = true;
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
            if self.is_waiting_for(from.other()) {
                return;
            }
            if let Some(reply) = self.take_reply(from) {
                self.pass(from, &reply);
                continue;
            }
            if !self.session.is_read(from) {
                return;
            }
            let (now, is_blind) = (self.now, self.session.is_blind());
            let end = self.end(from);
            if end.arrived.is_empty() && (!is_blind || end.held.is_empty()) {
                match end.last {
                    Last::End if end.coming.is_empty() => self.receive_end(from),
                    Last::Failure => self.session.handle_unreadable(from, now),
                    Last::More | Last::End => return,
                }
                continue;
            }
            end.heard_at = now;
            end.read.extend_from_slice(&end.arrived);
            let mut bytes = std::mem::take(&mut end.held);
            bytes.append(&mut end.arrived);
            self.receive(from, &bytes);
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
        let may_finish = self.port(to).is_some_and(|port| port.ends_with_fin()) || self.session.may_finish(to);
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
            let is_spoilt = self.end(from).is_dropped || self.end(from).undecodable.is_some();
            let is_wanted = self.session.is_written(to) && !is_closed && !is_spoilt;
            let is_quiet = self.is_quiet();
            let taken = self.session.handle_bytes(from, bytes, now);
            let (forward, rest) = bytes.split_at(taken.forward);
            let (skip, rest) = rest.split_at(taken.skip);
            if !forward.is_empty() {
                assert_eq!(self.end(to).closed_by, None, "bytes behind a Close");
                self.send_on(from, forward, is_quiet);
            }
            if taken.seen.close > 0 && self.end(to).unencodable.is_none() {
                self.end(to).close(By::OtherSide, now);
            }
            self.is_disturbed |= taken.seen.broken > 0;
            let is_our_pong = is_wanted && !skip.is_empty() && self.answers_ours(from, skip);
            if !is_our_pong && !skip.is_empty() {
                let may_drop = !is_wanted || taken.seen.broken > 0 && self.rules.frames == Frames::Enforce;
                assert!(may_drop, "thrown away: {skip:?}");
                self.end(from).is_dropped = true;
            }
            bytes = rest;
            let has_sent = self.send_own(to);
            self.check_told_of_fault(to);
            if !has_sent && taken.forward + taken.skip == 0 {
                assert!(self.bridge.is_none(), "frames of a port are held back: {bytes:?}");
                assert!(bytes.len() < CONTROL_FRAME_MAX && !self.session.is_blind(), "held back: {bytes:?}");
                self.end(from).held = bytes.to_vec();
                return;
            }
        }
    }

    fn send_own(&mut self, to: Side) -> bool {
        let now = self.now;
        let Some(frame) = self.session.poll_frame(to, now) else { return false };
        assert_eq!(self.end(to).closed_by, None, "{frame:?} to a side that is closed");
        let (key, mut bytes) = ((to == Side::Backend).then_some(KEY), Vec::new());
        match self.port(to) {
            Some(port) => port.encode_own(frame, key, &mut bytes),
            None => bytes = frame.to_bytes(key),
        }
        if !bytes.is_empty() {
            self.write(to, &bytes);
        }
        match frame {
            OwnFrame::Ping(payload) => {
                assert!(!self.is_frameless(to), "a Ping to a side that knows none");
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
}
