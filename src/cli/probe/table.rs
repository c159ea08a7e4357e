//! What was found, as people read it: a table of the versions, what is answered to wrong ones, the verdict, and the line for the
//! configuration.

use std::fmt::Write;

use super::Report;
use super::finding::{Ending, Finding, Outcome, Reply};
use super::opening::{Flaw, Refusal};
use super::question::Question;
use crate::dialect::Dialect;

const HEADINGS: [&str; 6] = ["version", "handshake", "proof", "echo", "ping", "close"];

/// Ends with a line end.
pub fn render(report: &Report) -> String {
    let mut text = format!("{}{}\n\n", report.url, report.address.map(|at| format!(" at {at}")).unwrap_or_default());
    let mut rows = vec![HEADINGS.map(str::to_owned)];
    let mut asked = Vec::new();
    for finding in &report.findings {
        match finding.question {
            Question::Version(dialect) => rows.push(row(dialect, &finding.outcome)),
            Question::Unknown | Question::Missing | Question::Malformed => asked.push(answer(finding)),
        }
    }
    text += &aligned(&rows);
    text += "\nasked for what does not exist\n";
    text += &aligned(&asked);
    // Writing into a string cannot fail.
    let _ = write!(text, "\nverdict: {}\n", report.verdict.sentence);
    for remark in &report.verdict.remarks {
        let _ = writeln!(text, "  - {remark}");
    }
    text + &configuration(&report.verdict.versions)
}

/// What to write under `[[upstream]]`.
fn configuration(versions: &[Dialect]) -> String {
    if versions.is_empty() {
        return String::new();
    }
    let quoted = |dialect: &Dialect| match dialect.number() {
        Some(number) => number.to_string(),
        None => format!("\"{dialect}\""),
    };
    let list: Vec<String> = versions.iter().map(quoted).collect();
    format!("\nfor the [[upstream]] of a wsgate in front of it:\n  versions = [{}]\n", list.join(", "))
}

fn row(dialect: Dialect, outcome: &Outcome) -> [String; 6] {
    let mut row = [dialect.name(), "", "–", "–", "–", "–"].map(str::to_owned);
    row[1] = handshake(outcome);
    match outcome {
        Outcome::Wrong(flaw) => row[2] = proof(*flaw),
        Outcome::Right(talk) => {
            row[2] = if dialect == Dialect::Hixie75 { "has none" } else { "right" }.to_owned();
            for (cell, reply) in row[3..].iter_mut().zip([
                talk.echo.map(|reply| heard(dialect, reply, ["yes", "other text", "no echo"])),
                talk.ping.map(|reply| heard(dialect, reply, ["yes", "other payload", "no pong"])),
                talk.close.map(|reply| heard(dialect, reply, ["", "", "no answer"])),
            ]) {
                if let Some(reply) = reply {
                    *cell = reply;
                }
            }
        }
        Outcome::Unconnected(_)
        | Outcome::Silent
        | Outcome::Ended(_)
        | Outcome::NotHttp
        | Outcome::TooLarge
        | Outcome::Refused(_) => {}
    }
    row
}

fn handshake(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Unconnected(_) => "no connection",
        Outcome::Silent => "no answer in time",
        Outcome::Ended(ending) => ended(*ending),
        Outcome::NotHttp => "not HTTP/1.x",
        Outcome::TooLarge => "endless head",
        Outcome::Refused(refusal) => return refusal.status.to_string(),
        Outcome::Wrong(_) | Outcome::Right(_) => "101",
    }
    .to_owned()
}

fn ended(ending: Ending) -> &'static str {
    match ending {
        Ending::Fin => "closed",
        Ending::Reset => "reset",
    }
}

/// What a proof is not; other faults of a 101 are named as such.
fn proof(flaw: Flaw) -> String {
    match flaw {
        Flaw::Handshake(wrong) => format!("wrong {}", wrong.as_str()),
        Flaw::AcceptMissing => "no accept".to_owned(),
        Flaw::DigestMissing => "no digest".to_owned(),
        Flaw::Digest => "wrong digest".to_owned(),
        Flaw::Hixie75 => "as hixie-75".to_owned(),
    }
}

/// `words` are for [`Reply::Right`], [`Reply::Other`] and [`Reply::Silent`].
fn heard(dialect: Dialect, reply: Reply, words: [&str; 3]) -> String {
    match reply {
        Reply::Right => words[0].to_owned(),
        Reply::Other => words[1].to_owned(),
        Reply::Silent => words[2].to_owned(),
        Reply::Closed(Some(code)) => code.0.to_string(),
        Reply::Closed(None) if dialect.has_frames() => "no code".to_owned(),
        Reply::Closed(None) => "FF 00".to_owned(),
        Reply::Ended(Ending::Fin) => "end".to_owned(),
        Reply::Ended(Ending::Reset) => "reset".to_owned(),
        Reply::Broken(_) => "broken".to_owned(),
    }
}

/// A question that no server should take, and what it answers.
fn answer(finding: &Finding) -> [String; 2] {
    let asked = match finding.question {
        Question::Missing => "no version".to_owned(),
        Question::Unknown | Question::Malformed | Question::Version(_) => format!("`{}`", finding.question.name()),
    };
    let told = match &finding.outcome {
        Outcome::Refused(Refusal { status, advertised, .. }) if advertised.is_empty() => format!("{status}, no list"),
        Outcome::Refused(Refusal { status, advertised, .. }) => {
            format!("{status}, Sec-WebSocket-Version: {}", advertised.join(", "))
        }
        Outcome::Wrong(flaw) => format!("101, {}", proof(*flaw)),
        Outcome::Right(_) => "101: takes it as a WebSocket".to_owned(),
        other => handshake(other),
    };
    [asked, told]
}

/// Columns of one width each, two spaces apart.
fn aligned<const COLUMNS: usize>(rows: &[[String; COLUMNS]]) -> String {
    let mut widths = [0; COLUMNS];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text += format!("  {}", cells.join("  ")).trim_end();
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::probe::finding::{Talk, Verdict};
    use crate::wire::CloseCode;

    #[test]
    fn everything_is_in_the_table() {
        let refused = |status, advertised: &[&str]| {
            let advertised = advertised.iter().map(|version| (*version).to_owned()).collect();
            Outcome::Refused(Refusal { status, advertised, location: None })
        };
        let close = |code: u16| Some(Reply::Closed(Some(CloseCode(code))));
        let mut outcomes = vec![
            Outcome::Right(Talk { echo: Some(Reply::Right), ping: Some(Reply::Right), close: close(1000) }),
            Outcome::Right(Talk {
                echo: Some(Reply::Silent),
                ping: Some(Reply::Other),
                close: Some(Reply::Closed(None)),
            }),
            refused(426, &["13", "8"]),
            Outcome::Wrong(Flaw::Digest),
            Outcome::Right(Talk { echo: Some(Reply::Other), ping: None, close: Some(Reply::Ended(Ending::Fin)) }),
            refused(426, &["13", "8"]),
            refused(400, &[]),
            Outcome::Right(Talk::default()),
        ];
        let findings: Vec<Finding> =
            Question::ALL.into_iter().map(|question| Finding { question, outcome: outcomes.remove(0) }).collect();
        let verdict = Verdict::of(&findings);
        let address = Some("192.0.2.1:80".parse().unwrap());
        let report = Report { url: "ws://a.example/".to_owned(), address, findings, verdict };
        let expected = "\
ws://a.example/ at 192.0.2.1:80

  version   handshake  proof         echo        ping           close
  13        101        right         yes         yes            1000
  8         101        right         no echo     other payload  no code
  7         426        –             –           –              –
  0         101        wrong digest  –           –              –
  hixie-75  101        has none      other text  –              end

asked for what does not exist
  `99`        426, Sec-WebSocket-Version: 13, 8
  no version  400, no list
  `13x`       101: takes it as a WebSocket

verdict: a right version-13 server that speaks 8 and hixie-75 as well
  - takes the malformed version `13x` as a WebSocket
  - answers a Ping in 8 with another payload

for the [[upstream]] of a wsgate in front of it:
  versions = [13, 8, \"hixie-75\"]
";
        assert_eq!(render(&report), expected);
    }
}
