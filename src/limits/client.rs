//! Who counts as one client. It does not know where an address was learned, nor what is limited.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::config::model;

/// A client as limits see it: an IPv4 address, or the network of an IPv6 one, because whoever has one address of such a
/// network has all of them (RFC 6177). Sixteen bytes; an IPv4 address is kept as RFC 4291 §2.5.5.2 maps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Client([u8; 16]);

impl Client {
    /// Nobody: an address that no client can have (RFC 4291 §2.5.2).
    pub(super) const NOBODY: Client = Client([0; 16]);
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        IpAddr::V6(Ipv6Addr::from(self.0)).to_canonical().fmt(f)
    }
}

/// Which clients are told apart, and who is not limited at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientRules {
    ipv6_mask: u128,
    exempt: Vec<IpNet>,
}

impl ClientRules {
    pub fn new(limits: &model::Limits) -> ClientRules {
        let beyond = u32::from(128 - limits.ipv6_prefix.min(128));
        ClientRules { ipv6_mask: u128::MAX.checked_shl(beyond).unwrap_or(0), exempt: limits.exempt.clone() }
    }

    /// `None` for whoever is not limited.
    pub fn identify(&self, address: IpAddr) -> Option<Client> {
        let address = address.to_canonical();
        if self.exempt.iter().any(|network| network.contains(&address)) {
            return None;
        }
        Some(Client(match address {
            IpAddr::V4(address) => mapped(address),
            IpAddr::V6(address) => (u128::from(address) & self.ipv6_mask).to_be_bytes(),
        }))
    }
}

fn mapped(address: Ipv4Addr) -> [u8; 16] {
    address.to_ipv6_mapped().octets()
}

#[cfg(test)]
pub(super) mod tests {
    use std::num::NonZeroUsize;

    use super::*;
    use crate::config;

    pub fn rules(ipv6_prefix: u8, exempt: &[&str]) -> ClientRules {
        let text = format!(
            "limits = {{ ipv6_prefix = {ipv6_prefix}, exempt = {exempt:?} }}\n[[listener]]\nname = 'l'\nlisten = '127.0.0.1:0'\n\
             [[route]]\nname = 'r'\nupstream = 'u'\n[[upstream]]\nname = 'u'\nservers = ['127.0.0.1:9001']\n"
        );
        ClientRules::new(&config::parse("test.toml", &text, NonZeroUsize::MIN).unwrap().limits)
    }

    /// The client that a number stands for.
    pub fn client(number: u32) -> Client {
        Client(mapped(Ipv4Addr::from(number)))
    }

    fn check(rules: &ClientRules, address: &str, expected: &str) {
        let client = rules.identify(address.parse().unwrap());
        assert_eq!(client.map_or_else(|| "-".to_owned(), |client| client.to_string()), expected, "{address}");
    }

    #[test]
    fn an_ipv4_address_is_one_client_however_it_is_written() {
        check(&rules(64, &[]), "203.0.113.7", "203.0.113.7");
        check(&rules(32, &[]), "203.0.113.8", "203.0.113.8");
        check(&rules(32, &[]), "::ffff:203.0.113.8", "203.0.113.8");
    }

    #[test]
    fn an_ipv6_address_counts_by_its_network() {
        check(&rules(64, &[]), "2001:db8:1:2:3:4:5:6", "2001:db8:1:2::");
        check(&rules(48, &[]), "2001:db8:1:2:3:4:5:6", "2001:db8:1::");
        check(&rules(56, &[]), "2001:db8:1:2ff:3:4:5:6", "2001:db8:1:200::");
        check(&rules(128, &[]), "2001:db8:1:2:3:4:5:6", "2001:db8:1:2:3:4:5:6");
        check(&rules(32, &[]), "2001:db8:1:2:3:4:5:6", "2001:db8::");
    }

    #[test]
    fn whoever_is_on_the_list_is_no_client() {
        let rules = rules(64, &["10.0.0.0/8", "2001:db8::/48", "192.0.2.1/32"]);
        for exempt in ["10.1.2.3", "::ffff:10.1.2.3", "2001:db8:0:9::1", "192.0.2.1"] {
            check(&rules, exempt, "-");
        }
        check(&rules, "11.0.0.1", "11.0.0.1");
        check(&rules, "2001:db8:1::1", "2001:db8:1::");
        check(&rules, "192.0.2.2", "192.0.2.2");
    }
}
