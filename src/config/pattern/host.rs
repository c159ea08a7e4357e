//! One name, or all names below a domain. It does not know ports: the caller takes the port off the `Host` field, and a
//! port in a pattern is refused, because the listener already says on which port a client came.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use super::PatternError;

/// The longest name that the DNS can carry, RFC 1035 §2.3.4.
const NAME_LENGTH_MAX: usize = 253;
const LABEL_LENGTH_MAX: usize = 63;

/// `chat.example.com`, `*.example.com` or `[2001:db8::1]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPattern(Kind);

/// Invariant: names are in lower case, without a dot at either end.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Kind {
    /// A host name or an IPv4 address.
    Name(String),
    /// Any depth of names below this one, but not the name itself.
    Below(String),
    Ipv6(Ipv6Addr),
}

impl HostPattern {
    /// Whether a request for `host` is meant. `host` is without its port, an IPv6 address in its brackets. Letters are
    /// compared without case and one dot at the end is ignored: `Chat.Example.COM.` is `chat.example.com`.
    pub fn matches(&self, host: &str) -> bool {
        self.matches_verbatim(host.strip_suffix('.').unwrap_or(host))
    }

    /// As [`matches`](Self::matches), but a dot at the end makes another host, as it makes another origin.
    pub(super) fn matches_verbatim(&self, host: &str) -> bool {
        match &self.0 {
            Kind::Name(name) => host.eq_ignore_ascii_case(name),
            Kind::Below(domain) => is_below(host, domain),
            Kind::Ipv6(address) => ipv6(host) == Some(*address),
        }
    }

    /// Whether every host that `other` matches is matched by `self` too.
    pub fn covers(&self, other: &HostPattern) -> bool {
        match (&self.0, &other.0) {
            (Kind::Below(domain), Kind::Below(inner)) => inner == domain || is_below(inner, domain),
            (Kind::Below(domain), Kind::Name(name)) => is_below(name, domain),
            _ => self == other,
        }
    }
}

/// Whether `host` is a name of at least one label more than `domain`.
fn is_below(host: &str, domain: &str) -> bool {
    let Some(border) = host.len().checked_sub(domain.len()) else {
        return false;
    };
    let (labels, end) = host.as_bytes().split_at(border);
    end.eq_ignore_ascii_case(domain.as_bytes())
        && labels.strip_suffix(b".").is_some_and(|labels| labels.split(|byte| *byte == b'.').all(is_label))
}

fn is_label(label: &[u8]) -> bool {
    let is_label_byte = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    !label.is_empty() && label.iter().all(is_label_byte)
}

fn ipv6(host: &str) -> Option<Ipv6Addr> {
    host.strip_prefix('[')?.strip_suffix(']')?.parse().ok()
}

impl FromStr for HostPattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        if text.is_empty() {
            return Err(PatternError::Empty);
        }
        if text == "*" {
            return Err(PatternError::AnyHost);
        }
        if text.contains("://") {
            return Err(PatternError::SchemeInHost);
        }
        if text.starts_with('[') {
            if text.rfind("]:").is_some() {
                return Err(PatternError::PortInHost);
            }
            return match ipv6(text) {
                Some(address) => Ok(HostPattern(Kind::Ipv6(address))),
                None => Err(PatternError::BadIpv6),
            };
        }
        match text.strip_prefix("*.") {
            Some(domain) => Ok(HostPattern(Kind::Below(name(domain)?))),
            None => Ok(HostPattern(Kind::Name(name(text)?))),
        }
    }
}

/// A host name, checked and in lower case.
fn name(text: &str) -> Result<String, PatternError> {
    if text.contains('*') {
        return Err(PatternError::MisplacedWildcard);
    }
    match text.bytes().filter(|byte| *byte == b':').count() {
        0 => {}
        1 => return Err(PatternError::PortInHost),
        _ => return Err(PatternError::BadIpv6),
    }
    if text.ends_with('.') {
        return Err(PatternError::TrailingDot);
    }
    if text.len() > NAME_LENGTH_MAX {
        return Err(PatternError::TooLong);
    }
    if !text.split('.').all(|label| label.is_empty() || is_label(label.as_bytes())) {
        return Err(PatternError::BadHostCharacter);
    }
    let is_dns_label =
        |label: &str| (1..=LABEL_LENGTH_MAX).contains(&label.len()) && !label.starts_with('-') && !label.ends_with('-');
    if !text.split('.').all(is_dns_label) {
        return Err(PatternError::BadLabel);
    }
    Ok(text.to_ascii_lowercase())
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Name(name) => f.write_str(name),
            Kind::Below(domain) => write!(f, "*.{domain}"),
            Kind::Ipv6(address) => write!(f, "[{address}]"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> HostPattern {
        text.parse().unwrap()
    }

    fn check(pattern_text: &str, host: &str, expected: bool) {
        assert_eq!(pattern(pattern_text).matches(host), expected, "{pattern_text} on {host}");
    }

    fn check_error(text: &str, expected: PatternError) {
        assert_eq!(text.parse::<HostPattern>(), Err(expected), "{text}");
    }

    #[test]
    fn a_name_matches_itself_in_any_case() {
        check("chat.example.com", "chat.example.com", true);
        check("chat.example.com", "Chat.Example.COM", true);
        check("Chat.Example.com", "chat.example.com", true);
        check("chat.example.com", "example.com", false);
        check("chat.example.com", "a.chat.example.com", false);
        check("chat.example.com", "chat.example.com.evil.org", false);
        check("chat.example.com", "", false);
        check("127.0.0.1", "127.0.0.1", true);
    }

    #[test]
    fn a_dot_at_the_end_of_the_requests_host_is_ignored() {
        check("chat.example.com", "chat.example.com.", true);
        check("*.example.com", "chat.example.com.", true);
        check("chat.example.com", "chat.example.com..", false);
    }

    #[test]
    fn a_wildcard_matches_every_depth_but_not_the_domain_itself() {
        check("*.example.com", "chat.example.com", true);
        check("*.example.com", "A.B.Example.Com", true);
        check("*.example.com", "example.com", false);
        check("*.example.com", ".example.com", false);
        check("*.example.com", "badexample.com", false);
        check("*.example.com", "a..example.com", false);
        check("*.example.com", "evil.org/.example.com", false);
        check("*.example.com", "\u{e9}.example.com", false);
        check("*.example.com", "", false);
    }

    #[test]
    fn ipv6_addresses_are_compared_as_addresses_in_brackets() {
        check("[::1]", "[::1]", true);
        check("[::1]", "[0:0:0:0:0:0:0:1]", true);
        check("[2001:DB8::1]", "[2001:db8::1]", true);
        check("[::1]", "::1", false);
        check("[::1]", "[::2]", false);
    }

    #[test]
    fn covers_what_matches_no_more() {
        for (wide, narrow, expected) in [
            ("a.b", "a.b", true),
            ("a.b", "c.b", false),
            ("*.b", "a.b", true),
            ("*.b", "*.b", true),
            ("*.b", "*.a.b", true),
            ("*.a.b", "*.b", false),
            ("*.b", "b", false),
            ("a.b", "*.b", false),
            ("*.b", "*.ab", false),
            ("[::1]", "[::1]", true),
            ("*.b", "[::1]", false),
        ] {
            assert_eq!(pattern(wide).covers(&pattern(narrow)), expected, "{wide} over {narrow}");
        }
    }

    #[test]
    fn prints_what_parses_to_the_same() {
        for text in ["chat.example.com", "*.example.com", "[2001:db8::1]", "10.0.0.1", "x_y.local"] {
            assert_eq!(pattern(text).to_string(), text);
            assert_eq!(pattern(&pattern(text).to_string()), pattern(text));
        }
        assert_eq!(pattern("Chat.EXAMPLE.com").to_string(), "chat.example.com");
    }

    #[test]
    fn says_why_a_text_is_no_host() {
        check_error("", PatternError::Empty);
        check_error("*", PatternError::AnyHost);
        check_error("https://a.b", PatternError::SchemeInHost);
        check_error("a.b:80", PatternError::PortInHost);
        check_error("[::1]:80", PatternError::PortInHost);
        check_error("::1", PatternError::BadIpv6);
        check_error("[::g]", PatternError::BadIpv6);
        check_error("a.*.b", PatternError::MisplacedWildcard);
        check_error("*a.b", PatternError::MisplacedWildcard);
        check_error("*.*.b", PatternError::MisplacedWildcard);
        check_error("a.b.", PatternError::TrailingDot);
        check_error("*.", PatternError::BadLabel);
        check_error("a..b", PatternError::BadLabel);
        check_error("-a.b", PatternError::BadLabel);
        check_error("a b", PatternError::BadHostCharacter);
        check_error("\u{e9}.b", PatternError::BadHostCharacter);
        check_error(&"a".repeat(64), PatternError::BadLabel);
        check_error(&"a.".repeat(130)[..255], PatternError::TooLong);
    }
}
