//! Version 2: a fixed beginning, addresses by their family, then whatever the sender adds. It does not know version 1.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{BYTES_MAX, Fault, SIGNATURE, Said, tlv};
use crate::address::ClientAddr;

/// Signature, version and command, family and transport, and the length of what follows.
pub const FIXED_BYTES: usize = SIGNATURE.len() + 4;

pub const VERSION_2: u8 = 0x20;
pub const LOCAL: u8 = 0x0;
pub const PROXY: u8 = 0x1;

pub const UNSPECIFIED: u8 = 0x00;
pub const TCP_4: u8 = 0x11;
pub const TCP_6: u8 = 0x21;

/// The higher half of the byte of the family.
const INET: u8 = 0x1;
const INET_6: u8 = 0x2;
const UNIX: u8 = 0x3;
/// The lower half: none, a stream, datagrams.
const TRANSPORT_MAX: u8 = 0x2;

/// Two paths of 108 bytes.
const UNIX_BYTES: usize = 216;

/// Of bytes that begin with the signature, as far as they go.
pub fn read(bytes: &[u8]) -> Result<Option<(Said, usize)>, Fault> {
    let Some((fixed, rest)) = bytes.split_first_chunk::<FIXED_BYTES>() else { return Ok(None) };
    let [.., command, family, high, low] = *fixed;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if command & 0xF0 != VERSION_2 || FIXED_BYTES + length > BYTES_MAX {
        return Err(Fault::Malformed);
    }
    let Some(body) = rest.get(..length) else { return Ok(None) };
    let whole = &bytes[..FIXED_BYTES + length];
    let said = match command & 0x0F {
        LOCAL => Some(Said::Nobody),
        PROXY if family & 0x0F <= TRANSPORT_MAX => client(family >> 4, body, whole),
        _ => None,
    };
    said.map(|said| Some((said, whole.len()))).ok_or(Fault::Malformed)
}

fn client(family: u8, body: &[u8], whole: &[u8]) -> Option<Said> {
    let (said, added) = match family {
        // Nothing is said of the addresses, so nothing tells where what is added begins.
        0 => return Some(Said::Nobody),
        INET => {
            let (block, added) = body.split_first_chunk::<12>()?;
            let [a, b, c, d, e, f, g, h, ports @ ..] = *block;
            (between(Ipv4Addr::new(a, b, c, d), Ipv4Addr::new(e, f, g, h), ports), added)
        }
        INET_6 => {
            let (from, rest) = body.split_first_chunk::<16>()?;
            let (to, rest) = rest.split_first_chunk::<16>()?;
            let (ports, added) = rest.split_first_chunk::<4>()?;
            (between(Ipv6Addr::from(*from), Ipv6Addr::from(*to), *ports), added)
        }
        UNIX => {
            let added = body.get(UNIX_BYTES..)?;
            (Said::Client { client: ClientAddr::Local, reached: None }, added)
        }
        _ => return None,
    };
    tlv::are_right(added, whole).then_some(said)
}

fn between<A: Into<std::net::IpAddr>>(from: A, to: A, ports: [u8; 4]) -> Said {
    let [high_from, low_from, high_to, low_to] = ports;
    let client = SocketAddr::new(from.into(), u16::from_be_bytes([high_from, low_from]));
    let reached = SocketAddr::new(to.into(), u16::from_be_bytes([high_to, low_to]));
    Said::Client { client: client.into(), reached: Some(reached) }
}
