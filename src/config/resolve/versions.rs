//! Lists of protocol versions: which ones the gateway speaks at all, and why the others are none. It does not know what a
//! route or an upstream does with its list.

use std::ops::Range;

use toml::Spanned;

use super::findings::Findings;
use crate::config::file::Texts;
use crate::config::model::Spoken;
use crate::config::problem::{Problem, ProblemCode};
use crate::dialect::Dialect;

/// In place of a list, for an upstream whose servers are asked.
const AUTO: &str = "auto";

/// The list in the order of the file, 13 alone where the file has none; `None` if it has a problem.
pub fn versions(findings: &mut Findings<'_>, value: &Texts) -> Option<Vec<Dialect>> {
    let Some(list) = value else {
        return Some(vec![Dialect::Rfc6455]);
    };
    let before = findings.problems.len();
    if list.get_ref().is_empty() {
        let problem = Problem::new(ProblemCode::EmptyList, list.span(), "empty list")
            .label("no version at all")
            .hint("leave the key out for `[13]`");
        findings.report(problem);
    }
    let mut found: Vec<(Range<usize>, Dialect)> = Vec::new();
    for name in list.get_ref() {
        let Some(version) = version(findings, name) else {
            continue;
        };
        match found.iter().find(|(_, earlier)| *earlier == version) {
            Some((first, _)) => {
                let message = format!("duplicate version: `{version}`");
                let problem = Problem::new(ProblemCode::DuplicateVersion, name.span(), message)
                    .label("again")
                    .context(first.clone(), "first here")
                    .hint("take one of them out");
                findings.report(problem);
            }
            None => found.push((name.span(), version)),
        }
    }
    let all_right = findings.problems.len() == before;
    all_right.then(|| found.into_iter().map(|(_, version)| version).collect())
}

/// As [`versions`], or `"auto"`.
pub fn spoken(findings: &mut Findings<'_>, value: &Texts) -> Option<Spoken> {
    match value.as_ref().map(|list| list.get_ref().as_slice()) {
        Some([only]) if only.get_ref() == AUTO => Some(Spoken::Auto),
        _ => versions(findings, value).map(Spoken::Listed),
    }
}

fn version(findings: &mut Findings<'_>, name: &Spanned<String>) -> Option<Dialect> {
    let known = Dialect::from_name(name.get_ref());
    if known.is_none() {
        let message = format!("version that is not served: `{}`", name.get_ref());
        let problem = Problem::new(ProblemCode::UnservedVersion, name.span(), message)
            .label("one of `13`, `8`, `7`, `0`, `\"hixie-75\"`")
            .hint(why_not(name.get_ref()));
        findings.report(problem);
    }
    known
}

/// The registry of RFC 6455 §11.6, in words.
fn why_not(name: &str) -> &'static str {
    match name.parse::<i64>() {
        Ok(1..=6) => "versions 1 to 6 were drafts with framings of their own that no deployed client speaks",
        Ok(9..=12) => "versions 9 to 12 are reserved and never went on the wire: drafts 9 to 12 asked for 8",
        Ok(14..=255) => "no version above 13 is registered",
        Ok(_) => "a version is a number of 0 to 255",
        Err(_) if name != AUTO && name.eq_ignore_ascii_case(AUTO) => {
            "did you mean `auto`? It stands alone, on an upstream"
        }
        Err(_) if name == AUTO => "only an upstream may be asked for its versions: `versions = \"auto\"`",
        Err(_) if name == "hixie-76" => "hixie-76 is version `0`",
        Err(_) => "only hixie-75, which has no number, is written as a text",
    }
}
