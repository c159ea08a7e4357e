//! Quantities with units: `"250ms"`, `"16KiB"`, `"20/s"`. Reading and printing are inverse to each other. It does not know
//! which key a quantity belongs to, nor what is too much for it.

use std::fmt;
use std::time::Duration;

use super::model::Rate;

const MILLISECONDS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

const BYTES: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

const RATE_PERIODS: [(&str, Duration); 3] =
    [("s", Duration::from_secs(1)), ("m", Duration::from_secs(60)), ("h", Duration::from_secs(3600))];

/// Why a text is no quantity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnitError {
    Empty,
    NoNumber,
    NoUnit,
    UnknownUnit,
    /// `KB` or `M`, which some read as a power of 1000 and some as a power of 1024.
    AmbiguousUnit,
    Fraction,
    TooLarge,
    /// In a duration of several parts, a smaller unit in front of a larger one.
    UnitOrder,
    NoPeriod,
}

impl UnitError {
    /// What the author could write instead, where that needs more than the list of units.
    pub fn hint(self) -> Option<&'static str> {
        match self {
            UnitError::AmbiguousUnit => Some("`KiB`, `MiB` and `GiB` are powers of 1024 and mean one thing"),
            UnitError::Fraction => Some("write a whole number of a smaller unit"),
            UnitError::UnitOrder => Some("the largest unit comes first, and each once: `\"1m30s\"`"),
            UnitError::Empty
            | UnitError::NoNumber
            | UnitError::NoUnit
            | UnitError::UnknownUnit
            | UnitError::TooLarge
            | UnitError::NoPeriod => None,
        }
    }
}

impl fmt::Display for UnitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            UnitError::Empty => "nothing here",
            UnitError::NoNumber => "no whole number at the beginning",
            UnitError::NoUnit => "no unit",
            UnitError::UnknownUnit => "no such unit",
            UnitError::AmbiguousUnit => "1000 or 1024?",
            UnitError::Fraction => "a fraction",
            UnitError::TooLarge => "too large to count",
            UnitError::UnitOrder => "units do not descend",
            UnitError::NoPeriod => "no period",
        })
    }
}

impl std::error::Error for UnitError {}

/// One or more whole numbers, each with `ms`, `s`, `m`, `h` or `d`, the largest unit first: `"5s"`, `"1h30m"`.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    if text.is_empty() {
        return Err(UnitError::Empty);
    }
    let mut total_ms: u64 = 0;
    let mut last_unit_ms = u64::MAX;
    let mut rest = text;
    while !rest.is_empty() {
        let number = leading_number(rest)?;
        let unit_length = number.rest.bytes().take_while(|byte| !byte.is_ascii_digit());
        let (unit, after) = number.rest.split_at(unit_length.count());
        let unit_ms = unit_size(&MILLISECONDS, unit)?;
        if unit_ms >= last_unit_ms {
            return Err(UnitError::UnitOrder);
        }
        let part = number.value.checked_mul(unit_ms);
        total_ms = part.and_then(|part| total_ms.checked_add(part)).ok_or(UnitError::TooLarge)?;
        last_unit_ms = unit_ms;
        rest = after;
    }
    Ok(Duration::from_millis(total_ms))
}

/// A whole number with `B`, `KiB`, `MiB` or `GiB`, all powers of 1024.
pub fn parse_size(text: &str) -> Result<u64, UnitError> {
    if text.is_empty() {
        return Err(UnitError::Empty);
    }
    let number = leading_number(text)?;
    let unit = number.rest;
    if ["K", "KB", "k", "kB", "kb", "M", "MB", "m", "mb", "G", "GB", "g", "gb"].contains(&unit) {
        return Err(UnitError::AmbiguousUnit);
    }
    let unit_bytes = unit_size(&BYTES, unit)?;
    number.value.checked_mul(unit_bytes).ok_or(UnitError::TooLarge)
}

/// A whole number, a slash and `s`, `m` or `h`.
pub fn parse_rate(text: &str) -> Result<Rate, UnitError> {
    if text.is_empty() {
        return Err(UnitError::Empty);
    }
    let number = leading_number(text)?;
    let period = number.rest.strip_prefix('/').ok_or(UnitError::NoPeriod)?;
    let (_, per) = RATE_PERIODS.into_iter().find(|(name, _)| *name == period).ok_or(UnitError::UnknownUnit)?;
    let count = u32::try_from(number.value).map_err(|_| UnitError::TooLarge)?;
    Ok(Rate { count, per })
}

struct Number<'a> {
    value: u64,
    rest: &'a str,
}

fn leading_number(text: &str) -> Result<Number<'_>, UnitError> {
    let length = text.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, rest) = text.split_at(length);
    if digits.is_empty() {
        return Err(UnitError::NoNumber);
    }
    if rest.starts_with(['.', ',']) {
        return Err(UnitError::Fraction);
    }
    let value = digits.parse().map_err(|_| UnitError::TooLarge)?;
    Ok(Number { value, rest })
}

fn unit_size(units: &[(&str, u64)], unit: &str) -> Result<u64, UnitError> {
    if unit.is_empty() {
        return Err(UnitError::NoUnit);
    }
    let found = units.iter().find(|(name, _)| *name == unit);
    found.map(|(_, size)| *size).ok_or(UnitError::UnknownUnit)
}

/// As [`parse_duration`] reads it, in one unit; what is finer than a millisecond is dropped.
pub fn format_duration(duration: Duration) -> String {
    let total_ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if total_ms == 0 {
        return "0s".to_owned();
    }
    in_largest_unit(&MILLISECONDS, total_ms)
}

/// As [`parse_size`] reads it.
pub fn format_size(bytes: u64) -> String {
    if bytes == 0 {
        return "0B".to_owned();
    }
    in_largest_unit(&BYTES, bytes)
}

/// As [`parse_rate`] reads it.
pub fn format_rate(rate: Rate) -> String {
    let period = RATE_PERIODS.into_iter().find(|(_, per)| *per == rate.per);
    format!("{}/{}", rate.count, period.map_or("?", |(name, _)| name))
}

/// `units` descend to one of size 1, and `value` is not 0.
fn in_largest_unit(units: &[(&str, u64)], value: u64) -> String {
    let fits = units.iter().find(|(_, size)| value.is_multiple_of(*size));
    let (unit, size) = fits.expect("the last unit has size 1, of which everything is a multiple");
    format!("{}{unit}", value / size)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_duration(text: &str, expected: Result<u64, UnitError>) {
        assert_eq!(parse_duration(text), expected.map(Duration::from_millis), "{text}");
    }

    fn check_size(text: &str, expected: Result<u64, UnitError>) {
        assert_eq!(parse_size(text), expected, "{text}");
    }

    fn check_rate(text: &str, expected: Result<(u32, u64), UnitError>) {
        let expected = expected.map(|(count, seconds)| Rate { count, per: Duration::from_secs(seconds) });
        assert_eq!(parse_rate(text), expected, "{text}");
    }

    #[test]
    fn reads_durations_of_every_unit() {
        check_duration("250ms", Ok(250));
        check_duration("5s", Ok(5_000));
        check_duration("5m", Ok(300_000));
        check_duration("12h", Ok(43_200_000));
        check_duration("1d", Ok(86_400_000));
        check_duration("0s", Ok(0));
    }

    #[test]
    fn adds_the_parts_of_a_duration() {
        check_duration("1h30m", Ok(5_400_000));
        check_duration("1d1h1m1s1ms", Ok(90_061_001));
    }

    #[test]
    fn refuses_what_is_no_duration() {
        check_duration("", Err(UnitError::Empty));
        check_duration("5", Err(UnitError::NoUnit));
        check_duration("s", Err(UnitError::NoNumber));
        check_duration("-5s", Err(UnitError::NoNumber));
        check_duration(" 5s", Err(UnitError::NoNumber));
        check_duration("5 s", Err(UnitError::UnknownUnit));
        check_duration("5M", Err(UnitError::UnknownUnit));
        check_duration("5sec", Err(UnitError::UnknownUnit));
        check_duration("1.5s", Err(UnitError::Fraction));
        check_duration("1m1h", Err(UnitError::UnitOrder));
        check_duration("1s1s", Err(UnitError::UnitOrder));
        check_duration("99999999999999999999s", Err(UnitError::TooLarge));
        check_duration("999999999999999999d", Err(UnitError::TooLarge));
    }

    #[test]
    fn reads_sizes_of_every_unit() {
        check_size("125B", Ok(125));
        check_size("16KiB", Ok(16_384));
        check_size("1MiB", Ok(1 << 20));
        check_size("2GiB", Ok(2 << 30));
    }

    #[test]
    fn refuses_what_is_no_size() {
        check_size("", Err(UnitError::Empty));
        check_size("16", Err(UnitError::NoUnit));
        check_size("16KB", Err(UnitError::AmbiguousUnit));
        check_size("16k", Err(UnitError::AmbiguousUnit));
        check_size("1M", Err(UnitError::AmbiguousUnit));
        check_size("16kib", Err(UnitError::UnknownUnit));
        check_size("1.5MiB", Err(UnitError::Fraction));
        check_size("99999999999GiB", Err(UnitError::TooLarge));
    }

    #[test]
    fn reads_rates_of_every_period() {
        check_rate("20/s", Ok((20, 1)));
        check_rate("100/m", Ok((100, 60)));
        check_rate("1000/h", Ok((1000, 3600)));
    }

    #[test]
    fn refuses_what_is_no_rate() {
        check_rate("", Err(UnitError::Empty));
        check_rate("20", Err(UnitError::NoPeriod));
        check_rate("/s", Err(UnitError::NoNumber));
        check_rate("20/d", Err(UnitError::UnknownUnit));
        check_rate("20/", Err(UnitError::UnknownUnit));
        check_rate("5000000000/s", Err(UnitError::TooLarge));
    }

    #[test]
    fn prints_the_largest_unit_that_divides() {
        let ms = Duration::from_millis;
        for (duration, expected) in [(0, "0s"), (1, "1ms"), (1500, "1500ms"), (90_000, "90s"), (86_400_000, "1d")] {
            assert_eq!(format_duration(ms(duration)), expected);
        }
        for (bytes, expected) in [(0, "0B"), (125, "125B"), (1536, "1536B"), (16_384, "16KiB"), (3 << 30, "3GiB")] {
            assert_eq!(format_size(bytes), expected);
        }
        assert_eq!(format_rate(parse_rate("7/m").unwrap()), "7/m");
    }

    proptest::proptest! {
        #[test]
        fn reads_what_it_printed(number in 0_u64..1 << 53, count: u32) {
            let duration = Duration::from_millis(number);
            assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
            assert_eq!(parse_size(&format_size(number)), Ok(number));
            let rate = Rate { count, per: Duration::from_secs(60) };
            assert_eq!(parse_rate(&format_rate(rate)), Ok(rate));
        }

        #[test]
        fn no_text_makes_it_panic(text: String) {
            let _ = (parse_duration(&text), parse_size(&text), parse_rate(&text));
        }
    }
}
