//! From text to [`File`]: syntax, unknown keys and wrong types, all of them at once. What is wrong is taken out of the
//! parsed table and remembered as a hole, so that the rest can still be checked and nobody calls a key missing that
//! stands there misspelt. It does not know what the keys mean.

use std::collections::HashSet;
use std::ops::Range;

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeArray, DeString, DeTable, DeValue, Deserializer};

use super::file::File;
use super::problem::{Problem, ProblemCode};
use super::shape::Shape;
use super::suggest::{nearest, quoted};

/// The keys that were taken out for a problem, each with the place of its table.
#[derive(Debug, Default)]
pub struct Holes(HashSet<(Range<usize>, String)>);

impl Holes {
    pub fn contains(&self, table: &Range<usize>, key: &str) -> bool {
        self.0.contains(&(table.clone(), key.to_owned()))
    }

    fn insert(&mut self, table: &Range<usize>, key: &str) {
        self.0.insert((table.clone(), key.to_owned()));
    }
}

/// What could be read of a text.
pub struct Reading {
    pub file: File,
    /// The place of the whole file as a table.
    pub root: Range<usize>,
    pub holes: Holes,
    pub problems: Vec<Problem>,
}

/// Every key of [`File`].
pub fn shape() -> Shape {
    Shape::of::<File>().expect("a test holds that `File` has a shape")
}

/// Reads as much of `text` as can be read.
pub fn read(text: &str) -> Reading {
    let (document, errors) = DeTable::parse_recoverable(text);
    let mut problems = syntax_problems(text, &errors);
    let root = document.span();
    let mut table = document.into_inner();
    expand_servers(&mut table);
    name_versions(&mut table);
    let mut check = Check { holes: Holes::default(), problems: Vec::new() };
    if let Shape::Table(keys) = &shape() {
        check.table(&root, &mut table, keys);
    }
    problems.append(&mut check.problems);
    let deserializer = Deserializer::from(Spanned::new(root.clone(), table));
    let file = File::deserialize(deserializer).unwrap_or_else(|error| {
        // What the shape lets through and serde does not, such as an integer of 65 bits.
        let span = error.span().unwrap_or_default();
        problems.push(Problem::new(ProblemCode::WrongType, span, error.message()));
        File::default()
    });
    Reading { file, root, holes: check.holes, problems }
}

/// The parser's own words, which are lower case and without a full stop. Of one line only its first problem: the others
/// follow from it.
fn syntax_problems(text: &str, errors: &[toml::de::Error]) -> Vec<Problem> {
    let mut problems: Vec<Problem> = Vec::new();
    for error in errors {
        let span = error.span().unwrap_or_default();
        let line_of = |at: usize| text.as_bytes()[..at.min(text.len())].iter().filter(|byte| **byte == b'\n').count();
        if problems.iter().any(|earlier| line_of(earlier.span.start) == line_of(span.start)) {
            continue;
        }
        let problem = Problem::new(ProblemCode::Syntax, span.clone(), "this is not TOML");
        problems.push(if is_bare_word(text, &span) {
            problem.label("a text without quotes").hint("write texts in quotes")
        } else {
            problem.label(error.message())
        });
    }
    problems
}

/// Whether a word stands where a value should, as in `level = info`.
fn is_bare_word(text: &str, span: &Range<usize>) -> bool {
    let (Some(before), Some(word)) = (text.get(..span.start), text.get(span.clone())) else {
        return false;
    };
    before.trim_end().ends_with(['=', '[', ',']) && word.starts_with(|first: char| first.is_ascii_alphabetic())
}

/// Writes every server that is given as its address alone as a table with that address.
fn expand_servers(file: &mut DeTable<'_>) {
    for upstream in tables(file, "upstream") {
        if let Some(DeValue::Array(servers)) = upstream.get_mut("servers").map(Spanned::get_mut) {
            servers.iter_mut().for_each(expand_server);
        }
    }
}

fn expand_server(server: &mut Spanned<DeValue<'_>>) {
    if server.get_ref().is_table() {
        return;
    }
    let span = server.span();
    let address = std::mem::replace(server.get_mut(), DeValue::Boolean(false));
    let key = Spanned::new(span.clone(), "address".into());
    let table = DeTable::from_iter([(key, Spanned::new(span, address))]);
    *server.get_mut() = DeValue::Table(table);
}

/// Writes every version that is given as a number as the text of it, and an upstream's one word as the list of it.
fn name_versions(file: &mut DeTable<'_>) {
    for route in tables(file, "route") {
        if let Some(DeValue::Table(versions)) = route.get_mut("versions").map(Spanned::get_mut)
            && let Some(accept) = versions.get_mut("accept")
        {
            name_numbers(accept.get_mut());
        }
    }
    for upstream in tables(file, "upstream") {
        if let Some(versions) = upstream.get_mut("versions") {
            if versions.get_ref().is_str() {
                let word =
                    Spanned::new(versions.span(), std::mem::replace(versions.get_mut(), DeValue::Boolean(false)));
                *versions.get_mut() = DeValue::Array(std::iter::once(word).collect());
            }
            name_numbers(versions.get_mut());
        }
    }
}

fn tables<'t, 'i>(file: &'t mut DeTable<'i>, key: &str) -> impl Iterator<Item = &'t mut DeTable<'i>> {
    let array = match file.get_mut(key).map(Spanned::get_mut) {
        Some(DeValue::Array(array)) => Some(array),
        _ => None,
    };
    array.into_iter().flat_map(|array| array.iter_mut()).filter_map(|table| match table.get_mut() {
        DeValue::Table(table) => Some(table),
        _ => None,
    })
}

fn name_numbers(list: &mut DeValue<'_>) {
    let DeValue::Array(list) = list else { return };
    for element in list.iter_mut() {
        if let DeValue::Integer(integer) = element.get_ref() {
            let number = i128::from_str_radix(integer.as_str(), integer.radix());
            let name = number.map_or_else(|_| integer.to_string(), |number| number.to_string());
            *element.get_mut() = DeValue::String(name.into());
        }
    }
}

struct Check {
    holes: Holes,
    problems: Vec<Problem>,
}

impl Check {
    /// Takes everything out of `table` that `keys` does not allow.
    fn table(&mut self, at: &Range<usize>, table: &mut DeTable<'_>, keys: &[(&str, Shape)]) {
        let given = std::mem::take(table);
        for (key, mut value) in given {
            let known = keys.iter().find(|(name, _)| name == key.get_ref());
            let Some((name, shape)) = known else {
                self.unknown_key(at, &key, keys);
                continue;
            };
            if self.value(&mut value, shape, name) {
                table.insert(key, value);
            } else {
                self.holes.insert(at, name);
            }
        }
    }

    fn unknown_key(&mut self, at: &Range<usize>, key: &Spanned<DeString<'_>>, keys: &[(&str, Shape)]) {
        let name: &str = key.get_ref();
        let known: Vec<&str> = keys.iter().map(|(name, _)| *name).collect();
        let problem = Problem::new(ProblemCode::UnknownKey, key.span(), format!("unknown key: `{name}`"));
        let hint = match nearest(name, known.iter().copied()) {
            Some(meant) => {
                self.holes.insert(at, meant);
                format!("did you mean `{meant}`?")
            }
            None => format!("known here: {}", quoted(known)),
        };
        self.problems.push(problem.hint(hint));
    }

    /// Whether `value` has the shape. What is wrong deeper inside a table is taken out of it.
    fn value(&mut self, value: &mut Spanned<DeValue<'_>>, shape: &Shape, key: &str) -> bool {
        let span = value.span();
        match (value.get_mut(), shape) {
            (DeValue::String(_), Shape::Text) | (DeValue::Boolean(_), Shape::Switch) => true,
            (DeValue::Integer(integer), Shape::Whole) => {
                let fits = i64::from_str_radix(integer.as_str(), integer.radix()).is_ok();
                if !fits {
                    let message = format!("number out of range: `{integer}`");
                    let problem = Problem::new(ProblemCode::OutOfRange, span, message);
                    self.problems.push(problem.label("more than 64 bits"));
                }
                fits
            }
            (DeValue::Table(table), Shape::Table(keys)) => {
                self.table(&span, table, keys);
                true
            }
            (DeValue::Array(array), Shape::List(element)) => self.elements(array, element, key),
            (found, _) => {
                let problem = wrong_type(found, shape, key, span);
                self.problems.push(problem);
                false
            }
        }
    }

    fn elements(&mut self, array: &mut DeArray<'_>, shape: &Shape, key: &str) -> bool {
        let mut all_right = true;
        for element in array.iter_mut() {
            all_right &= self.value(element, shape, key);
        }
        all_right
    }
}

fn wrong_type(found: &DeValue<'_>, shape: &Shape, key: &str, span: Range<usize>) -> Problem {
    let expected = match shape {
        Shape::Text => "a string",
        Shape::Whole => "a whole number",
        Shape::Switch => "`true` or `false`",
        Shape::List(_) => "a list",
        Shape::Table(_) => "a table",
    };
    let found_type = found.type_str();
    let problem = Problem::new(ProblemCode::WrongType, span, format!("wrong type for key: `{key}`"))
        .label(format!("expected {expected}, found {found_type}"));
    match (shape, found) {
        (Shape::Text, _) if ["accept", "versions"].contains(&key) => {
            problem.hint("a version is 13, 8, 7, 0 or `\"hixie-75\"`")
        }
        (Shape::Text, DeValue::Integer(_) | DeValue::Float(_)) => {
            problem.hint("write it in quotes; times and sizes with their unit: `\"5s\"`, `\"16KiB\"`")
        }
        (Shape::Whole, DeValue::String(_)) => problem.hint("write it without quotes and without a unit"),
        (Shape::Switch, DeValue::String(_)) => problem.hint("write it without quotes"),
        (Shape::List(element), DeValue::Table(_)) if matches!(**element, Shape::Table(_)) => {
            problem.hint(format!("there can be several: write `[[{key}]]`"))
        }
        (Shape::Table(_), DeValue::Array(list)) if list.iter().any(|entry| entry.get_ref().is_table()) => {
            problem.hint("there is only one: write it in single brackets")
        }
        (Shape::Table(keys), _) => match keys.first() {
            Some((first, _)) => problem.hint(format!("it has keys of its own: `{key} = {{ {first} = … }}`")),
            None => problem,
        },
        (Shape::List(_), _) => problem.hint("write it in brackets, even if it is one"),
        _ => problem,
    }
}
