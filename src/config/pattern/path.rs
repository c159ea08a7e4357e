//! One path, or all paths below one. Paths are compared as they stand, byte by byte: nothing is percent-decoded, no case
//! is folded, no dot segment or double slash is resolved. So `/ws` does not match `/%77s`, and it does match
//! `/ws/../admin`; that is safe only because the gateway refuses a request path with dot segments before it asks for a
//! route. This file does not know that step, nor queries.

use std::fmt;
use std::str::FromStr;

use super::PatternError;

const PATH_LENGTH_MAX: usize = 1024;

/// `/ws`, a prefix at a segment border, or `=/ws`, that path and no other.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PathPattern(Kind);

/// Invariant: the path begins with a slash.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Prefix(String),
    Exact(String),
}

impl PathPattern {
    /// Every path.
    pub fn root() -> PathPattern {
        PathPattern(Kind::Prefix("/".to_owned()))
    }

    /// Whether a request for `path` is meant. `path` is without its query. `/ws` matches `/ws` and `/ws/x`, not `/wsx`;
    /// `/ws/` matches `/ws/` and `/ws/x`, not `/ws`.
    pub fn matches(&self, path: &str) -> bool {
        match &self.0 {
            Kind::Exact(exact) => path == exact,
            Kind::Prefix(prefix) => path
                .strip_prefix(prefix.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || prefix.ends_with('/')),
        }
    }

    /// Whether every path that `other` matches is matched by `self` too.
    pub fn covers(&self, other: &PathPattern) -> bool {
        match (&self.0, &other.0) {
            (Kind::Prefix(_), Kind::Prefix(path) | Kind::Exact(path)) => self.matches(path),
            (Kind::Exact(_), _) => self == other,
        }
    }
}

impl FromStr for PathPattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        match text.strip_prefix('=') {
            Some(path) => Ok(PathPattern(Kind::Exact(checked(path)?))),
            None => Ok(PathPattern(Kind::Prefix(checked(text)?))),
        }
    }
}

/// A path as RFC 3986 §3.3 writes it, without dot segments, escaped ones included.
fn checked(path: &str) -> Result<String, PatternError> {
    if path.is_empty() {
        return Err(PatternError::Empty);
    }
    if !path.starts_with('/') {
        return Err(PatternError::NoSlash);
    }
    if path.len() > PATH_LENGTH_MAX {
        return Err(PatternError::TooLong);
    }
    if path.contains(['?', '#']) {
        return Err(PatternError::QueryInPath);
    }
    if !path.bytes().all(is_path_byte) {
        return Err(PatternError::BadPathCharacter);
    }
    for (at, _) in path.match_indices('%') {
        let digits = path.as_bytes().get(at + 1..at + 3);
        if !digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)) {
            return Err(PatternError::BadEscape);
        }
    }
    let is_dots = |segment: &str| {
        let decoded = segment.replace("%2e", ".").replace("%2E", ".");
        decoded == "." || decoded == ".."
    };
    if path.split('/').any(is_dots) {
        return Err(PatternError::DotSegment);
    }
    Ok(path.to_owned())
}

fn is_path_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:@".contains(&byte)
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Prefix(path) => f.write_str(path),
            Kind::Exact(path) => write!(f, "={path}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> PathPattern {
        text.parse().unwrap()
    }

    fn check(pattern_text: &str, path: &str, expected: bool) {
        assert_eq!(pattern(pattern_text).matches(path), expected, "{pattern_text} on {path}");
    }

    fn check_error(text: &str, expected: PatternError) {
        assert_eq!(text.parse::<PathPattern>(), Err(expected), "{text}");
    }

    #[test]
    fn a_prefix_ends_at_a_segment_border() {
        check("/ws", "/ws", true);
        check("/ws", "/ws/", true);
        check("/ws", "/ws/x/y", true);
        check("/ws", "/wsx", false);
        check("/ws", "/w", false);
        check("/ws", "/a/ws", false);
        check("/ws", "", false);
        check("/ws/", "/ws/", true);
        check("/ws/", "/ws/x", true);
        check("/ws/", "/ws", false);
        check("/a/b", "/a/b/c", true);
    }

    #[test]
    fn the_root_matches_every_path_but_no_asterisk() {
        check("/", "/", true);
        check("/", "/anything/at/all", true);
        check("/", "//", true);
        check("/", "*", false);
        assert_eq!(PathPattern::root(), pattern("/"));
    }

    #[test]
    fn an_exact_path_matches_itself_alone() {
        check("=/ws", "/ws", true);
        check("=/ws", "/ws/", false);
        check("=/ws", "/ws/x", false);
        check("=/", "/", true);
        check("=/", "/x", false);
    }

    #[test]
    fn compares_bytes_as_they_stand() {
        check("/ws", "/WS", false);
        check("/ws", "/%77s", false);
        check("/%77s", "/%77s", true);
        check("/%2f", "/%2F", false);
        check("/ws", "//ws", false);
        // Refused before it gets here, because it does match.
        check("/ws", "/ws/../admin", true);
    }

    #[test]
    fn covers_what_matches_no_more() {
        for (wide, narrow, expected) in [
            ("/", "/ws", true),
            ("/ws", "/", false),
            ("/ws", "/ws", true),
            ("/ws", "/ws/", true),
            ("/ws/", "/ws", false),
            ("/ws", "/ws/x", true),
            ("/ws", "/wsx", false),
            ("/ws", "=/ws", true),
            ("=/ws", "/ws", false),
            ("=/ws", "=/ws", true),
            ("=/ws", "=/ws/", false),
        ] {
            assert_eq!(pattern(wide).covers(&pattern(narrow)), expected, "{wide} over {narrow}");
        }
    }

    #[test]
    fn prints_what_parses_to_the_same() {
        for text in ["/", "/ws", "=/ws", "/a/b/", "=/", "/%20a;b=c", "/.well-known/x", "/..."] {
            assert_eq!(pattern(text).to_string(), text);
        }
    }

    #[test]
    fn says_why_a_text_is_no_path() {
        check_error("", PatternError::Empty);
        check_error("=", PatternError::Empty);
        check_error("ws", PatternError::NoSlash);
        check_error("=ws", PatternError::NoSlash);
        check_error("==/ws", PatternError::NoSlash);
        check_error("/ws?x=1", PatternError::QueryInPath);
        check_error("/ws#x", PatternError::QueryInPath);
        check_error("/a b", PatternError::BadPathCharacter);
        check_error("/\u{e9}", PatternError::BadPathCharacter);
        check_error("/a\\b", PatternError::BadPathCharacter);
        check_error("/%", PatternError::BadEscape);
        check_error("/%4", PatternError::BadEscape);
        check_error("/%zz", PatternError::BadEscape);
        check_error("/a/../b", PatternError::DotSegment);
        check_error("/.", PatternError::DotSegment);
        check_error("/a/%2e%2E", PatternError::DotSegment);
        check_error(&format!("/{}", "a".repeat(1024)), PatternError::TooLong);
    }
}
