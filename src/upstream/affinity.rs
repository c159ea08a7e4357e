//! What of a request decides where it goes, besides the load: who sent it, and the cookie that names its server. Hashes are the
//! same in every process and every release, so that a fleet agrees. It knows no server's load.

use std::fmt::{self, Write};

use sha1::{Digest, Sha1};

use crate::address::{Address, ClientAddr};
use crate::config::model::{self, Balance, SameSite};
use crate::handshake::Field;
use crate::handshake::header_list::lines;

/// A server's name for clients: a hash, which tells nobody an address, of its upstream and address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ServerId(pub u64);

/// Where a request would rather go. Made once for each request.
#[derive(Clone, Copy, Debug, Default)]
pub struct Affinity {
    /// What a hash goes by; `None` where nothing is hashed, or nothing is known of the client.
    pub(super) key: Option<u64>,
    /// The server that its cookie names, if there is one of that name.
    pub(super) named: Option<ServerId>,
}

impl Affinity {
    pub fn new(rules: &model::Upstream, client: ClientAddr, fields: &[Field<'_>]) -> Affinity {
        let key = match rules.balance {
            Balance::LeastTunnels | Balance::RoundRobin => None,
            Balance::ClientHash => by_address(client),
            Balance::HeaderHash => by_header(rules, fields).or_else(|| by_address(client)),
        };
        let named = rules.sticky.as_ref().and_then(|sticky| named(&sticky.cookie, fields));
        Affinity { key, named }
    }
}

impl ServerId {
    pub fn new(upstream: &str, address: &Address) -> ServerId {
        ServerId(hash(&[upstream.as_bytes(), address.to_string().as_bytes()]))
    }

    fn parse(text: &[u8]) -> Option<ServerId> {
        let is_id = text.len() == 16 && text.iter().all(u8::is_ascii_hexdigit);
        let text = std::str::from_utf8(text).ok().filter(|_| is_id)?;
        u64::from_str_radix(text, 16).ok().map(ServerId)
    }
}

impl fmt::Display for ServerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

fn by_address(client: ClientAddr) -> Option<u64> {
    Some(match client.ip()? {
        std::net::IpAddr::V4(address) => hash(&[&address.octets()]),
        std::net::IpAddr::V6(address) => hash(&[&address.octets()]),
    })
}

/// The first line of it: a second one would be somebody else's word.
fn by_header(rules: &model::Upstream, fields: &[Field<'_>]) -> Option<u64> {
    let value = lines(fields, rules.hash_header.as_deref()?).next()?;
    (!value.is_empty()).then(|| hash(&[value]))
}

/// Of several cookies of the name, which a browser sends for several paths or domains, the first that can be an id.
fn named(cookie: &str, fields: &[Field<'_>]) -> Option<ServerId> {
    let pairs = lines(fields, "Cookie").flat_map(|line| line.split(|byte| *byte == b';'));
    pairs
        .filter_map(|pair| {
            let value = pair.trim_ascii().strip_prefix(cookie.as_bytes())?.strip_prefix(b"=")?;
            ServerId::parse(value)
        })
        .next()
}

/// The value of `Set-Cookie` (RFC 6265 §4.1) that names a server.
pub(super) fn cookie(sticky: &model::Sticky, server: ServerId) -> String {
    let mut text = format!("{}={server}; Path=/", sticky.cookie);
    if let Some(max_age) = sticky.max_age {
        // Writing into a text cannot fail.
        let _ = write!(text, "; Max-Age={}", max_age.as_secs());
    }
    text.push_str(if sticky.secure { "; Secure" } else { "" });
    text.push_str(if sticky.http_only { "; HttpOnly" } else { "" });
    text.push_str(match sticky.same_site {
        SameSite::Strict => "; SameSite=Strict",
        SameSite::Lax => "; SameSite=Lax",
        SameSite::None => "; SameSite=None",
    });
    text
}

/// Of the pieces, none of which runs into the next.
fn hash(pieces: &[&[u8]]) -> u64 {
    let mut sha1 = Sha1::new();
    for piece in pieces {
        sha1.update((piece.len() as u64).to_be_bytes());
        sha1.update(piece);
    }
    let digest = sha1.finalize();
    digest.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::tests::rules;

    fn sticky() -> model::Sticky {
        model::Sticky {
            cookie: "wsgate".to_owned(),
            max_age: None,
            secure: false,
            http_only: true,
            same_site: SameSite::Lax,
        }
    }

    fn affinity(balance: Balance, client: &str, fields: &[(&str, &str)]) -> Affinity {
        let fields: Vec<Field<'_>> =
            fields.iter().map(|(name, value)| Field { name, value: value.as_bytes() }).collect();
        let hash_header = Some("X-User".to_owned());
        let rules = model::Upstream { hash_header, sticky: Some(sticky()), ..rules(balance, &[(1, None)]) };
        Affinity::new(&rules, client.parse::<std::net::SocketAddr>().unwrap().into(), &fields)
    }

    #[test]
    fn a_client_is_its_address_whatever_its_port() {
        let key = |client: &str| affinity(Balance::ClientHash, client, &[]).key;
        assert_eq!(key("192.0.2.1:1"), key("192.0.2.1:2"));
        assert_eq!(key("192.0.2.1:1"), key("[::ffff:192.0.2.1]:1"));
        assert_ne!(key("[2001:db8::1]:1"), key("[2001:db8::2]:1"));
        assert_eq!(Affinity::new(&rules(Balance::ClientHash, &[(1, None)]), ClientAddr::Local, &[]).key, None);
        assert_eq!(affinity(Balance::LeastTunnels, "192.0.2.1:1", &[]).key, None);
    }

    #[test]
    fn a_header_decides_and_the_address_where_there_is_none() {
        let key = |client: &str, fields: &[(&str, &str)]| affinity(Balance::HeaderHash, client, fields).key;
        let of_ann = key("192.0.2.1:1", &[("x-user", "ann")]);
        assert_eq!(of_ann, key("192.0.2.2:1", &[("X-User", "ann"), ("X-User", "bob")]));
        assert_ne!(of_ann, key("192.0.2.1:1", &[("X-User", "bob")]));
        let of_the_address = affinity(Balance::ClientHash, "192.0.2.1:1", &[]).key;
        assert_eq!(key("192.0.2.1:1", &[]), of_the_address);
        assert_eq!(key("192.0.2.1:1", &[("X-User", "")]), of_the_address);
    }

    #[test]
    fn hashes_are_the_same_in_every_process() {
        assert_eq!(ServerId::new("chat", &"192.0.2.1:80".parse().unwrap()).to_string(), "247c597265fec7b0");
        assert_eq!(affinity(Balance::ClientHash, "192.0.2.1:1", &[]).key, Some(0xD876_97F3_ABA1_E34F));
    }

    #[test]
    fn finds_the_cookie_among_others_and_ignores_what_is_no_id() {
        let named = |lines: &[&str]| {
            let fields: Vec<(&str, &str)> = lines.iter().map(|line| ("Cookie", *line)).collect();
            affinity(Balance::RoundRobin, "192.0.2.1:1", &fields).named.map(|id| id.0)
        };
        assert_eq!(named(&["a=b; wsgate=00000000000000ff;c=d"]), Some(255));
        assert_eq!(named(&["a=b", "wsgate=00000000000000ff"]), Some(255));
        assert_eq!(named(&["wsgate=127.0.0.1:9001; wsgate=00000000000000fe"]), Some(254));
        for none in ["", "wsgate", "wsgate=", "xwsgate=00000000000000ff", "wsgate=ff", "wsgate=0x000000000000ff+1"] {
            assert_eq!(named(&[none]), None, "{none}");
        }
    }

    #[test]
    fn the_cookie_says_what_is_configured() {
        assert_eq!(cookie(&sticky(), ServerId(255)), "wsgate=00000000000000ff; Path=/; HttpOnly; SameSite=Lax");
        let other = model::Sticky {
            cookie: "s".to_owned(),
            max_age: Some(std::time::Duration::from_secs(3600)),
            secure: true,
            http_only: false,
            same_site: SameSite::None,
        };
        assert_eq!(cookie(&other, ServerId(1)), "s=0000000000000001; Path=/; Max-Age=3600; Secure; SameSite=None");
    }
}
