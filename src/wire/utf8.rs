//! Whether the text of a message is UTF-8 (RFC 6455 §8.1), read in any pieces. It keeps at most three bytes, of a character
//! that has begun.

/// Asked of one message after the other.
#[derive(Clone, Copy, Debug, Default)]
pub struct Utf8Check {
    begun: [u8; 4],
    /// Of the character that has begun: `begun_bytes <= 3`.
    begun_bytes: usize,
}

/// No text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotUtf8;

impl Utf8Check {
    /// # Errors
    /// As soon as the bytes so far begin no text.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), NotUtf8> {
        let bytes = self.complete(bytes)?;
        let Err(error) = std::str::from_utf8(bytes) else { return Ok(()) };
        if error.error_len().is_some() {
            return Err(NotUtf8);
        }
        let begun = &bytes[error.valid_up_to()..];
        self.begun[..begun.len()].copy_from_slice(begun);
        self.begun_bytes = begun.len();
        Ok(())
    }

    /// The message ends here, and another may begin.
    ///
    /// # Errors
    /// In the middle of a character.
    pub fn finish(&mut self) -> Result<(), NotUtf8> {
        if std::mem::take(&mut self.begun_bytes) == 0 { Ok(()) } else { Err(NotUtf8) }
    }

    /// The bytes behind the character that had begun.
    fn complete<'b>(&mut self, mut bytes: &'b [u8]) -> Result<&'b [u8], NotUtf8> {
        while self.begun_bytes > 0 {
            let Some((first, rest)) = bytes.split_first() else { break };
            self.begun[self.begun_bytes] = *first;
            self.begun_bytes += 1;
            bytes = rest;
            match std::str::from_utf8(&self.begun[..self.begun_bytes]) {
                Ok(_) => self.begun_bytes = 0,
                Err(error) if error.error_len().is_some() => {
                    self.begun_bytes = 0;
                    return Err(NotUtf8);
                }
                Err(_) => {}
            }
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(pieces: &[&[u8]]) -> bool {
        let mut utf8 = Utf8Check::default();
        pieces.iter().all(|piece| utf8.push(piece).is_ok()) && utf8.finish().is_ok()
    }

    #[test]
    fn every_length_of_a_character_may_be_cut_anywhere() {
        for text in ["a", "é", "€", "𝄞", "aé€𝄞", ""] {
            for cut in 0..=text.len() {
                assert!(check(&[&text.as_bytes()[..cut], &text.as_bytes()[cut..]]), "{text} {cut}");
            }
        }
    }

    #[test]
    fn it_can_be_asked_on_after_what_was_no_text() {
        let mut utf8 = Utf8Check::default();
        for _ in 0..3 {
            assert_eq!(utf8.push(b"\xF0\x9F\x98"), Ok(()));
            assert_eq!(utf8.push(b"a"), Err(NotUtf8));
            assert_eq!(utf8.push(b"b"), Ok(()));
            assert_eq!(utf8.finish(), Ok(()));
        }
    }

    #[test]
    fn what_is_no_text_is_seen_at_its_first_byte() {
        for bad in [&b"\xFF"[..], b"\xC0", b"\xED\xA0", b"\xF4\x90", b"\xE2\x28", b"\x80"] {
            assert_eq!(Utf8Check::default().push(bad), Err(NotUtf8), "{bad:?}");
        }
        assert!(!check(&[b"\xE2\x82"]));
    }

    proptest! {
        #[test]
        fn any_split_gives_the_verdict_of_the_whole(
            bytes in prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..40),
                any::<String>().prop_map(String::into_bytes),
            ],
            cuts in proptest::collection::vec(0_usize..40, 0..6),
        ) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]]).collect();
            prop_assert_eq!(check(&pieces), std::str::from_utf8(&bytes).is_ok());
        }
    }
}
