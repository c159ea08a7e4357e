//! What the command line says of the server: the URL, more header lines, an origin. It asks nobody whether such a server exists.

use std::str::FromStr;

use http::Uri;

use crate::handshake::header_list::is_token;

/// Where the handshakes go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub security: Security,
    /// A name, or an address without brackets.
    pub host: String,
    pub port: u16,
    /// As `Host` has it: brackets around an IPv6 address, the port unless it is the scheme's own.
    pub authority: String,
    pub path_and_query: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    Plain,
    Tls,
}

impl Security {
    fn default_port(self) -> u16 {
        match self {
            Security::Plain => 80,
            Security::Tls => 443,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    #[error("not a URL")]
    NotAUrl,
    #[error("the scheme is none of `ws`, `wss`, `http`, `https`")]
    Scheme,
    #[error("no such port")]
    Port,
    #[error("a name and password cannot stand in the URL; use `--header`")]
    UserInfo,
    /// RFC 6455 §3.
    #[error("the URL of a WebSocket has no fragment")]
    Fragment,
}

impl Target {
    /// The origin of a page of the server itself.
    pub fn origin(&self) -> String {
        let scheme = match self.security {
            Security::Plain => "http",
            Security::Tls => "https",
        };
        format!("{scheme}://{}", self.authority)
    }
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Target, TargetError> {
        if text.contains('#') {
            return Err(TargetError::Fragment);
        }
        let uri = Uri::from_str(text).map_err(|_| TargetError::NotAUrl)?;
        let security = match uri.scheme_str() {
            Some("ws" | "http") => Security::Plain,
            Some("wss" | "https") => Security::Tls,
            Some(_) | None => return Err(TargetError::Scheme),
        };
        let authority = uri.authority().ok_or(TargetError::NotAUrl)?;
        if authority.as_str().contains('@') {
            return Err(TargetError::UserInfo);
        }
        let host = authority.host();
        let port = match (authority.as_str().strip_prefix(host), authority.port_u16()) {
            (Some(""), _) => security.default_port(),
            (_, Some(port @ 1..)) => port,
            (_, Some(0) | None) => return Err(TargetError::Port),
        };
        let authority = if port == security.default_port() { host.to_owned() } else { format!("{host}:{port}") };
        let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
        let path = if uri.path().is_empty() { "/" } else { uri.path() };
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() {
            return Err(TargetError::NotAUrl);
        }
        Ok(Target { security, host, port, authority, path_and_query: format!("{path}{query}") })
    }
}

/// A header line that the operator wants in every request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    pub name: String,
    pub value: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    #[error("no colon between a name and a value")]
    NoColon,
    #[error("the name is no token")]
    Name,
    #[error("a control character in the value")]
    Value,
    #[error("the origin has an option of its own: `--origin`")]
    Origin,
    #[error("the handshake writes this line itself")]
    Ours,
}

/// What every handshake is made of, and what would have it mean something else.
const OURS: [&str; 6] = [
    "Upgrade",
    "Connection",
    "Content-Length",
    "Transfer-Encoding",
    "Sec-WebSocket-Version",
    "Sec-WebSocket-Extensions",
];

impl FromStr for Line {
    type Err = LineError;

    fn from_str(text: &str) -> Result<Line, LineError> {
        let (name, value) = text.split_once(':').ok_or(LineError::NoColon)?;
        let value = value.trim_matches([' ', '\t']);
        if !is_token(name.as_bytes()) {
            return Err(LineError::Name);
        }
        if !is_value(value) {
            return Err(LineError::Value);
        }
        let is = |known: &&str| known.eq_ignore_ascii_case(name);
        if ["Origin", "Sec-WebSocket-Origin"].iter().any(&is) {
            return Err(LineError::Origin);
        }
        let is_key = name.get(..17).is_some_and(|start| start.eq_ignore_ascii_case("Sec-WebSocket-Key"));
        if is_key || OURS.iter().any(is) {
            return Err(LineError::Ours);
        }
        Ok(Line { name: name.to_owned(), value: value.to_owned() })
    }
}

/// The value of an `Origin` line, which is not looked into: a server that refuses nonsense is worth seeing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin(pub String);

impl FromStr for Origin {
    type Err = LineError;

    fn from_str(text: &str) -> Result<Origin, LineError> {
        if is_value(text) { Ok(Origin(text.to_owned())) } else { Err(LineError::Value) }
    }
}

fn is_value(text: &str) -> bool {
    text.chars().all(|character| character == '\t' || !character.is_control())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, security: Security, host: &str, port: u16, authority: &str, path_and_query: &str) {
        let expected = Target {
            security,
            host: host.to_owned(),
            port,
            authority: authority.to_owned(),
            path_and_query: path_and_query.to_owned(),
        };
        assert_eq!(text.parse(), Ok(expected), "{text}");
    }

    #[test]
    fn a_url_says_where_and_how() {
        check("ws://a.example", Security::Plain, "a.example", 80, "a.example", "/");
        check("ws://a.example:80/ws", Security::Plain, "a.example", 80, "a.example", "/ws");
        check("http://a.example:443/?x=1", Security::Plain, "a.example", 443, "a.example:443", "/?x=1");
        check("wss://a.example?x=1", Security::Tls, "a.example", 443, "a.example", "/?x=1");
        check("https://[::1]:8443/a", Security::Tls, "::1", 8443, "[::1]:8443", "/a");
        check("ws://127.0.0.1:9001/", Security::Plain, "127.0.0.1", 9001, "127.0.0.1:9001", "/");
    }

    #[test]
    fn what_is_no_url_of_a_server_is_refused() {
        for (text, expected) in [
            ("", TargetError::NotAUrl),
            ("a.example", TargetError::Scheme),
            ("a.example:80", TargetError::Scheme),
            ("/ws", TargetError::Scheme),
            ("ftp://a.example", TargetError::Scheme),
            ("ws://", TargetError::NotAUrl),
            ("ws://a b/", TargetError::NotAUrl),
            ("ws://a.example:0/", TargetError::Port),
            ("ws://a.example:/", TargetError::Port),
            ("ws://a.example:99999/", TargetError::Port),
            ("ws://user:secret@a.example/", TargetError::UserInfo),
            ("ws://a.example/#top", TargetError::Fragment),
        ] {
            assert_eq!(text.parse::<Target>(), Err(expected), "{text}");
        }
    }

    #[test]
    fn the_origin_is_the_servers_own() {
        assert_eq!("wss://a.example:8443/x".parse::<Target>().unwrap().origin(), "https://a.example:8443");
        assert_eq!("http://a.example/x".parse::<Target>().unwrap().origin(), "http://a.example");
    }

    #[test]
    fn a_line_may_not_make_another_handshake() {
        let line = |text: &str| text.parse::<Line>();
        assert_eq!(line("Cookie:  a=b "), Ok(Line { name: "Cookie".to_owned(), value: "a=b".to_owned() }));
        assert!(
            line("X-Empty:").is_ok() && line("Host: other").is_ok() && line("Sec-WebSocket-Protocol: chat").is_ok()
        );
        for (text, expected) in [
            ("Cookie", LineError::NoColon),
            (": x", LineError::Name),
            ("a b: x", LineError::Name),
            ("a: x\r\nb: y", LineError::Value),
            ("a: x\0", LineError::Value),
            ("origin: http://a.example", LineError::Origin),
            ("upgrade: h2c", LineError::Ours),
            ("Sec-WebSocket-Version: 8", LineError::Ours),
            ("sec-websocket-key1: 1 2", LineError::Ours),
            ("Content-Length: 8", LineError::Ours),
        ] {
            assert_eq!(line(text), Err(expected), "{text}");
        }
        assert_eq!("null".parse(), Ok(Origin("null".to_owned())));
        assert_eq!("a\nb".parse::<Origin>(), Err(LineError::Value));
    }
}
