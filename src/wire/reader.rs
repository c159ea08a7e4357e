//! Reads the frames of one direction: where each begins and ends, whether they come in a legal order, how large their
//! messages grow. It keeps no payload and forwards nothing; who drives it passes the same bytes on.

use super::header::FrameStart;
use super::{FrameError, FrameHeader, Opcode};

/// What RFC 6455 §5.1 asks of the frames of this direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Masking {
    /// From a client.
    Required,
    /// From a server.
    Forbidden,
}

/// Which reserved bits the agreed extensions give a meaning (RFC 6455 §5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reserved {
    /// No extension.
    None,
    /// permessage-deflate: RSV1 on the first frame of a message (RFC 7692 §6).
    Compressed,
    /// An extension that is not known here.
    Any,
}

impl Reserved {
    fn allows(self, start: &FrameStart) -> bool {
        match self {
            Reserved::None => start.reserved == 0,
            Reserved::Compressed => {
                start.reserved == 0 || start.reserved == 0x40 && matches!(start.opcode, Opcode::Text | Opcode::Binary)
            }
            Reserved::Any => true,
        }
    }
}

/// Payload lengths of the frame at hand and of its message so far, this frame included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Length {
    pub frame_bytes: u64,
    pub message_bytes: u64,
}

/// What stands at a border between frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next<'b> {
    /// The header is not whole, or the control frame is not: both are at most [`super::CONTROL_FRAME_MAX`] bytes.
    Incomplete,
    /// A frame of a message. [`FrameReader::enter`] goes on with it.
    Data { header: FrameHeader, header_bytes: usize },
    /// A whole control frame.
    Control { opcode: Opcode, mask: Option<[u8; 4]>, payload: &'b [u8], frame_bytes: usize },
}

/// ```text
///   Border ──enter──► Payload ──advance: last byte──► Border
/// ```
///
/// At a border ask [`FrameReader::next`] what comes; step over a control frame as a whole, [`FrameReader::enter`] a data
/// frame and [`FrameReader::advance`] through its payload. [`FrameReader::close`] tells it that a control frame was a Close.
#[derive(Clone, Debug)]
pub struct FrameReader {
    masking: Masking,
    reserved: Reserved,
    /// Payload bytes of the data frame in progress that are still to come; 0 at a border.
    left: u64,
    /// The message whose last frame has not ended.
    message: Option<Message>,
    is_closed: bool,
}

#[derive(Clone, Copy, Debug)]
struct Message {
    /// Text or binary.
    opcode: Opcode,
    /// Of the frames so far.
    bytes: u64,
    /// Its last frame has begun.
    is_last: bool,
}

impl FrameReader {
    pub fn new(masking: Masking, reserved: Reserved) -> FrameReader {
        FrameReader { masking, reserved, left: 0, message: None, is_closed: false }
    }

    /// Between two frames, fragments of one message included: here, and only here, another frame may be put in.
    pub fn is_at_border(&self) -> bool {
        self.left == 0
    }

    /// How many of these bytes belong to the frame in progress, and what kind of message ended with them.
    pub fn advance(&mut self, bytes: &[u8]) -> (usize, Option<Opcode>) {
        let taken = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
        self.left -= taken as u64;
        let ended = self.message.take_if(|message| message.is_last && self.left == 0);
        (taken, ended.map(|message| message.opcode))
    }

    /// What comes at the border at which the reader stands. A rule that is broken is seen at the byte that breaks it.
    ///
    /// # Errors
    /// The rule that the frame breaks. The reader stays where it is.
    pub fn next<'b>(&self, bytes: &'b [u8]) -> Result<Next<'b>, FrameError> {
        if let Some(start) = FrameStart::parse(bytes)? {
            self.check(&start)?;
        }
        let Some((header, header_bytes)) = FrameHeader::parse(bytes)? else { return Ok(Next::Incomplete) };
        if !header.opcode.is_control() {
            return Ok(Next::Data { header, header_bytes });
        }
        // A control frame is short, or it would not have been parsed.
        let frame_bytes = header_bytes + usize::try_from(header.payload_bytes).unwrap_or(usize::MAX - header_bytes);
        Ok(match bytes.get(header_bytes..frame_bytes) {
            Some(payload) => Next::Control { opcode: header.opcode, mask: header.mask, payload, frame_bytes },
            None => Next::Incomplete,
        })
    }

    /// What the frame is, and its message would become with it.
    pub fn length_with(&self, header: &FrameHeader) -> Length {
        let before = self.message.map_or(0, |message| message.bytes);
        Length { frame_bytes: header.payload_bytes, message_bytes: before.saturating_add(header.payload_bytes) }
    }

    /// Goes past the header of a data frame that [`FrameReader::next`] gave.
    pub fn enter(&mut self, header: &FrameHeader) {
        let opcode = self.message.map_or(header.opcode, |message| message.opcode);
        let bytes = self.length_with(header).message_bytes;
        self.left = header.payload_bytes;
        self.message = Some(Message { opcode, bytes, is_last: header.is_final });
    }

    /// A Close frame was stepped over.
    pub fn close(&mut self) {
        self.is_closed = true;
    }

    fn check(&self, start: &FrameStart) -> Result<(), FrameError> {
        if !self.reserved.allows(start) {
            return Err(FrameError::ReservedBit);
        }
        // A Ping that came before the other side's Close may still have to be answered (RFC 6455 §5.5.2).
        if self.is_closed && !matches!(start.opcode, Opcode::Ping | Opcode::Pong) {
            return Err(FrameError::AfterClose);
        }
        match (start.opcode, self.message.is_some()) {
            (Opcode::Continuation, false) => return Err(FrameError::Continuation),
            (Opcode::Text | Opcode::Binary, true) => return Err(FrameError::Interleaved),
            _ => {}
        }
        match (self.masking, start.is_masked) {
            (Masking::Required, Some(false)) => Err(FrameError::Unmasked),
            (Masking::Forbidden, Some(true)) => Err(FrameError::Masked),
            (Masking::Required | Masking::Forbidden, _) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server() -> FrameReader {
        FrameReader::new(Masking::Forbidden, Reserved::None)
    }

    fn check_error(mut reader: FrameReader, frames: &[&[u8]], expected: FrameError) {
        let (last, before) = frames.split_last().unwrap();
        for frame in before {
            let Next::Data { header, header_bytes } = reader.next(frame).unwrap() else { panic!("{frame:?}") };
            reader.enter(&header);
            reader.advance(&frame[header_bytes..]);
        }
        assert_eq!(reader.next(last), Err(expected));
    }

    #[test]
    fn a_fragmented_message_is_one_message_with_borders_between() {
        let mut reader = server();
        let bytes = b"\x01\x03Hel\x89\x01!\x80\x02lo";
        let Next::Data { header, header_bytes } = reader.next(bytes).unwrap() else { panic!() };
        assert_eq!(reader.length_with(&header), Length { frame_bytes: 3, message_bytes: 3 });
        reader.enter(&header);
        assert!(!reader.is_at_border());
        assert_eq!(reader.advance(&bytes[header_bytes..]), (3, None));
        assert!(reader.is_at_border());
        let ping = reader.next(&bytes[5..]).unwrap();
        assert_eq!(ping, Next::Control { opcode: Opcode::Ping, mask: None, payload: b"!", frame_bytes: 3 });
        let Next::Data { header, header_bytes } = reader.next(&bytes[8..]).unwrap() else { panic!() };
        assert_eq!(reader.length_with(&header), Length { frame_bytes: 2, message_bytes: 5 });
        reader.enter(&header);
        assert_eq!(reader.advance(&bytes[8 + header_bytes..]), (2, Some(Opcode::Text)));
        assert_eq!(reader.length_with(&header).message_bytes, 2);
    }

    #[test]
    fn an_empty_message_ends_where_it_begins() {
        let mut reader = server();
        let Next::Data { header, .. } = reader.next(b"\x82\0").unwrap() else { panic!() };
        reader.enter(&header);
        assert_eq!(reader.advance(b"\x82\0"), (0, Some(Opcode::Binary)));
        assert_eq!(reader.advance(b"\x82\0"), (0, None));
    }

    #[test]
    fn a_control_frame_is_seen_whole_or_not_at_all() {
        let frame = b"\x88\x02\x03\xE8";
        for end in 0..frame.len() {
            assert_eq!(server().next(&frame[..end]), Ok(Next::Incomplete), "{end}");
        }
        assert!(matches!(server().next(frame), Ok(Next::Control { frame_bytes: 4, payload: b"\x03\xE8", .. })));
    }

    #[test]
    fn the_rules_of_a_direction_are_held() {
        check_error(server(), &[b"\x81\x80\0\0\0\0"], FrameError::Masked);
        check_error(FrameReader::new(Masking::Required, Reserved::None), &[b"\x81\0"], FrameError::Unmasked);
        check_error(server(), &[b"\xC1\0"], FrameError::ReservedBit);
        check_error(server(), &[b"\x80\0"], FrameError::Continuation);
        check_error(server(), &[b"\x01\0", b"\x82\0"], FrameError::Interleaved);
    }

    #[test]
    fn reserved_bits_have_the_meaning_that_was_agreed() {
        let compressed = || FrameReader::new(Masking::Forbidden, Reserved::Compressed);
        assert!(compressed().next(b"\xC1\0").is_ok());
        check_error(compressed(), &[b"\x41\0", b"\xC0\0"], FrameError::ReservedBit);
        check_error(compressed(), &[b"\xC9\0"], FrameError::ReservedBit);
        check_error(compressed(), &[b"\xA1\0"], FrameError::ReservedBit);
        assert!(FrameReader::new(Masking::Forbidden, Reserved::Any).next(b"\xF9\0").is_ok());
    }

    #[test]
    fn only_pings_and_pongs_stand_behind_a_close() {
        let mut reader = server();
        reader.close();
        assert!(matches!(reader.next(b"\x89\0"), Ok(Next::Control { opcode: Opcode::Ping, .. })));
        assert!(matches!(reader.next(b"\x8A\0"), Ok(Next::Control { opcode: Opcode::Pong, .. })));
        for frame in [b"\x81\0", b"\x82\0", b"\x80\0", b"\x88\0"] {
            check_error(reader.clone(), &[frame], FrameError::AfterClose);
        }
    }

    #[test]
    fn lengths_do_not_overflow() {
        let mut reader = server();
        let huge = b"\x01\x7F\x7F\xFF\xFF\xFF\xFF\xFF\xFF\xFF";
        let Next::Data { header, .. } = reader.next(huge).unwrap() else { panic!() };
        reader.enter(&header);
        reader.left = 0;
        let more = FrameHeader { opcode: Opcode::Continuation, ..header };
        reader.enter(&more);
        assert_eq!(reader.length_with(&more).message_bytes, u64::MAX);
    }
}
