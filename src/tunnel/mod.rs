//! A session after its handshake, without its sockets: what has passed, how long it has been still, and how it ended. Bytes
//! and time are arguments. It does not read frames yet, and never sleeps: who drives it asks when to wake it.

use std::time::{Duration, Instant};

use crate::reason::Reason;

/// One of the two sides of a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Client,
    Backend,
}

/// What a route asks of its tunnels.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Without a byte from either side.
    pub idle_timeout: Option<Duration>,
}

/// ```text
///   Open ──end of one side──► HalfClosed ──end of the other──► Ended
///    ├─a side is lost──► Lingering ──last words passed, or time is up──►─┤
///    └──────────────────────────── idle ──────────────────────────────►──┘
/// ```
///
/// Call [`Session::handle_bytes`] for what was read from a side, [`Session::handle_end`] when a side says it is done, and
/// [`Session::handle_unreadable`] or [`Session::handle_unwritable`] when its connection fails; wake it with [`Session::handle_time`] at [`Session::poll_deadline`].
/// It has ended when [`Session::ended`] says why.
#[derive(Debug)]
pub struct Session {
    rules: Rules,
    last_bytes: Instant,
    from_client: u64,
    from_backend: u64,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    HalfClosed(Side),
    Lingering(Lingering),
    Ended(Reason),
}

/// One side can take no more. What it had sent before still passes, and what the other one sends is thrown away, so that
/// closing does not reset a connection whose last bytes are on their way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Lingering {
    lost: Side,
    reason: Reason,
    until: Instant,
    /// All that the lost side had sent was read.
    words_passed: bool,
    /// The other side has finished.
    other_finished: bool,
}

impl Lingering {
    fn next(self) -> State {
        if self.words_passed && self.other_finished { State::Ended(self.reason) } else { State::Lingering(self) }
    }
}

/// How long last words may take.
const LINGER: Duration = Duration::from_secs(2);

impl Session {
    pub fn new(rules: Rules, now: Instant) -> Session {
        Session { rules, last_bytes: now, from_client: 0, from_backend: 0, state: State::Open }
    }

    pub fn handle_bytes(&mut self, from: Side, bytes: &[u8], now: Instant) {
        self.last_bytes = now;
        match from {
            Side::Client => self.from_client += bytes.len() as u64,
            Side::Backend => self.from_backend += bytes.len() as u64,
        }
    }

    /// A side will send no more. The first one to say so is who closed the tunnel.
    pub fn handle_end(&mut self, of: Side) {
        self.state = match self.state {
            State::Open => State::HalfClosed(of),
            State::HalfClosed(first) if first != of => State::Ended(closed_by(first)),
            State::Lingering(lingering) if lingering.lost == of => Lingering { words_passed: true, ..lingering }.next(),
            State::Lingering(lingering) => Lingering { other_finished: true, ..lingering }.next(),
            State::HalfClosed(_) | State::Ended(_) => self.state,
        };
    }

    /// Nothing more can be read from a side: its connection failed.
    pub fn handle_unreadable(&mut self, side: Side, now: Instant) {
        self.handle_unwritable(side, now);
        self.handle_end(side);
    }

    /// Nothing more can be written to a side: its connection failed. What it sent before may still be read. After one of
    /// them had said it is done, this is how many peers close, and counts as the close it completes.
    pub fn handle_unwritable(&mut self, side: Side, now: Instant) {
        let lost_while = |reason, words_passed, other_finished| {
            Lingering { lost: side, reason, until: now + LINGER, words_passed, other_finished }.next()
        };
        self.state = match (self.state, side) {
            (State::Open, Side::Client) => lost_while(Reason::ClientLost, false, false),
            (State::Open, Side::Backend) => lost_while(Reason::BackendLost, false, false),
            (State::HalfClosed(first), _) => lost_while(closed_by(first), first == side, first != side),
            // Its reads fail after its writes did, which is no news.
            (State::Lingering(lingering), side) if lingering.lost == side => self.state,
            // Now both are lost.
            (State::Lingering(Lingering { reason, .. }) | State::Ended(reason), _) => State::Ended(reason),
        };
    }

    /// Whether bytes for this side are thrown away.
    pub fn is_lost(&self, side: Side) -> bool {
        matches!(self.state, State::Lingering(lingering) if lingering.lost == side)
    }

    pub fn handle_time(&mut self, now: Instant) {
        if self.poll_deadline().is_some_and(|deadline| deadline <= now) {
            self.state = match self.state {
                State::Open | State::HalfClosed(_) => State::Ended(Reason::IdleTimeout),
                State::Lingering(Lingering { reason, .. }) | State::Ended(reason) => State::Ended(reason),
            };
        }
    }

    /// When [`Session::handle_time`] has something to do, unless bytes come first.
    pub fn poll_deadline(&self) -> Option<Instant> {
        match self.state {
            State::Lingering(lingering) => Some(lingering.until),
            State::Open | State::HalfClosed(_) | State::Ended(_) => {
                self.rules.idle_timeout.map(|idle| self.last_bytes + idle)
            }
        }
    }

    pub fn ended(&self) -> Option<Reason> {
        match self.state {
            State::Ended(reason) => Some(reason),
            State::Open | State::HalfClosed(_) | State::Lingering(_) => None,
        }
    }

    pub fn bytes_from(&self, side: Side) -> u64 {
        match side {
            Side::Client => self.from_client,
            Side::Backend => self.from_backend,
        }
    }
}

fn closed_by(first: Side) -> Reason {
    match first {
        Side::Client => Reason::ClientClosed,
        Side::Backend => Reason::BackendClosed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Duration = Duration::from_secs(60);

    fn session(start: Instant) -> Session {
        Session::new(Rules { idle_timeout: Some(IDLE) }, start)
    }

    #[test]
    fn the_first_side_to_finish_closed_the_tunnel() {
        for (first, second, expected) in
            [(Side::Client, Side::Backend, Reason::ClientClosed), (Side::Backend, Side::Client, Reason::BackendClosed)]
        {
            let mut session = session(Instant::now());
            session.handle_end(first);
            session.handle_end(first);
            assert_eq!(session.ended(), None);
            session.handle_end(second);
            assert_eq!(session.ended(), Some(expected));
        }
    }

    #[test]
    fn a_lost_side_is_named_once_its_last_words_passed_and_the_other_finished() {
        let now = Instant::now();
        for ends in [[Side::Backend, Side::Client], [Side::Client, Side::Backend]] {
            let mut open = session(now);
            open.handle_unwritable(Side::Backend, now);
            assert!(open.is_lost(Side::Backend) && !open.is_lost(Side::Client));
            assert_eq!((open.ended(), open.poll_deadline()), (None, Some(now + LINGER)));
            open.handle_end(ends[0]);
            assert_eq!(open.ended(), None);
            open.handle_end(ends[1]);
            assert_eq!(open.ended(), Some(Reason::BackendLost));
        }
        let mut open = session(now);
        open.handle_unwritable(Side::Client, now);
        open.handle_unreadable(Side::Client, now);
        assert_eq!(open.ended(), None);
        open.handle_end(Side::Backend);
        assert_eq!(open.ended(), Some(Reason::ClientLost));
    }

    #[test]
    fn last_words_have_their_time() {
        let now = Instant::now();
        let mut open = session(now);
        open.handle_unwritable(Side::Client, now);
        open.handle_bytes(Side::Backend, b"x", now + LINGER / 2);
        open.handle_time(now + LINGER);
        assert_eq!(open.ended(), Some(Reason::ClientLost));
    }

    #[test]
    fn a_loss_after_an_end_completes_the_close() {
        let now = Instant::now();
        let mut half = session(now);
        half.handle_end(Side::Client);
        half.handle_unreadable(Side::Backend, now);
        assert_eq!(half.ended(), Some(Reason::ClientClosed));
        let mut half = session(now);
        half.handle_end(Side::Client);
        half.handle_unwritable(Side::Client, now);
        assert_eq!(half.ended(), None);
        half.handle_end(Side::Backend);
        assert_eq!(half.ended(), Some(Reason::ClientClosed));
        let mut both = session(now);
        both.handle_unwritable(Side::Client, now);
        both.handle_unwritable(Side::Backend, now);
        assert_eq!(both.ended(), Some(Reason::ClientLost));
    }

    #[test]
    fn bytes_from_either_side_put_off_the_idle_timeout() {
        let start = Instant::now();
        let mut session = session(start);
        assert_eq!(session.poll_deadline(), Some(start + IDLE));
        session.handle_bytes(Side::Client, b"abc", start + IDLE / 2);
        session.handle_time(start + IDLE);
        assert_eq!(session.ended(), None);
        session.handle_bytes(Side::Backend, b"de", start + IDLE);
        session.handle_time(start + IDLE * 2 - Duration::from_millis(1));
        assert_eq!(session.ended(), None);
        session.handle_time(start + IDLE * 2);
        assert_eq!(session.ended(), Some(Reason::IdleTimeout));
        assert_eq!((session.bytes_from(Side::Client), session.bytes_from(Side::Backend)), (3, 2));
    }

    #[test]
    fn without_a_limit_there_is_no_deadline() {
        let mut session = Session::new(Rules { idle_timeout: None }, Instant::now());
        assert_eq!(session.poll_deadline(), None);
        session.handle_time(Instant::now() + IDLE * 1000);
        assert_eq!(session.ended(), None);
    }
}
