//! Version 1: one line of text. It does not know version 2.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use super::{Fault, Said, WORD};

/// The longest line, its end included; after so many bytes without an end none can come.
const BYTES_MAX: usize = 107;

/// Of bytes that begin with [`WORD`], as far as they go.
pub fn read(bytes: &[u8]) -> Result<Option<(Said, usize)>, Fault> {
    let line = &bytes[..bytes.len().min(BYTES_MAX)];
    let Some(end) = line.iter().position(|byte| matches!(byte, b'\r' | b'\n')) else {
        return if line.len() < BYTES_MAX - 1 { Ok(None) } else { Err(Fault::Malformed) };
    };
    match line[end..] {
        [b'\r'] if line.len() < BYTES_MAX => return Ok(None),
        [b'\r', b'\n', ..] => {}
        _ => return Err(Fault::Malformed),
    }
    let said = line.get(WORD.len()..end).and_then(|said| std::str::from_utf8(said).ok()).ok_or(Fault::Malformed)?;
    Ok(Some((said_in(said)?, end + 2)))
}

fn said_in(text: &str) -> Result<Said, Fault> {
    let (family, rest) = text.split_once(' ').unwrap_or((text, ""));
    match family {
        "TCP4" => client::<Ipv4Addr>(rest),
        "TCP6" => client::<Ipv6Addr>(rest),
        // Whatever stands behind the word is to be ignored.
        "UNKNOWN" => Some(Said::Nobody),
        _ => None,
    }
    .ok_or(Fault::Malformed)
}

/// Both addresses, then both ports, each behind exactly one space.
fn client<A: FromStr + Into<IpAddr>>(text: &str) -> Option<Said> {
    let mut words = text.split(' ');
    let mut address = || words.next()?.parse::<A>().ok().map(Into::into);
    let (from, to): (IpAddr, IpAddr) = (address()?, address()?);
    let mut port = || words.next().and_then(port);
    let (client, reached) = (SocketAddr::new(from, port()?), SocketAddr::new(to, port()?));
    words.next().is_none().then_some(Said::Client { client: client.into(), reached: Some(reached) })
}

/// Without sign and leading zeros, which the standard library would take.
fn port(text: &str) -> Option<u16> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| is_number)
}
