//! The configuration seen from outside: what is shipped in `conf/` loads, what is wrong is shown as the golden cases in
//! `tests/config/` say, and `docs/configuration.md` says what the code does. It does not know how any of it is read.
//!
//! `UPDATE_GOLDEN=1` writes the golden files anew.
#![expect(clippy::unwrap_used, reason = "a test says what it expects by failing")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use wsgate::config::model::Check;
use wsgate::config::{self, Config, Look, ProblemCode, Problems, units};

const MINIMAL: &str = include_str!("../conf/minimal.toml");
const REFERENCE: &str = include_str!("../conf/wsgate.toml");
const DOCS: &str = include_str!("../docs/configuration.md");

/// Where this file is, whichever crate it is compiled in.
fn root() -> PathBuf {
    let tests = Path::new(file!()).parent().unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(tests).join("..");
    root.canonicalize().unwrap()
}

/// The `.toml` files of a folder, in order; there are some.
fn toml_files(folder: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join(folder)).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = paths.filter(|path| path.extension().is_some_and(|ext| ext == "toml")).collect();
    files.sort();
    assert!(!files.is_empty(), "no files in {folder}");
    files
}

fn parse(name: &str, text: &str) -> Result<Config, Problems> {
    config::parse(name, text, NonZeroUsize::new(4).unwrap())
}

fn good(text: &str) -> Config {
    parse("test.toml", text).unwrap_or_else(|problems| panic!("{problems}"))
}

fn codes(result: Result<Config, Problems>) -> BTreeSet<ProblemCode> {
    let Err(problems) = result else {
        return BTreeSet::new();
    };
    problems.as_slice().iter().map(|problem| problem.code).collect()
}

/// Compares with the file, or writes it when the environment says so.
fn check_golden(path: &Path, actual: &str) {
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(path, actual).unwrap();
    }
    let expected = fs::read_to_string(path).unwrap_or_default();
    assert_eq!(actual, expected, "{}: write it anew with UPDATE_GOLDEN=1", path.display());
}

/// The values of a text at the paths of their keys: `route.tunnel.max_age`. Lists of tables are one table.
fn values(text: &str) -> BTreeMap<String, toml::Value> {
    let mut found = BTreeMap::new();
    let table: toml::Table = text.parse().unwrap();
    collect(&toml::Value::Table(table), "", &mut found);
    found
}

fn collect(value: &toml::Value, path: &str, found: &mut BTreeMap<String, toml::Value>) {
    match value {
        toml::Value::Table(table) => {
            for (key, value) in table {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                collect(value, &path, found);
            }
        }
        toml::Value::Array(entries) if entries.iter().any(toml::Value::is_table) => {
            for entry in entries.iter().filter(|entry| entry.is_table()) {
                collect(entry, path, found);
            }
        }
        _ => {
            found.insert(path.to_owned(), value.clone());
        }
    }
}

/// `text` with every line that begins with `# key =` or `# [section]` taken out of its comment.
fn uncommented(text: &str) -> String {
    let is_key = |line: &str| {
        let word = line.split_whitespace().next().unwrap_or_default();
        let is_section = word.starts_with('[') && word.ends_with(']');
        is_section || line.contains(" = ") && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
    };
    let lines = text.lines().map(|line| match line.strip_prefix("# ") {
        Some(key) if is_key(key) => key,
        _ => line,
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn grammar() -> BTreeSet<String> {
    config::key_paths().into_iter().collect()
}

// ── conf/ ──

#[test]
fn every_shipped_configuration_loads() {
    for file in toml_files("conf") {
        let text = fs::read_to_string(&file).unwrap();
        parse(&file.display().to_string(), &text).unwrap_or_else(|problems| panic!("{problems}"));
    }
}

#[test]
fn the_reference_configuration_is_all_defaults() {
    assert_eq!(good(REFERENCE), good(MINIMAL));
}

#[test]
fn the_reference_configuration_has_every_key() {
    let text = uncommented(REFERENCE);
    let found: BTreeSet<String> = values(&text).into_keys().collect();
    assert_eq!(found, grammar());
}

#[test]
fn what_the_reference_configuration_has_in_comments_is_good_too() {
    assert_ne!(good(&uncommented(REFERENCE)), good(MINIMAL));
}

#[test]
fn the_reference_configuration_shows_defaults_in_comments_as_they_are() {
    let shown = values(&uncommented(REFERENCE));
    let printed = values(&uncommented(&config::print(&good(MINIMAL))));
    for (key, value) in printed {
        // The number of cores stands where the file says 0.
        if key != "gateway.threads" {
            assert_eq!(shown.get(&key), Some(&value), "{key}");
        }
    }
}

#[test]
fn the_reference_configuration_explains_every_key() {
    for line in REFERENCE.lines().filter(|line| line.contains(" = ") && !line.starts_with("# `")) {
        let value = line.trim_start_matches("# ");
        assert!(value.contains('#'), "no comment behind: {line}");
    }
}

// ── golden cases ──

#[test]
fn problems_are_shown_as_expected() {
    for file in toml_files("tests/config/bad") {
        let name = file.file_name().unwrap().to_str().unwrap();
        let text = fs::read_to_string(&file).unwrap();
        let problems = parse(name, &text).expect_err(name);
        check_golden(&file.with_extension("txt"), &problems.render(Look::Plain));
    }
}

#[test]
fn every_problem_code_has_a_case_of_its_name() {
    for code in ProblemCode::ALL {
        let file = root().join(format!("tests/config/bad/{code}.toml"));
        let text = fs::read_to_string(&file).unwrap_or_else(|_| panic!("no case for {code}"));
        assert_eq!(codes(parse("test.toml", &text)), BTreeSet::from([code]), "{code}");
    }
}

#[test]
fn no_case_is_left_over() {
    for entry in fs::read_dir(root().join("tests/config/bad")).unwrap() {
        let path = entry.unwrap().path();
        assert!(path.with_extension("toml").exists(), "{}", path.display());
    }
}

#[test]
fn colours_change_nothing_but_the_look() {
    let problems = parse("test.toml", "x = 1").unwrap_err();
    let (plain, ansi) = (problems.render(Look::Plain), problems.render(Look::Ansi));
    let mut stripped = String::new();
    let mut rest = ansi.as_str();
    while let Some((before, after)) = rest.split_once('\u{1b}') {
        stripped.push_str(before);
        rest = after.split_once('m').unwrap().1;
    }
    stripped.push_str(rest);
    assert_eq!(stripped, plain);
    assert!(plain.is_ascii());
    assert_ne!(ansi, plain);
}

#[test]
fn good_configurations_load_and_print_as_expected() {
    for file in toml_files("tests/config/good") {
        let text = fs::read_to_string(&file).unwrap();
        let config = good(&text);
        let printed = config::print(&config);
        assert_eq!(good(&printed), config);
        check_golden(&file.with_extension("txt"), &(printed + "\n"));
    }
}

// ── docs/configuration.md ──

/// One key of the reference.
#[derive(Debug)]
struct Row {
    default: String,
    limits: String,
    meaning: String,
}

/// The cells of the rows of all tables under headings that name a section: ``### `[route.tunnel]` ``.
fn documented_keys() -> BTreeMap<String, Row> {
    let mut found = BTreeMap::new();
    let mut section = None;
    for line in DOCS.lines() {
        if line.starts_with('#') {
            let name = line.split('`').nth(1).filter(|name| name.starts_with('['));
            section = name.map(|name| name.trim_matches(['[', ']']).to_owned());
        }
        let (Some(section), Some(cells)) = (&section, cells(line)) else {
            continue;
        };
        let [key, _kind, default, limits, meaning] = cells.as_slice() else {
            panic!("not five cells: {line}");
        };
        if let Some(key) = key.strip_prefix('`').and_then(|key| key.strip_suffix('`')) {
            let (default, limits, meaning) = (default.clone(), limits.clone(), meaning.clone());
            let known = found.insert(format!("{section}.{key}"), Row { default, limits, meaning });
            assert!(known.is_none(), "{section}.{key} twice");
        }
    }
    found
}

fn cells(line: &str) -> Option<Vec<String>> {
    let inner = line.strip_prefix('|')?.strip_suffix('|')?;
    Some(inner.split('|').map(|cell| cell.trim().to_owned()).collect())
}

fn in_backticks(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

#[test]
fn the_docs_have_every_key_and_no_other() {
    let documented: BTreeSet<String> = documented_keys().into_keys().collect();
    assert_eq!(documented, grammar());
}

#[test]
fn the_docs_have_every_problem_code_and_no_other() {
    let (_, section) = DOCS.split_once("\n## Problem codes\n").unwrap();
    let section = section.split("\n## ").next().unwrap();
    let rows = section.lines().filter_map(cells);
    let first_cells: Vec<String> = rows.filter_map(|cells| cells.into_iter().next()).collect();
    let documented: Vec<&str> = first_cells.iter().filter_map(|cell| in_backticks(cell).first().copied()).collect();
    assert_eq!(documented, ProblemCode::ALL.map(ProblemCode::as_str));
}

#[test]
fn the_docs_have_every_default_as_it_is() {
    let documented = documented_keys();
    for (key, value) in values(&uncommented(&config::print(&good(MINIMAL)))) {
        let default = &documented[&key].default;
        if default.starts_with('`') && key != "gateway.threads" {
            assert_eq!(in_backticks(default), [value.to_string()], "{key}");
        }
    }
}

#[test]
fn the_docs_have_every_check_that_can_be_relaxed() {
    let meaning = &documented_keys()["route.handshake.relax"].meaning;
    assert_eq!(in_backticks(meaning), Check::ALL.map(Check::name));
}

/// The minimal configuration with one key set, in TOML.
fn with(key: &str, value: &str) -> String {
    for (prefix, header) in [("listener.", "[[listener]]"), ("route.", "[[route]]"), ("upstream.", "[[upstream]]")] {
        if let Some(server_key) = key.strip_prefix("upstream.servers.") {
            let server = format!("[{{ address = \"127.0.0.1:9001\", {server_key} = {value} }}]");
            return MINIMAL.replace("[\"127.0.0.1:9001\"]", &server);
        }
        if let Some(rest) = key.strip_prefix(prefix) {
            return MINIMAL.replace(header, &format!("{header}\n{rest} = {value}"));
        }
    }
    format!("{key} = {value}\n{MINIMAL}")
}

/// The value just below or above a documented limit, of the limit's own kind.
fn beyond(limit: &str, above: bool) -> Option<String> {
    let text = limit.trim_matches('"');
    let step = |number: u64| if above { Some(number + 1) } else { number.checked_sub(1) };
    if let Ok(number) = text.parse::<i64>() {
        return Some((if above { number + 1 } else { number - 1 }).to_string());
    }
    if let Ok(duration) = units::parse_duration(text) {
        let ms = step(u64::try_from(duration.as_millis()).unwrap())?;
        return Some(format!("\"{ms}ms\""));
    }
    if let Ok(rate) = units::parse_rate(text) {
        let count = step(rate.count.into())?;
        return Some(format!("\"{count}{}\"", &text[text.find('/').unwrap()..]));
    }
    let bytes = step(units::parse_size(text).unwrap())?;
    Some(format!("\"{bytes}B\""))
}

#[test]
fn the_docs_have_every_limit_as_it_is() {
    let mut checked = 0;
    for (key, row) in documented_keys() {
        let limits = in_backticks(&row.limits);
        let [min, max] = limits.as_slice() else {
            continue;
        };
        checked += 1;
        for limit in [min, max] {
            let codes = codes(parse("test.toml", &with(&key, limit)));
            assert!(!codes.contains(&ProblemCode::OutOfRange), "{key} = {limit}");
        }
        for outside in [beyond(min, false), beyond(max, true)].into_iter().flatten() {
            let codes = codes(parse("test.toml", &with(&key, &outside)));
            assert!(codes.contains(&ProblemCode::OutOfRange), "{key} = {outside}");
        }
    }
    // Every key with a number has them.
    let with_number = config::key_paths().into_iter().filter(|key| {
        [&with(key, "-1"), &with(key, "\"999999999d\""), &with(key, "\"999999999GiB\""), &with(key, "\"4000000000/s\"")]
            .into_iter()
            .any(|text| codes(parse("test.toml", text)).contains(&ProblemCode::OutOfRange))
    });
    assert_eq!(checked, with_number.count());
}
