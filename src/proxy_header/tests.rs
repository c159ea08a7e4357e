//! The PROXY header read, written and broken, in both versions.

use std::net::SocketAddr;

use proptest::prelude::*;

use super::{BYTES_MAX, Fault, Said, crc32c, header, own_header, read};
use crate::address::ClientAddr;
use crate::config::model::ProxyProtocol;

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn said(client: &str, reached: &str) -> Said {
    Said::Client { client: address(client).into(), reached: Some(address(reached)) }
}

/// A header of version 2 with this body.
fn version_2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap().to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n".as_slice(), &[command, family], &length, body].concat()
}

fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len()).unwrap().to_be_bytes();
    [&[kind], length.as_slice(), value].concat()
}

const BETWEEN_4: [u8; 12] = [192, 0, 2, 1, 198, 51, 100, 2, 0xDC, 0x04, 0x01, 0xBB];

/// Whole, it says this; with bytes behind, they are left; cut anywhere, more is wanted.
fn check(bytes: &[u8], expected: Said) {
    let behind = [bytes, b"GET / HTTP/1.1\r\n"].concat();
    assert_eq!(read(&behind), Ok(Some((expected, bytes.len()))), "{}", bytes.escape_ascii());
    for end in 0..bytes.len() {
        assert_eq!(read(&bytes[..end]), Ok(None), "{}", bytes[..end].escape_ascii());
    }
}

fn check_fault(bytes: &[u8], expected: Fault) {
    assert_eq!(read(bytes), Err(expected), "{}", bytes.escape_ascii());
}

#[test]
fn reads_a_line_of_version_1() {
    check(b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n", said("192.0.2.1:56324", "198.51.100.2:443"));
    check(b"PROXY TCP6 2001:db8::1 ::1 0 65535\r\n", said("[2001:db8::1]:0", "[::1]:65535"));
    check(b"PROXY UNKNOWN\r\n", Said::Nobody);
    check(b"PROXY UNKNOWN ffff:f...f:ffff \xe2\x9c\x93 anything\r\n", Said::Nobody);
    let widest = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
    let longest = format!("PROXY UNKNOWN {widest} {widest} 65535 65535\r\n");
    assert_eq!(longest.len(), 107, "as the specification counts");
    check(longest.as_bytes(), Said::Nobody);
}

#[test]
fn a_line_that_is_written_otherwise_is_malformed() {
    for line in [
        "PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\rx",
        "PROXY TCP4 192.0.2.1 198.51.100.2 56324\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 56324 443 \r\n",
        "PROXY TCP4 192.0.2.1  198.51.100.2 56324 443\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 56324 65536\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 +6324 443\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 056324 443\r\n",
        "PROXY TCP4 192.0.2.01 198.51.100.2 56324 443\r\n",
        "PROXY TCP4 ::1 ::1 56324 443\r\n",
        "PROXY TCP6 192.0.2.1 198.51.100.2 56324 443\r\n",
        "PROXY TCP6 fe80::1%eth0 ::1 56324 443\r\n",
        "PROXY UDP4 192.0.2.1 198.51.100.2 56324 443\r\n",
        "PROXY tcp4 192.0.2.1 198.51.100.2 56324 443\r\n",
        "PROXY \r\n",
        "PROXY  TCP4 192.0.2.1 198.51.100.2 56324 443\r\n",
        "PROXY UNKNOWN\nGET / HTTP/1.1\r\n",
    ] {
        check_fault(line.as_bytes(), Fault::Malformed);
    }
    check_fault(b"PROXY UNKNOWN \xff\r\n", Fault::Malformed);
    let endless = format!("PROXY UNKNOWN {}", "x".repeat(92));
    assert_eq!(read(&endless.as_bytes()[..105]), Ok(None));
    check_fault(endless.as_bytes(), Fault::Malformed);
}

#[test]
fn something_else_is_no_header_from_its_first_byte_on() {
    for bytes in [
        "G",
        "GET / HTTP/1.1\r\n",
        "P RI",
        "PRI * HTTP/2.0\r\n\r\n",
        "PROXYTCP4",
        "proxy TCP4",
        "\r\nGET",
        "\x16\x03\x01",
    ] {
        check_fault(bytes.as_bytes(), Fault::Missing);
    }
    check_fault(b"\r\n\r\n\0\r\nQUIT\r", Fault::Missing);
}

#[test]
fn reads_a_block_of_version_2() {
    check(&version_2(0x21, 0x11, &BETWEEN_4), said("192.0.2.1:56324", "198.51.100.2:443"));
    let mut between_6 = Vec::new();
    between_6.extend_from_slice(&"2001:db8::1".parse::<std::net::Ipv6Addr>().unwrap().octets());
    between_6.extend_from_slice(&[0; 16]);
    between_6.extend_from_slice(&[0, 1, 0, 2]);
    check(&version_2(0x21, 0x21, &between_6), said("[2001:db8::1]:1", "[::]:2"));
    check(&version_2(0x21, 0x31, &[b'/'; 216]), Said::Client { client: ClientAddr::Local, reached: None });
    check(&version_2(0x21, 0x00, b""), Said::Nobody);
    check(&version_2(0x21, 0x00, b"whatever"), Said::Nobody);
    check(&version_2(0x20, 0x00, b""), Said::Nobody);
    check(&version_2(0x20, 0x11, &BETWEEN_4), Said::Nobody);
}

#[test]
fn what_a_sender_adds_is_passed_over_if_its_lengths_are_right() {
    let with = |added: &[u8]| version_2(0x21, 0x11, &[&BETWEEN_4, added].concat());
    let expected = said("192.0.2.1:56324", "198.51.100.2:443");
    check(&with(&[tlv(0x01, b"h2"), tlv(0x04, b""), tlv(0xEE, &[7; 500])].concat()), expected);
    for added in [&b"\x01"[..], b"\x01\x00", b"\x01\x00\x02h", b"\x01\x00\x01hx"] {
        check_fault(&with(added), Fault::Malformed);
    }
    check(&with(&tlv(0xEE, &[7; BYTES_MAX - 16 - 12 - 3])), expected);
    check_fault(&with(&tlv(0xEE, &[7; BYTES_MAX - 16 - 12 - 2]))[..16], Fault::Malformed);
}

#[test]
fn a_checksum_is_verified_where_it_is_sent() {
    let whole = |sum: [u8; 4]| {
        let added = [tlv(0x01, b"h2"), tlv(0x03, &sum), tlv(0x04, b"x")].concat();
        version_2(0x21, 0x11, &[&BETWEEN_4, added.as_slice()].concat())
    };
    let sum = crc32c::of(&[&whole([0; 4])]).to_be_bytes();
    check(&whole(sum), said("192.0.2.1:56324", "198.51.100.2:443"));
    check_fault(&whole([sum[0] ^ 1, sum[1], sum[2], sum[3]]), Fault::Malformed);
    let short = version_2(0x21, 0x11, &[&BETWEEN_4, tlv(0x03, &[0; 3]).as_slice()].concat());
    check_fault(&short, Fault::Malformed);
}

#[test]
fn a_block_of_another_kind_is_malformed() {
    for (command, family) in [(0x11, 0x11), (0x01, 0x11), (0x22, 0x11), (0x21, 0x41), (0x21, 0x13), (0x21, 0xFF)] {
        check_fault(&version_2(command, family, &BETWEEN_4), Fault::Malformed);
    }
    check_fault(&version_2(0x21, 0x11, &BETWEEN_4[..11]), Fault::Malformed);
    check_fault(&version_2(0x21, 0x21, &[0; 35]), Fault::Malformed);
    check_fault(&version_2(0x21, 0x31, &[0; 215]), Fault::Malformed);
}

#[test]
fn a_client_is_named_to_a_backend_in_either_version() {
    let check = |client: &str, reached: Option<&str>, expected: &str| {
        let sent = header(ProxyProtocol::V1, address(client).into(), reached.map(address));
        assert_eq!(String::from_utf8(sent).unwrap(), expected);
    };
    check("192.0.2.1:5", Some("198.51.100.2:443"), "PROXY TCP4 192.0.2.1 198.51.100.2 5 443\r\n");
    check("[2001:db8::1]:5", Some("[::1]:443"), "PROXY TCP6 2001:db8::1 ::1 5 443\r\n");
    check("[::ffff:192.0.2.1]:5", Some("[::ffff:198.51.100.2]:443"), "PROXY TCP4 192.0.2.1 198.51.100.2 5 443\r\n");
    check("192.0.2.1:5", Some("[::1]:443"), "PROXY TCP6 ::ffff:192.0.2.1 ::1 5 443\r\n");
    check("192.0.2.1:0", None, "PROXY TCP4 192.0.2.1 0.0.0.0 0 0\r\n");
    check("[2001:db8::1]:5", None, "PROXY TCP6 2001:db8::1 :: 5 0\r\n");
    for version in [ProxyProtocol::V1, ProxyProtocol::V2] {
        assert_eq!(read(&header(version, ClientAddr::Local, None)).unwrap().unwrap().0, Said::Nobody);
        assert_eq!(read(&own_header(version)).unwrap().unwrap().0, Said::Nobody);
    }
    assert_eq!(own_header(ProxyProtocol::V2), version_2(0x20, 0, b""));
    assert!(
        header(ProxyProtocol::Off, ClientAddr::Local, None).is_empty() && own_header(ProxyProtocol::Off).is_empty()
    );
}

fn any_address() -> impl Strategy<Value = SocketAddr> {
    (any::<std::net::IpAddr>(), any::<u16>()).prop_map(|(ip, port)| SocketAddr::new(ip.to_canonical(), port))
}

proptest! {
    #[test]
    fn what_is_written_reads_as_what_was_meant(client in any_address(), reached in any_address()) {
        for version in [ProxyProtocol::V1, ProxyProtocol::V2] {
            let bytes = header(version, client.into(), Some(reached));
            let (said, length) = read(&bytes).unwrap().unwrap();
            prop_assert_eq!(length, bytes.len());
            let Said::Client { client: ClientAddr::Ip(read_client), reached: Some(read_reached) } = said else { panic!("{said:?}") };
            prop_assert_eq!((read_client.ip().to_canonical(), read_client.port()), (client.ip(), client.port()));
            prop_assert_eq!((read_reached.ip().to_canonical(), read_reached.port()), (reached.ip(), reached.port()));
        }
    }

    /// More bytes never change what was decided, and a length never goes beyond what is there.
    #[test]
    fn the_same_wherever_the_bytes_are_split(
        start in prop_oneof![Just(&b""[..]), Just(&b"PROXY "[..]), Just(&b"PROXY TCP4 1.1.1.1 "[..]), Just(&b"\r\n\r\n\0\r\nQUIT\n\x21"[..])],
        rest in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let bytes = [start, rest.as_slice()].concat();
        let mut decided = None;
        for end in 0..=bytes.len() {
            let now = read(&bytes[..end]);
            if let Ok(Some((_, length))) = now {
                prop_assert!(length <= end);
            }
            match (&decided, now) {
                (None, Ok(None)) => {}
                (None, now) => decided = Some(now),
                (Some(before), now) => prop_assert_eq!(*before, now),
            }
        }
    }
}
