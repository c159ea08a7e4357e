//! What a fuzzer holds [`HixieReader`] to: the same bytes read whole, as plainly as the drafts have it
//! (draft-hixie-thewebsocketprotocol-76 §4.2, §5.3). It shares no rule with the reader.

use super::super::{HixieError, HixieEvent, HixieReader};

/// What the bytes of a side came to in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HixieEnd {
    AtBorder,
    Amid,
    Closed,
    Broken(HixieError),
}

/// The first byte says which version it is and what is dropped at most, the second how the bytes behind them are cut.
///
/// # Panics
/// When the reader sees anything other than the plain reading does.
pub fn hixie_reader(data: &[u8]) -> Option<HixieEnd> {
    let &[version, cut, ref bytes @ ..] = data else { return None };
    let dropped_bytes_max = [0, 5, 300, u64::MAX][usize::from(version >> 1) % 4];
    let has_close = version & 1 == 0;
    let plain = PlainHixie::read(bytes, has_close, dropped_bytes_max);
    let reader = if has_close { HixieReader::with_close } else { HixieReader::without_close };
    let mut reading = Reading { reader: reader(dropped_bytes_max), texts: Vec::new(), begun: Vec::new(), closes: 0 };
    let error = bytes.chunks(usize::from(cut) + 1).find_map(|piece| reading.read(piece).err());
    assert_eq!((&reading.texts, error), (&plain.texts, plain.error), "{plain:?}");
    assert_eq!(reading.begun, plain.begun.clone().unwrap_or_default(), "{plain:?}");
    assert_eq!(reading.closes, u32::from(plain.is_closed), "{plain:?}");
    if error.is_none() {
        assert_eq!(reading.reader.is_at_border(), !plain.is_amid, "{plain:?}");
    }
    Some(match error {
        Some(error) => HixieEnd::Broken(error),
        None if plain.is_closed => HixieEnd::Closed,
        None if plain.is_amid => HixieEnd::Amid,
        None => HixieEnd::AtBorder,
    })
}

/// What a side has sent so far.
#[derive(Debug, Default)]
pub struct PlainHixie {
    pub texts: Vec<Vec<u8>>,
    /// The text that has not ended.
    pub begun: Option<Vec<u8>>,
    pub is_closed: bool,
    pub error: Option<HixieError>,
    /// In a frame of any kind.
    pub is_amid: bool,
}

impl PlainHixie {
    pub fn read(mut bytes: &[u8], has_close: bool, dropped_bytes_max: u64) -> PlainHixie {
        let mut plain = PlainHixie::default();
        while let Some((&kind, behind)) = bytes.split_first() {
            plain.is_amid = true;
            let left = if kind < 0x80 {
                plain.up_to_ff(kind, behind, dropped_bytes_max)
            } else {
                plain.of_length(kind, behind, has_close, dropped_bytes_max)
            };
            let Some(left) = left else { break };
            plain.is_amid = false;
            bytes = left;
        }
        plain
    }

    /// What is behind the frame, if it ends and may be.
    fn up_to_ff<'b>(&mut self, kind: u8, behind: &'b [u8], most: u64) -> Option<&'b [u8]> {
        let end = behind.iter().position(|byte| *byte == 0xFF);
        let payload = &behind[..end.unwrap_or(behind.len())];
        if kind == 0 && end.is_some() {
            self.texts.push(payload.to_vec());
        } else if kind == 0 {
            self.begun = Some(payload.to_vec());
        } else if payload.len() as u64 > most {
            self.error = Some(HixieError::Dropped);
            return None;
        }
        end.map(|end| &behind[end + 1..])
    }

    fn of_length<'b>(&mut self, kind: u8, behind: &'b [u8], has_close: bool, most: u64) -> Option<&'b [u8]> {
        let last = behind.iter().position(|byte| byte & 0x80 == 0);
        let digits = last.map_or(behind, |last| &behind[..=last]);
        let length = digits.iter().fold(0_u128, |sum, byte| sum.saturating_mul(128) | u128::from(byte & 0x7F));
        // No draft bounds the digits. Nine of them are 63 bits.
        if length > u128::from(most) || digits.len() > 9 {
            self.error = Some(HixieError::Length);
            return None;
        }
        last?;
        if kind == 0xFF && length == 0 && has_close {
            (self.is_closed, self.is_amid) = (true, false);
            return None;
        }
        behind[digits.len()..].get(usize::try_from(length).unwrap_or(usize::MAX)..)
    }
}

/// What the reader tells of bytes that come in pieces.
struct Reading {
    reader: HixieReader,
    texts: Vec<Vec<u8>>,
    begun: Vec<u8>,
    closes: u32,
}

impl Reading {
    fn read(&mut self, mut piece: &[u8]) -> Result<(), HixieError> {
        while !piece.is_empty() {
            let (taken, event) = self.reader.read(piece)?;
            assert!(taken > 0, "it stands still");
            match event {
                HixieEvent::Nothing => assert_eq!(taken, piece.len(), "nothing to tell of a part"),
                HixieEvent::Close => self.closes += 1,
                HixieEvent::Text { payload, is_last } => {
                    assert_eq!(self.closes, 0, "a text behind the end");
                    self.begun.extend_from_slice(payload);
                    if is_last {
                        self.texts.push(std::mem::take(&mut self.begun));
                    }
                }
            }
            piece = &piece[taken..];
        }
        Ok(())
    }
}
