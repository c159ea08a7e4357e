//! What the documents say is what the code does: reasons, metrics, and the commands of the first screen.
#![expect(clippy::unwrap_used, reason = "a test says what it expects by failing")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use wsgate::config::model::Check;
use wsgate::observe::Metrics;
use wsgate::reason::Reason;

fn document(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The cells of every table row whose first cell is a name in backticks.
fn rows(text: &str) -> Vec<Vec<String>> {
    let cells = |line: &str| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
    let rows: Vec<Vec<String>> = text.lines().filter(|line| line.starts_with("| `")).map(cells).collect();
    assert!(!rows.is_empty());
    rows
}

fn name(cell: &str) -> String {
    cell.trim_matches('`').to_owned()
}

#[test]
fn the_page_of_reasons_is_the_enum() {
    let text = document("docs/reasons.md");
    let rows = rows(&text);
    let listed: Vec<String> = rows.iter().map(|row| name(&row[0])).collect();
    let known: Vec<String> = Reason::ALL.iter().map(|reason| reason.code().to_owned()).collect();
    assert_eq!(listed.iter().collect::<BTreeSet<_>>(), known.iter().collect::<BTreeSet<_>>());
    assert_eq!(listed.len(), known.len(), "a reason is listed twice");
    for row in rows {
        let reason = *Reason::ALL.iter().find(|reason| reason.code() == name(&row[0])).unwrap();
        if row.len() == 5 {
            assert_eq!((reason.status(), row[1].as_str()), (None, reason.by().as_str()), "{reason}");
            let told = [reason.code_to_client(), reason.code_to_backend()];
            assert_eq!(row[2..4], told.map(|code| code.map_or("–".to_owned(), |code| code.0.to_string())), "{reason}");
            continue;
        }
        let status = reason.status().map_or("relayed".to_owned(), |status| status.to_string());
        let relaxable = Check::ALL.iter().any(|check| check.name() == reason.code());
        let yes = |holds: bool| if holds { "yes" } else { "" };
        let expected = [status.as_str(), reason.by().as_str(), yes(reason.lists_versions()), yes(relaxable)];
        assert_eq!(row[1..5], expected, "{reason}");
        assert_eq!(row[5].contains("Retry-After"), reason.is_temporary(), "{reason}");
    }
}

#[test]
fn the_page_of_metrics_is_the_registry() {
    let text = document("docs/metrics.md");
    let listed: BTreeSet<(String, String, String)> = rows(&text)
        .into_iter()
        .filter(|row| name(&row[0]).starts_with("wsgate_"))
        .map(|row| (name(&row[0]), row[1].clone(), labels(&row[2])))
        .collect();
    let metrics = Metrics::new();
    let known: BTreeSet<(String, String, String)> = metrics
        .families()
        .iter()
        .filter(|family| family.name.starts_with("wsgate_"))
        .map(|family| (family.name.clone(), family.kind.as_str().to_owned(), labels(&family.labels.join(", "))))
        .collect();
    assert_eq!(listed, known);
}

#[test]
fn the_versions_of_the_metrics_are_those_of_the_handshake() {
    assert_eq!(wsgate::observe::metrics::VERSIONS, wsgate::handshake::Asked::LABELS);
}

/// Label names in one order, however they are written.
fn labels(cell: &str) -> String {
    let mut names: Vec<&str> = cell
        .split(',')
        .map(|label| label.trim().trim_matches('`'))
        .filter(|label| !["", "–"].contains(label))
        .collect();
    names.sort_unstable();
    names.join(" ")
}

#[test]
fn the_first_screen_shows_what_to_type() {
    let text = document("README.md");
    let first: Vec<&str> = text.lines().take(30).collect();
    let first = first.join("\n");
    for part in ["make demo", "make test", "curl", "HTTP/1.1 426 Upgrade Required", "**Not for**"] {
        assert!(first.contains(part), "{part} is not on the first screen");
    }
    let makefile = document("Makefile");
    for target in ["demo:", "test:", "bench:", "conformance:"] {
        assert!(makefile.lines().any(|line| line.starts_with(target)), "{target}");
    }
    assert!(document(".ci/run").contains("make test"));
}

#[test]
fn the_configuration_of_the_readme_is_right() {
    let text = document("README.md");
    let (_, rest) = text.split_once("```toml\n").unwrap();
    let (toml, _) = rest.split_once("```").unwrap();
    wsgate::config::parse("README.md", toml, std::num::NonZeroUsize::MIN)
        .unwrap_or_else(|problems| panic!("{problems}"));
}

#[test]
fn links_between_documents_lead_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let pages: Vec<_> = fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(pages.len() >= 8, "{pages:?}");
    for page in pages.into_iter().chain([root.join("README.md")]) {
        let text = fs::read_to_string(&page).unwrap();
        for (at, _) in text.match_indices("](") {
            let target = text[at + 2..].split(')').next().unwrap();
            if target.starts_with("http") || target.starts_with('#') {
                continue;
            }
            let file = target.split('#').next().unwrap();
            assert!(page.parent().unwrap().join(file).exists(), "{} links to {target}", page.display());
        }
    }
}
