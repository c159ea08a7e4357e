//! The only reader of comma-separated lists that may be spread over repeated header lines (RFC 9110 §5.3, §5.6.1). It
//! does not know what any element means.

use super::Field;

/// The elements of every line called `name`, in order, trimmed; empty elements are left out as RFC 9110 §5.6.1.2 asks.
/// A comma inside a quoted string does not separate.
pub fn elements<'h, 'n>(fields: &'h [Field<'h>], name: &'n str) -> impl Iterator<Item = &'h [u8]> + use<'h, 'n> {
    fields.iter().filter(move |field| field.is(name)).flat_map(|field| Split { rest: Some(field.value) })
}

/// Whether a token is an element of the list, compared without case (RFC 9110 §7.6.1, §7.8).
pub fn has_token(fields: &[Field<'_>], name: &str, token: &str) -> bool {
    elements(fields, name).any(|element| element.eq_ignore_ascii_case(token.as_bytes()))
}

/// The values of every line called `name`, not split.
pub fn lines<'h, 'n>(fields: &'h [Field<'h>], name: &'n str) -> impl Iterator<Item = &'h [u8]> + use<'h, 'n> {
    fields.iter().filter(move |field| field.is(name)).map(|field| field.value)
}

/// What [`single`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Single<'h> {
    None,
    One(&'h [u8]),
    Repeated,
}

/// The value of a field that may stand at most once.
pub fn single<'h>(fields: &'h [Field<'h>], name: &str) -> Single<'h> {
    let mut found = lines(fields, name);
    match (found.next(), found.next()) {
        (None, _) => Single::None,
        (Some(value), None) => Single::One(value),
        (Some(_), Some(_)) => Single::Repeated,
    }
}

/// The tokens RFC 9110 §5.6.2 allows in names of fields, subprotocols and extensions.
pub fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|&byte| is_token_byte(byte))
}

fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

struct Split<'v> {
    rest: Option<&'v [u8]>,
}

impl<'v> Iterator for Split<'v> {
    type Item = &'v [u8];

    fn next(&mut self) -> Option<&'v [u8]> {
        loop {
            let rest = self.rest?;
            let end = element_end(rest);
            self.rest = rest.get(end + 1..);
            let element = rest[..end].trim_ascii();
            if !element.is_empty() {
                return Some(element);
            }
        }
    }
}

/// Where the first element ends: at a comma outside of a quoted string, or at the end.
fn element_end(text: &[u8]) -> usize {
    let mut quoted = false;
    let mut escaped = false;
    for (at, &byte) in text.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b',' if !quoted => return at,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(lines: &[&str], expected: &[&str]) {
        let fields: Vec<Field> = lines.iter().map(|line| Field { name: "X-List", value: line.as_bytes() }).collect();
        let found: Vec<&str> =
            elements(&fields, "x-list").map(|element| std::str::from_utf8(element).unwrap()).collect();
        assert_eq!(found, expected, "lines {lines:?}");
    }

    #[test]
    fn splits_at_commas_and_over_lines() {
        check(&[], &[]);
        check(&[""], &[]);
        check(&["a"], &["a"]);
        check(&["a, b,c"], &["a", "b", "c"]);
        check(&["keep-alive", "Upgrade"], &["keep-alive", "Upgrade"]);
        check(&[" a\t,,  ,b "], &["a", "b"]);
    }

    #[test]
    fn keeps_commas_inside_quotes() {
        check(&[r#"x; a="1,2", y"#], &[r#"x; a="1,2""#, "y"]);
        check(&[r#"x; a="1\",2", y"#], &[r#"x; a="1\",2""#, "y"]);
        check(&[r#"x; a="open, y"#], &[r#"x; a="open, y"#]);
    }

    #[test]
    fn a_token_is_never_found_inside_a_longer_one() {
        let fields = [Field { name: "Connection", value: b"not-upgrade, upgraded" }];
        assert!(!has_token(&fields, "connection", "upgrade"));
        let fields = [Field { name: "Connection", value: b"x" }, Field { name: "CONNECTION", value: b"x,UpGrade" }];
        assert!(has_token(&fields, "connection", "upgrade"));
    }

    #[test]
    fn tells_one_line_from_several() {
        let one = [Field { name: "Host", value: b"a" }];
        let two = [Field { name: "Host", value: b"a" }, Field { name: "host", value: b"a" }];
        assert_eq!(single(&one, "host"), Single::One(b"a"));
        assert_eq!(single(&two, "host"), Single::Repeated);
        assert_eq!(single(&[], "host"), Single::None);
    }
}
