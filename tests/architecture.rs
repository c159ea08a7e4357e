//! Who may import whom, and what the pure half may not know: the table of `docs/architecture.md`, held against `src`.
#![expect(clippy::unwrap_used, reason = "a test says what it expects by failing")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A part and the parts it may use. A part that is not named in a row may not be used by it.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("address", &[]),
    ("dialect", &[]),
    ("config", &["address", "dialect"]),
    ("handshake", &["dialect"]),
    ("proxy_header", &["address", "config"]),
    ("caller", &["address", "config", "handshake", "proxy_header"]),
    ("wire", &[]),
    ("bridge", &["dialect", "wire"]),
    ("reason", &["handshake", "wire"]),
    ("answer", &["dialect", "handshake", "reason"]),
    ("policy", &["dialect", "handshake", "config", "reason"]),
    ("limits", &["config", "reason"]),
    ("names", &["address", "config"]),
    ("upstream", &["address", "config", "dialect", "handshake", "policy", "reason", "limits"]),
    ("tunnel", &["bridge", "dialect", "reason", "wire"]),
    ("roster", &["reason"]),
    ("observe", &["address", "config", "dialect", "reason"]),
    ("tls", &["config"]),
    (
        "generation",
        &[
            "address", "bridge", "config", "dialect", "policy", "limits", "names", "upstream", "tunnel", "observe",
            "reason", "roster", "tls",
        ],
    ),
    ("fleet", &["config", "generation", "limits", "observe"]),
    ("discover", &["config", "generation", "names", "observe"]),
    ("logging", &["config"]),
    ("source", &["config"]),
    ("lifecycle", &["address", "config", "generation", "reason", "roster"]),
    ("reload", &["address", "config", "discover", "generation", "lifecycle", "logging", "reason", "source", "tls"]),
    ("http2", &["answer", "handshake", "reason"]),
    ("stream", &["address", "http2"]),
    ("dial", &["address", "caller", "config", "dialect", "handshake", "reason", "stream", "tls"]),
    ("relay", &["bridge", "generation", "limits", "observe", "reason", "roster", "tunnel", "upstream", "wire"]),
    (
        "edge",
        &[
            "address",
            "answer",
            "bridge",
            "caller",
            "config",
            "dial",
            "dialect",
            "fleet",
            "generation",
            "handshake",
            "http2",
            "lifecycle",
            "limits",
            "observe",
            "policy",
            "proxy",
            "proxy_header",
            "reason",
            "relay",
            "stream",
            "tls",
            "tunnel",
            "upstream",
            "wire",
        ],
    ),
    (
        "health",
        &[
            "address",
            "config",
            "dial",
            "dialect",
            "generation",
            "handshake",
            "lifecycle",
            "proxy_header",
            "stream",
            "tls",
            "upstream",
            "wire",
        ],
    ),
    (
        "proxy",
        &[
            "address",
            "answer",
            "caller",
            "config",
            "dial",
            "generation",
            "observe",
            "policy",
            "proxy_header",
            "reason",
            "stream",
            "tls",
            "upstream",
        ],
    ),
    ("admin", &["address", "config", "dialect", "generation", "lifecycle", "observe"]),
    (
        "server",
        &[
            "address",
            "admin",
            "config",
            "discover",
            "edge",
            "fleet",
            "generation",
            "health",
            "lifecycle",
            "logging",
            "observe",
            "proxy",
            "reload",
            "source",
            "stream",
            "tls",
        ],
    ),
    (
        "cli",
        &["answer", "config", "dialect", "handshake", "logging", "policy", "reason", "server", "source", "tls", "wire"],
    ),
];

/// The parts that decide. They know no socket, no clock and no runtime.
const PURE: &[&str] = &[
    "address",
    "dialect",
    "config",
    "handshake",
    "proxy_header",
    "caller",
    "wire",
    "bridge",
    "reason",
    "answer",
    "policy",
    "limits",
    "names",
    "upstream",
    "tunnel",
    "roster",
    "observe",
    "generation",
];

const FORBIDDEN_IN_PURE: [&str; 9] =
    ["tokio", "pingora", "std::fs", "TcpStream", "Instant::now", "SystemTime::now", "env::", "std::thread", "std::io"];

/// What a pure part may know all the same, and why.
const EXCEPTIONS: [(&str, &str); 4] = [
    // It writes the file that the others' events go to, on a thread of its own.
    ("observe/access_log.rs", "std::thread std::fs std::io"),
    // It stamps events, which carry no time of their own.
    ("observe/mod.rs", "SystemTime::now std::io"),
    // Formatting into a buffer uses the trait.
    ("observe/line.rs", "std::io"),
    ("observe/openmetrics.rs", "std::io"),
];

const LINES_MAX: usize = 400;

struct Source {
    /// Relative to `src`.
    path: String,
    part: String,
    /// Without tests and comments.
    code: Vec<String>,
    opening: String,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    let sources: Vec<Source> = files.iter().map(|file| read(&root, file)).collect();
    assert!(sources.len() > 40, "found only {} files", sources.len());
    sources
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

fn read(root: &Path, file: &Path) -> Source {
    let path = file.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
    let part = path.split('/').next().unwrap().trim_end_matches(".rs").to_owned();
    let text = fs::read_to_string(file).unwrap();
    let is_test = path.ends_with("tests.rs");
    let code = text
        .lines()
        .take_while(|line| !is_test && !line.starts_with("#[cfg(test)]"))
        .filter(|line| !line.trim_start().starts_with("//"))
        .map(str::to_owned)
        .collect();
    Source { path, part, code, opening: text.lines().next().unwrap_or_default().to_owned() }
}

/// The parts that a line names as `crate::part`, those in braces included.
fn imports(code: &[String]) -> BTreeSet<String> {
    let text = code.join("\n");
    let mut found = BTreeSet::new();
    for (at, _) in text.match_indices("crate::") {
        let rest = &text[at + "crate::".len()..];
        let names = rest.strip_prefix('{').and_then(|rest| rest.split_once('}')).map_or(rest, |(names, _)| names);
        let several = rest.starts_with('{');
        for name in names.split(',').take(if several { usize::MAX } else { 1 }) {
            let name: String =
                name.trim().chars().take_while(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || *c == '_').collect();
            if !name.is_empty() {
                found.insert(name);
            }
        }
    }
    found
}

#[test]
fn every_part_has_a_row_and_every_row_a_part() {
    let parts: BTreeSet<String> = sources().into_iter().map(|source| source.part).collect();
    let rows: BTreeSet<String> = MAY_IMPORT.iter().map(|(part, _)| (*part).to_owned()).collect();
    let unlisted: Vec<_> = parts.difference(&rows).filter(|part| !["lib", "main"].contains(&part.as_str())).collect();
    assert!(unlisted.is_empty(), "without a row: {unlisted:?}");
    let gone: Vec<_> = rows.difference(&parts).collect();
    assert!(gone.is_empty(), "without a part: {gone:?}");
}

#[test]
fn parts_import_only_what_their_row_allows() {
    for source in sources().iter().filter(|source| !["lib", "main"].contains(&source.part.as_str())) {
        let (_, allowed) = MAY_IMPORT.iter().find(|(part, _)| *part == source.part).unwrap();
        for import in imports(&source.code) {
            let fine = import == source.part || allowed.contains(&import.as_str());
            assert!(fine, "src/{} imports `{import}`", source.path);
        }
    }
}

#[test]
fn no_two_parts_import_each_other() {
    for (part, allowed) in MAY_IMPORT {
        for (other, back) in MAY_IMPORT {
            assert!(!(allowed.contains(other) && back.contains(part)), "{part} and {other} import each other");
        }
    }
}

#[test]
fn the_pure_half_knows_no_socket_no_clock_and_no_runtime() {
    for source in sources().iter().filter(|source| PURE.contains(&source.part.as_str())) {
        let excused = EXCEPTIONS.iter().find(|(path, _)| *path == source.path).map_or("", |(_, words)| words);
        for line in &source.code {
            for word in FORBIDDEN_IN_PURE {
                let fine = !line.contains(word) || excused.split(' ').any(|excuse| excuse == word);
                assert!(fine, "src/{} knows `{word}`: {line}", source.path);
            }
        }
    }
}

#[test]
fn toml_is_read_in_one_place() {
    for source in sources().iter().filter(|source| source.part != "config") {
        assert!(!source.code.iter().any(|line| line.contains("toml::")), "src/{} reads TOML", source.path);
    }
}

#[test]
fn there_is_no_unsafe_code() {
    let with_unsafe: Vec<String> = sources()
        .into_iter()
        .filter(|source| source.code.iter().any(|line| line.contains("unsafe {")))
        .map(|source| source.path)
        .collect();
    assert!(with_unsafe.is_empty(), "{with_unsafe:?}");
    for root in sources().iter().filter(|source| ["lib.rs", "main.rs"].contains(&source.path.as_str())) {
        assert!(root.code.iter().any(|line| line == "#![forbid(unsafe_code)]"), "src/{} may become unsafe", root.path);
    }
}

#[test]
fn files_say_what_they_are_and_stay_readable() {
    for source in sources() {
        assert!(source.opening.starts_with("//! "), "src/{} does not say what it is", source.path);
        let lines = source.code.len();
        assert!(lines <= LINES_MAX, "src/{} has {lines} lines", source.path);
    }
}
