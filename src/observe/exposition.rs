//! The metrics as text, in the format that the reader prefers (RFC 9110 §12.5.1). It does not know HTTP beyond the value
//! of `Accept`.

use prometheus::{Encoder, TextEncoder};

use super::metrics::Metrics;
use super::openmetrics;

pub const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
pub const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The content type and the body for a reader that sent `accept`. The classic text format is for everyone who does not
/// clearly ask for OpenMetrics, people with a browser among them; a reader that accepts neither gets it too, which RFC
/// 9110 §12.4.1 allows and which shows more than an empty 406.
pub fn render(metrics: &Metrics, accept: Option<&str>) -> (&'static str, Vec<u8>) {
    let families = metrics.gather();
    if accept.is_some_and(prefers_openmetrics) {
        return (OPENMETRICS, openmetrics::encode(&families).into_bytes());
    }
    let mut body = Vec::new();
    TextEncoder::new().encode(&families, &mut body).expect("families are valid and a vector takes all bytes");
    (TEXT, body)
}

fn prefers_openmetrics(accept: &str) -> bool {
    let openmetrics = preference(accept, "application", "openmetrics-text", "1.0.0");
    let text = preference(accept, "text", "plain", "0.0.4");
    openmetrics.quality > 0 && (openmetrics.quality, openmetrics.specificity) >= (text.quality, text.specificity)
        // A range such as `*/*` says nothing about a format that the reader may never have heard of.
        && openmetrics.specificity == Specificity::Named
}

/// How much a reader wants a media type: the quality of the most specific range that matches it.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Preference {
    specificity: Specificity,
    /// In thousandths: 0 to 1000.
    quality: u16,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Specificity {
    None,
    Any,
    Kind,
    Named,
}

fn preference(accept: &str, kind: &str, subtype: &str, version: &str) -> Preference {
    let mut best = Preference { specificity: Specificity::None, quality: 0 };
    for range in accept.split(',') {
        let mut parts = range.split(';').map(str::trim);
        let specificity = match_range(parts.next().unwrap_or_default(), kind, subtype);
        let Some(quality) = quality_for(parts, version) else { continue };
        let better = (specificity, quality) > (best.specificity, best.quality);
        if specificity != Specificity::None && better {
            best = Preference { specificity, quality };
        }
    }
    best
}

fn match_range(range: &str, kind: &str, subtype: &str) -> Specificity {
    match range.split_once('/') {
        Some(("*", "*")) => Specificity::Any,
        Some((range_kind, "*")) if range_kind.eq_ignore_ascii_case(kind) => Specificity::Kind,
        Some((range_kind, range_subtype))
            if range_kind.eq_ignore_ascii_case(kind) && range_subtype.eq_ignore_ascii_case(subtype) =>
        {
            Specificity::Named
        }
        Some(_) | None => Specificity::None,
    }
}

/// The quality that the parameters of a range give, 1 without any; `None` where they are malformed or ask for another
/// version of the format. Other parameters (`charset`, `escaping`) are met by what is written anyway.
fn quality_for<'p>(parameters: impl Iterator<Item = &'p str>, version: &str) -> Option<u16> {
    let mut quality = 1000;
    for parameter in parameters {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let value = value.trim_matches('"');
        if name.eq_ignore_ascii_case("q") {
            quality = parse_quality(value)?;
        } else if name.eq_ignore_ascii_case("version") && value != version {
            return None;
        }
    }
    Some(quality)
}

/// `qvalue = ( "0" [ "." 0*3DIGIT ] ) / ( "1" [ "." 0*3("0") ] )`, RFC 9110 §12.4.2, in thousandths.
fn parse_quality(text: &str) -> Option<u16> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if fraction.len() > 3 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let thousandths = fraction.bytes().chain(*b"000").take(3).fold(0, |sum, byte| sum * 10 + u16::from(byte - b'0'));
    match (whole, thousandths) {
        ("0", _) => Some(thousandths),
        ("1", 0) => Some(1000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(accept: &str, expected: &str) {
        let (content_type, body) = render(&Metrics::new(), Some(accept));
        assert_eq!(content_type, expected, "{accept}");
        assert_eq!(body.ends_with(b"\n# EOF\n"), expected == OPENMETRICS, "{accept}");
    }

    #[test]
    fn prometheus_gets_openmetrics() {
        check("application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1", OPENMETRICS);
        check(
            "application/openmetrics-text; version=1.0.0,application/openmetrics-text; version=0.0.1;q=0.75,\
             text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            OPENMETRICS,
        );
        check(
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
             application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,\
             text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
            OPENMETRICS,
        );
    }

    #[test]
    fn whoever_does_not_ask_for_openmetrics_gets_text() {
        assert_eq!(render(&Metrics::new(), None).0, TEXT);
        check("", TEXT);
        check("*/*", TEXT);
        check("application/*", TEXT);
        check("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", TEXT);
        check("application/json", TEXT);
        check("application/openmetrics-text;version=0.0.1", TEXT);
        check("text/plain;version=0.0.4;q=0.5,*/*;q=0.1", TEXT);
    }

    #[test]
    fn the_higher_quality_wins_and_a_tie_is_openmetrics() {
        check("application/openmetrics-text", OPENMETRICS);
        check("APPLICATION/OpenMetrics-Text ; q=0.2", OPENMETRICS);
        check("text/plain, application/openmetrics-text", OPENMETRICS);
        check("text/*;q=0.5, application/openmetrics-text;q=0.5", OPENMETRICS);
        check("text/plain;q=0.9, application/openmetrics-text;q=0.899", TEXT);
        check("*/*, application/openmetrics-text;q=0.5", TEXT);
        check("application/openmetrics-text;q=0, */*", TEXT);
        check("application/openmetrics-text;q=0", TEXT);
    }

    #[test]
    fn a_malformed_quality_voids_its_range() {
        for quality in ["", "2", "1.001", "0.1234", "-1", "0.x", "01", ".5"] {
            check(&format!("application/openmetrics-text;q={quality}"), TEXT);
            assert_eq!(parse_quality(quality), None, "{quality}");
        }
        assert_eq!(parse_quality("0."), Some(0));
        assert_eq!(parse_quality("0.05"), Some(50));
        assert_eq!(parse_quality("1.000"), Some(1000));
    }
}
