//! What was found, as one JSON document for programs. `docs/operating.md` has the fields; names and words stay as they are as long
//! as `format` does.

use serde::Serialize;

use super::Report;
use super::finding::{Ending, Finding, Outcome, Reply, Talk};
use super::opening::Flaw;
use super::question::Question;
use crate::dialect::Dialect;
use crate::handshake::response::Wrong;

const FORMAT: u32 = 1;

#[derive(Serialize)]
struct Document<'r> {
    format: u32,
    url: &'r str,
    address: Option<String>,
    /// Exit code 0.
    right_13: bool,
    ignores_version: bool,
    verdict: &'r str,
    remarks: &'r [String],
    /// As the configuration has it: numbers, and a text for hixie-75.
    upstream_versions: Vec<Name>,
    versions: Vec<Version<'r>>,
    unknown: Vec<Unknown<'r>>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Name {
    Number(u8),
    Text(&'static str),
}

#[derive(Serialize)]
struct Version<'r> {
    version: &'static str,
    spoken: bool,
    #[serde(flatten)]
    handshake: Handshake<'r>,
    proof: Option<&'static str>,
    echo: Option<&'static str>,
    ping: Option<&'static str>,
    close: Option<&'static str>,
    close_code: Option<u16>,
    broken: Option<String>,
}

/// What came of a version that does not exist.
#[derive(Serialize)]
struct Unknown<'r> {
    asked: &'static str,
    #[serde(flatten)]
    handshake: Handshake<'r>,
}

#[derive(Serialize)]
struct Handshake<'r> {
    handshake: &'static str,
    status: Option<u16>,
    flaw: Option<&'static str>,
    advertised: &'r [String],
}

/// Ends with a line end.
pub fn render(report: &Report) -> String {
    let mut versions = Vec::new();
    let mut unknown = Vec::new();
    for Finding { question, outcome } in &report.findings {
        match question {
            Question::Version(dialect) => versions.push(version(*dialect, outcome)),
            Question::Unknown | Question::Missing | Question::Malformed => {
                unknown.push(Unknown { asked: question.name(), handshake: handshake(outcome) });
            }
        }
    }
    let name = |dialect: &Dialect| dialect.number().map_or(Name::Text(dialect.name()), Name::Number);
    let document = Document {
        format: FORMAT,
        url: &report.url,
        address: report.address.map(|address| address.to_string()),
        right_13: report.verdict.is_right_13,
        ignores_version: report.verdict.ignores_version,
        verdict: &report.verdict.sentence,
        remarks: &report.verdict.remarks,
        upstream_versions: report.verdict.versions.iter().map(name).collect(),
        versions,
        unknown,
    };
    serde_json::to_string_pretty(&document).expect("texts, numbers and lists of them are always JSON") + "\n"
}

fn version(dialect: Dialect, outcome: &Outcome) -> Version<'_> {
    let none = Talk::default();
    let talk = if let Outcome::Right(talk) = outcome { talk } else { &none };
    let close_code = match talk.close {
        Some(Reply::Closed(Some(code))) => Some(code.0),
        _ => None,
    };
    Version {
        version: dialect.name(),
        spoken: outcome.is_spoken(),
        handshake: handshake(outcome),
        proof: proof(dialect, outcome),
        echo: talk.echo.map(reply),
        ping: talk.ping.map(reply),
        close: talk.close.map(reply),
        close_code,
        broken: talk.fault().map(|fault| fault.to_string()),
    }
}

fn handshake(outcome: &Outcome) -> Handshake<'_> {
    let (handshake, status, flaw, advertised): (_, _, _, &[String]) = match outcome {
        Outcome::Unconnected(_) => ("no-connection", None, None, &[]),
        Outcome::Silent => ("no-answer", None, None, &[]),
        Outcome::Ended(ending) => (ended(*ending), None, None, &[]),
        Outcome::NotHttp => ("not-http", None, None, &[]),
        Outcome::TooLarge => ("head-too-large", None, None, &[]),
        Outcome::Refused(refusal) => ("refused", Some(refusal.status), None, &refusal.advertised),
        Outcome::Wrong(flaw) => ("wrong", Some(101), Some(flaw.code()), &[]),
        Outcome::Right(_) => ("right", Some(101), None, &[]),
    };
    Handshake { handshake, status, flaw, advertised }
}

/// `null` where the answer does not come as far as a proof.
fn proof(dialect: Dialect, outcome: &Outcome) -> Option<&'static str> {
    match outcome {
        Outcome::Right(_) if dialect == Dialect::Hixie75 => Some("none"),
        Outcome::Right(_) => Some("right"),
        Outcome::Wrong(Flaw::Handshake(Wrong::Accept) | Flaw::Digest) => Some("wrong"),
        Outcome::Wrong(Flaw::AcceptMissing | Flaw::DigestMissing | Flaw::Hixie75) => Some("missing"),
        Outcome::Wrong(Flaw::Handshake(_))
        | Outcome::Unconnected(_)
        | Outcome::Silent
        | Outcome::Ended(_)
        | Outcome::NotHttp
        | Outcome::TooLarge
        | Outcome::Refused(_) => None,
    }
}

fn reply(reply: Reply) -> &'static str {
    match reply {
        Reply::Right => "right",
        Reply::Other => "other",
        Reply::Silent => "none",
        Reply::Closed(_) => "close",
        Reply::Ended(ending) => ended(ending),
        Reply::Broken(_) => "broken",
    }
}

fn ended(ending: Ending) -> &'static str {
    match ending {
        Ending::Fin => "end",
        Ending::Reset => "reset",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::cli::probe::finding::Verdict;
    use crate::cli::probe::hearing::Fault;
    use crate::cli::probe::opening::Refusal;
    use crate::wire::{CloseCode, FrameError};

    #[test]
    fn the_document_has_every_field_whatever_was_found() {
        let advertised = vec!["13".to_owned(), "8".to_owned()];
        let mut outcomes = vec![
            Outcome::Right(Talk {
                echo: Some(Reply::Silent),
                ping: Some(Reply::Right),
                close: Some(Reply::Closed(Some(CloseCode(1000)))),
            }),
            Outcome::Right(Talk { echo: Some(Reply::Broken(Fault::Frame(FrameError::Masked))), ..Talk::default() }),
            Outcome::Refused(Refusal { status: 426, advertised: advertised.clone(), location: None }),
            Outcome::Wrong(Flaw::Digest),
            Outcome::Right(Talk { echo: Some(Reply::Right), ping: None, close: Some(Reply::Ended(Ending::Fin)) }),
            Outcome::Refused(Refusal { status: 426, advertised, location: None }),
            Outcome::Silent,
            Outcome::Ended(Ending::Reset),
        ];
        let findings: Vec<Finding> =
            Question::ALL.into_iter().map(|question| Finding { question, outcome: outcomes.remove(0) }).collect();
        let verdict = Verdict::of(&findings);
        let report =
            Report { url: "ws://a.example/".to_owned(), address: Some("[::1]:80".parse().unwrap()), findings, verdict };
        let found: Value = serde_json::from_str(&render(&report)).unwrap();
        let expected = json!({
            "format": 1,
            "url": "ws://a.example/",
            "address": "[::1]:80",
            "right_13": true,
            "ignores_version": false,
            "verdict": "a right version-13 server that speaks hixie-75 as well",
            "remarks": [
                "advertises 8, which was not seen right",
                "breaks the framing of 8: frame of a server with a mask",
            ],
            "upstream_versions": [13, "hixie-75"],
            "versions": [
                {"version": "13", "spoken": true, "handshake": "right", "status": 101, "flaw": null, "advertised": [],
                 "proof": "right", "echo": "none", "ping": "right", "close": "close", "close_code": 1000, "broken": null},
                {"version": "8", "spoken": false, "handshake": "right", "status": 101, "flaw": null, "advertised": [],
                 "proof": "right", "echo": "broken", "ping": null, "close": null, "close_code": null,
                 "broken": "frame of a server with a mask"},
                {"version": "7", "spoken": false, "handshake": "refused", "status": 426, "flaw": null,
                 "advertised": ["13", "8"], "proof": null, "echo": null, "ping": null, "close": null, "close_code": null,
                 "broken": null},
                {"version": "0", "spoken": false, "handshake": "wrong", "status": 101, "flaw": "digest", "advertised": [],
                 "proof": "wrong", "echo": null, "ping": null, "close": null, "close_code": null, "broken": null},
                {"version": "hixie-75", "spoken": true, "handshake": "right", "status": 101, "flaw": null,
                 "advertised": [], "proof": "none", "echo": "right", "ping": null, "close": "end", "close_code": null,
                 "broken": null},
            ],
            "unknown": [
                {"asked": "99", "handshake": "refused", "status": 426, "flaw": null, "advertised": ["13", "8"]},
                {"asked": "missing", "handshake": "no-answer", "status": null, "flaw": null, "advertised": []},
                {"asked": "13x", "handshake": "reset", "status": null, "flaw": null, "advertised": []},
            ],
        });
        assert_eq!(found, expected);
    }
}
