//! The header of one frame (RFC 6455 §5.2), without the rules that need to know who sent it or what came before.

use super::{FrameError, Opcode};

/// Two bytes, eight of length, four of mask.
pub const HEADER_BYTES_MAX: usize = 14;

const FIN: u8 = 0x80;
const RESERVED: u8 = 0x70;
const OPCODE: u8 = 0x0F;
const MASKED: u8 = 0x80;
const LENGTH: u8 = 0x7F;
const LENGTH_IN_TWO_BYTES: u8 = 126;
const LENGTH_IN_EIGHT_BYTES: u8 = 127;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    pub opcode: Opcode,
    /// The last frame of its message.
    pub is_final: bool,
    /// RSV1 to RSV3 where they stand in the first byte: `0x40`, `0x20`, `0x10`.
    pub reserved: u8,
    pub mask: Option<[u8; 4]>,
    /// Below 2^63.
    pub payload_bytes: u64,
}

/// In which forms a length may be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lengths {
    /// RFC 6455 §5.2, since hybi-14.
    Shortest,
    /// Before that.
    Any,
}

/// What the first two bytes say of a frame before its length is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameStart {
    pub opcode: Opcode,
    pub is_final: bool,
    pub reserved: u8,
    /// `None` while only the first byte is there.
    pub is_masked: Option<bool>,
}

impl FrameStart {
    /// `None` while there is no byte.
    ///
    /// # Errors
    /// As [`FrameHeader::parse`].
    pub fn parse(bytes: &[u8]) -> Result<Option<FrameStart>, FrameError> {
        let Some(&first) = bytes.first() else { return Ok(None) };
        let opcode = Opcode::from_bits(first & OPCODE).ok_or(FrameError::Opcode)?;
        let is_final = first & FIN != 0;
        if opcode.is_control() && !is_final {
            return Err(FrameError::ControlFragmented);
        }
        let second = bytes.get(1);
        if opcode.is_control() && second.is_some_and(|second| second & LENGTH >= LENGTH_IN_TWO_BYTES) {
            return Err(FrameError::ControlTooLarge);
        }
        let is_masked = second.map(|second| second & MASKED != 0);
        Ok(Some(FrameStart { opcode, is_final, reserved: first & RESERVED, is_masked }))
    }
}

impl FrameHeader {
    /// The header at the front of `bytes` and its own length, or `None` while it is not whole. What is wrong with it is said
    /// as soon as the bytes that show it are there.
    ///
    /// # Errors
    /// What no peer may send, whichever side it is.
    pub fn parse(bytes: &[u8]) -> Result<Option<(FrameHeader, usize)>, FrameError> {
        FrameHeader::parse_with(bytes, Lengths::Shortest)
    }

    /// As [`FrameHeader::parse`], for a version that minds its lengths less.
    ///
    /// # Errors
    /// As [`FrameHeader::parse`].
    pub fn parse_with(bytes: &[u8], lengths: Lengths) -> Result<Option<(FrameHeader, usize)>, FrameError> {
        let (Some(start), Some(&second)) = (FrameStart::parse(bytes)?, bytes.get(1)) else { return Ok(None) };
        let FrameStart { opcode, is_final, reserved, .. } = start;
        let Some((payload_bytes, length_end)) = payload_bytes(second & LENGTH, bytes, lengths)? else {
            return Ok(None);
        };
        let (mask, header_bytes) = if second & MASKED == 0 {
            (None, length_end)
        } else {
            let Some(key) = bytes[length_end..].first_chunk::<4>() else { return Ok(None) };
            (Some(*key), length_end + 4)
        };
        let header = FrameHeader { opcode, is_final, reserved, mask, payload_bytes };
        Ok(Some((header, header_bytes)))
    }

    /// In its shortest form.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        let fin = if self.is_final { FIN } else { 0 };
        out.push(fin | self.reserved | self.opcode.bits());
        let masked = if self.mask.is_some() { MASKED } else { 0 };
        match (u8::try_from(self.payload_bytes), u16::try_from(self.payload_bytes)) {
            (Ok(short @ 0..=125), _) => out.push(masked | short),
            (_, Ok(middle)) => {
                out.push(masked | LENGTH_IN_TWO_BYTES);
                out.extend_from_slice(&middle.to_be_bytes());
            }
            _ => {
                out.push(masked | LENGTH_IN_EIGHT_BYTES);
                out.extend_from_slice(&self.payload_bytes.to_be_bytes());
            }
        }
        if let Some(key) = self.mask {
            out.extend_from_slice(&key);
        }
    }
}

/// The length of the payload and where the bytes that say it end.
fn payload_bytes(length: u8, bytes: &[u8], lengths: Lengths) -> Result<Option<(u64, usize)>, FrameError> {
    match length {
        LENGTH_IN_TWO_BYTES => {
            let Some(length) = bytes[2..].first_chunk::<2>() else { return Ok(None) };
            match u16::from_be_bytes(*length) {
                0..=125 if lengths == Lengths::Shortest => Err(FrameError::LongLength),
                length => Ok(Some((u64::from(length), 4))),
            }
        }
        LENGTH_IN_EIGHT_BYTES => {
            let Some(length) = bytes[2..].first_chunk::<8>() else { return Ok(None) };
            match u64::from_be_bytes(*length) {
                0..=0xFFFF if lengths == Lengths::Shortest => Err(FrameError::LongLength),
                length if length >> 63 != 0 => Err(FrameError::LengthTooLarge),
                length => Ok(Some((length, 10))),
            }
        }
        short => Ok(Some((u64::from(short), 2))),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(bytes: &[u8], expected: FrameError) {
        assert_eq!(FrameHeader::parse(bytes), Err(expected));
    }

    #[test]
    fn headers_of_the_rfc_are_read() {
        // RFC 6455 §5.7.
        let text = FrameHeader { opcode: Opcode::Text, is_final: true, reserved: 0, mask: None, payload_bytes: 5 };
        assert_eq!(FrameHeader::parse(b"\x81\x05Hello"), Ok(Some((text, 2))));
        let masked = FrameHeader { mask: Some([0x37, 0xfa, 0x21, 0x3d]), ..text };
        assert_eq!(FrameHeader::parse(b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"), Ok(Some((masked, 6))));
        let large = FrameHeader { opcode: Opcode::Binary, payload_bytes: 65536, ..text };
        assert_eq!(FrameHeader::parse(b"\x82\x7F\0\0\0\0\0\x01\0\0"), Ok(Some((large, 10))));
    }

    #[test]
    fn what_no_peer_may_send_is_an_error_at_its_first_sign() {
        check(b"\x83", FrameError::Opcode);
        check(b"\x8B", FrameError::Opcode);
        check(b"\x09", FrameError::ControlFragmented);
        check(b"\x89\x7E", FrameError::ControlTooLarge);
        check(b"\x89\xFF", FrameError::ControlTooLarge);
        check(b"\x82\x7E\0\x7D", FrameError::LongLength);
        check(b"\x82\x7F\0\0\0\0\0\0\xFF\xFF", FrameError::LongLength);
        check(b"\x82\x7F\x80\0\0\0\0\0\0\0", FrameError::LengthTooLarge);
    }

    proptest! {
        #[test]
        fn encode_then_decode_is_identity(
            opcode in prop::sample::select(Opcode::ALL.to_vec()),
            reserved in 0_u8..8,
            mask in any::<Option<[u8; 4]>>(),
            length in prop_oneof![0_u64..300, 65_000_u64..66_000, 0_u64..1 << 63],
            fin in any::<bool>(),
        ) {
            let (is_final, payload_bytes) = if opcode.is_control() { (true, length % 126) } else { (fin, length) };
            let header = FrameHeader { opcode, is_final, reserved: reserved << 4, mask, payload_bytes };
            let mut bytes = Vec::new();
            header.write_to(&mut bytes);
            prop_assert!(bytes.len() <= HEADER_BYTES_MAX);
            for end in 0..bytes.len() {
                prop_assert_eq!(FrameHeader::parse(&bytes[..end]), Ok(None));
            }
            prop_assert_eq!(FrameHeader::parse(&bytes), Ok(Some((header, bytes.len()))));
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..20)) {
            let _ = FrameHeader::parse(&bytes);
        }
    }
}
