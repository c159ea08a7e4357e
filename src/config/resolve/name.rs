//! Names of listeners, routes and upstreams: they become metric labels and log fields, so they are short and plain. It
//! does not know that names must differ.

use std::ops::Range;

use super::findings::Findings;
use crate::config::file::Text;
use crate::config::problem::{Problem, ProblemCode};

const NAME_LENGTH_MAX: usize = 63;

/// The name at the key `name` of `table`; `example` is a line that the author could add.
pub fn name(findings: &mut Findings<'_>, value: &Text, table: &Range<usize>, example: &str) -> Option<String> {
    let text = findings.required(value, table, "name", example)?;
    let name = text.get_ref();
    if !is_name(name) {
        let plain = text.get_ref().to_lowercase().split_whitespace().collect::<Vec<_>>().join("-");
        let hint = match is_name(&plain) {
            true => format!("write `{plain}`"),
            false => format!("up to {NAME_LENGTH_MAX} of `a-z`, `0-9`, `-` and `_`, the first a letter or digit"),
        };
        let problem = Problem::new(ProblemCode::BadName, text.span(), format!("bad name: `{name}`"));
        findings.report(problem.label("not a plain name").hint(hint));
        return None;
    }
    Some(name.clone())
}

fn is_name(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    (1..=NAME_LENGTH_MAX).contains(&text.len())
        && text.bytes().next().is_some_and(is_plain)
        && text.bytes().all(|byte| is_plain(byte) || matches!(byte, b'-' | b'_'))
}
