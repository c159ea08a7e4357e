//! One connection of the load with one tunnel, as a state machine over a stream that never waits:
//!
//! ```text
//! Connecting ──► Answer ──► Open
//! ```
//!
//! It checks every byte that it receives. It does not know how many of its kind there are or what they are for.

use std::io::{self, Read, Write};

use tokio_rustls::rustls::HandshakeKind;

use crate::failure::{Failure, lost};
use crate::poll::{Ready, unless_blocked};
use crate::stream::Stream;
use crate::tunnel::{Arrival, Tunnel};
use crate::wire::{self, Message, Upgrade};

pub struct Client {
    stream: Stream,
    stage: Stage,
}

enum Stage {
    Connecting,
    /// What arrived of the answer to the upgrade.
    Answer(Vec<u8>),
    /// How much is sent of the message whose echo the tunnel awaits.
    Open {
        tunnel: Tunnel,
        sent: usize,
    },
}

/// What a connection is for.
#[derive(Clone, Copy)]
pub struct Errand<'a> {
    pub session: Session,
    pub upgrade: &'a Upgrade,
    pub expected: Expected,
    pub message: &'a Message,
}

/// How a session of TLS must come about; nothing is asked of a connection without TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Session {
    Full,
    /// In full the first time.
    Kept,
    Resumed,
}

/// What an upgrade must be answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    Accepted,
    Refused,
}

/// What an event led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Waiting,
    /// The right answer to the upgrade is here.
    Answered,
    /// The whole echo is back.
    Echoed,
}

impl Client {
    pub fn new(stream: Stream) -> Self {
        Self { stream, stage: Stage::Connecting }
    }

    pub fn ready(&mut self, ready: Ready, errand: Errand<'_>, scratch: &mut [u8]) -> Result<Step, Failure> {
        match &self.stage {
            Stage::Connecting => self.send_head(errand),
            Stage::Answer(_) => self.receive_answer(errand, scratch),
            Stage::Open { .. } => self.exchange(ready, errand.message, scratch),
        }
    }

    /// Sends the message; [`Step::Echoed`] follows.
    pub fn begin_echo(&mut self, message: &Message) -> Result<(), Failure> {
        if let Stage::Open { tunnel, sent } = &mut self.stage {
            tunnel.await_echo();
            *sent = 0;
        }
        self.send_message(message)
    }

    fn send_head(&mut self, errand: Errand<'_>) -> Result<Step, Failure> {
        const DOING: &str = "connecting";
        if !self.stream.establish().map_err(lost(DOING))? {
            return Ok(Step::Waiting);
        }
        if let Some(kind) = self.stream.handshake_kind() {
            errand.session.check(kind)?;
        }
        // A fresh socket takes a head of this size whole.
        self.stream.write_all(&errand.upgrade.head).map_err(lost(DOING))?;
        self.stage = Stage::Answer(Vec::new());
        Ok(Step::Waiting)
    }

    fn receive_answer(&mut self, errand: Errand<'_>, scratch: &mut [u8]) -> Result<Step, Failure> {
        const DOING: &str = "waiting for the answer to its upgrade";
        let Some(count) = receive(&mut self.stream, scratch, DOING)? else {
            return Ok(Step::Waiting);
        };
        let Stage::Answer(answer) = &mut self.stage else {
            return Ok(Step::Waiting);
        };
        answer.extend_from_slice(&scratch[..count]);
        let length = match errand.expected {
            Expected::Accepted => errand.upgrade.check_101(answer)?,
            Expected::Refused => wire::check_426(answer)?,
        };
        match length {
            None => Ok(Step::Waiting),
            Some(length) if length == answer.len() => {
                self.stage = Stage::Open { tunnel: Tunnel::default(), sent: 0 };
                Ok(Step::Answered)
            }
            Some(_) => Err(Failure::WrongAnswer {
                what: "bytes behind it",
                head: String::from_utf8_lossy(answer).into_owned(),
            }),
        }
    }

    fn exchange(&mut self, ready: Ready, message: &Message, scratch: &mut [u8]) -> Result<Step, Failure> {
        loop {
            self.send_message(message)?;
            let Some(count) = receive(&mut self.stream, scratch, "in a tunnel")? else {
                return Ok(Step::Waiting);
            };
            let Stage::Open { tunnel, .. } = &mut self.stage else {
                return Ok(Step::Waiting);
            };
            let arrival = tunnel.take(message, &scratch[..count])?;
            self.send_message(message)?;
            if arrival == Arrival::Echo {
                return Ok(Step::Echoed);
            }
            if count < scratch.len() && !ready.hung_up {
                return Ok(Step::Waiting);
            }
        }
    }

    /// The message or the rest of it, and then what is owed.
    fn send_message(&mut self, message: &Message) -> Result<(), Failure> {
        let Stage::Open { tunnel, sent } = &mut self.stage else {
            return Ok(());
        };
        while tunnel.awaits_echo() && *sent < message.frame.len() {
            let result = self.stream.write(&message.frame[*sent..]);
            match unless_blocked(result).map_err(lost("sending a message"))? {
                Some(count) => *sent += count,
                None => return Ok(()),
            }
        }
        match tunnel.pay() {
            Some(pongs) => self.stream.write_all(&pongs).map_err(lost("answering a Ping")),
            None => Ok(()),
        }
    }
}

impl Session {
    fn check(self, kind: HandshakeKind) -> Result<(), Failure> {
        match (self, kind) {
            (Session::Full, HandshakeKind::Full)
            | (Session::Resumed, HandshakeKind::Resumed)
            | (Session::Kept, HandshakeKind::Full | HandshakeKind::Resumed) => Ok(()),
            (wanted, kind) => Err(Failure::WrongSession { how: format!("{kind:?} instead of {wanted:?}") }),
        }
    }
}

/// What one read brought, `None` if nothing is there yet; the end of the stream is a failure at every stage.
fn receive(stream: &mut Stream, scratch: &mut [u8], doing: &'static str) -> Result<Option<usize>, Failure> {
    match unless_blocked(stream.read(scratch)).map_err(lost(doing))? {
        Some(0) => Err(lost(doing)(io::Error::from(io::ErrorKind::UnexpectedEof))),
        count => Ok(count),
    }
}
