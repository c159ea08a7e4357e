//! Lists of protocol versions: which ones the gateway serves at all, and why the others are none. It does not know what a
//! route or an upstream does with its list.

use std::ops::Range;

use toml::Spanned;

use super::findings::Findings;
use crate::config::bounds::VERSIONS_DEFAULT;
use crate::config::file::Wholes;
use crate::config::problem::{Problem, ProblemCode};

/// The versions that can be accepted: RFC 6455, and the drafts that were deployed.
const KNOWN: [u8; 4] = [13, 8, 7, 0];

/// The list in the order of the file, 13 alone where the file has none; `None` if it has a problem.
pub fn versions(findings: &mut Findings<'_>, value: &Wholes) -> Option<Vec<u8>> {
    let Some(list) = value else {
        return Some(VERSIONS_DEFAULT.to_vec());
    };
    let before = findings.problems.len();
    if list.get_ref().is_empty() {
        let problem = Problem::new(ProblemCode::EmptyList, list.span(), "empty list")
            .label("no version at all")
            .hint("leave the key out for `[13]`");
        findings.report(problem);
    }
    let mut found: Vec<(Range<usize>, u8)> = Vec::new();
    for number in list.get_ref() {
        let Some(version) = version(findings, number) else {
            continue;
        };
        match found.iter().find(|(_, earlier)| *earlier == version) {
            Some((first, _)) => {
                let message = format!("duplicate version: `{version}`");
                let problem = Problem::new(ProblemCode::DuplicateVersion, number.span(), message)
                    .label("again")
                    .context(first.clone(), "first here")
                    .hint("take one of them out");
                findings.report(problem);
            }
            None => found.push((number.span(), version)),
        }
    }
    let all_right = findings.problems.len() == before;
    all_right.then(|| found.into_iter().map(|(_, version)| version).collect())
}

fn version(findings: &mut Findings<'_>, number: &Spanned<i64>) -> Option<u8> {
    let asked = *number.get_ref();
    let known = KNOWN.into_iter().find(|version| i64::from(*version) == asked);
    if known.is_none() {
        let message = format!("version that is not served: `{asked}`");
        let problem = Problem::new(ProblemCode::UnservedVersion, number.span(), message)
            .label("one of `13`, `8`, `7`, `0`")
            .hint(why_not(asked));
        findings.report(problem);
    }
    known
}

/// The registry of RFC 6455 §11.6, in words.
fn why_not(asked: i64) -> &'static str {
    match asked {
        1..=6 => "versions 1 to 6 were drafts with framings of their own that no deployed client speaks",
        9..=12 => "versions 9 to 12 are reserved and never went on the wire: drafts 9 to 12 asked for 8",
        14..=255 => "no version above 13 is registered",
        _ => "a version is a number of 0 to 255",
    }
}
