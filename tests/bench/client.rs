//! One connection of the load, as a state machine over a socket that never waits:
//!
//! ```text
//! Connecting ──► Answer ──► Idle ◄──► Echo
//! ```
//!
//! It checks every byte that it receives. It does not know how many of its kind there are or what they are for.

use std::io::{self, Read, Write};
use std::net::TcpStream;

use crate::failure::Failure;
use crate::poll::{Ready, unless_blocked};
use crate::wire::{self, Message, Upgrade};

pub struct Client {
    stream: TcpStream,
    stage: Stage,
    /// Pongs that wait for the end of the message that is being sent.
    owed: Vec<u8>,
}

enum Stage {
    Connecting,
    /// What arrived of the answer to the upgrade.
    Answer(Vec<u8>),
    Idle,
    /// How much is sent of the message, and how much of its echo is back.
    Echo {
        sent: usize,
        received: usize,
    },
}

/// What a connection is for.
#[derive(Clone, Copy)]
pub struct Errand<'a> {
    pub upgrade: &'a Upgrade,
    pub expected: Expected,
    pub message: &'a Message,
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
    pub fn new(stream: TcpStream) -> Self {
        Self { stream, stage: Stage::Connecting, owed: Vec::new() }
    }

    pub fn ready(&mut self, ready: Ready, errand: Errand<'_>, scratch: &mut [u8]) -> Result<Step, Failure> {
        match self.stage {
            Stage::Connecting => self.send_head(errand.upgrade),
            Stage::Answer(_) => self.receive_answer(errand, scratch),
            Stage::Idle => self.answer_pings(ready, scratch),
            Stage::Echo { .. } => self.exchange(errand.message, scratch),
        }
    }

    /// Sends the message; [`Step::Echoed`] follows.
    pub fn begin_echo(&mut self, message: &Message) -> Result<(), Failure> {
        self.stage = Stage::Echo { sent: 0, received: 0 };
        self.send_message(message)
    }

    fn send_head(&mut self, upgrade: &Upgrade) -> Result<Step, Failure> {
        // A fresh socket takes a head of this size whole.
        self.stream.write_all(&upgrade.head).map_err(lost("connecting"))?;
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
                self.stage = Stage::Idle;
                Ok(Step::Answered)
            }
            Some(_) => Err(Failure::WrongAnswer {
                what: "bytes behind it",
                head: String::from_utf8_lossy(answer).into_owned(),
            }),
        }
    }

    fn exchange(&mut self, message: &Message, scratch: &mut [u8]) -> Result<Step, Failure> {
        self.send_message(message)?;
        loop {
            let Some(count) = receive(&mut self.stream, scratch, "waiting for an echo")? else {
                return Ok(Step::Waiting);
            };
            if self.take(message, &scratch[..count])? == Step::Echoed {
                return Ok(Step::Echoed);
            }
            if count < scratch.len() {
                return Ok(Step::Waiting);
            }
        }
    }

    /// Compares what arrived with the echo; Pings may stand before and behind it.
    fn take(&mut self, message: &Message, bytes: &[u8]) -> Result<Step, Failure> {
        let Stage::Echo { sent, received } = self.stage else {
            return Ok(Step::Waiting);
        };
        let bytes = if received == 0 { self.owe_pongs(bytes) } else { bytes };
        let expected = &message.echo[received..];
        let (echo, rest) = bytes.split_at(bytes.len().min(expected.len()));
        if !expected.starts_with(echo) {
            return Err(Failure::WrongEcho { at: received });
        }
        self.stage = Stage::Echo { sent, received: received + echo.len() };
        if echo.len() < expected.len() {
            self.send_message(message)?;
            return Ok(Step::Waiting);
        }
        self.stage = Stage::Idle;
        self.take_pings(rest)?;
        Ok(Step::Echoed)
    }

    fn send_message(&mut self, message: &Message) -> Result<(), Failure> {
        let Stage::Echo { sent, .. } = &mut self.stage else {
            return Ok(());
        };
        while *sent < message.frame.len() {
            let result = self.stream.write(&message.frame[*sent..]);
            match unless_blocked(result).map_err(lost("sending a message"))? {
                Some(count) => *sent += count,
                None => return Ok(()),
            }
        }
        self.send_owed()
    }

    /// An open tunnel between two messages may get whole Pings and nothing else.
    fn answer_pings(&mut self, ready: Ready, scratch: &mut [u8]) -> Result<Step, Failure> {
        loop {
            let Some(count) = receive(&mut self.stream, scratch, "idle")? else {
                return Ok(Step::Waiting);
            };
            self.take_pings(&scratch[..count])?;
            if !ready.hung_up {
                return Ok(Step::Waiting);
            }
        }
    }

    fn take_pings(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        if self.owe_pongs(bytes).is_empty() {
            self.send_owed()
        } else {
            Err(lost("idle")(io::Error::other("unexpected bytes")))
        }
    }

    /// What is behind the Pings at the beginning.
    fn owe_pongs<'a>(&mut self, mut bytes: &'a [u8]) -> &'a [u8] {
        while let Some(frame) = wire::frame(bytes).filter(|frame| frame.opcode == wire::PING) {
            self.owed.extend(wire::masked_pong(&bytes[frame.header_bytes..frame.frame_bytes]));
            bytes = &bytes[frame.frame_bytes..];
        }
        bytes
    }

    fn send_owed(&mut self) -> Result<(), Failure> {
        if self.owed.is_empty() {
            return Ok(());
        }
        let pongs = std::mem::take(&mut self.owed);
        self.stream.write_all(&pongs).map_err(lost("answering a Ping"))
    }
}

/// What one read brought, `None` if nothing is there yet; the end of the stream is a failure at every stage.
fn receive(stream: &mut TcpStream, scratch: &mut [u8], doing: &'static str) -> Result<Option<usize>, Failure> {
    match unless_blocked(stream.read(scratch)).map_err(lost(doing))? {
        Some(0) => Err(lost(doing)(io::ErrorKind::UnexpectedEof.into())),
        count => Ok(count),
    }
}

fn lost(doing: &'static str) -> impl Fn(io::Error) -> Failure {
    move |error| Failure::ConnectionLost { doing, reason: error.to_string() }
}
