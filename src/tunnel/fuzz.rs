//! A session under a fuzzer: any bytes become the rules of a tunnel and what its two sides, the clock and an operator do to
//! it, in any order. What must be true all the same is in [`tunnel`].

mod tunnel;

use std::time::{Duration, Instant};

use super::{Frames, PingRules, Rules, Side, Speech};
use crate::bridge::{Binary, Terms};
use crate::dialect::Dialect;
use crate::reason::Reason;
use crate::wire::{FrameHeader, Opcode, Reserved, mask};
use tunnel::{Takes, Tunnel};

const SECOND: Duration = Duration::from_secs(1);
const KEY: [u8; 4] = [0x81, 0x7F, 0, 0xFE];

/// Of a bridge.
const MESSAGE_BYTES_MAX: usize = 1000;

/// `data` is what happens; `now` is where time begins. Gives the cause of the end.
///
/// # Panics
/// When something is not as it must be.
pub fn session(data: &[u8], now: Instant) -> Reason {
    let mut tape = Tape(data);
    let mut rules = rules(&mut tape);
    let (speech, binary) = speech(&mut tape);
    let terms = Terms { binary, message_bytes_max: MESSAGE_BYTES_MAX };
    if let Speech::Bridged { .. } = speech {
        rules.max_message_bytes = rules.max_message_bytes.or(Some(MESSAGE_BYTES_MAX as u64));
        rules.frames = Frames::Enforce;
    }
    let tunnel = Tunnel::new(rules, speech, terms, u64::from(tape.byte()) << 56, now);
    let mut story = Story { tunnel, is_amid: [false; 2] };
    story.tunnel.turn();
    while !tape.0.is_empty() && !story.tunnel.has_ended() {
        story.act(&mut tape);
        story.tunnel.turn();
    }
    story.tunnel.finish()
}

/// What the fuzzer makes up; zeroes behind its end.
struct Tape<'d>(&'d [u8]);

impl<'d> Tape<'d> {
    fn byte(&mut self) -> u8 {
        self.bytes(1).first().copied().unwrap_or_default()
    }

    fn bytes(&mut self, count: usize) -> &'d [u8] {
        let (bytes, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        bytes
    }

    fn one_of<T: Copy, const N: usize>(&mut self, choices: [T; N]) -> T {
        choices[usize::from(self.byte()) % N]
    }
}

fn rules(tape: &mut Tape<'_>) -> Rules {
    let pings = [(20, 10), (1, 10), (10, 1)]
        .map(|(interval, timeout)| Some(PingRules { interval: interval * SECOND, timeout: timeout * SECOND }));
    Rules {
        frames: tape.one_of([Frames::Track, Frames::Enforce, Frames::Blind]),
        idle_timeout: tape.one_of([None, Some(60 * SECOND), Some(2 * SECOND)]),
        ping: tape.one_of([None, pings[0], pings[1], pings[2]]),
        max_age: tape.one_of([None, Some(30 * SECOND)]),
        close_timeout: tape.one_of([5 * SECOND, SECOND / 100]),
        max_frame_bytes: tape.one_of([None, Some(125), Some(1000)]),
        max_message_bytes: tape.one_of([None, Some(125), Some(1000)]),
    }
}

fn speech(tape: &mut Tape<'_>) -> (Speech, Binary) {
    let choice = tape.byte();
    if choice >= 0x80 {
        let pair = choice & 0x7F;
        let [client, backend] = [pair, pair / 5].map(|at| Dialect::ALL[usize::from(at % 5)]);
        let binary = [Binary::Refuse, Binary::Base64][usize::from(pair / 25 % 2)];
        return (Speech::Bridged { client, backend }, binary);
    }
    let speeches = [
        Speech::Frames(Reserved::None),
        Speech::Frames(Reserved::Compressed),
        Speech::Frames(Reserved::Any),
        Speech::Opaque,
    ];
    (speeches[usize::from(choice % 4)], Binary::Refuse)
}

/// The two sides, as far as they mean to send legal frames.
struct Story {
    tunnel: Tunnel,
    /// Client, backend: a fragmented message has begun.
    is_amid: [bool; 2],
}

impl Story {
    /// The low half of the first byte says what happens, its highest bit to whom.
    fn act(&mut self, tape: &mut Tape<'_>) {
        let what = tape.byte();
        let side = if what & 0x80 == 0 { Side::Client } else { Side::Backend };
        match what & 0x0F {
            0 | 1 => {
                let count = usize::from(tape.byte());
                self.tunnel.send(side, tape.bytes(count));
            }
            2..=4 => {
                let (kind, length) = (tape.byte(), tape.byte());
                let is_frameless = self.tunnel.is_frameless(side);
                let frame = if is_frameless { self.text(side, kind, length) } else { self.frame(side, kind, length) };
                self.tunnel.send(side, &frame);
            }
            5..=7 => {
                let count = usize::from(tape.byte()) + 1;
                self.tunnel.arrive(side, if count > 255 { usize::MAX } else { count });
            }
            8 => {
                if let Some(payload) = self.tunnel.last_ping(side) {
                    self.tunnel.send(side, &framed(side, Opcode::Pong, 0x80, &payload));
                }
            }
            9 if self.tunnel.is_frameless(side) => self.tunnel.send(side, b"\xFF\0"),
            9 => {
                let code = tape.one_of([1000_u16, 1001, 1005, 3000, 65_535]).to_be_bytes();
                let count = usize::from(what >> 4 & 0x03);
                self.tunnel.send(side, &framed(side, Opcode::Close, 0x80, &code[..count.min(2)]));
            }
            10 => self.tunnel.end_line(side),
            11 if what & 0x40 == 0 => self.tunnel.fail(side),
            11 => self.tunnel.take(side, Takes::Gone),
            12 => self.tunnel.take(side, if what & 0x40 == 0 { Takes::Nothing } else { Takes::Everything }),
            13 => self.tunnel.take_some(side),
            14 => self.tunnel.ask(if what & 0x40 == 0 { Reason::Drained } else { Reason::RouteRemoved }),
            _ => {
                let milliseconds = tape.one_of([1, 10, 100, 500, 1_000, 2_000, 5_000, 11_000, 60_000]);
                self.tunnel.wait(Duration::from_millis(milliseconds));
            }
        }
    }

    /// A frame that continues what this side has sent before, unless that was broken or closed.
    fn frame(&mut self, side: Side, kind: u8, length: u8) -> Vec<u8> {
        let is_amid = &mut self.is_amid[tunnel::at(side)];
        let fin = kind & 0x80;
        let opcode = match kind & 0x03 {
            2 => Opcode::Ping,
            3 => Opcode::Pong,
            _ if *is_amid => Opcode::Continuation,
            0 => Opcode::Text,
            _ => Opcode::Binary,
        };
        if opcode.is_control() {
            return framed(side, opcode, 0x80, &vec![length; usize::from(length).min(125)]);
        }
        let reserved = if *is_amid || kind & 0x40 == 0 { 0 } else { self.tunnel.compressed_bit() };
        *is_amid = fin == 0;
        framed(side, opcode, fin | reserved, &self.payload(side, kind, length))
    }

    /// What a side without frames sends. It ends, continues or begins a text, or is to be dropped.
    fn text(&mut self, side: Side, kind: u8, length: u8) -> Vec<u8> {
        let mut bytes = Vec::new();
        let is_amid = std::mem::replace(&mut self.is_amid[tunnel::at(side)], false);
        if kind & 0x03 == 3 && !is_amid {
            bytes.extend([0x80, length & 0x7F]);
            bytes.resize(2 + usize::from(length & 0x7F), 0xFF);
            return bytes;
        }
        if !is_amid {
            bytes.push(0);
        }
        bytes.extend(self.payload(side, kind, length));
        if kind & 0x80 == 0 {
            self.is_amid[tunnel::at(side)] = true;
        } else {
            bytes.push(0xFF);
        }
        bytes
    }

    /// Through a bridge mostly a text, and base64 where its length lets it be.
    fn payload(&self, side: Side, kind: u8, length: u8) -> Vec<u8> {
        let length = match length {
            255 => 65_536,
            200..=254 => usize::from(length) * 10,
            _ => usize::from(length),
        };
        let is_text = self.tunnel.dialect(side).is_some() && kind & 0x0C != 0x0C;
        vec![if is_text { b'A' } else { kind | 0x80 }; length]
    }
}

/// `bits` are FIN and the reserved ones.
fn framed(side: Side, opcode: Opcode, bits: u8, payload: &[u8]) -> Vec<u8> {
    let key = (side == Side::Client).then_some(KEY);
    let (is_final, reserved) = (bits & 0x80 != 0, bits & 0x70);
    let mut bytes = Vec::new();
    FrameHeader { opcode, is_final, reserved, mask: key, payload_bytes: payload.len() as u64 }.write_to(&mut bytes);
    let header_bytes = bytes.len();
    bytes.extend_from_slice(payload);
    mask(&mut bytes[header_bytes..], key.unwrap_or_default(), 0);
    bytes
}
