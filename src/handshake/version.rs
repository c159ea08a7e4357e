//! `Sec-WebSocket-Version` (RFC 6455 §4.3, §4.4, §11.3.5): what a client asks for, and the list it is told. It does not
//! know which versions a route serves.

use std::fmt;

use super::header_list::{Single, single};
use super::{Field, header_list};

/// A version number as RFC 6455 §4.3 writes it: 0 to 255, no sign, no leading zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Version(u8);

impl Version {
    /// RFC 6455, the only one that is a standard.
    pub const STANDARD: Version = Version(13);
    /// hixie-76, alias hybi-00: a handshake with Key1 and Key2 and no version header.
    pub const HIXIE_76: Version = Version(0);

    pub fn new(number: u8) -> Version {
        Version(number)
    }

    pub fn number(self) -> u8 {
        self.0
    }

    /// Whether its messages are framed as RFC 6455 §5 frames them, which the drafts behind 7 to 12 did already.
    pub fn has_frames(self) -> bool {
        matches!(self.0, 7..=13)
    }

    /// `version = DIGIT / (NZDIGIT DIGIT) / ("1" DIGIT DIGIT) / ("2" DIGIT DIGIT)`, limited to 0 to 255.
    pub fn parse(text: &[u8]) -> Option<Version> {
        let canonical = match text {
            [_] => true,
            [first, ..] => *first != b'0' && text.len() <= 3,
            [] => false,
        };
        if !canonical {
            return None;
        }
        let mut number: u16 = 0;
        for &byte in text {
            if !byte.is_ascii_digit() {
                return None;
            }
            number = number * 10 + u16::from(byte - b'0');
        }
        u8::try_from(number).ok().map(Version)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Which version a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// One well-formed number, or a version-0 handshake: Key1, Key2 and no version header.
    Version(Version),
    Missing,
    /// Empty, `013`, `13.0`, 256, words, two lines, or a list in one line.
    Malformed,
}

impl Asked {
    pub fn read(fields: &[Field<'_>]) -> Asked {
        match single(fields, "Sec-WebSocket-Version") {
            Single::One(value) => Version::parse(value).map_or(Asked::Malformed, Asked::Version),
            Single::Repeated => Asked::Malformed,
            Single::None if is_hixie_76(fields) => Asked::Version(Version::HIXIE_76),
            Single::None => Asked::Missing,
        }
    }

    /// The metric label: a closed set.
    pub fn label(self) -> &'static str {
        match self {
            Asked::Version(Version(0)) => "0",
            Asked::Version(Version(7)) => "7",
            Asked::Version(Version(8)) => "8",
            Asked::Version(Version(13)) => "13",
            Asked::Version(_) => "other",
            Asked::Missing => "missing",
            Asked::Malformed => "malformed",
        }
    }

    pub const LABELS: [&str; 7] = ["0", "7", "8", "13", "other", "missing", "malformed"];
}

/// Key1 and Key2 make a version-0 handshake, which has no `Sec-WebSocket-Key`.
fn is_hixie_76(fields: &[Field<'_>]) -> bool {
    let has = |name| header_list::lines(fields, name).next().is_some();
    has("Sec-WebSocket-Key1") && has("Sec-WebSocket-Key2") && !has("Sec-WebSocket-Key")
}

/// The versions a client is told, in configured order, never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VersionList {
    versions: Vec<Version>,
    text: String,
}

impl VersionList {
    /// # Panics
    /// When the list is empty: a route that serves nothing is a configuration problem found long before.
    pub fn new(versions: impl IntoIterator<Item = Version>) -> VersionList {
        let versions: Vec<Version> = versions.into_iter().collect();
        assert!(!versions.is_empty(), "a list of served versions is never empty");
        let text = versions.iter().map(Version::to_string).collect::<Vec<_>>().join(", ");
        VersionList { versions, text }
    }

    pub fn contains(&self, version: Version) -> bool {
        self.versions.contains(&version)
    }

    /// The value of the answer's `Sec-WebSocket-Version`: `13, 8, 7`.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for VersionList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_numbers_as_the_grammar_of_section_4_3_writes_them() {
        for number in 0..=255u8 {
            assert_eq!(Version::parse(number.to_string().as_bytes()), Some(Version(number)));
        }
        for text in ["", "013", "00", "+13", "-13", "13.0", "13x", "x", "256", "999", "1000", "13 ", " 13", "13, 8"] {
            assert_eq!(Version::parse(text.as_bytes()), None, "{text:?}");
        }
    }

    fn check(fields: &[(&str, &str)], expected: Asked) {
        let fields: Vec<Field> = fields.iter().map(|(name, value)| Field { name, value: value.as_bytes() }).collect();
        assert_eq!(Asked::read(&fields), expected, "{fields:?}");
    }

    #[test]
    fn two_lines_are_malformed_even_when_equal() {
        check(&[("sec-websocket-version", "13")], Asked::Version(Version::STANDARD));
        check(&[("Sec-WebSocket-Version", "13"), ("Sec-WebSocket-Version", "13")], Asked::Malformed);
        check(&[("Sec-WebSocket-Version", "13, 8")], Asked::Malformed);
        check(&[("Sec-WebSocket-Version", "")], Asked::Malformed);
    }

    #[test]
    fn two_keys_without_a_version_are_version_0() {
        let keys = [("Sec-WebSocket-Key1", "1 2"), ("Sec-WebSocket-Key2", "3 4")];
        check(&keys, Asked::Version(Version::HIXIE_76));
        check(&keys[..1], Asked::Missing);
        check(&[keys[0], keys[1], ("Sec-WebSocket-Key", "x")], Asked::Missing);
        check(&[keys[0], keys[1], ("Sec-WebSocket-Version", "8")], Asked::Version(Version(8)));
    }

    #[test]
    fn every_label_is_of_the_closed_set() {
        for number in 0..=255 {
            assert!(Asked::LABELS.contains(&Asked::Version(Version(number)).label()));
        }
    }
}
