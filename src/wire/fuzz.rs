//! What a fuzzer holds [`FrameReader`] to: the same bytes read a second time, whole and as plainly as RFC 6455 §5 has it.
//! The plain reading shares no rule with the reader, and knows nothing of a tunnel.

mod hixie;

use super::{CONTROL_FRAME_MAX, FrameError, FrameReader, Lengths, Masking, Next, Opcode, Reserved};
pub use hixie::{HixieEnd, PlainHixie, hixie_reader};

/// The first byte says who speaks and what was agreed on, the second how the bytes behind them are cut. Gives the rule that
/// was broken in the end.
///
/// # Panics
/// When the reader sees other frames than the plain reading does, or waits for more than a control frame has.
pub fn frame_reader(data: &[u8]) -> Option<FrameError> {
    let &[who, cut, ref bytes @ ..] = data else { return None };
    let masking = if who & 1 == 0 { Masking::Required } else { Masking::Forbidden };
    let reserved = [Reserved::None, Reserved::Compressed, Reserved::Any][usize::from(who >> 1) % 3];
    let plain = Plain::read(bytes, masking, reserved, Lengths::Shortest);
    let mut reading = Reading { reader: FrameReader::new(masking, reserved), at: 0, frames: Vec::new(), messages: 0 };
    let step = usize::from(cut) + 1;
    let mut ends = (step..bytes.len()).step_by(step).chain([bytes.len()]);
    let error = ends.find_map(|end| reading.read_on(&bytes[..end]).err());
    assert_eq!(error.is_some(), plain.broken_at.is_some(), "{plain:?}, but {error:?}");
    assert_eq!((&reading.frames, reading.messages), (&plain.frames, plain.messages));
    assert!(plain.broken_at.is_none_or(|at| at == reading.at), "{plain:?}, not at {}", reading.at);
    error
}

/// The frames of one direction, as far as their headers are there; a control frame as far as it is whole.
#[derive(Debug, Default)]
pub struct Plain {
    pub frames: Vec<PlainFrame>,
    /// Whole ones.
    pub messages: u64,
    /// Where a frame begins that breaks a rule.
    pub broken_at: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlainFrame {
    pub opcode: Opcode,
    pub is_final: bool,
    pub payload_at: usize,
    pub payload_bytes: u64,
    /// Of its message, with this frame; 0 in a control frame.
    pub message_bytes: u64,
}

/// What came before a frame.
#[derive(Clone, Copy, Debug)]
struct Past {
    masking: Masking,
    reserved: Reserved,
    lengths: Lengths,
    /// Payload so far of the message that has not ended.
    message_bytes: Option<u64>,
    is_closed: bool,
}

struct Broken;

impl Plain {
    pub fn read(bytes: &[u8], masking: Masking, reserved: Reserved, lengths: Lengths) -> Plain {
        let mut plain = Plain::default();
        let mut past = Past { masking, reserved, lengths, message_bytes: None, is_closed: false };
        let mut at = 0;
        while at < bytes.len() {
            let (opcode, header_bytes, payload_bytes) = match past.header(&bytes[at..]) {
                Ok(Some(header)) => header,
                Ok(None) => break,
                Err(Broken) => {
                    plain.broken_at = Some(at);
                    break;
                }
            };
            let end = ((at + header_bytes) as u64).saturating_add(payload_bytes);
            let (is_final, is_whole) = (bytes[at] & 0x80 != 0, end <= bytes.len() as u64);
            let mut message_bytes = 0;
            if opcode.is_control() {
                if !is_whole {
                    break;
                }
                past.is_closed |= opcode == Opcode::Close;
            } else {
                message_bytes = past.message_bytes.unwrap_or(0).saturating_add(payload_bytes);
                past.message_bytes = (!is_final).then_some(message_bytes);
                plain.messages += u64::from(is_final && is_whole);
            }
            let payload_at = at + header_bytes;
            plain.frames.push(PlainFrame { opcode, is_final, payload_at, payload_bytes, message_bytes });
            at = usize::try_from(end).unwrap_or(usize::MAX);
        }
        plain
    }
}

impl Past {
    /// The opcode, the length of the header and that of the payload, of a frame that may stand here.
    fn header(&self, bytes: &[u8]) -> Result<Option<(Opcode, usize, u64)>, Broken> {
        let first = bytes[0];
        let may_stand_here = match (first & 0x0F, self.message_bytes) {
            (0, Some(_)) | (1 | 2, None) => !self.is_closed,
            (8, _) => !self.is_closed && first & 0x80 != 0,
            (9 | 10, _) => first & 0x80 != 0,
            _ => false,
        };
        let reserved_is_known = match self.reserved {
            Reserved::None => first & 0x70 == 0,
            Reserved::Compressed => first & 0x30 == 0 && (first & 0x40 == 0 || matches!(first & 0x0F, 1 | 2)),
            Reserved::Any => true,
        };
        let (true, true, Some(opcode)) = (may_stand_here, reserved_is_known, Opcode::from_bits(first & 0x0F)) else {
            return Err(Broken);
        };
        let Some(&second) = bytes.get(1) else { return Ok(None) };
        let mask_bytes = match (self.masking, second & 0x80) {
            (Masking::Required, 0x80) => 4,
            (Masking::Forbidden, 0) => 0,
            (Masking::Required | Masking::Forbidden, _) => return Err(Broken),
        };
        let (length_bytes, least, most) = match second & 0x7F {
            0x7E => (2, 126, u64::from(u16::MAX)),
            0x7F => (8, 1 << 16, i64::MAX.unsigned_abs()),
            _ => (0, 0, 125),
        };
        if opcode.is_control() && length_bytes > 0 {
            return Err(Broken);
        }
        let Some(length) = bytes.get(2..2 + length_bytes) else { return Ok(None) };
        let in_itself = [second & 0x7F];
        let length = if length_bytes == 0 { &in_itself[..] } else { length };
        let payload_bytes = length.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        let least = if self.lengths == Lengths::Shortest { least } else { 0 };
        if !(least..=most).contains(&payload_bytes) {
            return Err(Broken);
        }
        let header_bytes = 2 + length_bytes + mask_bytes;
        Ok((bytes.len() >= header_bytes).then_some((opcode, header_bytes, payload_bytes)))
    }
}

/// What the reader sees of bytes that come in pieces.
struct Reading {
    reader: FrameReader,
    /// So many bytes are done with.
    at: usize,
    frames: Vec<PlainFrame>,
    messages: u64,
}

impl Reading {
    /// As far as possible through what has come, which is `bytes`.
    fn read_on(&mut self, bytes: &[u8]) -> Result<(), FrameError> {
        loop {
            let (taken, ended) = self.reader.advance(&bytes[self.at..]);
            self.at += taken;
            self.messages += u64::from(ended.is_some());
            if self.at == bytes.len() || !self.reader.is_at_border() {
                return Ok(());
            }
            match self.reader.next(&bytes[self.at..])? {
                Next::Incomplete => {
                    assert!(bytes.len() - self.at < CONTROL_FRAME_MAX);
                    return Ok(());
                }
                Next::Data { header, header_bytes } => {
                    let lengths = self.reader.length_with(&header);
                    assert_eq!(lengths.frame_bytes, header.payload_bytes);
                    self.at += header_bytes;
                    self.frames.push(PlainFrame {
                        opcode: header.opcode,
                        is_final: header.is_final,
                        payload_at: self.at,
                        payload_bytes: header.payload_bytes,
                        message_bytes: lengths.message_bytes,
                    });
                    self.reader.enter(&header);
                }
                Next::Control { opcode, payload, frame_bytes, .. } => {
                    self.at += frame_bytes;
                    self.frames.push(PlainFrame {
                        opcode,
                        is_final: true,
                        payload_at: self.at - payload.len(),
                        payload_bytes: payload.len() as u64,
                        message_bytes: 0,
                    });
                    if opcode == Opcode::Close {
                        self.reader.close();
                    }
                }
            }
        }
    }
}
