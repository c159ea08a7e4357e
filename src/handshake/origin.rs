//! Where a request says that it comes from: `Origin` (RFC 6454 §7), or `Sec-WebSocket-Origin` in the drafts before hybi-11,
//! whose version 7 and 8 later drafts kept. It does not know which origins are welcome.

use super::header_list::lines;
use super::{Asked, Field};
use crate::dialect::Dialect;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stated<'h> {
    None,
    One(&'h [u8]),
    /// Two that differ, or one name twice.
    Ambiguous,
}

/// A version-8 client may use either name, and some use both. In version 13 the older one means nothing.
pub fn stated<'h>(fields: &'h [Field<'h>], asked: Asked) -> Stated<'h> {
    let mut origin = lines(fields, "Origin");
    let mut older = lines(fields, "Sec-WebSocket-Origin");
    if asked == Asked::Known(Dialect::Rfc6455) {
        return match (origin.next(), origin.next()) {
            (None, _) => Stated::None,
            (Some(value), None) => Stated::One(value),
            (Some(_), Some(_)) => Stated::Ambiguous,
        };
    }
    match (origin.next(), origin.next(), older.next(), older.next()) {
        (None, None, None, None) => Stated::None,
        (Some(value), None, None, None) | (None, None, Some(value), None) => Stated::One(value),
        (Some(value), None, Some(other), None) if value == other => Stated::One(value),
        _ => Stated::Ambiguous,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(fields: &[(&str, &str)], expected: Stated<'_>) {
        check_of(Dialect::Hybi8, fields, expected);
    }

    fn check_of(asked: Dialect, fields: &[(&str, &str)], expected: Stated<'_>) {
        let fields: Vec<Field> = fields.iter().map(|(name, value)| Field { name, value: value.as_bytes() }).collect();
        assert_eq!(stated(&fields, Asked::Known(asked)), expected, "{fields:?}");
    }

    #[test]
    fn either_name_will_do_and_both_must_agree() {
        let (new, old) = (("Origin", "http://a"), ("Sec-WebSocket-Origin", "http://a"));
        check(&[], Stated::None);
        check(&[new], Stated::One(b"http://a"));
        check(&[old], Stated::One(b"http://a"));
        check(&[old, new], Stated::One(b"http://a"));
        check(&[old, ("Origin", "http://b")], Stated::Ambiguous);
        check(&[new, new], Stated::Ambiguous);
        check(&[old, old], Stated::Ambiguous);
    }

    #[test]
    fn version_13_has_one_name() {
        let (new, old) = (("Origin", "http://a"), ("Sec-WebSocket-Origin", "http://b"));
        check_of(Dialect::Rfc6455, &[old], Stated::None);
        check_of(Dialect::Rfc6455, &[old, new], Stated::One(b"http://a"));
        check_of(Dialect::Rfc6455, &[new, new], Stated::Ambiguous);
    }
}
