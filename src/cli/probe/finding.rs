//! What was seen of a server, and what it comes to: which versions it speaks, what it does that it should not, and what an
//! operator may rely on. It asks nobody, and does not know how it is shown.

use super::connect::ConnectError;
use super::hearing::Fault;
use super::opening::{Flaw, Refusal};
use super::question::Question;
use crate::dialect::Dialect;
use crate::wire::CloseCode;

/// One question and what came of it.
#[derive(Debug)]
pub struct Finding {
    pub question: Question,
    pub outcome: Outcome,
}

#[derive(Debug)]
pub enum Outcome {
    Unconnected(ConnectError),
    /// No whole answer in time.
    Silent,
    /// The connection ended before a whole answer.
    Ended(Ending),
    /// No HTTP/1.x, or a head that two parsers could read differently.
    NotHttp,
    /// A head that does not end within the limit.
    TooLarge,
    Refused(Refusal),
    Wrong(Flaw),
    Right(Talk),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    Fin,
    Reset,
}

/// What was said over an open WebSocket. What is `None` was not tried: the version has no such thing, or the end came before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Talk {
    pub echo: Option<Reply>,
    pub ping: Option<Reply>,
    /// To a Close 1000, to `FF 00`, or, in hixie-75, to the end of what the probe had to say.
    pub close: Option<Reply>,
}

/// What came of something that was said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The same text; a Pong with the same payload.
    Right,
    Other,
    Silent,
    /// A Close, or `FF 00`.
    Closed(Option<CloseCode>),
    Ended(Ending),
    Broken(Fault),
}

impl Talk {
    /// Where it stopped being frames.
    pub fn fault(&self) -> Option<Fault> {
        [self.echo, self.ping, self.close].into_iter().flatten().find_map(|reply| match reply {
            Reply::Broken(fault) => Some(fault),
            Reply::Right | Reply::Other | Reply::Silent | Reply::Closed(_) | Reply::Ended(_) => None,
        })
    }
}

impl Outcome {
    /// A proven handshake, and nothing after it that is no frame. Whether Pings and Closes are answered is another matter:
    /// it hinders nobody's messages.
    pub fn is_spoken(&self) -> bool {
        matches!(self, Outcome::Right(talk) if talk.fault().is_none())
    }

    fn refusal(&self) -> Option<&Refusal> {
        match self {
            Outcome::Refused(refusal) => Some(refusal),
            Outcome::Unconnected(_)
            | Outcome::Silent
            | Outcome::Ended(_)
            | Outcome::NotHttp
            | Outcome::TooLarge
            | Outcome::Wrong(_)
            | Outcome::Right(_) => None,
        }
    }
}

/// What an operator gets to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub is_right_13: bool,
    /// It took a number that means nothing, so that its 8 and 7 prove nothing either.
    pub ignores_version: bool,
    /// What a gateway may be told that this server speaks, the better one first.
    pub versions: Vec<Dialect>,
    pub sentence: String,
    pub remarks: Vec<String>,
}

impl Verdict {
    pub fn of(findings: &[Finding]) -> Verdict {
        let spoken: Vec<Dialect> =
            Dialect::ALL.into_iter().filter(|dialect| is_spoken(findings, Question::Version(*dialect))).collect();
        let is_right_13 = spoken.contains(&Dialect::Rfc6455);
        let ignores_version = is_spoken(findings, Question::Unknown);
        let means_nothing =
            |dialect| ignores_version && is_right_13 && [Dialect::Hybi8, Dialect::Hybi7].contains(&dialect);
        let versions: Vec<Dialect> = spoken.iter().copied().filter(|dialect| !means_nothing(*dialect)).collect();
        let sentence = sentence(is_right_13, ignores_version, &versions);
        let remarks = remarks(findings, &spoken, ignores_version);
        Verdict { is_right_13, ignores_version, versions, sentence, remarks }
    }
}

fn outcome(findings: &[Finding], question: Question) -> Option<&Outcome> {
    findings.iter().find(|finding| finding.question == question).map(|finding| &finding.outcome)
}

fn is_spoken(findings: &[Finding], question: Question) -> bool {
    outcome(findings, question).is_some_and(Outcome::is_spoken)
}

fn sentence(is_right_13: bool, ignores_version: bool, versions: &[Dialect]) -> String {
    let others: Vec<&str> =
        versions.iter().filter(|dialect| **dialect != Dialect::Rfc6455).map(|dialect| dialect.name()).collect();
    match (is_right_13, others.as_slice()) {
        (true, []) if ignores_version => "a right version-13 server, whatever number it is asked for".to_owned(),
        (true, []) => "a right version-13 server".to_owned(),
        (true, others) => format!("a right version-13 server that speaks {} as well", listed(others)),
        (false, []) => "no version of WebSocket was seen right".to_owned(),
        (false, others) => format!("no right version-13 server; it speaks {}", listed(others)),
    }
}

/// `a`, `a and b`, `a, b and c`.
fn listed(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [only] => (*only).to_owned(),
        [before @ .., last] => format!("{} and {last}", before.join(", ")),
    }
}

fn remarks(findings: &[Finding], spoken: &[Dialect], ignores_version: bool) -> Vec<String> {
    let mut remarks = Vec::new();
    if ignores_version {
        remarks.push("answers to any number; speaks 13's framing, so that taking 8 and 7 proves nothing".to_owned());
    }
    for (question, request) in [
        (Question::Unknown, "version 99"),
        (Question::Missing, "a request without a version"),
        (Question::Malformed, "the malformed version `13x`"),
    ] {
        match outcome(findings, question) {
            Some(Outcome::Right(_)) if question != Question::Unknown => {
                remarks.push(format!("takes {request} as a WebSocket"));
            }
            Some(Outcome::Wrong(Flaw::Hixie75)) => remarks.push(format!("takes {request} as hixie-75")),
            Some(Outcome::Wrong(_)) => remarks.push(format!("answers 101 without a right proof to {request}")),
            _ => {}
        }
    }
    remarks.extend(advertising(findings, spoken));
    for finding in findings {
        remarks.extend(about(finding));
    }
    remarks.extend(hint(findings));
    remarks
}

/// Whether what it says of itself is what it does. Nobody asks for version 0 by its number, so it need not be in a list.
fn advertising(findings: &[Finding], spoken: &[Dialect]) -> Vec<String> {
    let Some(refusal) = outcome(findings, Question::Unknown).and_then(Outcome::refusal) else { return Vec::new() };
    if refusal.advertised.is_empty() {
        // RFC 6455 §4.4.
        return vec![format!("refuses version 99 with {} and does not say which ones it speaks", refusal.status)];
    }
    let mut remarks = Vec::new();
    for dialect in [Dialect::Rfc6455, Dialect::Hybi8, Dialect::Hybi7, Dialect::Hixie76] {
        let is_advertised = refusal.advertised.iter().any(|version| version == dialect.name());
        match (is_advertised, spoken.contains(&dialect)) {
            (true, false) => remarks.push(format!("advertises {dialect}, which was not seen right")),
            (false, true) if dialect.has_frames() => remarks.push(format!("speaks {dialect} without advertising it")),
            (true, true) | (false, _) => {}
        }
    }
    remarks
}

/// What is odd about one version that opens.
fn about(finding: &Finding) -> Option<String> {
    let (Question::Version(dialect), Outcome::Right(talk)) = (finding.question, &finding.outcome) else { return None };
    if let Some(fault) = talk.fault() {
        return Some(format!("breaks the framing of {dialect}: {fault}"));
    }
    match talk.ping {
        Some(Reply::Silent) => Some(format!("does not answer Pings in {dialect}")),
        Some(Reply::Other) => Some(format!("answers a Ping in {dialect} with another payload")),
        _ => None,
    }
}

/// What the operator could try, where version 13 was refused by something that is not about versions.
fn hint(findings: &[Finding]) -> Option<String> {
    let refusal = outcome(findings, Question::Version(Dialect::Rfc6455)).and_then(Outcome::refusal)?;
    match (refusal.status, &refusal.location) {
        (300..=399, Some(location)) => Some(format!("sends version 13 elsewhere: `{location}`")),
        (401, _) => Some("asks who is there; `--header` can carry what it wants".to_owned()),
        (403, _) => Some("forbids it; another `--origin` or a `--header` may be what it wants".to_owned()),
        (404, _) => Some("knows no such path".to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handshake::response::Wrong;
    use crate::wire::FrameError;

    fn right() -> Outcome {
        Outcome::Right(Talk { echo: Some(Reply::Right), ..Talk::default() })
    }

    fn refused(status: u16, advertised: &[&str]) -> Outcome {
        let advertised = advertised.iter().map(|version| (*version).to_owned()).collect();
        Outcome::Refused(Refusal { status, advertised, location: None })
    }

    /// Questions that are not named are met with silence.
    fn verdict(outcomes: Vec<(&str, Outcome)>) -> Verdict {
        let mut findings: Vec<Finding> =
            Question::ALL.map(|question| Finding { question, outcome: Outcome::Silent }).into();
        for (name, outcome) in outcomes {
            findings.iter_mut().find(|finding| finding.question.name() == name).unwrap().outcome = outcome;
        }
        Verdict::of(&findings)
    }

    fn check(outcomes: Vec<(&str, Outcome)>, is_right_13: bool, versions: &[&str], sentence: &str, remarks: &[&str]) {
        let verdict = verdict(outcomes);
        let names: Vec<&str> = verdict.versions.iter().map(|dialect| dialect.name()).collect();
        assert_eq!((verdict.is_right_13, names.as_slice()), (is_right_13, versions), "{verdict:?}");
        assert_eq!(verdict.sentence, sentence);
        assert_eq!(verdict.remarks, remarks);
    }

    #[test]
    fn a_right_13_server_needs_no_remark() {
        check(vec![("13", right()), ("99", refused(426, &["13"]))], true, &["13"], "a right version-13 server", &[]);
        check(
            vec![("13", right()), ("8", right()), ("0", right()), ("99", refused(400, &["13", "8"]))],
            true,
            &["13", "8", "0"],
            "a right version-13 server that speaks 8 and 0 as well",
            &[],
        );
    }

    #[test]
    fn a_server_of_drafts_only_is_no_13_server() {
        check(
            vec![("13", refused(426, &["8"])), ("8", right()), ("hixie-75", right()), ("99", refused(426, &["8"]))],
            false,
            &["8", "hixie-75"],
            "no right version-13 server; it speaks 8 and hixie-75",
            &[],
        );
        check(vec![], false, &[], "no version of WebSocket was seen right", &[]);
    }

    #[test]
    fn numbers_prove_nothing_where_any_number_will_do() {
        let any = "answers to any number; speaks 13's framing, so that taking 8 and 7 proves nothing";
        check(
            vec![
                ("13", right()),
                ("8", right()),
                ("7", right()),
                ("99", right()),
                ("13x", right()),
                ("missing", right()),
            ],
            true,
            &["13"],
            "a right version-13 server, whatever number it is asked for",
            &[
                any,
                "takes a request without a version as a WebSocket",
                "takes the malformed version `13x` as a WebSocket",
            ],
        );
    }

    #[test]
    fn a_101_that_is_not_right_is_not_spoken() {
        let wrong = || Outcome::Wrong(Flaw::Handshake(Wrong::Accept));
        check(
            vec![("13", wrong()), ("99", wrong()), ("missing", Outcome::Wrong(Flaw::Hixie75))],
            false,
            &[],
            "no version of WebSocket was seen right",
            &["answers 101 without a right proof to version 99", "takes a request without a version as hixie-75"],
        );
        let broken = Talk { echo: Some(Reply::Broken(Fault::Frame(FrameError::Masked))), ..Talk::default() };
        check(
            vec![("13", Outcome::Right(broken))],
            false,
            &[],
            "no version of WebSocket was seen right",
            &["breaks the framing of 13: frame of a server with a mask"],
        );
    }

    #[test]
    fn what_it_says_of_itself_is_held_against_it() {
        check(
            vec![("13", right()), ("7", right()), ("99", refused(426, &["13", "8", "0", "x"]))],
            true,
            &["13", "7"],
            "a right version-13 server that speaks 7 as well",
            &[
                "advertises 8, which was not seen right",
                "speaks 7 without advertising it",
                "advertises 0, which was not seen right",
            ],
        );
        let remarks = verdict(vec![("13", right()), ("99", refused(400, &[]))]).remarks;
        assert_eq!(remarks, ["refuses version 99 with 400 and does not say which ones it speaks"]);
    }

    #[test]
    fn pings_without_an_answer_are_worth_a_remark() {
        for (ping, expected) in [
            (Reply::Silent, "does not answer Pings in 13"),
            (Reply::Other, "answers a Ping in 13 with another payload"),
        ] {
            let talk = Talk { ping: Some(ping), ..Talk::default() };
            let verdict = verdict(vec![("13", Outcome::Right(talk))]);
            assert!(verdict.is_right_13);
            assert_eq!(verdict.remarks, [expected]);
        }
    }

    #[test]
    fn a_refusal_that_is_not_about_versions_gets_a_hint() {
        for (status, part) in [(301, "`/new`"), (401, "--header"), (403, "--origin"), (404, "path")] {
            let refusal = Refusal { status, advertised: Vec::new(), location: Some("/new".to_owned()) };
            let remarks = verdict(vec![("13", Outcome::Refused(refusal))]).remarks;
            assert!(remarks.len() == 1 && remarks[0].contains(part), "{remarks:?}");
        }
    }
}
