//! `Sec-WebSocket-Version` (RFC 6455 §4.3, §4.4, §11.3.5): what a client asks for, and the list it is told. It does not
//! know which versions a route serves.

use std::fmt;

use super::header_list::{Single, elements, lines, single};
use super::{Field, hixie, key};
use crate::dialect::Dialect;

/// A version number as RFC 6455 §4.3 writes it: 0 to 255, no sign, no leading zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Version(u8);

impl Version {
    pub fn number(self) -> u8 {
        self.0
    }

    /// Drafts 1 to 6 framed messages in ways of their own, and 9 to 12 never went on the wire (RFC 6455 §4.1, §11.6).
    pub fn is_obsolete(self) -> bool {
        matches!(self.0, 1..=6 | 9..=12)
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
    /// One that the gateway can speak. Version 0 is a handshake with Key1 or Key2 and no version line, hixie-75 one with no
    /// line of any later draft.
    Known(Dialect),
    /// One well-formed number that nobody speaks. 0 is among them: who speaks it has no version line.
    Other(Version),
    /// Drafts 1 to 3 named themselves in `Sec-WebSocket-Draft`.
    Draft,
    Missing,
    /// Empty, `013`, `13.0`, 256, words, two lines, or a list in one line.
    Malformed,
}

impl Asked {
    pub fn read(fields: &[Field<'_>]) -> Asked {
        let has = |name| lines(fields, name).next().is_some();
        match single(fields, "Sec-WebSocket-Version") {
            Single::One(value) => Version::parse(value).map_or(Asked::Malformed, Asked::numbered),
            Single::Repeated => Asked::Malformed,
            Single::None if has("Sec-WebSocket-Key") => Asked::Missing,
            Single::None if has("Sec-WebSocket-Draft") => Asked::Draft,
            Single::None if has(key::KEY1) || has(key::KEY2) => Asked::Known(Dialect::Hixie76),
            Single::None if hixie::is_75(fields) => Asked::Known(Dialect::Hixie75),
            Single::None => Asked::Missing,
        }
    }

    fn numbered(version: Version) -> Asked {
        match Dialect::from_number(version.number()) {
            Some(dialect) if dialect != Dialect::Hixie76 => Asked::Known(dialect),
            Some(_) | None => Asked::Other(version),
        }
    }

    /// What the client speaks, if the gateway can.
    pub fn dialect(self) -> Option<Dialect> {
        match self {
            Asked::Known(dialect) => Some(dialect),
            Asked::Other(_) | Asked::Draft | Asked::Missing | Asked::Malformed => None,
        }
    }

    /// The metric label: a closed set.
    pub fn label(self) -> &'static str {
        match self {
            Asked::Known(dialect) => dialect.name(),
            Asked::Other(_) | Asked::Draft => "other",
            Asked::Missing => "missing",
            Asked::Malformed => "malformed",
        }
    }

    pub const LABELS: [&str; 8] = ["hixie-75", "0", "7", "8", "13", "other", "missing", "malformed"];
}

/// The versions a client is told, in configured order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VersionList {
    numbers: String,
    names: String,
}

impl VersionList {
    pub fn new(versions: &[Dialect]) -> VersionList {
        let numbers: Vec<String> =
            versions.iter().filter_map(|version| version.number()).map(|number| number.to_string()).collect();
        let names: Vec<&str> = versions.iter().map(|version| version.name()).collect();
        VersionList { numbers: numbers.join(", "), names: names.join(", ") }
    }

    /// The value of the answer's `Sec-WebSocket-Version`: `13, 8, 7`. `None` where only hixie-75 is served, which has no
    /// number.
    pub fn numbers(&self) -> Option<&str> {
        (!self.numbers.is_empty()).then_some(&self.numbers)
    }

    /// For people: `13, 0, hixie-75`.
    pub fn names(&self) -> &str {
        &self.names
    }
}

/// The versions in a server's answer that the gateway can speak, over one line or several (RFC 6455 §4.4), the best first: some
/// servers list them the other way round. `None` where it lists none at all.
pub fn advertised(fields: &[Field<'_>]) -> Option<Vec<Dialect>> {
    let mut listed = elements(fields, "Sec-WebSocket-Version").peekable();
    listed.peek()?;
    let listed: Vec<Dialect> =
        listed.filter_map(Version::parse).filter_map(|version| Dialect::from_number(version.number())).collect();
    Some(Dialect::ALL.into_iter().filter(|dialect| listed.contains(dialect)).collect())
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
        check(&[("sec-websocket-version", "13")], Asked::Known(Dialect::Rfc6455));
        check(&[("Sec-WebSocket-Version", "13"), ("Sec-WebSocket-Version", "13")], Asked::Malformed);
        check(&[("Sec-WebSocket-Version", "13, 8")], Asked::Malformed);
        check(&[("Sec-WebSocket-Version", "")], Asked::Malformed);
    }

    #[test]
    fn a_key_of_version_0_without_a_version_is_version_0() {
        let keys = [("Sec-WebSocket-Key1", "1 2"), ("Sec-WebSocket-Key2", "3 4")];
        check(&keys, Asked::Known(Dialect::Hixie76));
        check(&keys[..1], Asked::Known(Dialect::Hixie76));
        check(&[keys[0], keys[1], ("Sec-WebSocket-Key", "x")], Asked::Missing);
        check(&[keys[0], keys[1], ("Sec-WebSocket-Version", "8")], Asked::Known(Dialect::Hybi8));
        check(&[keys[0], keys[1], ("Sec-WebSocket-Draft", "2")], Asked::Draft);
        check(&[("Sec-WebSocket-Version", "0"), ("Sec-WebSocket-Key", "x")], Asked::Other(Version(0)));
    }

    #[test]
    fn hixie_75_is_what_has_no_line_of_any_later_draft() {
        let good = [("Upgrade", "WebSocket"), ("Connection", "Upgrade"), ("Origin", "http://a")];
        check(&good, Asked::Known(Dialect::Hixie75));
        check(&[good[0], good[1], good[2], ("WebSocket-Protocol", "x")], Asked::Known(Dialect::Hixie75));
        check(&[("Upgrade", "websocket"), good[1], good[2]], Asked::Missing);
        check(&[good[0], ("Connection", "keep-alive, Upgrade"), good[2]], Asked::Missing);
        check(&good[..2], Asked::Missing);
        check(&[good[0], good[1], good[2], ("Sec-WebSocket-Protocol", "x")], Asked::Missing);
        check(&[good[0], good[1], good[2], ("Sec-WebSocket-Key", "x")], Asked::Missing);
    }

    #[test]
    fn every_label_is_of_the_closed_set() {
        for number in 0..=255 {
            assert!(Asked::LABELS.contains(&Asked::numbered(Version(number)).label()));
        }
        assert!(Dialect::ALL.iter().all(|dialect| Asked::LABELS.contains(&dialect.name())));
    }

    #[test]
    fn a_list_has_the_order_of_the_configuration_and_only_numbers_on_the_wire() {
        let list = VersionList::new(&[Dialect::Hybi8, Dialect::Hixie75, Dialect::Rfc6455]);
        assert_eq!((list.numbers(), list.names()), (Some("8, 13"), "8, hixie-75, 13"));
        assert_eq!(VersionList::new(&[Dialect::Hixie75]).numbers(), None);
    }

    #[test]
    fn a_servers_list_may_be_one_line_or_several() {
        let list = |values: &[&str]| {
            let fields: Vec<Field> =
                values.iter().map(|value| Field { name: "Sec-WebSocket-Version", value: value.as_bytes() }).collect();
            advertised(&fields)
        };
        assert_eq!(list(&[]), None);
        assert_eq!(list(&[""]), None);
        assert_eq!(list(&["x, 99"]), Some(vec![]));
        assert_eq!(
            list(&["0,6,8,13", "8, 7"]).unwrap().iter().map(|d| d.name()).collect::<Vec<_>>(),
            ["13", "8", "7", "0"]
        );
    }
}
