//! Where servers and listeners are, and where clients come from: an IP address and a port, or a Unix socket. It opens nothing.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What a Unix socket begins with where an address is written.
const UNIX: &str = "unix:";

/// The longest path of a Unix socket, `sun_path` of Linux without its closing zero.
const UNIX_PATH_BYTES_MAX: usize = 107;

/// Where something listens. Written `192.0.2.1:80`, `[2001:db8::1]:80` or `unix:/run/app.sock`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    Ip(SocketAddr),
    /// Absolute, and short enough to be bound.
    Unix(Arc<Path>),
}

/// Where a client comes from, as far as the gateway knows and believes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClientAddr {
    Ip(SocketAddr),
    /// Over a Unix socket, and nobody said from where before.
    Local,
}

/// The port of an address of which only the IP is known.
const NO_PORT: u16 = 0;

/// Why a text is no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    #[error("not an IP address and a port")]
    NoSocketAddress,
    #[error("not the absolute path of a socket")]
    NoAbsolutePath,
    #[error("a path of more than {UNIX_PATH_BYTES_MAX} bytes cannot be bound")]
    TooLong,
}

impl Address {
    pub fn ip(&self) -> Option<SocketAddr> {
        match self {
            Address::Ip(address) => Some(*address),
            Address::Unix(_) => None,
        }
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Address, AddressError> {
        let Some(path) = text.strip_prefix(UNIX) else {
            return text.parse().map(Address::Ip).map_err(|_| AddressError::NoSocketAddress);
        };
        if !path.starts_with('/') || path.ends_with('/') || path.contains('\0') {
            return Err(AddressError::NoAbsolutePath);
        }
        if path.len() > UNIX_PATH_BYTES_MAX {
            return Err(AddressError::TooLong);
        }
        Ok(Address::Unix(Path::new(path).into()))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Ip(address) => write!(f, "{address}"),
            Address::Unix(path) => write!(f, "{UNIX}{}", path.display()),
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Address {
        Address::Ip(address)
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Address, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl ClientAddr {
    /// An IPv4 address that came as an IPv6 one is an IPv4 one.
    pub fn ip(self) -> Option<IpAddr> {
        match self {
            ClientAddr::Ip(address) => Some(address.ip().to_canonical()),
            ClientAddr::Local => None,
        }
    }
}

impl fmt::Display for ClientAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientAddr::Ip(address) if address.port() == NO_PORT => write!(f, "{}", address.ip()),
            ClientAddr::Ip(address) => write!(f, "{address}"),
            ClientAddr::Local => f.write_str("local"),
        }
    }
}

impl From<SocketAddr> for ClientAddr {
    fn from(address: SocketAddr) -> ClientAddr {
        ClientAddr::Ip(address)
    }
}

impl Serialize for ClientAddr {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        for text in ["192.0.2.1:80", "[2001:db8::1]:80", "unix:/run/app.sock"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn names_what_is_wrong() {
        let check = |text: &str, expected: AddressError| assert_eq!(text.parse::<Address>(), Err(expected), "{text}");
        check("example.com:80", AddressError::NoSocketAddress);
        check("192.0.2.1", AddressError::NoSocketAddress);
        check("unix:app.sock", AddressError::NoAbsolutePath);
        check("unix:/run/", AddressError::NoAbsolutePath);
        check("unix:", AddressError::NoAbsolutePath);
        check(&format!("unix:/{}", "a".repeat(UNIX_PATH_BYTES_MAX)), AddressError::TooLong);
    }

    #[test]
    fn a_mapped_address_is_that_of_its_client() {
        let mapped: SocketAddr = "[::ffff:192.0.2.1]:5".parse().unwrap();
        assert_eq!(ClientAddr::from(mapped).ip(), Some("192.0.2.1".parse().unwrap()));
        assert_eq!(ClientAddr::Local.ip(), None);
    }
}
