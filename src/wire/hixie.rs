//! Frames as hixie-75 and hixie-76 put them on the wire (draft-hixie-thewebsocketprotocol-76 §4.2, §5.3): a text between a
//! byte `00` and a byte `FF`, lengths in base 128 for what nobody ever sent, and `FF 00` to close. It keeps no payload, and does
//! not know UTF-8.

/// Before a text. Its payload is opaque up to [`TEXT_END`], which no UTF-8 has in it.
pub const TEXT_START: u8 = 0x00;
pub const TEXT_END: u8 = 0xFF;

/// The start of the closing handshake of hixie-76. In hixie-75 it is an empty frame like any other.
pub const CLOSE: [u8; 2] = [0xFF, 0x00];

/// What bytes come to. Frames that no draft gives a meaning are read and dropped, as both ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HixieEvent<'b> {
    /// They are all read, and there is nothing to tell.
    Nothing,
    /// A part of a text, or all of it.
    Text { payload: &'b [u8], is_last: bool },
    /// `FF 00`, or what means the same. The reader gives no more events.
    Close,
}

/// How a frame can be unreadable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum HixieError {
    /// A length that does not end, or that is more than the limit.
    #[error("length above the limit")]
    Length,
    /// A frame without a meaning that does not end within the limit.
    #[error("frame to be dropped above the limit")]
    Dropped,
}

/// ```text
///   Border ──00──────► Text ──FF────────────────────────────► Border
///     ├────01 to 7F──► Unknown ──FF─────────────────────────► Border
///     └────80 to FF──► Length ──last digit──► Skipped ──────► Border
///                        └──of FF, and 0──► Closed
/// ```
#[derive(Clone, Copy, Debug)]
pub struct HixieReader {
    state: State,
    /// Bytes of a frame that is dropped, at most.
    dropped_bytes_max: u64,
    /// `FF 00` has its meaning of hixie-76.
    has_close: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Border,
    Text,
    Unknown { bytes: u64 },
    Length { is_ff: bool, digits: u8, bytes: u64 },
    Skipped { left: u64 },
    Closed,
}

/// Digits of a length, at most: enough for any that fits 63 bits.
const LENGTH_DIGITS_MAX: u8 = 9;

impl HixieReader {
    /// Of hixie-76.
    pub fn with_close(dropped_bytes_max: u64) -> HixieReader {
        HixieReader { state: State::Border, dropped_bytes_max, has_close: true }
    }

    /// Of hixie-75.
    pub fn without_close(dropped_bytes_max: u64) -> HixieReader {
        HixieReader { has_close: false, ..HixieReader::with_close(dropped_bytes_max) }
    }

    /// Between two frames.
    pub fn is_at_border(&self) -> bool {
        matches!(self.state, State::Border | State::Closed)
    }

    /// How many bytes lead to the next event, and the event. To be asked again with the rest until it is
    /// [`HixieEvent::Nothing`].
    ///
    /// # Errors
    /// When a frame is larger than may be; nothing more can be read then.
    pub fn read<'b>(&mut self, bytes: &'b [u8]) -> Result<(usize, HixieEvent<'b>), HixieError> {
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            let rest = &bytes[at..];
            match self.state {
                State::Text => {
                    let end = memchr::memchr(TEXT_END, rest);
                    let payload = &rest[..end.unwrap_or(rest.len())];
                    if end.is_some() {
                        self.state = State::Border;
                    }
                    let read = at + payload.len() + usize::from(end.is_some());
                    return Ok((read, HixieEvent::Text { payload, is_last: end.is_some() }));
                }
                State::Unknown { bytes } => at += self.drop_unknown(rest, bytes)?,
                State::Skipped { left } => {
                    let skipped = left.min(rest.len() as u64);
                    self.state = State::skipping(left - skipped);
                    at += usize::try_from(skipped).unwrap_or(rest.len());
                }
                State::Border => {
                    self.state = State::begun_by(byte);
                    at += 1;
                }
                State::Length { is_ff, digits, bytes } => {
                    self.state = self.with_digit(is_ff, digits, bytes, byte)?;
                    at += 1;
                    if self.state == State::Closed {
                        return Ok((at, HixieEvent::Close));
                    }
                }
                State::Closed => return Ok((bytes.len(), HixieEvent::Nothing)),
            }
        }
        Ok((at, HixieEvent::Nothing))
    }

    fn drop_unknown(&mut self, rest: &[u8], before: u64) -> Result<usize, HixieError> {
        let end = memchr::memchr(TEXT_END, rest);
        let dropped = end.unwrap_or(rest.len());
        let bytes = before + dropped as u64;
        if bytes > self.dropped_bytes_max {
            return Err(HixieError::Dropped);
        }
        self.state = if end.is_some() { State::Border } else { State::Unknown { bytes } };
        Ok(dropped + usize::from(end.is_some()))
    }

    /// Base 128, the most significant digit first; the high bit says that another one follows.
    fn with_digit(&self, is_ff: bool, digits: u8, bytes: u64, byte: u8) -> Result<State, HixieError> {
        if digits == LENGTH_DIGITS_MAX {
            return Err(HixieError::Length);
        }
        let bytes = bytes << 7 | u64::from(byte & 0x7F);
        if bytes > self.dropped_bytes_max {
            return Err(HixieError::Length);
        }
        Ok(match (byte & 0x80 != 0, bytes) {
            (true, _) => State::Length { is_ff, digits: digits + 1, bytes },
            (false, 0) if is_ff && self.has_close => State::Closed,
            (false, left) => State::skipping(left),
        })
    }
}

impl State {
    fn begun_by(kind: u8) -> State {
        match kind {
            TEXT_START => State::Text,
            0x01..=0x7F => State::Unknown { bytes: 0 },
            0x80..=0xFF => State::Length { is_ff: kind == 0xFF, digits: 0, bytes: 0 },
        }
    }

    fn skipping(left: u64) -> State {
        if left == 0 { State::Border } else { State::Skipped { left } }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMIT: u64 = 300;

    /// The texts, whether it closed, and the error, of bytes that come in pieces of this size.
    fn read(bytes: &[u8], step: usize, mut reader: HixieReader) -> (Vec<Vec<u8>>, bool, Option<HixieError>) {
        let (mut texts, mut text, mut closed) = (Vec::new(), Vec::new(), false);
        for piece in bytes.chunks(step) {
            let mut at = 0;
            while at < piece.len() {
                let (taken, event) = match reader.read(&piece[at..]) {
                    Ok(read) => read,
                    Err(error) => return (texts, closed, Some(error)),
                };
                assert!(taken > 0);
                at += taken;
                match event {
                    HixieEvent::Nothing => assert_eq!(at, piece.len()),
                    HixieEvent::Close => closed = true,
                    HixieEvent::Text { payload, is_last } => {
                        text.extend_from_slice(payload);
                        if is_last {
                            texts.push(std::mem::take(&mut text));
                        }
                    }
                }
            }
        }
        (texts, closed, None)
    }

    fn check(bytes: &[u8], texts: &[&[u8]], closed: bool, error: Option<HixieError>) {
        for step in 1..=bytes.len() {
            let found = read(bytes, step, HixieReader::with_close(LIMIT));
            assert_eq!(found, (texts.iter().map(|text| text.to_vec()).collect(), closed, error), "{bytes:?} {step}");
        }
    }

    #[test]
    fn a_text_stands_between_00_and_ff() {
        check(b"\0hello\xFF\0\xFF\0x\xFF", &[b"hello", b"", b"x"], false, None);
        check(b"\0hel", &[], false, None);
    }

    #[test]
    fn ff_00_closes_hixie_76_and_is_an_empty_frame_in_hixie_75() {
        check(b"\0a\xFF\xFF\0\0b\xFF", &[b"a"], true, None);
        check(b"\xFF\x80\x80\0\0b\xFF", &[], true, None);
        let found = read(b"\0a\xFF\xFF\0\0b\xFF", 1, HixieReader::without_close(LIMIT));
        assert_eq!(found, (vec![b"a".to_vec(), b"b".to_vec()], false, None));
    }

    #[test]
    fn frames_without_a_meaning_are_dropped() {
        check(b"\x80\x02\0\xFF\0a\xFF", &[b"a"], false, None);
        check(b"\x80\x00\0a\xFF", &[b"a"], false, None);
        check(b"\xFF\x01x\0a\xFF", &[b"a"], false, None);
        check(b"\x01\0\0\xFF\0a\xFF\x7F\xFF", &[b"a"], false, None);
        let long = [&b"\x80\x82\x2C"[..], &[0; 300], b"\0a\xFF"].concat();
        check(&long, &[b"a"], false, None);
    }

    #[test]
    fn lengths_neither_overflow_nor_go_on_for_ever() {
        check(b"\x80\x82\x2D", &[], false, Some(HixieError::Length));
        check(&[&b"\x80"[..], &[0xFF; 20]].concat(), &[], false, Some(HixieError::Length));
        check(&[&b"\x80"[..], &[0x80; 20]].concat(), &[], false, Some(HixieError::Length));
        check(&[&b"\xFF"[..], &[0x80; 20]].concat(), &[], false, Some(HixieError::Length));
        check(&[&b"\x01"[..], &[0; 301]].concat(), &[], false, Some(HixieError::Dropped));
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_texts(bytes in proptest::collection::vec(
            prop_oneof![Just(0_u8), Just(0xFF), Just(0x80), 0_u8..4, any::<u8>()], 1..200), step in 1_usize..20)
        {
            let whole = read(&bytes, bytes.len(), HixieReader::with_close(LIMIT));
            prop_assert_eq!(read(&bytes, step, HixieReader::with_close(LIMIT)), whole);
        }
    }
}
