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
///     └──────────── idle, or a side lost ─────────────────────►─┘
/// ```
///
/// Call [`Session::handle_bytes`] for what was read from a side, [`Session::handle_end`] when a side says it is done, and
/// [`Session::handle_lost`] when its connection fails; wake it with [`Session::handle_time`] at [`Session::poll_deadline`].
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
    Ended(Reason),
}

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
            State::HalfClosed(Side::Client) if of == Side::Backend => State::Ended(Reason::ClientClosed),
            State::HalfClosed(Side::Backend) if of == Side::Client => State::Ended(Reason::BackendClosed),
            State::HalfClosed(_) | State::Ended(_) => self.state,
        };
    }

    /// The connection of a side failed. After that side had said it is done, or the other one, this is how many peers
    /// close, and counts as the close it completes.
    pub fn handle_lost(&mut self, side: Side) {
        self.state = match (self.state, side) {
            (State::Open, Side::Client) => State::Ended(Reason::ClientLost),
            (State::Open, Side::Backend) => State::Ended(Reason::BackendLost),
            (State::HalfClosed(Side::Client), _) => State::Ended(Reason::ClientClosed),
            (State::HalfClosed(Side::Backend), _) => State::Ended(Reason::BackendClosed),
            (State::Ended(reason), _) => State::Ended(reason),
        };
    }

    pub fn handle_time(&mut self, now: Instant) {
        if self.poll_deadline().is_some_and(|deadline| deadline <= now) && self.ended().is_none() {
            self.state = State::Ended(Reason::IdleTimeout);
        }
    }

    /// When [`Session::handle_time`] has something to do, unless bytes come first.
    pub fn poll_deadline(&self) -> Option<Instant> {
        self.rules.idle_timeout.map(|idle| self.last_bytes + idle)
    }

    pub fn ended(&self) -> Option<Reason> {
        match self.state {
            State::Ended(reason) => Some(reason),
            State::Open | State::HalfClosed(_) => None,
        }
    }

    pub fn bytes_from(&self, side: Side) -> u64 {
        match side {
            Side::Client => self.from_client,
            Side::Backend => self.from_backend,
        }
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
    fn a_reset_is_a_loss_unless_a_side_had_finished() {
        let mut open = session(Instant::now());
        open.handle_lost(Side::Backend);
        assert_eq!(open.ended(), Some(Reason::BackendLost));
        for lost in [Side::Client, Side::Backend] {
            let mut half = session(Instant::now());
            half.handle_end(Side::Client);
            half.handle_lost(lost);
            assert_eq!(half.ended(), Some(Reason::ClientClosed));
        }
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
