//! `Sec-WebSocket-Extensions` (RFC 6455 §9.1, §11.3.2): the names offered and accepted. Parameters are opaque here: what
//! they mean is between the two ends.

use super::Field;
use super::header_list::{elements, is_token};

pub const FIELD: &str = "Sec-WebSocket-Extensions";

/// The name of each offered or accepted extension; parameters are left out.
pub fn names<'h>(fields: &'h [Field<'h>]) -> impl Iterator<Item = &'h [u8]> {
    elements(fields, FIELD).map(name)
}

/// Whether every element starts with a token.
pub fn is_well_formed(fields: &[Field<'_>]) -> bool {
    names(fields).all(is_token)
}

/// Whether each extension of an answer was offered (RFC 6455 §4.1, step 5 of the client's checks).
pub fn within(answer: &[Field<'_>], offer: &[Field<'_>]) -> bool {
    names(answer).all(|accepted| is_token(accepted) && names(offer).any(|offered| offered == accepted))
}

fn name(element: &[u8]) -> &[u8] {
    let end = element.iter().position(|&byte| byte == b';').unwrap_or(element.len());
    element[..end].trim_ascii()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(offer: &str, answer: &str, expected: bool) {
        let offer = [Field { name: FIELD, value: offer.as_bytes() }];
        let answer = [Field { name: FIELD, value: answer.as_bytes() }];
        assert_eq!(within(&answer, &offer), expected, "{offer:?} {answer:?}");
    }

    #[test]
    fn an_answer_stays_within_the_offer() {
        check("permessage-deflate; client_max_window_bits", "permessage-deflate", true);
        check("a, permessage-deflate", "permessage-deflate; server_no_context_takeover", true);
        check("", "", true);
        check("a", "", true);
        check("", "a", false);
        check("permessage-deflate", "permessage-deflat", false);
        check("a", "a, b", false);
        check("a", "; x", false);
    }
}
