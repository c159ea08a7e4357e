//! Where problems gather while the file is resolved, and how one leaf of the file becomes a value: a key that is wrong is
//! reported and answered with its default, so that the rest is checked too. It does not know which key it reads.

use std::fmt::Display;
use std::ops::Range;
use std::time::Duration;

use toml::Spanned;

use crate::config::bounds::{Bounds, Preset, RATE_COUNT};
use crate::config::choice::Choice;
use crate::config::file::{Text, Texts, Whole};
use crate::config::model::Rate;
use crate::config::problem::{Problem, ProblemCode};
use crate::config::read::Holes;
use crate::config::suggest::{nearest, quoted};
use crate::config::units::{self, UnitError};

/// What a key says that has no default.
pub enum Optional<T> {
    Unset,
    /// `"off"`.
    Off,
    Set(T),
}

impl<T> Optional<T> {
    pub fn value(self) -> Option<T> {
        match self {
            Optional::Set(value) => Some(value),
            Optional::Off | Optional::Unset => None,
        }
    }
}

/// How a problem with a kind of quantity is told.
struct Quantity {
    code: ProblemCode,
    what: &'static str,
    hint: &'static str,
}

const DURATION: Quantity = Quantity {
    code: ProblemCode::BadDuration,
    what: "duration",
    hint: "a whole number and one of `ms`, `s`, `m`, `h`, `d`: `\"5s\"`",
};

const DURATION_OR_OFF: Quantity =
    Quantity { hint: "`\"off\"`, or a whole number and one of `ms`, `s`, `m`, `h`, `d`: `\"5s\"`", ..DURATION };

const SIZE: Quantity = Quantity {
    code: ProblemCode::BadSize,
    what: "size",
    hint: "a whole number and one of `B`, `KiB`, `MiB`, `GiB`: `\"16KiB\"`",
};

const SIZE_OR_OFF: Quantity =
    Quantity { hint: "`\"off\"`, or a whole number and one of `B`, `KiB`, `MiB`, `GiB`: `\"16KiB\"`", ..SIZE };

const RATE: Quantity = Quantity {
    code: ProblemCode::BadRate,
    what: "rate",
    hint: "a whole number, a slash and one of `s`, `m`, `h`: `\"20/s\"`",
};

pub struct Findings<'h> {
    holes: &'h Holes,
    pub problems: Vec<Problem>,
}

impl<'h> Findings<'h> {
    pub fn new(holes: &'h Holes) -> Self {
        Findings { holes, problems: Vec::new() }
    }

    pub fn report(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    /// Whether the reader already took this key out for a problem, so that nobody may call it missing.
    pub fn is_hole(&self, table: &Range<usize>, key: &str) -> bool {
        self.holes.contains(table, key)
    }

    /// A key that must be there; `example` is a line that the author could add.
    pub fn required<'f, T>(
        &mut self,
        value: &'f Option<Spanned<T>>,
        table: &Range<usize>,
        key: &str,
        example: &str,
    ) -> Option<&'f Spanned<T>> {
        if value.is_none() && !self.is_hole(table, key) {
            let message = format!("missing key: `{key}`");
            let problem = Problem::new(ProblemCode::MissingKey, table.clone(), message)
                .label("not in this table")
                .hint(format!("add `{example}`"));
            self.report(problem);
        }
        value.as_ref()
    }

    pub fn duration(&mut self, value: &Text, preset: Preset<Duration>) -> Duration {
        let given = value.as_ref().map(|text| self.a_duration(text, preset.bounds, &DURATION));
        given.flatten().unwrap_or(preset.default)
    }

    pub fn optional_duration(&mut self, value: &Text, bounds: Bounds<Duration>) -> Optional<Duration> {
        optional(value, |text| self.a_duration(text, bounds, &DURATION_OR_OFF))
    }

    fn a_duration(&mut self, text: &Spanned<String>, bounds: Bounds<Duration>, kind: &Quantity) -> Option<Duration> {
        let duration = self.quantity(text, kind, units::parse_duration(text.get_ref()))?;
        self.in_bounds(text, duration, bounds, units::format_duration)
    }

    pub fn size(&mut self, value: &Text, preset: Preset<u64>) -> u64 {
        let given = value.as_ref().map(|text| self.a_size(text, preset.bounds, &SIZE));
        given.flatten().unwrap_or(preset.default)
    }

    pub fn optional_size(&mut self, value: &Text, bounds: Bounds<u64>) -> Optional<u64> {
        optional(value, |text| self.a_size(text, bounds, &SIZE_OR_OFF))
    }

    fn a_size(&mut self, text: &Spanned<String>, bounds: Bounds<u64>, kind: &Quantity) -> Option<u64> {
        let size = self.quantity(text, kind, units::parse_size(text.get_ref()))?;
        self.in_bounds(text, size, bounds, units::format_size)
    }

    pub fn rate(&mut self, value: &Text) -> Option<Rate> {
        let text = value.as_ref()?;
        let rate = self.quantity(text, &RATE, units::parse_rate(text.get_ref()))?;
        self.in_bounds(text, rate.count, RATE_COUNT, |count| count.to_string())?;
        Some(rate)
    }

    fn quantity<T>(&mut self, text: &Spanned<String>, kind: &Quantity, parsed: Result<T, UnitError>) -> Option<T> {
        match parsed {
            Ok(value) => Some(value),
            Err(error) => {
                let message = format!("bad {}: `{}`", kind.what, text.get_ref());
                let problem = Problem::new(kind.code, text.span(), message).label(error.to_string());
                self.report(problem.hint(error.hint().unwrap_or(kind.hint)));
                None
            }
        }
    }

    pub fn whole<T>(&mut self, value: &Whole, preset: Preset<T>) -> T
    where
        T: TryFrom<i64> + PartialOrd + Copy + Display,
    {
        let given = self.optional_whole(value, preset.bounds);
        given.unwrap_or(preset.default)
    }

    pub fn optional_whole<T>(&mut self, value: &Whole, bounds: Bounds<T>) -> Option<T>
    where
        T: TryFrom<i64> + PartialOrd + Copy + Display,
    {
        let given = value.as_ref()?;
        let number = T::try_from(*given.get_ref()).ok();
        let number = number.filter(|number| (bounds.min..=bounds.max).contains(number));
        if number.is_none() {
            let (min, max) = (bounds.min.to_string(), bounds.max.to_string());
            self.out_of_range(given, &min, &max);
        }
        number
    }

    fn in_bounds<T: PartialOrd + Copy>(
        &mut self,
        text: &Spanned<String>,
        value: T,
        bounds: Bounds<T>,
        format: impl Fn(T) -> String,
    ) -> Option<T> {
        if (bounds.min..=bounds.max).contains(&value) {
            return Some(value);
        }
        self.out_of_range(text, &format(bounds.min), &format(bounds.max));
        None
    }

    fn out_of_range<T: Display>(&mut self, given: &Spanned<T>, min: &str, max: &str) {
        let message = format!("number out of range: `{}`", given.get_ref());
        let problem = Problem::new(ProblemCode::OutOfRange, given.span(), message)
            .label(format!("at least {min}, at most {max}"));
        self.report(problem);
    }

    pub fn choice<C: Choice>(&mut self, value: &Text, default: C) -> C {
        let Some(text) = value else {
            return default;
        };
        C::from_word(text.get_ref()).unwrap_or_else(|| {
            self.unknown_choice(text, C::words().collect());
            default
        })
    }

    pub fn unknown_choice(&mut self, text: &Spanned<String>, words: Vec<&str>) {
        let word = text.get_ref();
        let problem = Problem::new(ProblemCode::UnknownChoice, text.span(), format!("unknown choice: `{word}`"));
        self.report(suggest(problem, word, words, "one of"));
    }

    /// As [`list`](Self::list), of at least one entry: where an unset key means any, nothing could mean any or none.
    pub fn list_of_some<T: PartialEq>(
        &mut self,
        value: &Texts,
        parse: impl FnMut(&mut Self, &Spanned<String>) -> Option<T>,
    ) -> Option<Vec<T>> {
        if let Some(list) = value
            && list.get_ref().is_empty()
        {
            let problem = Problem::new(ProblemCode::EmptyList, list.span(), "empty list")
                .label("nothing in it")
                .hint("leave the key out for its default");
            self.report(problem);
            return None;
        }
        self.list(value, parse)
    }

    /// A list that repeats nothing; `None` if it has a problem, nothing if the key is unset.
    pub fn list<T: PartialEq>(
        &mut self,
        value: &Texts,
        mut parse: impl FnMut(&mut Self, &Spanned<String>) -> Option<T>,
    ) -> Option<Vec<T>> {
        let Some(list) = value else {
            return Some(Vec::new());
        };
        let before = self.problems.len();
        let mut found: Vec<(Range<usize>, T)> = Vec::new();
        for text in list.get_ref() {
            let Some(entry) = parse(self, text) else {
                continue;
            };
            match found.iter().find(|(_, earlier)| *earlier == entry) {
                Some((first, _)) => {
                    let message = format!("duplicate entry: `{}`", text.get_ref());
                    let problem = Problem::new(ProblemCode::DuplicateEntry, text.span(), message)
                        .label("again")
                        .context(first.clone(), "first here")
                        .hint("take one of them out");
                    self.report(problem);
                }
                None => found.push((text.span(), entry)),
            }
        }
        let all_right = self.problems.len() == before;
        all_right.then(|| found.into_iter().map(|(_, entry)| entry).collect())
    }
}

fn optional<T>(value: &Text, parse: impl FnOnce(&Spanned<String>) -> Option<T>) -> Optional<T> {
    match value {
        None => Optional::Unset,
        Some(text) if text.get_ref() == "off" => Optional::Off,
        // What is wrong is reported, so it does not matter what it counts as.
        Some(text) => parse(text).map_or(Optional::Unset, Optional::Set),
    }
}

/// Adds the known word that was meant, or all of them behind `intro`.
pub fn suggest(problem: Problem, word: &str, known: Vec<&str>, intro: &str) -> Problem {
    match nearest(word, known.iter().copied()) {
        Some(meant) => problem.hint(format!("did you mean `{meant}`?")),
        None if known.is_empty() => problem,
        None => problem.hint(format!("{intro} {}", quoted(known))),
    }
}
