//! Patterns of a route: which hosts, paths and origins it is meant for. A pattern is checked when it is made, prints as
//! it was written (letters of hosts and schemes in lower case), and matches without allocating. It does not know HTTP:
//! the caller hands in the host without its port and the path without its query.

mod host;
mod origin;
mod path;

use std::fmt;

pub use host::HostPattern;
pub use origin::OriginPattern;
pub use path::PathPattern;

/// Why a text is no pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatternError {
    /// Nothing at all.
    Empty,
    /// Longer than a name in the DNS or a sane path can be.
    TooLong,
    /// A lone `*`, which is the default and needs no pattern.
    AnyHost,
    AnyOrigin,
    /// A `*` anywhere but as the whole first label.
    MisplacedWildcard,
    /// A host pattern with a port behind it.
    PortInHost,
    /// A host pattern with a scheme in front of it.
    SchemeInHost,
    /// A label that is empty, too long, or begins or ends with a hyphen.
    BadLabel,
    /// A character that no host name has; names in other scripts are written in punycode.
    BadHostCharacter,
    /// Something in brackets that is no IPv6 address, or an IPv6 address without brackets.
    BadIpv6,
    /// A name written as absolute in the DNS.
    TrailingDot,
    /// A path without its first slash.
    NoSlash,
    /// A character that no path has without being escaped, RFC 3986 §3.3.
    BadPathCharacter,
    /// A `%` that two hexadecimal digits do not follow.
    BadEscape,
    /// A query or fragment, which is no part of the path.
    QueryInPath,
    /// A segment `.` or `..`: a request that has one is refused before it is routed.
    DotSegment,
    /// An origin without `scheme://`.
    NoScheme,
    BadScheme,
    /// An origin with a path, be it only a slash, RFC 6454 §6.2.
    PathInOrigin,
    /// An origin with a user in front of the host.
    UserInOrigin,
    BadPort,
}

impl PatternError {
    /// What the author could write instead, where that can be said.
    pub fn hint(self) -> Option<&'static str> {
        match self {
            PatternError::AnyHost => Some("leave `hosts` out: any host is the default"),
            PatternError::AnyOrigin => Some("leave `origins` out: any origin is the default"),
            PatternError::MisplacedWildcard => Some("a wildcard is the whole first label: `*.example.com`"),
            PatternError::PortInHost => Some("leave the port out: it is not compared"),
            PatternError::SchemeInHost => Some("write the host alone: `chat.example.com`"),
            PatternError::BadHostCharacter => Some("write names of other scripts in punycode: `xn--…`"),
            PatternError::BadIpv6 => Some("write IPv6 addresses in brackets: `[2001:db8::1]`"),
            PatternError::TrailingDot => Some("leave the last dot out: a request may have it and matches nevertheless"),
            PatternError::NoSlash => Some("a path begins with `/`, an exact one with `=/`"),
            PatternError::BadPathCharacter => Some("escape it with `%` and two digits, exactly as clients send it"),
            PatternError::QueryInPath => Some("leave it out: only the path is compared"),
            PatternError::DotSegment => {
                Some("requests with such a segment are refused, so the route could never match")
            }
            PatternError::NoScheme => Some("an origin is `scheme://host`, with `:port` if it is not the default"),
            PatternError::PathInOrigin => Some("an origin ends after the host or the port"),
            PatternError::UserInOrigin => Some("an origin has no user"),
            PatternError::BadEscape
            | PatternError::Empty
            | PatternError::TooLong
            | PatternError::BadLabel
            | PatternError::BadScheme
            | PatternError::BadPort => None,
        }
    }
}

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PatternError::Empty => "nothing here",
            PatternError::TooLong => "too long",
            PatternError::AnyHost | PatternError::AnyOrigin => "a lone wildcard",
            PatternError::MisplacedWildcard => "a wildcard where none can stand",
            PatternError::PortInHost => "a host with a port",
            PatternError::SchemeInHost => "a host with a scheme",
            PatternError::BadLabel => "labels are 1 to 63 characters and begin and end with no hyphen",
            PatternError::BadHostCharacter => "a character that no host name has",
            PatternError::BadIpv6 => "no IPv6 address in brackets",
            PatternError::TrailingDot => "a host with a dot at its end",
            PatternError::NoSlash => "no slash at the beginning",
            PatternError::BadPathCharacter => "a character that stands in no path unescaped",
            PatternError::BadEscape => "a `%` without two hexadecimal digits",
            PatternError::QueryInPath => "a query or fragment",
            PatternError::DotSegment => "a dot segment",
            PatternError::NoScheme => "no scheme",
            PatternError::BadScheme => "a scheme that is none",
            PatternError::PathInOrigin => "an origin with a path",
            PatternError::UserInOrigin => "an origin with a user",
            PatternError::BadPort => "a port is 1 to 65535",
        })
    }
}

impl std::error::Error for PatternError {}
