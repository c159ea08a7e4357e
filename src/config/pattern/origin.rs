//! Who may open a tunnel from a browser: the `Origin` field of RFC 6454 §7 compared by scheme, host and port. It does not
//! know headers: an absent or repeated field is the caller's business.

use std::fmt;
use std::str::FromStr;

use super::{HostPattern, PatternError};

/// `https://chat.example.com`, `https://*.example.com:8443`, or `null`, which only a list that names it matches.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OriginPattern(Kind);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Kind {
    /// An opaque origin, RFC 6454 §6.2.
    Null,
    Site {
        /// In lower case.
        scheme: String,
        host: HostPattern,
        /// `None` where the scheme's default port is meant.
        port: Option<u16>,
    },
}

impl OriginPattern {
    /// Whether `origin`, the whole value of the field, is meant. What is no origin matches nothing.
    pub fn matches(&self, origin: &str) -> bool {
        match &self.0 {
            Kind::Null => origin == "null",
            Kind::Site { scheme, host, port } => Parts::split(origin).is_ok_and(|parts| {
                parts.scheme.eq_ignore_ascii_case(scheme) && parts.port == *port && host.matches_verbatim(parts.host)
            }),
        }
    }
}

/// An origin taken apart; the host is not checked yet.
struct Parts<'a> {
    scheme: &'a str,
    host: &'a str,
    /// `None` for the scheme's default port, written or not.
    port: Option<u16>,
}

impl<'a> Parts<'a> {
    fn split(text: &'a str) -> Result<Parts<'a>, PatternError> {
        let (scheme, rest) = text.split_once("://").ok_or(PatternError::NoScheme)?;
        if !is_scheme(scheme) {
            return Err(PatternError::BadScheme);
        }
        if rest.is_empty() {
            return Err(PatternError::Empty);
        }
        if rest.contains(['/', '?', '#']) {
            return Err(PatternError::PathInOrigin);
        }
        if rest.contains('@') {
            return Err(PatternError::UserInOrigin);
        }
        // A colon inside the brackets of an IPv6 address is followed by the closing bracket, so no digits alone.
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, Some(port_number(port)?)),
            _ => (rest, None),
        };
        let port = port.filter(|port| default_port(scheme) != Some(*port));
        Ok(Parts { scheme, host, port })
    }
}

/// RFC 3986 §3.1.
fn is_scheme(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'))
}

fn port_number(text: &str) -> Result<u16, PatternError> {
    let digits_only = !text.starts_with('+');
    match text.parse() {
        Ok(port) if port > 0 && digits_only => Ok(port),
        _ => Err(PatternError::BadPort),
    }
}

fn default_port(scheme: &str) -> Option<u16> {
    if scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("ws") {
        return Some(80);
    }
    if scheme.eq_ignore_ascii_case("https") || scheme.eq_ignore_ascii_case("wss") {
        return Some(443);
    }
    None
}

impl FromStr for OriginPattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        if text.is_empty() {
            return Err(PatternError::Empty);
        }
        if text == "*" {
            return Err(PatternError::AnyOrigin);
        }
        if text == "null" {
            return Ok(OriginPattern(Kind::Null));
        }
        let parts = Parts::split(text)?;
        if parts.host == "*" {
            return Err(PatternError::MisplacedWildcard);
        }
        Ok(OriginPattern(Kind::Site {
            scheme: parts.scheme.to_ascii_lowercase(),
            host: parts.host.parse()?,
            port: parts.port,
        }))
    }
}

impl fmt::Display for OriginPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Null => f.write_str("null"),
            Kind::Site { scheme, host, port } => {
                write!(f, "{scheme}://{host}")?;
                port.map_or(Ok(()), |port| write!(f, ":{port}"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> OriginPattern {
        text.parse().unwrap()
    }

    fn check(pattern_text: &str, origin: &str, expected: bool) {
        assert_eq!(pattern(pattern_text).matches(origin), expected, "{pattern_text} on {origin}");
    }

    fn check_error(text: &str, expected: PatternError) {
        assert_eq!(text.parse::<OriginPattern>(), Err(expected), "{text}");
    }

    #[test]
    fn compares_scheme_host_and_port() {
        check("https://a.example", "https://a.example", true);
        check("https://a.example", "HTTPS://A.Example", true);
        check("https://a.example", "http://a.example", false);
        check("https://a.example", "https://b.example", false);
        check("https://a.example", "https://a.example:8443", false);
        check("https://a.example:8443", "https://a.example:8443", true);
        check("https://a.example:8443", "https://a.example", false);
    }

    #[test]
    fn the_default_port_is_the_same_written_or_not() {
        check("https://a.example", "https://a.example:443", true);
        check("https://a.example:443", "https://a.example", true);
        check("http://a.example:80", "http://a.example", true);
        check("https://a.example:80", "https://a.example", false);
        check("HTTPS://a.example:443", "https://a.example", true);
    }

    #[test]
    fn a_wildcard_matches_subdomains_alone() {
        check("https://*.example.com", "https://a.example.com", true);
        check("https://*.example.com", "https://a.b.example.com", true);
        check("https://*.example.com", "https://example.com", false);
        check("https://*.example.com", "https://badexample.com", false);
        check("https://*.example.com", "https://example.com.evil.org", false);
        check("https://*.example.com", "https://evil.org/.example.com", false);
        check("https://*.example.com", "https://evil.org#.example.com", false);
        check("https://*.example.com", "https://x@a.example.com", false);
        check("https://*.example.com", "https://*.example.com", false);
    }

    #[test]
    fn null_matches_only_where_it_is_listed() {
        check("null", "null", true);
        check("null", "NULL", false);
        check("null", "https://a.example", false);
        check("https://a.example", "null", false);
    }

    #[test]
    fn what_is_no_origin_matches_nothing() {
        for origin in [
            "",
            "a.example",
            "https://",
            "https://a.example/",
            "https://a.example.",
            "https://a.example:",
            "https://a.example:+443",
            "https://a.example:99999",
            "https://a.example https://a.example",
            "https://a.example, null",
            " https://a.example",
        ] {
            check("https://a.example", origin, false);
        }
    }

    #[test]
    fn other_schemes_and_addresses_have_origins_too() {
        check("chrome-extension://abcdef", "chrome-extension://abcdef", true);
        check("http://[::1]:3000", "http://[0::1]:3000", true);
        check("http://[::1]", "http://[::1]:80", true);
        check("http://localhost:3000", "http://localhost:3000", true);
    }

    #[test]
    fn prints_what_parses_to_the_same() {
        for text in ["null", "https://a.example", "https://*.example.com:8443", "http://[::1]:3000"] {
            assert_eq!(pattern(text).to_string(), text);
        }
        assert_eq!(pattern("HTTPS://A.example:443").to_string(), "https://a.example");
    }

    #[test]
    fn says_why_a_text_is_no_origin() {
        check_error("", PatternError::Empty);
        check_error("*", PatternError::AnyOrigin);
        check_error("a.example", PatternError::NoScheme);
        check_error("://a", PatternError::BadScheme);
        check_error("1https://a", PatternError::BadScheme);
        check_error("https://", PatternError::Empty);
        check_error("https://*", PatternError::MisplacedWildcard);
        check_error("https://a/", PatternError::PathInOrigin);
        check_error("https://u@a", PatternError::UserInOrigin);
        check_error("https://a:0", PatternError::BadPort);
        check_error("https://a:x", PatternError::BadPort);
        check_error("https://a b", PatternError::BadHostCharacter);
        check_error("https://[::1", PatternError::BadIpv6);
    }
}
