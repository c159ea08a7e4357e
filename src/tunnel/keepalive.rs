//! Whether one side still lives: the Pings of the gateway and the Pongs that answer them.

use std::time::Instant;

use super::PingRules;
use crate::wire::PING_BYTES;

/// ```text
///   Quiet ──nothing heard for `interval`──► Wanted ──border reached──► Asked ──its Pong───────────────────────────► Quiet
///                                                                        ├──something else, then no more──────────► Wanted
///                                                                        └──nothing heard for `timeout`───────────► dead
/// ```
#[derive(Clone, Copy, Debug)]
pub(super) struct Keepalive {
    /// The last byte that came from this side or went to it with difficulty, or our Ping behind it: from here its time runs.
    since: Instant,
    /// It takes no byte of what is to be written to it.
    is_stuck: bool,
    ping: Ping,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ping {
    Quiet,
    Wanted,
    Asked { payload: [u8; PING_BYTES], is_silent: bool },
}

/// What a look at the clock came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pulse {
    /// A Ping should go out at the next border.
    Doubtful,
    Dead,
}

impl Keepalive {
    pub fn new(now: Instant) -> Keepalive {
        Keepalive { since: now, is_stuck: false, ping: Ping::Quiet }
    }

    pub fn heard(&mut self, now: Instant) {
        self.since = now;
        if let Ping::Asked { is_silent, .. } = &mut self.ping {
            *is_silent = false;
        }
    }

    /// It takes no more bytes for now, or has just taken a few of many.
    pub fn stuck(&mut self, now: Instant) {
        self.since = now;
        self.is_stuck = true;
    }

    /// It has taken all that there was for it. A Ping that was among that has only now been sent.
    pub fn unstuck(&mut self, now: Instant) {
        if std::mem::take(&mut self.is_stuck) {
            self.since = now;
        }
    }

    pub fn is_stuck(&self) -> bool {
        self.is_stuck
    }

    pub fn wants_ping(&self) -> bool {
        self.ping == Ping::Wanted && !self.is_stuck
    }

    pub fn asked(&mut self, payload: [u8; PING_BYTES], now: Instant) {
        self.since = now;
        self.ping = Ping::Asked { payload, is_silent: true };
    }

    /// Whether a Pong with this payload answers our Ping; if so, the Ping is done with.
    pub fn answers(&mut self, pong: &[u8], mask: Option<[u8; 4]>) -> bool {
        let Ping::Asked { payload, .. } = self.ping else { return false };
        let key = mask.unwrap_or_default();
        let is_ours = pong.len() == payload.len()
            && pong.iter().zip(payload).enumerate().all(|(at, (byte, ours))| byte ^ key[at % 4] == ours);
        if is_ours {
            self.ping = Ping::Quiet;
        }
        is_ours
    }

    /// Its deadline has come.
    pub fn expire(&mut self) -> Pulse {
        if self.is_stuck || self.is_silent_since_asked() {
            return Pulse::Dead;
        }
        self.ping = Ping::Wanted;
        Pulse::Doubtful
    }

    /// A side that takes nothing is not asked: it could not hear it, and a Ping more would not make it livelier.
    pub fn deadline(&self, rules: PingRules) -> Option<Instant> {
        if self.is_stuck {
            return Some(self.since + rules.interval + rules.timeout);
        }
        match self.ping {
            Ping::Wanted => None,
            Ping::Asked { is_silent: true, .. } => Some(self.since + rules.timeout),
            Ping::Quiet | Ping::Asked { is_silent: false, .. } => Some(self.since + rules.interval),
        }
    }

    /// Anything else that it says proves as much as the Pong, which need not come: a side that was asked by both the gateway
    /// and the other side may answer the last Ping alone (RFC 6455 §5.5.3).
    pub fn is_silent_since_asked(&self) -> bool {
        matches!(self.ping, Ping::Asked { is_silent: true, .. })
    }
}
