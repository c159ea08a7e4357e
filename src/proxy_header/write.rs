//! The header towards a backend. It does not know who is at the other end.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::SIGNATURE;
use super::binary::{LOCAL, PROXY, TCP_4, TCP_6, UNSPECIFIED, VERSION_2};
use crate::address::ClientAddr;
use crate::config::model::ProxyProtocol;

/// For a connection on behalf of a client, to be sent before anything else, TLS included. `reached` is the address that it connected
/// to. Nothing where the upstream wants none.
pub fn header(version: ProxyProtocol, client: ClientAddr, reached: Option<SocketAddr>) -> Vec<u8> {
    let ends = match client {
        ClientAddr::Ip(client) => Some(in_one_family(client, reached)),
        ClientAddr::Local => None,
    };
    match (version, ends) {
        (ProxyProtocol::Off, _) => Vec::new(),
        (ProxyProtocol::V1, Some((from, to))) => line(from, to),
        (ProxyProtocol::V1, None) => UNKNOWN.to_vec(),
        (ProxyProtocol::V2, Some((from, to))) => block(from, to),
        (ProxyProtocol::V2, None) => fixed(PROXY, UNSPECIFIED, 0),
    }
}

/// For a connection of the gateway's own, such as a health check.
pub fn own_header(version: ProxyProtocol) -> Vec<u8> {
    match version {
        ProxyProtocol::Off => Vec::new(),
        ProxyProtocol::V1 => UNKNOWN.to_vec(),
        ProxyProtocol::V2 => fixed(LOCAL, UNSPECIFIED, 0),
    }
}

const UNKNOWN: &[u8] = b"PROXY UNKNOWN\r\n";

/// A header names two addresses of one family; where they differ, IPv4 is written as IPv6 (RFC 4291 §2.5.5.2).
fn in_one_family(client: SocketAddr, reached: Option<SocketAddr>) -> (SocketAddr, SocketAddr) {
    let canonical = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
    let wide = |address: SocketAddr| match address.ip() {
        IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), address.port()),
        IpAddr::V6(_) => address,
    };
    let client = canonical(client);
    match reached.map(canonical) {
        Some(reached) if reached.is_ipv4() == client.is_ipv4() => (client, reached),
        Some(reached) => (wide(client), wide(reached)),
        None if client.is_ipv4() => (client, SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0)),
        None => (client, SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0)),
    }
}

fn line(from: SocketAddr, to: SocketAddr) -> Vec<u8> {
    let family = if from.is_ipv4() { "TCP4" } else { "TCP6" };
    format!("PROXY {family} {} {} {} {}\r\n", from.ip(), to.ip(), from.port(), to.port()).into_bytes()
}

fn block(from: SocketAddr, to: SocketAddr) -> Vec<u8> {
    let mut addresses = Vec::with_capacity(36);
    for address in [from, to] {
        match address.ip() {
            IpAddr::V4(ip) => addresses.extend_from_slice(&ip.octets()),
            IpAddr::V6(ip) => addresses.extend_from_slice(&ip.octets()),
        }
    }
    addresses.extend_from_slice(&from.port().to_be_bytes());
    addresses.extend_from_slice(&to.port().to_be_bytes());
    let (family, length) = if from.is_ipv4() { (TCP_4, 12) } else { (TCP_6, 36) };
    let mut bytes = fixed(PROXY, family, length);
    bytes.append(&mut addresses);
    bytes
}

fn fixed(command: u8, family: u8, length: u16) -> Vec<u8> {
    let [high, low] = length.to_be_bytes();
    [SIGNATURE.as_slice(), &[VERSION_2 | command, family, high, low]].concat()
}
