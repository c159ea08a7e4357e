//! The client's address as trusted proxies wrote it down: each adds whom it saw at the end of a list, so the list is read from there,
//! past those that are proxies themselves, up to the first that is none. What stands before that anybody could have written.

use std::net::{IpAddr, SocketAddr};

use super::is_trusted;
use crate::address::ClientAddr;
use crate::config::model::{ForwardedField, Listener};
use crate::handshake::Field;
use crate::handshake::header_list::lines;

/// Of a request whose peer is trusted. What cannot be read ends the search: the last one that could is as much as is known. `None` where
/// nothing could.
pub fn client(listener: &Listener, fields: &[Field<'_>]) -> Option<ClientAddr> {
    let name = match listener.forwarded_field {
        ForwardedField::XForwardedFor => "X-Forwarded-For",
        ForwardedField::Forwarded => "Forwarded",
    };
    // Split at every comma, quoted or not: what a proxy adds behind a quote that its client left open is still what it adds.
    let listed: Vec<&[u8]> = lines(fields, name).flat_map(|line| line.split(|&byte| byte == b',')).collect();
    let mut found = None;
    for element in listed.into_iter().rev().map(<[u8]>::trim_ascii).filter(|element| !element.is_empty()) {
        let address = match listener.forwarded_field {
            ForwardedField::XForwardedFor => address(element),
            ForwardedField::Forwarded => node(element),
        };
        let Some(client) = address.map(ClientAddr::from) else { break };
        found = Some(client);
        if !is_trusted(&listener.trusted_proxies, client) {
            break;
        }
    }
    found
}

/// With a port or without one, which is port 0, and IPv6 with brackets or without.
fn address(element: &[u8]) -> Option<SocketAddr> {
    let text = std::str::from_utf8(element).ok()?;
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Some(SocketAddr::new(ip.to_canonical(), 0));
    }
    if let Some(ip) = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
        return ip.parse().ok().map(|ip: std::net::Ipv6Addr| SocketAddr::new(ip.into(), 0));
    }
    text.parse().ok()
}

/// The node of `for` (RFC 7239 §4, §6); `unknown` and names that hide an address are none.
fn node(element: &[u8]) -> Option<SocketAddr> {
    // A part of a quoted string, which may be the client's `Host`, is no element.
    let quotes = element.iter().filter(|&&byte| byte == b'"').count();
    if quotes % 2 != 0 || element.contains(&b'\\') {
        return None;
    }
    let mut named = element.split(|&byte| byte == b';').filter_map(|pair| {
        let equals = pair.iter().position(|&byte| byte == b'=')?;
        let is_for = pair[..equals].trim_ascii().eq_ignore_ascii_case(b"for");
        is_for.then(|| pair[equals + 1..].trim_ascii())
    });
    let (node, None) = (named.next()?, named.next()) else { return None };
    // No node has anything in it that would be escaped, and none a semicolon.
    match node.strip_prefix(b"\"") {
        Some(quoted) => address(quoted.strip_suffix(b"\"")?),
        // An IPv6 address needs its quotes, since a colon is no part of a token.
        None => {
            std::str::from_utf8(node).ok()?.parse().ok().map(|ip: std::net::Ipv4Addr| SocketAddr::new(ip.into(), 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use proptest::prelude::*;

    use super::*;
    use crate::config;

    fn listener(field: &str) -> Listener {
        let text = format!(
            "[[listener]]\nname = 'a'\nlisten = '127.0.0.1:1'\nclient_address = 'forwarded'\nforwarded_field = '{field}'\n\
             trusted_proxies = ['10.0.0.0/8', '2001:db8::/32']\n[[route]]\nname = 'r'\nupstream = 'u'\n\
             [[upstream]]\nname = 'u'\nservers = ['127.0.0.1:2']\n"
        );
        config::parse("test.toml", &text, NonZeroUsize::MIN).unwrap().listeners.remove(0)
    }

    fn found(field: &str, lines: &[&str]) -> Option<String> {
        let fields: Vec<Field<'_>> = lines
            .iter()
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| Field { name, value: value.as_bytes() })
            .collect();
        client(&listener(field), &fields).map(|client| client.to_string())
    }

    fn check(lines: &[&str], expected: Option<&str>) {
        assert_eq!(found("x-forwarded-for", lines).as_deref(), expected, "{lines:?}");
    }

    #[test]
    fn the_last_one_that_is_no_trusted_proxy_is_the_client() {
        check(&["X-Forwarded-For: 192.0.2.1"], Some("192.0.2.1"));
        check(&["X-Forwarded-For: 203.0.113.9, 192.0.2.1"], Some("192.0.2.1"));
        check(&["X-Forwarded-For: 203.0.113.9, 192.0.2.1, 10.0.0.1,10.0.0.2"], Some("192.0.2.1"));
        check(
            &["X-Forwarded-For: 203.0.113.9", "x-forwarded-for: 192.0.2.1", "X-Forwarded-For: 10.0.0.2"],
            Some("192.0.2.1"),
        );
        check(&["X-Forwarded-For: 10.0.0.1, 10.0.0.2"], Some("10.0.0.1"));
        check(&["X-Forwarded-For: 192.0.2.1, 2001:db8::7"], Some("192.0.2.1"));
        check(&["X-Forwarded-For: 192.0.2.1:4711"], Some("192.0.2.1:4711"));
        check(&["X-Forwarded-For: [2001:db9::1]:4711"], Some("[2001:db9::1]:4711"));
        check(&["X-Forwarded-For: [2001:db9::1]"], Some("2001:db9::1"));
        check(&["X-Forwarded-For: ::ffff:192.0.2.1, ::ffff:10.0.0.1"], Some("192.0.2.1"));
        check(&["Forwarded: for=192.0.2.1"], None);
        check(&[], None);
    }

    #[test]
    fn what_cannot_be_read_ends_the_search_and_nothing_before_it_is_believed() {
        for unreadable in [
            "unknown",
            "_hidden",
            "192.0.2.01",
            "192.0.2.1:99999",
            "[::1",
            "a.example",
            "\"192.0.2.1\"",
            "unix:",
            "[192.0.2.1]",
        ] {
            check(&[&format!("X-Forwarded-For: 203.0.113.9, {unreadable}, 10.0.0.2")], Some("10.0.0.2"));
            check(&[&format!("X-Forwarded-For: 203.0.113.9, {unreadable}")], None);
        }
        check(&["X-Forwarded-For: 203.0.113.9, , ,10.0.0.2"], Some("203.0.113.9"));
    }

    #[test]
    fn reads_the_standard_field_where_the_listener_says_so() {
        let check = |line: &str, expected: Option<&str>| {
            assert_eq!(found("forwarded", &["X-Forwarded-For: 203.0.113.9", line]).as_deref(), expected, "{line}");
        };
        check("Forwarded: for=192.0.2.43, for=10.0.0.7;proto=http;by=203.0.113.43", Some("192.0.2.43"));
        check("Forwarded: proto=https ; For=\"[2001:db9::1]:4711\";host=\"a;b\"", Some("[2001:db9::1]:4711"));
        check("Forwarded: for=\"192.0.2.43:47011\"", Some("192.0.2.43:47011"));
        check("Forwarded: for=\"_gazonk\"", None);
        check("Forwarded: for=unknown, for=10.0.0.7", Some("10.0.0.7"));
        check("Forwarded: for=192.0.2.1;for=192.0.2.2", None);
        check("Forwarded: for=2001:db9::1", None);
        check("Forwarded: for=192.0.2.1:5", None);
        check("Forwarded: by=192.0.2.1", None);
        check("Forwarded: for=\"192.0.2.1", None);
        check("Forwarded: x=\";for=192.0.2.1\"", None);
        check("Forwarded: for=\"203.0.113.9, for=192.0.2.1", Some("192.0.2.1"));
        check("Forwarded: for=192.0.2.1;host=\"a, for=203.0.113.9\"", None);
        check("Forwarded: for=192.0.2.1;host=\"a, for=203.0.113.9;x=\"", None);
        check("Forwarded: for=192.0.2.1;host=\"a, for=203.0.113.9;x=\\\"\"", None);
    }

    proptest! {
        /// Whatever a client writes, in front of what its proxy adds it changes nothing.
        #[test]
        fn nobody_can_forge_what_a_trusted_proxy_saw(written in "[ -~]{0,60}") {
            let seen = "192.0.2.1, 10.0.0.2";
            let (line, own) = (format!("X-Forwarded-For: {written}"), format!("X-Forwarded-For: {seen}"));
            let expected = Some("192.0.2.1".to_owned());
            prop_assert_eq!(&found("x-forwarded-for", &[&line, &own]), &expected);
            prop_assert_eq!(&found("x-forwarded-for", &[&format!("{line}, {seen}")]), &expected);
            let standard = format!("Forwarded: {written}, for=192.0.2.1;proto=http, for=\"10.0.0.2\"");
            prop_assert_eq!(found("forwarded", &[&standard]), expected);
        }
    }
}
