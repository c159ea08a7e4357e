//! The state of one session and every way through it.

mod closing;

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::keepalive::Pulse;
use super::leg::{Gait, Leg, Manners, Stop, Told, Walk};
use super::{Frames, Rules, Seen, Side, Speech, Taken};
use crate::reason::Reason;
use crate::wire::{CloseCode, OwnFrame, Reserved};
use closing::{Closing, closed, lost, too_big};

/// ```text
///   Open ──a side says Close──────────────► Closing ──both sides finished───────────────────────────►┐
///    ├────a side vanishes─────────────────► Closing ──the other was told, and said Close or finished─►│
///    ├────the gateway decides─────────────► Closing ──both were told, and said Close or finished─────►│ Ended
///    │                                         └──────still for `close_timeout`, or closing too long──►│
///    └────the gateway decides, and the tunnel is blind───────────────────────────────────────────────►┘
/// ```
///
/// What happened: [`Session::handle_bytes`], which says what becomes of them, [`Session::handle_end`] and
/// [`Session::handle_unreadable`] when a side sends no more, [`Session::handle_unwritable`] when it takes no more,
/// [`Session::handle_stuck`] and [`Session::handle_flowing`] for its pace, [`Session::handle_time`] at
/// [`Session::poll_deadline`], [`Session::end`] when somebody else decides. What to do: [`Session::poll_frame`] for each side
/// whenever bytes to it have been passed on, [`Session::may_finish`], [`Session::is_read`]. After any of it,
/// [`Session::changes`] tells whether to ask again. It has ended when [`Session::ended`] says why.
#[derive(Debug)]
pub struct Session {
    rules: Arc<Rules>,
    frames: Frames,
    client: Leg,
    backend: Leg,
    state: State,
    /// What the next Ping carries.
    next_ping: u64,
    changes: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open { last_data: Instant, expires_at: Option<Instant> },
    Closing(Closing),
    Ended(Reason),
}

/// `max_age` is up to one such part less, so that tunnels that began together do not end together.
const AGE_JITTER: u32 = 10;

impl Session {
    /// `chance` makes the payloads of Pings unlike those of other tunnels, and spreads `max_age`.
    pub fn new(rules: Arc<Rules>, speech: Speech, chance: u64, now: Instant) -> Session {
        let (frames, reserved) = match speech {
            Speech::Frames(reserved) => (rules.frames, reserved),
            Speech::Bridged { .. } => (Frames::Enforce, Reserved::None),
            Speech::Opaque => (Frames::Blind, Reserved::Any),
        };
        let manners = |side| match (speech, side) {
            (Speech::Bridged { client: dialect, .. }, Side::Client)
            | (Speech::Bridged { backend: dialect, .. }, Side::Backend)
                if !dialect.has_frames() =>
            {
                Manners::Texts
            }
            _ => Manners::Frames,
        };
        let expires_at = rules.max_age.map(|age| now + age - jitter(age, chance));
        Session {
            frames,
            client: Leg::new(Side::Client, manners(Side::Client), reserved, now),
            backend: Leg::new(Side::Backend, manners(Side::Backend), reserved, now),
            state: State::Open { last_data: now, expires_at },
            next_ping: chance,
            changes: 0,
            rules,
        }
    }

    /// Bytes that a side sent, from the first that [`Taken`] did not cover the last time. Where it covers nothing, and
    /// [`Session::poll_frame`] has nothing for the other side either, they are to be kept until more come: at most
    /// [`crate::wire::CONTROL_FRAME_MAX`] bytes.
    pub fn handle_bytes(&mut self, from: Side, bytes: &[u8], now: Instant) -> Taken {
        self.handle_sign_of_life(from, now);
        let is_dropped = self.drops(from);
        if self.is_blind() || !self.leg(from).is_readable() {
            self.data_seen(now);
            return self.pass(from, bytes.len(), is_dropped, Seen::NOTHING, now);
        }
        let walk = self.walk(from, bytes, is_dropped);
        if walk.has_data {
            self.data_seen(now);
        }
        let taken = self.pass(from, walk.bytes, is_dropped, walk.seen, now);
        match walk.stop {
            Stop::End | Stop::Border => taken,
            Stop::OurPong { frame_bytes } => Taken { skip: taken.skip + frame_bytes, ..taken },
            Stop::Close { code, frame_bytes } => {
                let close = self.close_seen(from, code, frame_bytes, now);
                Taken { forward: taken.forward + close.forward, skip: taken.skip + close.skip, ..taken }
                    .with(close.seen)
            }
            Stop::TooBig => {
                self.end(too_big(from), now);
                taken
            }
            Stop::Broken(_) => self.broken(from, bytes.len() - walk.bytes, taken, now),
        }
    }

    /// Bytes came of which there is nothing to decide yet: a bridge waits for the rest of a frame.
    pub fn handle_sign_of_life(&mut self, of: Side, now: Instant) {
        // Who was asked has until the timeout, and who has answered until the interval, which may be sooner.
        self.changes += u32::from(self.leg(of).keepalive.is_silent_since_asked());
        self.leg_mut(of).keepalive.heard(now);
    }

    /// A side will send no more.
    pub fn handle_end(&mut self, of: Side, now: Instant) {
        if !self.leg(of).is_open {
            return;
        }
        self.leg_mut(of).is_open = false;
        self.changes += 1;
        let reason = if self.is_blind() { closed(of) } else { lost(of) };
        self.begin_closing(reason, now);
        self.tell_of_loss(of, now);
        self.settle(now);
    }

    /// Nothing more can be read from a side: its connection failed.
    pub fn handle_unreadable(&mut self, side: Side, now: Instant) {
        self.handle_unwritable(side, now);
        self.handle_end(side, now);
    }

    /// Nothing more can be written to a side: its connection failed. What it sent before may still be read.
    pub fn handle_unwritable(&mut self, side: Side, now: Instant) {
        if !self.leg(side).is_writable {
            return;
        }
        let leg = self.leg_mut(side);
        leg.is_writable = false;
        leg.keepalive.unstuck(now);
        leg.give_up_telling();
        let has_last_words = leg.is_open || self.is_blind();
        self.changes += 1;
        self.begin_closing(lost(side), now);
        if let (State::Closing(closing), true) = (&mut self.state, has_last_words) {
            closing.only_linger(now);
        }
        self.settle(now);
    }

    /// A side takes no more bytes for now, or has just taken a few of many.
    pub fn handle_stuck(&mut self, side: Side, now: Instant) {
        // A side that is still to be asked has no deadline, nor has one that is not read; one that takes nothing has.
        let was_timed = self.pulse_at(side).is_some();
        self.leg_mut(side).keepalive.stuck(now);
        self.changes += u32::from(!was_timed && self.pulse_at(side).is_some());
        // What it takes is a part of a message as much as what the other one sends.
        self.data_seen(now);
        self.put_off(now);
    }

    /// A side has taken all that there was for it.
    pub fn handle_flowing(&mut self, side: Side, now: Instant) {
        if self.leg(side).keepalive.is_stuck() {
            self.leg_mut(side).keepalive.unstuck(now);
            // Only from now on is it read again, and can be heard.
            self.leg_mut(side.other()).keepalive.heard(now);
            self.changes += 1;
        }
        self.settle(now);
    }

    /// Somebody decides that the tunnel ends. It changes nothing when it is ending already.
    pub fn end(&mut self, reason: Reason, now: Instant) {
        if !self.is_open() {
            return;
        }
        if self.is_blind() {
            self.state = State::Ended(reason);
            self.changes += 1;
            return;
        }
        self.begin_closing(reason, now);
        for side in Side::BOTH {
            self.tell(side, reason);
        }
        self.settle(now);
    }

    /// Ends it at once: nobody is told, and nothing is waited for.
    pub fn cut(&mut self, reason: Reason) {
        if self.ended().is_none() {
            self.state = State::Ended(reason);
            self.changes += 1;
        }
    }

    /// Whether the sides cannot be told with a Close frame that it ends.
    pub fn is_blind(&self) -> bool {
        self.frames == Frames::Blind
    }

    pub fn handle_time(&mut self, now: Instant) {
        match self.state {
            State::Ended(_) => {}
            State::Closing(closing) if closing.is_overdue(now) => self.closing_is_over(closing, now),
            State::Closing(_) => {}
            State::Open { last_data, .. } if self.idle_at(last_data).is_some_and(|at| at <= now) => {
                self.end(Reason::IdleTimeout, now);
            }
            State::Open { expires_at: Some(at), .. } if at <= now => self.end(Reason::MaxAge, now),
            State::Open { .. } => self.take_pulses(now),
        }
    }

    /// When [`Session::handle_time`] has something to do, unless something else happens first. Bytes only put it off.
    pub fn poll_deadline(&self) -> Option<Instant> {
        match self.state {
            State::Ended(_) => None,
            State::Closing(closing) => closing.deadline(),
            State::Open { last_data, expires_at } => {
                let pulses = Side::BOTH.map(|side| self.pulse_at(side));
                [self.idle_at(last_data), expires_at, pulses[0], pulses[1]].into_iter().flatten().min()
            }
        }
    }

    /// A frame of the gateway's own that goes to this side now, before any more of what the other one sends.
    pub fn poll_frame(&mut self, to: Side, now: Instant) -> Option<OwnFrame> {
        if !self.wants_border(to) || !self.is_at_border_towards(to) || !self.leg(to).is_writable {
            return None;
        }
        match (self.leg(to).told, self.state) {
            (Told::Soon(code), State::Closing(Closing { reason, .. })) => {
                self.leg_mut(to).told = Told::Ours;
                self.changes += 1;
                self.put_off(now);
                Some(OwnFrame::Close { code, reason: reason.code() })
            }
            (Told::No, State::Open { .. }) => {
                let payload = self.next_ping.to_be_bytes();
                self.next_ping = self.next_ping.wrapping_add(1);
                self.leg_mut(to).keepalive.asked(payload, now);
                self.changes += 1;
                Some(OwnFrame::Ping(payload))
            }
            _ => None,
        }
    }

    /// Nothing more goes to this side once all that was passed on is written.
    pub fn may_finish(&self, to: Side) -> bool {
        let leg = self.leg(to);
        if leg.is_waiting_to_be_told() {
            return false;
        }
        // RFC 6455 §7.1.1: the server closes first, and to a client that is the gateway.
        !self.leg(to.other()).is_open || to == Side::Client && leg.told == Told::Ours && leg.close_seen.is_some()
    }

    /// Whether anything that is written to this side can still arrive.
    pub fn is_written(&self, to: Side) -> bool {
        self.leg(to).is_writable
    }

    /// Whether anything is still to be read from this side.
    pub fn is_read(&self, from: Side) -> bool {
        self.leg(from).is_open
    }

    /// Grows whenever something other than bytes may have to be done for either side.
    pub fn changes(&self) -> u32 {
        self.changes
    }

    pub fn ended(&self) -> Option<Reason> {
        match self.state {
            State::Ended(reason) => Some(reason),
            State::Open { .. } | State::Closing(_) => None,
        }
    }

    /// Passed on, frames of the gateway's own not counted.
    pub fn bytes_from(&self, side: Side) -> u64 {
        self.leg(side).bytes
    }

    /// Passed on whole.
    pub fn messages_from(&self, side: Side) -> u64 {
        self.leg(side).messages
    }

    /// The code of the Close frame that a side sent; 1005 where that had none (RFC 6455 §7.1.5).
    pub fn close_code_from(&self, side: Side) -> Option<CloseCode> {
        self.leg(side).close_seen
    }

    /// Whether the gateway sent this side a Close frame.
    pub fn told(&self, side: Side) -> bool {
        self.leg(side).told == Told::Ours
    }

    fn leg(&self, side: Side) -> &Leg {
        match side {
            Side::Client => &self.client,
            Side::Backend => &self.backend,
        }
    }

    fn leg_mut(&mut self, side: Side) -> &mut Leg {
        match side {
            Side::Client => &mut self.client,
            Side::Backend => &mut self.backend,
        }
    }

    /// Whether what this side sends is thrown away: the other one is gone, or was told that nothing more comes, by us or by
    /// this side (RFC 6455 §5.5.1), or what this one sends is no frame where it must be.
    fn drops(&self, from: Side) -> bool {
        let (leg, to) = (self.leg(from), self.leg(from.other()));
        let has_said_close = leg.close_seen.is_some();
        !to.is_writable || to.told == Told::Ours || has_said_close || !self.is_blind() && leg.is_broken()
    }

    fn is_open(&self) -> bool {
        matches!(self.state, State::Open { .. })
    }

    /// A part of a message came, or, where nobody knows what a message is, a byte.
    fn data_seen(&mut self, now: Instant) {
        if let State::Open { last_data, .. } = &mut self.state {
            *last_data = now;
        }
    }

    /// A side that knows only texts gets them whole, so whatever it is to be told stands between two.
    fn is_at_border_towards(&self, to: Side) -> bool {
        self.leg(to).manners == Manners::Texts || self.leg(to.other()).is_at_border()
    }

    /// Whether a frame of the gateway's own waits for a place between two of the other side's.
    fn wants_border(&self, to: Side) -> bool {
        let leg = self.leg(to);
        leg.is_waiting_to_be_told()
            || leg.keepalive.wants_ping() && leg.told == Told::No && self.is_open() && !self.is_blind()
    }

    fn walk(&mut self, from: Side, bytes: &[u8], is_dropped: bool) -> Walk {
        let gait = Gait {
            // A tunnel that is closing is not closed for a second reason.
            limits: (self.is_open() && !is_dropped).then_some(&*self.rules),
            to_border: self.wants_border(from.other()),
            is_strict: self.frames == Frames::Enforce,
        };
        let leg = match from {
            Side::Client => &mut self.client,
            Side::Backend => &mut self.backend,
        };
        leg.walk(bytes, gait)
    }

    fn pass(&mut self, from: Side, bytes: usize, is_dropped: bool, seen: Seen, now: Instant) -> Taken {
        if is_dropped {
            return Taken { forward: 0, skip: bytes, seen: Seen::NOTHING };
        }
        let leg = self.leg_mut(from);
        leg.bytes += bytes as u64;
        leg.messages += u64::from(seen.messages());
        if bytes > 0 {
            self.put_off(now);
        }
        Taken { forward: bytes, skip: 0, seen }
    }

    /// A side said Close: it goes on, unless the other was told by us.
    fn close_seen(&mut self, from: Side, code: CloseCode, frame_bytes: usize, now: Instant) -> Taken {
        let is_dropped = self.drops(from);
        self.leg_mut(from).close(code);
        self.changes += 1;
        self.begin_closing(closed(from), now);
        if !is_dropped {
            self.leg_mut(from.other()).told = Told::Theirs;
        }
        let taken = self.pass(from, frame_bytes, is_dropped, Seen { close: 1, ..Seen::NOTHING }, now);
        self.settle(now);
        taken
    }

    #[cfg(test)]
    pub(super) fn expires_in(&self, now: Instant) -> Duration {
        match self.state {
            State::Open { expires_at: Some(at), .. } => at - now,
            _ => Duration::MAX,
        }
    }

    fn idle_at(&self, last_data: Instant) -> Option<Instant> {
        self.rules.idle_timeout.map(|idle| last_data + idle)
    }

    fn pulse_at(&self, side: Side) -> Option<Instant> {
        let (Frames::Track | Frames::Enforce, Some(ping)) = (self.frames, self.rules.ping) else { return None };
        let keepalive = &self.leg(side).keepalive;
        // While a side takes nothing the other one is not read, and who is not read cannot be heard.
        let is_read = !self.leg(side.other()).keepalive.is_stuck();
        let can_be_heard = is_read && self.leg(side).manners == Manners::Frames;
        if can_be_heard || keepalive.is_stuck() { keepalive.deadline(ping) } else { None }
    }

    fn take_pulses(&mut self, now: Instant) {
        for side in Side::BOTH {
            if self.pulse_at(side).is_none_or(|at| at > now) {
                continue;
            }
            match self.leg_mut(side).keepalive.expire() {
                Pulse::Doubtful => self.changes += 1,
                Pulse::Dead => return self.give_up(side, now),
            }
        }
    }
}

impl Taken {
    fn with(mut self, seen: Seen) -> Taken {
        self.seen.close += seen.close;
        self.seen.broken += seen.broken;
        self
    }
}

fn jitter(age: Duration, chance: u64) -> Duration {
    let most = age / AGE_JITTER;
    most.mul_f64((chance >> 11) as f64 / (1_u64 << 53) as f64)
}
