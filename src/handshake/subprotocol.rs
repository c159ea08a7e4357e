//! `Sec-WebSocket-Protocol` (RFC 6455 §1.9, §11.3.4): what a client offers and what a backend chose. It does not know
//! which names a route welcomes.

use super::header_list::{Single, elements, is_token, single};
use super::{Field, header_list};
use crate::dialect::Dialect;

pub const FIELD: &str = "Sec-WebSocket-Protocol";

/// As [`FIELD`] before hixie-76.
pub const FIELD_OF_HIXIE_75: &str = "WebSocket-Protocol";

/// The line that a version names subprotocols in.
pub fn field(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Hixie75 => FIELD_OF_HIXIE_75,
        Dialect::Rfc6455 | Dialect::Hybi8 | Dialect::Hybi7 | Dialect::Hixie76 => FIELD,
    }
}

/// The names a client offers in lines of this name, in its order of preference.
pub fn offered<'h>(fields: &'h [Field<'h>], field: &'static str) -> impl Iterator<Item = &'h [u8]> {
    elements(fields, field)
}

/// Whether an offer is what RFC 6455 §4.1 asks for: tokens, each one once. No offer is well formed too.
pub fn is_well_formed(fields: &[Field<'_>], field: &'static str) -> bool {
    let mut lines = header_list::lines(fields, field).peekable();
    if lines.peek().is_none() {
        return true;
    }
    let mut seen: Vec<&[u8]> = Vec::new();
    for name in offered(fields, field) {
        if !is_token(name) || seen.contains(&name) {
            return false;
        }
        seen.push(name);
    }
    !seen.is_empty()
}

/// What a backend answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chosen<'h> {
    None,
    One(&'h [u8]),
    /// More than one line, or no single token: RFC 6455 §11.3.4 allows neither in an answer.
    Malformed,
}

pub fn chosen<'h>(fields: &'h [Field<'h>], field: &str) -> Chosen<'h> {
    match single(fields, field) {
        Single::None => Chosen::None,
        Single::One(value) if is_token(value) => Chosen::One(value),
        Single::One(_) | Single::Repeated => Chosen::Malformed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields<'h>(values: &[&'h str]) -> Vec<Field<'h>> {
        values.iter().map(|value| Field { name: FIELD, value: value.as_bytes() }).collect()
    }

    #[test]
    fn an_offer_is_a_list_of_different_tokens() {
        for good in [&[][..], &["chat"], &["chat.v2, chat.v1"], &["a", "b"]] {
            assert!(is_well_formed(&fields(good), FIELD), "{good:?}");
        }
        for bad in [&[""][..], &["a b"], &["a, a"], &["a", "a"], &["a;b"], &["\"a\""]] {
            assert!(!is_well_formed(&fields(bad), FIELD), "{bad:?}");
        }
    }

    #[test]
    fn an_answer_is_one_token() {
        assert_eq!(chosen(&fields(&[]), FIELD), Chosen::None);
        assert_eq!(chosen(&fields(&["chat"]), FIELD), Chosen::One(b"chat"));
        for bad in [&[""][..], &["a, b"], &["a", "b"]] {
            assert_eq!(chosen(&fields(bad), FIELD), Chosen::Malformed, "{bad:?}");
        }
    }
}
