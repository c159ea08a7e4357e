//! Where servers are, as the file says it: an address, a name and a port, or the name of a service. Names are checked and not
//! resolved.

use std::fmt;
use std::net::SocketAddr;

use crate::address::Address;

/// One entry of `servers`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Location {
    At(Address),
    /// A host of many addresses, in lower case; with a last dot if it is not to be searched for.
    Name {
        host: String,
        port: u16,
    },
    /// The owner name of SRV records (RFC 2782), in lower case.
    Service(String),
}

/// Before the name of a service.
pub const SERVICE: &str = "srv:";

/// Why a text is no name of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("no name at all")]
    Empty,
    #[error("longer than 253 characters")]
    TooLong,
    #[error("an empty part between two dots")]
    EmptyLabel,
    #[error("a part longer than 63 characters")]
    LongLabel,
    #[error("a part that begins or ends with `-`")]
    Hyphen,
    #[error("an underscore")]
    Underscore,
    #[error("a character other than letters, digits, `-` and `.`")]
    Character,
    #[error("ends in a number, so it would be an IP address")]
    Number,
    #[error("does not begin with `_service._protocol.`")]
    NoService,
}

impl Location {
    /// Where it is, if nobody has to be asked.
    pub fn address(&self) -> Option<&Address> {
        match self {
            Location::At(address) => Some(address),
            Location::Name { .. } | Location::Service(_) => None,
        }
    }

    /// Whether name servers have to be asked.
    pub fn is_name(&self) -> bool {
        self.address().is_none()
    }
}

impl From<SocketAddr> for Location {
    fn from(address: SocketAddr) -> Location {
        Location::At(address.into())
    }
}

impl From<Address> for Location {
    fn from(address: Address) -> Location {
        Location::At(address)
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Location::At(address) => address.fmt(f),
            Location::Name { host, port } => write!(f, "{host}:{port}"),
            Location::Service(name) => write!(f, "{SERVICE}{name}"),
        }
    }
}

/// A host's name in lower case (RFC 1123 §2.1).
pub fn host_name(text: &str) -> Result<String, NameError> {
    let whole = text.strip_suffix('.').unwrap_or(text);
    check_length(whole)?;
    whole.split('.').try_for_each(check_label)?;
    // As browsers have it: `10.0.0.256` is a slip and no name.
    let last = whole.rsplit('.').next().unwrap_or_default();
    if last.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(NameError::Number);
    }
    Ok(text.to_ascii_lowercase())
}

/// `_service._protocol.name` in lower case (RFC 2782).
pub fn service_name(text: &str) -> Result<String, NameError> {
    check_length(text.strip_suffix('.').unwrap_or(text))?;
    let mut labels = text.splitn(3, '.');
    for _ in 0..2 {
        let label = labels.next().and_then(|label| label.strip_prefix('_')).ok_or(NameError::NoService)?;
        check_label(label)?;
    }
    host_name(labels.next().unwrap_or_default())?;
    Ok(text.to_ascii_lowercase())
}

/// RFC 1035 §2.3.4, without the last dot.
fn check_length(name: &str) -> Result<(), NameError> {
    match name.len() {
        0 => Err(NameError::Empty),
        1..=253 => Ok(()),
        _ => Err(NameError::TooLong),
    }
}

fn check_label(label: &str) -> Result<(), NameError> {
    if label.is_empty() {
        Err(NameError::EmptyLabel)
    } else if label.contains('_') {
        Err(NameError::Underscore)
    } else if !label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
        Err(NameError::Character)
    } else if label.starts_with('-') || label.ends_with('-') {
        Err(NameError::Hyphen)
    } else if label.len() > 63 {
        Err(NameError::LongLabel)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_have_labels_of_rfc_1123() {
        for good in ["a", "localhost", "app.example", "APP.Example.", "1.a", "xn--bcher-kva.example", "a-b.c2"] {
            assert_eq!(host_name(good), Ok(good.to_ascii_lowercase()), "{good}");
        }
        let long = "a".repeat(64);
        let longer = ["a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(62)].join(".");
        for (bad, error) in [
            ("", NameError::Empty),
            (".", NameError::Empty),
            ("a..b", NameError::EmptyLabel),
            (".a", NameError::EmptyLabel),
            ("a..", NameError::EmptyLabel),
            ("-a.b", NameError::Hyphen),
            ("a.b-", NameError::Hyphen),
            ("my_app", NameError::Underscore),
            ("a b", NameError::Character),
            ("b\u{fc}cher.example", NameError::Character),
            ("10.0.0.256", NameError::Number),
            ("a.1", NameError::Number),
            (&long, NameError::LongLabel),
            (&longer, NameError::TooLong),
        ] {
            assert_eq!(host_name(bad), Err(error), "{bad}");
        }
        assert!(host_name(&longer[1..]).is_ok());
    }

    #[test]
    fn services_begin_with_two_underscores() {
        assert_eq!(service_name("_WS._tcp.app.example"), Ok("_ws._tcp.app.example".to_owned()));
        assert_eq!(service_name("_ws._tcp.app"), Ok("_ws._tcp.app".to_owned()));
        for (bad, error) in [
            ("", NameError::Empty),
            ("app.example", NameError::NoService),
            ("_ws.app.example", NameError::NoService),
            ("_ws", NameError::NoService),
            ("_ws._tcp", NameError::Empty),
            ("_._tcp.app", NameError::EmptyLabel),
            ("_ws._tcp.my_app", NameError::Underscore),
            ("_ws._tcp.app:9001", NameError::Character),
        ] {
            assert_eq!(service_name(bad), Err(error), "{bad}");
        }
    }
}
