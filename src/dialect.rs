//! The versions of the protocol that the gateway speaks, on either side. It does not know how they differ on the wire, nor who
//! speaks which.

use std::fmt;

/// A version that the gateway can speak. The numbers are those of the registry of RFC 6455 §11.6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// RFC 6455, the only standard.
    Rfc6455,
    /// hybi-08 to hybi-12.
    Hybi8,
    /// hybi-07.
    Hybi7,
    /// hixie-76, alias hybi-00: Key1, Key2 and no version field.
    Hixie76,
    /// Before any version had a number, and before any handshake proved anything.
    Hixie75,
}

impl Dialect {
    /// The better one first: what a gateway that may choose would choose.
    pub const ALL: [Dialect; 5] =
        [Dialect::Rfc6455, Dialect::Hybi8, Dialect::Hybi7, Dialect::Hixie76, Dialect::Hixie75];

    /// As `Sec-WebSocket-Version` names it, which cannot name hixie-75.
    pub fn number(self) -> Option<u8> {
        match self {
            Dialect::Rfc6455 => Some(13),
            Dialect::Hybi8 => Some(8),
            Dialect::Hybi7 => Some(7),
            Dialect::Hixie76 => Some(0),
            Dialect::Hixie75 => None,
        }
    }

    pub fn from_number(number: u8) -> Option<Dialect> {
        Dialect::ALL.into_iter().find(|dialect| dialect.number() == Some(number))
    }

    /// In a configuration, a log and a label.
    pub fn name(self) -> &'static str {
        match self {
            Dialect::Rfc6455 => "13",
            Dialect::Hybi8 => "8",
            Dialect::Hybi7 => "7",
            Dialect::Hixie76 => "0",
            Dialect::Hixie75 => "hixie-75",
        }
    }

    pub fn from_name(name: &str) -> Option<Dialect> {
        Dialect::ALL.into_iter().find(|dialect| dialect.name() == name)
    }

    /// What a server that speaks these is asked for on behalf of a client that speaks this one: the client's own version if
    /// it may be, else the first, which then has to be translated. `None` where nothing is spoken.
    pub fn towards(self, spoken: &[Dialect]) -> Option<Dialect> {
        if spoken.contains(&self) { Some(self) } else { spoken.first().copied() }
    }

    /// Whether its messages are framed as RFC 6455 §5 frames them, with Ping, Pong and Close. The others know texts between two
    /// bytes, and nothing else.
    pub fn has_frames(self) -> bool {
        match self {
            Dialect::Rfc6455 | Dialect::Hybi8 | Dialect::Hybi7 => true,
            Dialect::Hixie76 | Dialect::Hixie75 => false,
        }
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_keeps_its_own_version_where_it_can() {
        let spoken = [Dialect::Hybi8, Dialect::Rfc6455];
        assert_eq!(Dialect::Rfc6455.towards(&spoken), Some(Dialect::Rfc6455));
        assert_eq!(Dialect::Hixie76.towards(&spoken), Some(Dialect::Hybi8));
        assert_eq!(Dialect::Hixie76.towards(&[]), None);
    }

    #[test]
    fn numbers_and_names_are_one_to_one() {
        for dialect in Dialect::ALL {
            assert_eq!(Dialect::from_name(dialect.name()), Some(dialect));
            assert!(dialect.number().is_none_or(|number| Dialect::from_number(number) == Some(dialect)));
        }
        for number in (1..=6).chain(9..=12).chain(14..=255) {
            assert_eq!(Dialect::from_number(number), None, "{number}");
        }
    }
}
