//! Finds where a chunked body ends (RFC 9112 §7.1), and where its data is for who does not pass it on as it came. It does not
//! know what the body is.

/// ```text
///   Size ──CR LF──► Data ──size bytes──► DataEnd ──CR LF──► Size
///     └──size is 0, CR LF──► TrailerStart ──line──► TrailerStart
///                                └──CR LF──► Done
/// ```
#[derive(Clone, Copy, Debug)]
pub struct ChunkedBody {
    state: State,
    /// Bytes of the chunk's data that are still to come.
    left: u64,
    /// Hexadecimal digits of the current size: more than 16 do not fit.
    digits: u8,
    /// Bytes of sizes, extensions and trailers since the last data: bounded, because nobody needs many.
    overhead: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Size,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    TrailerStart,
    Trailer,
    TrailerLf,
    EndLf,
    Done,
}

/// What the bytes so far amount to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    More,
    /// The body ended after this many of the bytes just given.
    Ended(usize),
    Malformed,
}

const OVERHEAD_BYTES_MAX: usize = 16 * 1024;

impl Default for ChunkedBody {
    fn default() -> ChunkedBody {
        ChunkedBody { state: State::Size, left: 0, digits: 0, overhead: 0 }
    }
}

impl ChunkedBody {
    /// `bytes` are those that follow the ones given before.
    pub fn advance(&mut self, bytes: &[u8]) -> Progress {
        let mut at = 0;
        while at < bytes.len() && self.state != State::Done {
            if self.state == State::Data {
                let here = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len() - at);
                at += here;
                self.left -= here as u64;
                if self.left == 0 {
                    self.state = State::DataCr;
                }
                continue;
            }
            self.overhead += 1;
            match self.step(bytes[at]) {
                Some(state) if self.overhead <= OVERHEAD_BYTES_MAX => self.state = state,
                Some(_) | None => return Progress::Malformed,
            }
            at += 1;
        }
        if self.state == State::Done { Progress::Ended(at) } else { Progress::More }
    }

    /// How much of the data follows before more of what frames it.
    pub fn data_left(&self) -> u64 {
        if self.state == State::Data { self.left } else { 0 }
    }

    /// As [`ChunkedBody::advance`], but stops before data; how many bytes it took.
    pub fn advance_to_data(&mut self, bytes: &[u8]) -> (usize, Progress) {
        for (at, byte) in bytes.iter().enumerate() {
            if self.state == State::Data {
                return (at, Progress::More);
            }
            match self.advance(std::slice::from_ref(byte)) {
                Progress::More => {}
                ended => return (at + 1, ended),
            }
        }
        (bytes.len(), Progress::More)
    }

    fn step(&mut self, byte: u8) -> Option<State> {
        match (self.state, byte) {
            (State::Size, b'\r') if self.digits > 0 => Some(State::SizeLf),
            (State::Size, b';') if self.digits > 0 => Some(State::Extension),
            (State::Size, _) => self.digit(byte),
            (State::Extension, b'\r') => Some(State::SizeLf),
            (State::Extension, b'\n') => None,
            (State::Extension, _) => Some(State::Extension),
            (State::SizeLf, b'\n') => Some(self.after_size()),
            (State::DataCr, b'\r') => Some(State::DataLf),
            (State::DataLf, b'\n') => Some(State::Size),
            (State::TrailerStart, b'\r') => Some(State::EndLf),
            (State::Trailer, b'\r') => Some(State::TrailerLf),
            (State::TrailerStart | State::Trailer, b'\n') => None,
            (State::TrailerStart | State::Trailer, _) => Some(State::Trailer),
            (State::TrailerLf, b'\n') => Some(State::TrailerStart),
            (State::EndLf, b'\n') => Some(State::Done),
            (State::SizeLf | State::DataCr | State::DataLf | State::TrailerLf | State::EndLf, _) => None,
            (State::Data | State::Done, _) => None,
        }
    }

    fn digit(&mut self, byte: u8) -> Option<State> {
        let digit = char::from(byte).to_digit(16)?;
        if self.digits == 16 {
            return None;
        }
        self.digits += 1;
        self.left = self.left << 4 | u64::from(digit);
        Some(State::Size)
    }

    fn after_size(&mut self) -> State {
        self.digits = 0;
        if self.left == 0 {
            State::TrailerStart
        } else {
            self.overhead = 0;
            State::Data
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(body: &str, expected: Progress) {
        assert_eq!(ChunkedBody::default().advance(body.as_bytes()), expected, "{body:?}");
    }

    #[test]
    fn finds_the_end() {
        check("0\r\n\r\n", Progress::Ended(5));
        check("3\r\nabc\r\n0\r\n\r\nnext", Progress::Ended(13));
        check("A;x=\"y\"\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n", Progress::Ended(38));
        check("3\r\nabc\r\n", Progress::More);
        check("", Progress::More);
    }

    #[test]
    fn tells_data_from_what_frames_it() {
        let (mut chunked, mut rest, mut data) =
            (ChunkedBody::default(), &b"3;x\r\nabc\r\n1\r\nd\r\n0\r\nT: x\r\n\r\nnext"[..], Vec::new());
        loop {
            let (taken, progress) = chunked.advance_to_data(rest);
            rest = &rest[taken..];
            if progress != Progress::More {
                break;
            }
            let here = usize::try_from(chunked.data_left()).unwrap();
            assert_eq!(chunked.advance(&rest[..here]), Progress::More);
            data.extend_from_slice(&rest[..here]);
            rest = &rest[here..];
        }
        assert_eq!((&data[..], rest), (&b"abcd"[..], &b"next"[..]));
    }

    #[test]
    fn refuses_what_is_not_chunked() {
        for bad in
            ["x", "\r\n", ";\r\n", "3\nabc", "3\r\nabcd", "3\r\nabc\r\r", "11111111111111111\r\n", "0\r\n\n", "-1\r\n"]
        {
            check(bad, Progress::Malformed);
        }
        check(&format!("1;{}", "x".repeat(OVERHEAD_BYTES_MAX)), Progress::Malformed);
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_end(cut in 0usize..38) {
            let body = b"A;x=\"y\"\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n";
            let mut chunked = ChunkedBody::default();
            prop_assert_eq!(chunked.advance(&body[..cut]), Progress::More);
            prop_assert_eq!(chunked.advance(&body[cut..]), Progress::Ended(38 - cut));
        }
    }
}
