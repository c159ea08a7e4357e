//! How a session ends: who is told, what is waited for, and for how long.

use std::time::{Duration, Instant};

use super::super::Side;
use super::super::leg::{Leg, Told};
use super::super::{Frames, Seen, Taken};
use super::{Session, State};
use crate::bridge::Fault;
use crate::reason::Reason;
use crate::wire::CloseCode;

/// The first cause of the end stands; what follows from it changes nothing of who began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Closing {
    pub reason: Reason,
    /// Put off while it moves.
    until: Option<Instant>,
    /// Not put off.
    at_the_latest: Option<Instant>,
}

impl Closing {
    pub fn deadline(self) -> Option<Instant> {
        [self.until, self.at_the_latest].into_iter().flatten().min()
    }

    /// Only for the last words of a side that takes no more.
    pub fn only_linger(&mut self, now: Instant) {
        let soon = now + LINGER;
        self.until = Some(self.until.map_or(soon, |until| until.min(soon)));
    }

    pub fn is_overdue(self, now: Instant) -> bool {
        self.deadline().is_some_and(|deadline| deadline <= now)
    }

    /// The tunnel was blind when it began: only one side has ended, and the other may go on for long.
    fn is_half_closed(self) -> bool {
        self.at_the_latest.is_none()
    }
}

/// How long the last words of a side that takes no more may take.
const LINGER: Duration = Duration::from_secs(2);

/// How many times its `close_timeout` a tunnel that moves may be closing.
const CLOSING_PATIENCE: u32 = 12;

impl Session {
    pub(super) fn begin_closing(&mut self, reason: Reason, now: Instant) {
        if !self.is_open() {
            return;
        }
        self.changes += 1;
        let at_the_latest = (!self.is_blind()).then(|| now + self.rules.close_timeout * CLOSING_PATIENCE);
        self.state =
            State::Closing(Closing { reason, until: self.patience().map(|patience| now + patience), at_the_latest });
    }

    /// How long a closing tunnel may stand still. Half closed, a tunnel without frames is a tunnel like any other; one that
    /// lost sight of them while it was closing is not.
    fn patience(&self) -> Option<Duration> {
        let is_half_closed = match self.state {
            State::Closing(closing) => closing.is_half_closed(),
            State::Open { .. } | State::Ended(_) => self.is_blind(),
        };
        if is_half_closed { self.rules.idle_timeout } else { Some(self.rules.close_timeout) }
    }

    /// It moves: closing has its time anew, unless it only waits for last words.
    pub(super) fn put_off(&mut self, now: Instant) {
        let until = self.patience().map(|patience| now + patience);
        let is_lingering = self.lingering().is_some();
        if let (State::Closing(closing), false) = (&mut self.state, is_lingering) {
            closing.until = until;
        }
    }

    /// The side that takes no more, while what it had sent before may still come.
    pub(super) fn lingering(&self) -> Option<Side> {
        Side::BOTH.into_iter().find(|&side| !self.leg(side).is_writable && self.leg(side).is_open)
    }

    /// Lets a side know with a Close frame, at the next border, unless it had one or said so itself.
    pub(super) fn tell(&mut self, side: Side, reason: Reason) {
        let can_be_told = self.is_at_border_towards(side) || self.leg(side.other()).is_open;
        let leg = self.leg_mut(side);
        if let Some(code) = code_to(side, reason)
            && can_be_told
            && leg.is_writable
            && leg.told == Told::No
            && leg.close_seen.is_none()
        {
            leg.told = Told::Soon(code);
        }
    }

    /// One side sends no more: if it did so without a Close, the other one is told. In the middle of a frame it cannot be.
    pub(super) fn tell_of_loss(&mut self, of: Side, now: Instant) {
        let (to, has_said) = (of.other(), self.leg(of).close_seen.is_some());
        if self.is_blind() || has_said {
            return;
        }
        if self.is_at_border_towards(to) {
            self.tell(to, lost(of));
        } else {
            self.leg_mut(to).give_up_telling();
        }
        self.put_off(now);
    }

    /// What a side sent cannot be read, and where its next frame begins nobody knows.
    pub fn handle_undecodable(&mut self, from: Side, fault: Fault, now: Instant) {
        self.leg_mut(from).give_up_reading();
        self.end(carried_no_further(from, fault), now);
        if !self.is_at_border_towards(from.other()) {
            self.leg_mut(from.other()).give_up_telling();
        }
        self.settle(now);
    }

    /// What a side sent cannot be said to the other one, nor is anything that came behind it: not even a Close.
    pub fn handle_unencodable(&mut self, from: Side, fault: Fault, now: Instant) {
        let reason = carried_no_further(from, fault);
        self.end(reason, now);
        let to = self.leg_mut(from.other());
        if to.told == Told::Theirs {
            to.told = Told::No;
            match &mut self.state {
                State::Closing(closing) if closing.reason == closed(from) => closing.reason = reason,
                State::Open { .. } | State::Closing(_) | State::Ended(_) => {}
            }
        }
        // Also where it is closing for another reason, which this side may not have been told.
        self.tell(from.other(), reason);
        self.changes += 1;
    }

    /// `rest` bytes begin with the broken frame.
    pub(super) fn broken(&mut self, from: Side, rest: usize, taken: Taken, now: Instant) -> Taken {
        let taken = taken.with(Seen { broken: 1, ..Seen::NOTHING });
        if self.frames == Frames::Enforce || self.drops(from) {
            self.leg_mut(from).give_up_reading();
            self.end(broken(from), now);
            return Taken { skip: taken.skip + rest, ..taken };
        }
        self.frames = Frames::Blind;
        self.data_seen(now);
        self.client.give_up_telling();
        self.backend.give_up_telling();
        self.changes += 1;
        let rest = self.pass(from, rest, false, Seen::NOTHING, now);
        Taken { forward: taken.forward + rest.forward, ..taken }
    }

    /// Ends the session once nothing is left to wait for.
    pub(super) fn settle(&mut self, now: Instant) {
        let State::Closing(closing) = self.state else { return };
        let is_flushed = |leg: &Leg| !leg.keepalive.is_stuck() && !leg.is_waiting_to_be_told();
        let is_through = |leg: &Leg| !leg.is_open || leg.told == Told::Ours && leg.close_seen.is_some();
        if !Side::BOTH.into_iter().all(|side| is_flushed(self.leg(side)) && is_through(self.leg(side))) {
            return;
        }
        // The server closes first, RFC 6455 §7.1.1, and has a moment to do so.
        if self.backend.is_open && self.backend.is_writable {
            let soon = closing.at_the_latest.map_or(now + LINGER, |at| at.min(now + LINGER));
            if closing.at_the_latest != Some(soon) {
                self.state = State::Closing(Closing { at_the_latest: Some(soon), ..closing });
                self.changes += 1;
            }
            return;
        }
        self.state = State::Ended(closing.reason);
        self.changes += 1;
    }

    pub(super) fn closing_is_over(&mut self, closing: Closing, now: Instant) {
        match self.lingering() {
            // Its last words had their time.
            Some(side) if closing.at_the_latest.is_some_and(|at| at > now) => self.handle_end(side, now),
            _ => {
                self.state = State::Ended(self.overdue(closing));
                self.changes += 1;
            }
        }
    }

    /// A blind tunnel that was only half closed has been idle.
    fn overdue(&self, closing: Closing) -> Reason {
        let all_writable = self.client.is_writable && self.backend.is_writable;
        if closing.is_half_closed() && all_writable { Reason::IdleTimeout } else { closing.reason }
    }

    /// A side that does not answer is treated as if its network were gone, which is what it mostly is.
    pub(super) fn give_up(&mut self, side: Side, now: Instant) {
        self.begin_closing(unresponsive(side), now);
        self.handle_unreadable(side, now);
    }
}

fn code_to(side: Side, reason: Reason) -> Option<CloseCode> {
    match side {
        Side::Client => reason.code_to_client(),
        Side::Backend => reason.code_to_backend(),
    }
}

pub(super) fn closed(by: Side) -> Reason {
    match by {
        Side::Client => Reason::ClientClosed,
        Side::Backend => Reason::BackendClosed,
    }
}

pub(super) fn lost(side: Side) -> Reason {
    match side {
        Side::Client => Reason::ClientLost,
        Side::Backend => Reason::BackendLost,
    }
}

pub(super) fn unresponsive(side: Side) -> Reason {
    match side {
        Side::Client => Reason::ClientUnresponsive,
        Side::Backend => Reason::BackendUnresponsive,
    }
}

pub(super) fn too_big(from: Side) -> Reason {
    match from {
        Side::Client => Reason::ClientMessageTooBig,
        Side::Backend => Reason::BackendMessageTooBig,
    }
}

pub(super) fn broken(from: Side) -> Reason {
    match from {
        Side::Client => Reason::ClientFrameBroken,
        Side::Backend => Reason::BackendFrameBroken,
    }
}

/// What one side sent, and a bridge cannot carry.
pub(super) fn carried_no_further(from: Side, fault: Fault) -> Reason {
    match (fault, from) {
        (Fault::Frame, from) => broken(from),
        (Fault::TooBig, from) => too_big(from),
        (Fault::Text, Side::Client) => Reason::ClientTextInvalid,
        (Fault::Text, Side::Backend) => Reason::BackendTextInvalid,
        (Fault::Binary, Side::Client) => Reason::ClientBinary,
        (Fault::Binary, Side::Backend) => Reason::BackendBinary,
    }
}
