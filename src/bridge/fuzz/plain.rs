//! What one side says to another that speaks another version, read whole and as plainly as the table of the bridge has it. It
//! shares no rule with the ports, and knows of no pieces.

use super::super::{Binary, Fault, Terms};
use crate::dialect::Dialect;
use crate::wire::fuzz::{Plain, PlainFrame, PlainHixie};
use crate::wire::{Lengths, Masking, Opcode, Reserved, mask};

/// What the other side is to hear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    Text(Vec<u8>),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Vec<u8>),
}

impl Item {
    /// What a side hears of it that knows only texts.
    fn as_text(&self) -> Option<Vec<u8>> {
        match self {
            Item::Text(text) => Some(text.clone()),
            Item::Binary(bytes) => Some(to_base64(bytes)),
            Item::Ping(_) | Item::Pong(_) | Item::Close(_) => None,
        }
    }
}

pub fn messages_of(mut items: Vec<Item>) -> Vec<Item> {
    items.retain(|item| matches!(item, Item::Text(_) | Item::Binary(_)));
    items
}

/// What a side hears of these that knows only texts.
pub fn texts_of(items: &[Item]) -> Vec<Vec<u8>> {
    items.iter().filter_map(Item::as_text).collect()
}

/// Who says it to whom.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    pub from: Dialect,
    pub to: Dialect,
    /// Whether a client says it.
    pub masking: Masking,
    pub terms: Terms,
}

/// All that a side has said so far.
#[derive(Debug, Default)]
pub struct Said {
    pub items: Vec<Item>,
    /// Of the message that has not ended.
    pub begun: Vec<u8>,
    /// What may be said to be wrong behind the items; none while nothing is.
    pub faults: Vec<Fault>,
    /// Behind a Close, or where a frame begins that nobody may send: the session lets nothing pass from here.
    pub ends_at: Option<usize>,
    /// No version has the frame that begins there.
    pub is_no_frame: bool,
}

impl Way {
    pub fn said(&self, bytes: &[u8], has_ended: bool) -> Said {
        if self.from.has_frames() { self.framed(bytes) } else { self.hixie(bytes, has_ended) }
    }

    fn framed(&self, bytes: &[u8]) -> Said {
        let lengths = if self.from == Dialect::Rfc6455 { Lengths::Shortest } else { Lengths::Any };
        let plain = Plain::read(bytes, self.masking, Reserved::None, lengths);
        let mut said = Said { ends_at: plain.broken_at, ..Said::default() };
        said.is_no_frame = plain.broken_at.is_some_and(|at| is_no_frame(&bytes[at..], lengths));
        let mut kind = Opcode::Text;
        for frame in &plain.frames {
            let payload = payload(bytes, frame, self.masking);
            let is_whole = payload.len() as u64 == frame.payload_bytes;
            match frame.opcode {
                Opcode::Ping => said.items.push(Item::Ping(payload)),
                Opcode::Pong => said.items.push(Item::Pong(payload)),
                Opcode::Close => {
                    said.items.push(Item::Close(cleaned(&payload, self.from)));
                    return Said { ends_at: Some(frame.payload_at + payload.len()), is_no_frame: false, ..said };
                }
                opcode => {
                    kind = if opcode == Opcode::Continuation { kind } else { opcode };
                    said.begun.extend(payload);
                    let ends = frame.is_final && is_whole;
                    said.faults = self.faults_of_frame(kind, &said.begun, ends, frame.message_bytes);
                    if !said.faults.is_empty() {
                        return said;
                    }
                    if ends {
                        let message = std::mem::take(&mut said.begun);
                        said.items.push(if kind == Opcode::Text { Item::Text(message) } else { Item::Binary(message) });
                    }
                }
            }
        }
        said
    }

    fn faults_of_frame(&self, kind: Opcode, message: &[u8], ends: bool, message_bytes: u64) -> Vec<Fault> {
        let is_text = kind == Opcode::Text;
        if self.to.has_frames() {
            let is_checked = is_text && self.to == Dialect::Rfc6455;
            return if is_checked && !is_text_so_far(message, ends) { vec![Fault::Text] } else { vec![] };
        }
        if !is_text && self.terms.binary == Binary::Refuse {
            return vec![Fault::Binary];
        }
        if message_bytes > self.terms.message_bytes_max as u64 {
            return vec![Fault::TooBig];
        }
        if is_text && ends && !is_text_so_far(message, true) { vec![Fault::Text] } else { vec![] }
    }

    fn hixie(&self, bytes: &[u8], has_ended: bool) -> Said {
        let most = self.terms.message_bytes_max as u64;
        let plain = PlainHixie::read(bytes, self.from == Dialect::Hixie76, most);
        let mut said = Said::default();
        for text in plain.texts {
            let faults = self.faults_of_text(&text, true);
            if !faults.is_empty() {
                return Said { faults, begun: text, ..said };
            }
            said.items.push(match self.terms.binary {
                Binary::Refuse => Item::Text(text),
                Binary::Base64 => Item::Binary(from_base64(&text).unwrap_or_default()),
            });
        }
        if let Some(begun) = plain.begun {
            said.faults = self.faults_of_text(&begun, false);
            said.begun = begun;
        } else if plain.error.is_some() {
            said.faults = vec![Fault::Frame];
        } else if plain.is_closed || has_ended && !plain.is_amid {
            said.items.push(Item::Close(1000_u16.to_be_bytes().to_vec()));
        }
        said
    }

    fn faults_of_text(&self, text: &[u8], ends: bool) -> Vec<Fault> {
        let most = self.terms.message_bytes_max;
        let is_collected = !self.to.has_frames();
        match self.terms.binary {
            Binary::Refuse => {
                let too_big = (is_collected && text.len() > most).then_some(Fault::TooBig);
                let no_text = (!is_text_so_far(text, ends)).then_some(Fault::Text);
                too_big.into_iter().chain(no_text).collect()
            }
            // What is limited here is the text.
            Binary::Base64 if text.len() > most.div_ceil(3) * 4 => vec![Fault::TooBig],
            Binary::Base64 if !ends => vec![],
            Binary::Base64 => match from_base64(text) {
                None => vec![Fault::Text],
                Some(binary) if is_collected && binary.len() > most => vec![Fault::TooBig],
                Some(_) => vec![],
            },
        }
    }
}

/// What the frames that went to a side say, and what there is of a message that has not ended. Nothing is behind a Close.
///
/// # Panics
/// When a frame is not legal, or not in its shortest form.
pub fn heard_in_frames(bytes: &[u8], masking: Masking) -> (Vec<Item>, Item) {
    let plain = Plain::read(bytes, masking, Reserved::None, Lengths::Shortest);
    assert_eq!(plain.broken_at, None, "not legal: {bytes:?}");
    let (mut items, mut begun, mut kind) = (Vec::new(), Vec::new(), Opcode::Text);
    let message = |kind, bytes| if kind == Opcode::Text { Item::Text(bytes) } else { Item::Binary(bytes) };
    for frame in &plain.frames {
        assert!(!matches!(items.last(), Some(Item::Close(_))), "behind a Close: {bytes:?}");
        let payload = payload(bytes, frame, masking);
        let is_whole = payload.len() as u64 == frame.payload_bytes;
        match frame.opcode {
            Opcode::Ping => items.push(Item::Ping(payload)),
            Opcode::Pong => items.push(Item::Pong(payload)),
            Opcode::Close => {
                assert!(may_close(&payload), "a bad Close: {payload:?}");
                assert_eq!(frame.payload_at + payload.len(), bytes.len(), "behind a Close");
                items.push(Item::Close(payload));
            }
            opcode => {
                kind = if opcode == Opcode::Continuation { kind } else { opcode };
                begun.extend(payload);
                if frame.is_final && is_whole {
                    items.push(message(kind, std::mem::take(&mut begun)));
                    kind = Opcode::Text;
                }
            }
        }
    }
    (items, message(kind, begun))
}

/// The texts that went to a side without frames, and whether it was closed with `FF 00`.
///
/// # Panics
/// When it is anything but whole texts and one `FF 00` behind all of them.
pub fn heard_in_texts(bytes: &[u8], dialect: Dialect) -> (Vec<Vec<u8>>, bool) {
    let (mut texts, mut rest) = (Vec::new(), bytes);
    loop {
        match rest {
            [] => return (texts, false),
            [0xFF, 0x00] if dialect == Dialect::Hixie76 => return (texts, true),
            [0x00, behind @ ..] => {
                let end = behind.iter().position(|byte| *byte == 0xFF);
                let end = end.unwrap_or_else(|| panic!("half a text: {bytes:?}"));
                assert!(std::str::from_utf8(&behind[..end]).is_ok(), "no text: {bytes:?}");
                texts.push(behind[..end].to_vec());
                rest = &behind[end + 1..];
            }
            _ => panic!("no text: {rest:?} of {bytes:?}"),
        }
    }
}

/// As far as it is there.
fn payload(bytes: &[u8], frame: &PlainFrame, masking: Masking) -> Vec<u8> {
    let there = &bytes[frame.payload_at..];
    let length = usize::try_from(frame.payload_bytes).unwrap_or(usize::MAX).min(there.len());
    let mut payload = there[..length].to_vec();
    if masking == Masking::Required {
        let key = &bytes[frame.payload_at - 4..frame.payload_at];
        mask(&mut payload, [key[0], key[1], key[2], key[3]], 0);
    }
    payload
}

/// Whether no version has a frame that begins so.
fn is_no_frame(bytes: &[u8], lengths: Lengths) -> bool {
    let first = bytes[0];
    let is_control = first & 0x08 != 0;
    if !matches!(first & 0x0F, 0..=2 | 8..=10) || is_control && first & 0x80 == 0 {
        return true;
    }
    let length = match bytes.get(1).map(|second| second & 0x7F) {
        Some(126 | 127) if is_control => return true,
        Some(126) => bytes.get(2..4),
        Some(127) => bytes.get(2..10),
        _ => None,
    };
    let Some(length) = length else { return false };
    let value = length.iter().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
    let least = if length.len() == 2 { 126 } else { 65_536 };
    lengths == Lengths::Shortest && value < least || length.len() == 8 && value >> 63 != 0
}

pub fn is_text_so_far(bytes: &[u8], ends: bool) -> bool {
    std::str::from_utf8(bytes).err().is_none_or(|error| !ends && error.error_len().is_none())
}

fn may_close(payload: &[u8]) -> bool {
    match payload {
        [] => true,
        [high, low, reason @ ..] => is_code(u16::from_be_bytes([*high, *low])) && std::str::from_utf8(reason).is_ok(),
        [_] => false,
    }
}

/// RFC 6455 §7.4, and its registry.
fn is_code(code: u16) -> bool {
    !matches!(code, 0..1000 | 1004..=1006 | 1015..3000 | 5000..)
}

fn cleaned(payload: &[u8], from: Dialect) -> Vec<u8> {
    let [high, low, reason @ ..] = payload else { return Vec::new() };
    let code = match u16::from_be_bytes([*high, *low]) {
        1004 if from != Dialect::Rfc6455 => 1009,
        code => code,
    };
    let reason = if std::str::from_utf8(reason).is_ok() { reason } else { &[] };
    if is_code(code) { [&code.to_be_bytes(), reason].concat() } else { Vec::new() }
}

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// RFC 4648 §4, with its padding and nothing else.
fn from_base64(text: &[u8]) -> Option<Vec<u8>> {
    let digits = text.strip_suffix(b"==").or(text.strip_suffix(b"=")).unwrap_or(text);
    let mut bits = Vec::new();
    for digit in digits {
        let value = DIGITS.iter().position(|known| known == digit)?;
        bits.extend((0..6).rev().map(|bit| value >> bit & 1));
    }
    let (bytes, left) = bits.as_chunks::<8>();
    let is_padded = text.len().is_multiple_of(4) && text.len() - digits.len() == left.len() / 2;
    let byte = |bits: &[usize; 8]| bits.iter().fold(0_u8, |sum, bit| sum << 1 | u8::from(*bit == 1));
    (is_padded && !left.contains(&1)).then(|| bytes.iter().map(byte).collect())
}

fn to_base64(bytes: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    for group in bytes.chunks(3) {
        let at = |at| u32::from(group.get(at).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        let digit = |place: u32| DIGITS[(bits >> (18 - 6 * place) & 0x3F) as usize];
        text.extend((0..4).map(|place| if place as usize <= group.len() { digit(place) } else { b'=' }));
    }
    text
}
