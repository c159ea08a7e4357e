//! One side of a session: the frames it sends, and what it was told.

use std::time::Instant;

use super::keepalive::Keepalive;
use super::{Rules, Seen, Side};
use crate::wire::{CloseCode, FrameError, FrameHeader, FrameReader, Length, Masking, Next, Opcode, Reserved};

/// What is known of one side.
#[derive(Debug)]
pub(super) struct Leg {
    pub manners: Manners,
    reader: FrameReader,
    /// A frame broke the rules, and nobody knows where the next one begins.
    is_broken: bool,
    /// Sent by this side and passed on.
    pub bytes: u64,
    pub messages: u64,
    /// The code of its Close frame; 1005 where it has none (RFC 6455 §7.1.5).
    pub close_seen: Option<CloseCode>,
    pub told: Told,
    /// More may come from it.
    pub is_open: bool,
    /// What is written to it may arrive.
    pub is_writable: bool,
    pub keepalive: Keepalive,
}

/// What a side can be asked and told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manners {
    Frames,
    /// It gets whole texts, and knows no Ping; a bridge speaks for it.
    Texts,
}

/// Whether a Close frame went to a side. There is never a second one, nor anything behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    No,
    /// Waits for the end of the frame that is on its way.
    Soon(CloseCode),
    /// By the gateway.
    Ours,
    /// The other side's own.
    Theirs,
}

/// Where a walk over bytes stopped, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// Nothing more can be told of these bytes: they end here, or with a part of a frame that must be seen whole.
    End,
    /// A border, and a frame of the gateway's own waits for one.
    Border,
    /// The Pong to our Ping.
    OurPong {
        frame_bytes: usize,
    },
    Close {
        code: CloseCode,
        frame_bytes: usize,
    },
    TooBig,
    Broken(FrameError),
}

/// What a walk minds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gait<'r> {
    /// Sizes are held to these; nothing is limited that does not go on.
    pub limits: Option<&'r Rules>,
    /// Stop at the first border behind the start.
    pub to_border: bool,
    /// Close frames are checked, too.
    pub is_strict: bool,
}

/// How far a walk came.
#[derive(Clone, Copy, Debug)]
pub(super) struct Walk {
    pub bytes: usize,
    pub stop: Stop,
    pub seen: Seen,
    /// A part of a message was among them.
    pub has_data: bool,
}

impl Leg {
    pub fn new(side: Side, manners: Manners, reserved: Reserved, now: Instant) -> Leg {
        let masking = match side {
            Side::Client => Masking::Required,
            Side::Backend => Masking::Forbidden,
        };
        Leg {
            manners,
            reader: FrameReader::new(masking, reserved),
            is_broken: false,
            bytes: 0,
            messages: 0,
            close_seen: None,
            told: Told::No,
            is_open: true,
            is_writable: true,
            keepalive: Keepalive::new(now),
        }
    }

    /// What it sends stands between two frames.
    pub fn is_at_border(&self) -> bool {
        self.reader.is_at_border()
    }

    /// Its frames can still be told apart.
    pub fn is_readable(&self) -> bool {
        !self.is_broken && self.close_seen.is_none()
    }

    pub fn is_broken(&self) -> bool {
        self.is_broken
    }

    /// It said Close.
    pub fn close(&mut self, code: CloseCode) {
        self.close_seen = Some(code);
        self.reader.close();
    }

    pub fn give_up_reading(&mut self) {
        self.is_broken = true;
    }

    pub fn is_waiting_to_be_told(&self) -> bool {
        matches!(self.told, Told::Soon(_))
    }

    /// The border that a Close waits for will not come, or nobody is there to hear it.
    pub fn give_up_telling(&mut self) {
        if self.is_waiting_to_be_told() {
            self.told = Told::No;
        }
    }

    /// Steps over the frames that it sent, as far as they can be passed on without a decision.
    pub fn walk(&mut self, bytes: &[u8], gait: Gait<'_>) -> Walk {
        let mut walk = Walk { bytes: 0, stop: Stop::End, seen: Seen::NOTHING, has_data: false };
        loop {
            let (taken, ended) = self.reader.advance(&bytes[walk.bytes..]);
            walk.bytes += taken;
            walk.has_data |= taken > 0;
            match ended {
                Some(Opcode::Text) => walk.seen.text += 1,
                Some(_) => walk.seen.binary += 1,
                None => {}
            }
            if walk.bytes == bytes.len() || !self.is_at_border() {
                return walk;
            }
            if gait.to_border && walk.bytes > 0 {
                return Walk { stop: Stop::Border, ..walk };
            }
            match self.step(&bytes[walk.bytes..], gait, &mut walk.seen) {
                Ok(taken) => {
                    walk.bytes += taken;
                    walk.has_data |= !self.is_at_border();
                }
                Err(stop) => return Walk { stop, ..walk },
            }
        }
    }

    /// A side that knows only texts has frames that a bridge made, of whatever came in one read.
    fn is_too_big(&self, header: &FrameHeader, rules: &Rules) -> bool {
        let Length { frame_bytes, message_bytes } = self.reader.length_with(header);
        let has_frames = self.manners == Manners::Frames;
        has_frames && rules.max_frame_bytes.is_some_and(|max| frame_bytes > max)
            || rules.max_message_bytes.is_some_and(|max| message_bytes > max)
    }

    /// Over the next header, or the next whole control frame.
    fn step(&mut self, bytes: &[u8], gait: Gait<'_>, seen: &mut Seen) -> Result<usize, Stop> {
        match self.reader.next(bytes).map_err(Stop::Broken)? {
            Next::Incomplete => Err(Stop::End),
            Next::Data { header, header_bytes } => {
                if gait.limits.is_some_and(|rules| self.is_too_big(&header, rules)) {
                    return Err(Stop::TooBig);
                }
                self.reader.enter(&header);
                Ok(header_bytes)
            }
            Next::Control { opcode: Opcode::Pong, mask, payload, frame_bytes } => {
                if self.keepalive.answers(payload, mask) {
                    return Err(Stop::OurPong { frame_bytes });
                }
                seen.pong += 1;
                Ok(frame_bytes)
            }
            Next::Control { opcode: Opcode::Close, mask, payload, frame_bytes } => {
                let code = close_code(payload, mask, gait.is_strict).map_err(Stop::Broken)?;
                Err(Stop::Close { code, frame_bytes })
            }
            Next::Control { frame_bytes, .. } => {
                seen.ping += 1;
                Ok(frame_bytes)
            }
        }
    }
}

/// The code of a Close frame; 1005 where there is none.
fn close_code(payload: &[u8], mask: Option<[u8; 4]>, is_strict: bool) -> Result<CloseCode, FrameError> {
    let key = mask.unwrap_or_default();
    let Some(&[high, low]) = payload.first_chunk::<2>() else {
        return if is_strict && !payload.is_empty() { Err(FrameError::ClosePayload) } else { Ok(CloseCode::NO_STATUS) };
    };
    let code = CloseCode(u16::from_be_bytes([high ^ key[0], low ^ key[1]]));
    if is_strict && !code.may_be_sent() { Err(FrameError::CloseCode) } else { Ok(code) }
}
