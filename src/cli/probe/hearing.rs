//! What a server says after its handshake, in frames of either kind, as far as a probe wants to know it. It keeps a short text
//! and drops the rest, and does not know what was expected.

use super::question::Question;
use crate::dialect::Dialect;
use crate::wire::{
    CloseCode, FrameError, FrameHeader, FrameReader, HixieError, HixieEvent, HixieReader, Masking, Next, Opcode,
    Reserved, mask,
};

/// Bytes of a message that are kept; nothing that was said to the server is longer.
const MESSAGE_BYTES_MAX: usize = 1024;

/// Bytes of a frame of hixie-76 without a meaning, at most.
const DROPPED_BYTES_MAX: u64 = 1 << 20;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Cut off where it is longer than anything that can be meant.
    Text(Vec<u8>),
    Binary,
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    /// Without a code where it had none, as in hixie-76.
    Close(Option<CloseCode>),
}

/// What came is no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Hixie(#[from] HixieError),
}

/// To be given all bytes of a connection behind its handshake, in any pieces.
#[derive(Debug)]
pub struct Hearing {
    frames: Frames,
    message: Vec<u8>,
}

#[derive(Debug)]
enum Frames {
    /// What is held back are headers and control frames that are not whole, so at most 131 bytes between two calls.
    Rfc6455 {
        reader: FrameReader,
        held: Vec<u8>,
        opcode: Opcode,
    },
    Hixie(HixieReader),
}

impl Hearing {
    pub fn new(question: Question) -> Hearing {
        let frames = match question.dialect() {
            Dialect::Rfc6455 | Dialect::Hybi8 | Dialect::Hybi7 => Frames::Rfc6455 {
                reader: FrameReader::new(Masking::Forbidden, Reserved::None),
                held: Vec::new(),
                opcode: Opcode::Text,
            },
            Dialect::Hixie76 => Frames::Hixie(HixieReader::with_close(DROPPED_BYTES_MAX)),
            Dialect::Hixie75 => Frames::Hixie(HixieReader::without_close(DROPPED_BYTES_MAX)),
        };
        Hearing { frames, message: Vec::new() }
    }

    /// What is heard with these bytes, in order.
    ///
    /// # Errors
    /// When they break the framing; what was heard before is there all the same, and nothing more can be.
    pub fn handle_bytes(&mut self, bytes: &[u8], heard: &mut impl Extend<Heard>) -> Result<(), Fault> {
        match &mut self.frames {
            Frames::Hixie(reader) => Ok(hear_hixie(reader, bytes, &mut self.message, heard)?),
            Frames::Rfc6455 { reader, held, opcode } => {
                held.extend_from_slice(bytes);
                let mut at = 0;
                let result = hear_frames(reader, held, &mut at, opcode, &mut self.message, heard);
                held.drain(..at);
                Ok(result?)
            }
        }
    }
}

fn hear_frames(
    reader: &mut FrameReader,
    bytes: &[u8],
    at: &mut usize,
    kind: &mut Opcode,
    message: &mut Vec<u8>,
    heard: &mut impl Extend<Heard>,
) -> Result<(), FrameError> {
    loop {
        if reader.is_at_border() {
            match reader.next(&bytes[*at..])? {
                Next::Incomplete => return Ok(()),
                Next::Control { opcode, payload, frame_bytes, .. } => {
                    if opcode == Opcode::Close {
                        reader.close();
                    }
                    heard.extend(control(opcode, payload));
                    *at += frame_bytes;
                    continue;
                }
                Next::Data { header, header_bytes } => {
                    if header.opcode != Opcode::Continuation {
                        *kind = header.opcode;
                    }
                    reader.enter(&header);
                    *at += header_bytes;
                }
            }
        }
        let (taken, ended) = reader.advance(&bytes[*at..]);
        keep(message, &bytes[*at..*at + taken]);
        *at += taken;
        if ended.is_some() {
            let text = std::mem::take(message);
            heard.extend([if *kind == Opcode::Binary { Heard::Binary } else { Heard::Text(text) }]);
        } else if !reader.is_at_border() {
            return Ok(());
        }
    }
}

fn control(opcode: Opcode, payload: &[u8]) -> Option<Heard> {
    match opcode {
        Opcode::Close => Some(Heard::Close(payload.first_chunk().map(|code| CloseCode(u16::from_be_bytes(*code))))),
        Opcode::Ping => Some(Heard::Ping(payload.to_vec())),
        Opcode::Pong => Some(Heard::Pong(payload.to_vec())),
        Opcode::Continuation | Opcode::Text | Opcode::Binary => None,
    }
}

fn hear_hixie(
    reader: &mut HixieReader,
    mut bytes: &[u8],
    message: &mut Vec<u8>,
    heard: &mut impl Extend<Heard>,
) -> Result<(), HixieError> {
    loop {
        let (taken, event) = reader.read(bytes)?;
        bytes = &bytes[taken..];
        match event {
            HixieEvent::Nothing => return Ok(()),
            HixieEvent::Text { payload, is_last } => {
                keep(message, payload);
                if is_last {
                    heard.extend([Heard::Text(std::mem::take(message))]);
                }
            }
            HixieEvent::Close => heard.extend([Heard::Close(None)]),
        }
    }
}

fn keep(message: &mut Vec<u8>, bytes: &[u8]) {
    let room = MESSAGE_BYTES_MAX - message.len();
    message.extend_from_slice(&bytes[..room.min(bytes.len())]);
}

/// A whole frame to a server, which must be masked (RFC 6455 §5.1).
pub fn frame(opcode: Opcode, payload: &[u8], key: [u8; 4]) -> Vec<u8> {
    let header =
        FrameHeader { opcode, is_final: true, reserved: 0, mask: Some(key), payload_bytes: payload.len() as u64 };
    let mut bytes = Vec::new();
    header.write_to(&mut bytes);
    let payload_at = bytes.len();
    bytes.extend_from_slice(payload);
    mask(&mut bytes[payload_at..], key, 0);
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HYBI: Question = Question::Version(Dialect::Rfc6455);
    const HIXIE_76: Question = Question::Version(Dialect::Hixie76);
    const HIXIE_75: Question = Question::Version(Dialect::Hixie75);

    fn hear(question: Question, bytes: &[u8], step: usize) -> (Vec<Heard>, Option<Fault>) {
        let (mut hearing, mut heard) = (Hearing::new(question), Vec::new());
        let fault = bytes.chunks(step).find_map(|piece| hearing.handle_bytes(piece, &mut heard).err());
        (heard, fault)
    }

    fn check(question: Question, bytes: &[u8], heard: &[Heard], fault: Option<Fault>) {
        for step in 1..=bytes.len() {
            assert_eq!(hear(question, bytes, step), (heard.to_vec(), fault), "{bytes:?} in pieces of {step}");
        }
    }

    fn text(text: &str) -> Heard {
        Heard::Text(text.as_bytes().to_vec())
    }

    #[test]
    fn hears_frames_whole_and_in_fragments() {
        check(
            HYBI,
            b"\x01\x02he\x89\x01!\x80\x03llo\x82\x01x\x81\x00\x8A\x02ok\x88\x02\x03\xE8",
            &[
                Heard::Ping(b"!".to_vec()),
                text("hello"),
                Heard::Binary,
                text(""),
                Heard::Pong(b"ok".to_vec()),
                Heard::Close(Some(CloseCode(1000))),
            ],
            None,
        );
        check(HYBI, b"\x88\x00", &[Heard::Close(None)], None);
        check(HYBI, b"\x81\x01a\x81\x81", &[text("a")], Some(Fault::Frame(FrameError::Masked)));
        check(HYBI, b"\x88\x00\x81\x00", &[Heard::Close(None)], Some(Fault::Frame(FrameError::AfterClose)));
    }

    #[test]
    fn hears_texts_of_the_hixies_and_the_close_of_one() {
        check(HIXIE_76, b"\0hello\xFF\x80\x01x\0\xFF\xFF\0", &[text("hello"), text(""), Heard::Close(None)], None);
        check(HIXIE_75, b"\0a\xFF\xFF\0\0b\xFF", &[text("a"), text("b")], None);
        let endless = [0xFF; 20];
        check(HIXIE_76, &endless, &[], Some(Fault::Hixie(HixieError::Length)));
    }

    #[test]
    fn keeps_the_beginning_of_what_is_long() {
        let long =
            [b"\x82\x7E\xFF\xFF".to_vec(), vec![0; 0xFFFF], b"\x81\x7E\x04\x01".to_vec(), vec![b'a'; 1025]].concat();
        assert_eq!(hear(HYBI, &long, 700), (vec![Heard::Binary, text(&"a".repeat(MESSAGE_BYTES_MAX))], None));
    }

    #[test]
    fn a_frame_of_ours_is_masked() {
        assert_eq!(
            frame(Opcode::Text, b"Hello", [0x37, 0xFA, 0x21, 0x3D]),
            b"\x81\x85\x37\xFA\x21\x3D\x7F\x9F\x4D\x51\x58"
        );
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_pieces_are_heard_the_same(
            bytes in proptest::collection::vec(
                prop_oneof![Just(0x81_u8), Just(0x88), Just(0x01), Just(0xFF), 0_u8..6, any::<u8>()], 1..300),
            step in 1_usize..40,
        ) {
            for question in [HYBI, HIXIE_76, HIXIE_75] {
                // Of two rules that a frame breaks, the one that shows first is told, which the pieces decide.
                let [pieces, whole] = [step, bytes.len()].map(|step| hear(question, &bytes, step));
                prop_assert_eq!((&pieces.0, pieces.1.is_some()), (&whole.0, whole.1.is_some()));
            }
        }
    }
}
