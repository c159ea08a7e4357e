//! Finds the end of a head in bytes that arrive in any pieces, and stops at the first byte that two parsers could read
//! differently. It does not know what a head says.

/// What the bytes so far amount to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scan {
    /// No end yet, nothing wrong yet, and the limit not reached.
    Incomplete,
    /// The head, its empty line included, is this many bytes.
    Complete(usize),
    /// A bare CR or LF, a control byte, or a folded line (RFC 9112 §2.2, §5.2).
    Malformed,
    /// The limit was reached before the end.
    TooLarge,
}

/// Reads every byte once, however often it is asked.
///
/// ```text
///   LineStart ──byte──► Line ──CR──► LineEnd ──LF──► LineStart
///       └──────CR──► HeadEnd ──LF──► Complete
/// ```
#[derive(Clone, Copy, Debug)]
pub struct HeadScan {
    /// Bytes already looked at: `seen <= limit`.
    seen: usize,
    limit: usize,
    state: State,
    /// Whether the current line is the first one, which cannot be a folded line.
    first_line: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    LineStart,
    Line,
    LineEnd,
    HeadEnd,
}

impl HeadScan {
    pub fn new(limit: usize) -> HeadScan {
        HeadScan { seen: 0, limit, state: State::LineStart, first_line: true }
    }

    /// `bytes` is all that arrived since the start of the head, not just what is new.
    pub fn advance(&mut self, bytes: &[u8]) -> Scan {
        let end = bytes.len().min(self.limit);
        while self.seen < end {
            if self.state == State::Line {
                self.seen += run_of_text(&bytes[self.seen..end]);
                if self.seen == end {
                    break;
                }
            }
            let byte = bytes[self.seen];
            self.seen += 1;
            match self.step(byte) {
                Step::Next(state) => self.state = state,
                Step::End => return Scan::Complete(self.seen),
                Step::Wrong => {
                    // Asked again, the answer is the same.
                    self.seen -= 1;
                    return Scan::Malformed;
                }
            }
        }
        if self.seen == self.limit { Scan::TooLarge } else { Scan::Incomplete }
    }

    fn step(&mut self, byte: u8) -> Step {
        match (self.state, byte) {
            (State::LineStart, b'\r') if !self.first_line => Step::Next(State::HeadEnd),
            (State::LineStart, b' ' | b'\t') => Step::Wrong,
            (State::Line, b'\r') => {
                self.first_line = false;
                Step::Next(State::LineEnd)
            }
            (State::LineEnd, b'\n') => Step::Next(State::LineStart),
            (State::HeadEnd, b'\n') => Step::End,
            (State::LineStart | State::Line, byte) if is_text(byte) => Step::Next(State::Line),
            (State::LineStart | State::Line | State::LineEnd | State::HeadEnd, _) => Step::Wrong,
        }
    }
}

enum Step {
    Next(State),
    End,
    Wrong,
}

/// How many bytes from the start are text of a line. The end of the line is found by the vector search of `memchr`;
/// only what lies before it is looked at byte by byte.
fn run_of_text(bytes: &[u8]) -> usize {
    let line = memchr::memchr2(b'\r', b'\n', bytes).unwrap_or(bytes.len());
    bytes[..line].iter().position(|&byte| !is_text(byte)).unwrap_or(line)
}

/// Horizontal tab, visible ASCII, space, and the bytes above ASCII that RFC 9110 §5.5 calls obs-text.
fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMIT: usize = 64;

    fn check(bytes: &[u8], expected: Scan) {
        assert_eq!(HeadScan::new(LIMIT).advance(bytes), expected, "{:?}", String::from_utf8_lossy(bytes));
    }

    #[test]
    fn finds_the_empty_line() {
        check(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", Scan::Complete(27));
        check(b"GET / HTTP/1.1\r\nHost: a\r\n\r\nmore", Scan::Complete(27));
        check(b"GET / HTTP/1.1\r\n\r\n", Scan::Complete(18));
        check(b"GET / HTTP/1.1\r\nHost: a\r\n\r", Scan::Incomplete);
        check(b"", Scan::Incomplete);
    }

    #[test]
    fn stops_at_what_two_parsers_read_differently() {
        for bytes in [
            &b"GET / HTTP/1.1\n"[..],
            b"GET / HTTP/1.1\rHost",
            b"GET / HTTP/1.1\r\nHost: a\n",
            b"GET / HTTP/1.1\r\nHost: a\r\r\n",
            b"GET / HTTP/1.1\r\n Host: a",
            b"GET / HTTP/1.1\r\nHost: a\r\n\tb",
            b"GET / HTTP/1.1\r\nHost: a\0",
            b"GET / HTTP/1.1\r\nHost: \x7f",
            b"\x16\x03\x01",
            b"\r\nGET",
            b"\n",
        ] {
            check(bytes, Scan::Malformed);
        }
    }

    #[test]
    fn stops_at_the_limit() {
        check(&[b'a'; LIMIT - 1], Scan::Incomplete);
        check(&[b'a'; LIMIT], Scan::TooLarge);
        check(&[b'a'; 4 * LIMIT], Scan::TooLarge);
        let mut exact = vec![b'a'; LIMIT - 4];
        exact.extend(b"\r\n\r\n");
        check(&exact, Scan::Complete(LIMIT));
        exact.insert(0, b'a');
        check(&exact, Scan::TooLarge);
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_verdict(
            bytes in proptest::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'a'), Just(b' '), any::<u8>()], 0..96),
            pieces in proptest::collection::vec(1usize..9, 0..96),
        ) {
            let whole = HeadScan::new(LIMIT).advance(&bytes);
            let mut scan = HeadScan::new(LIMIT);
            let mut verdict = scan.advance(&[]);
            let mut end = 0;
            for piece in pieces.into_iter().chain([bytes.len()]) {
                if verdict == Scan::Incomplete {
                    end = (end + piece).min(bytes.len());
                    verdict = scan.advance(&bytes[..end]);
                }
            }
            prop_assert_eq!(verdict, whole);
        }
    }
}
