//! The header of the PROXY protocol (HAProxy, `proxy-protocol.txt`), versions 1 and 2: what a proxy says of its client before
//! anything else on a connection. Bytes in, who it is out, and the other way round. It knows no socket, and not whose word counts.

mod binary;
mod crc32c;
#[cfg(test)]
mod tests;
mod text;
mod tlv;
mod write;

use std::net::SocketAddr;

use crate::address::ClientAddr;

pub use write::{header, own_header};

/// The longest header that is read. What a sender adds behind the addresses is passed over, but it has to be short.
pub const BYTES_MAX: usize = 4096;

/// What every header of version 2 begins with.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// What every header of version 1 begins with.
const WORD: &[u8; 6] = b"PROXY ";

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// Who is at the other end of the proxy, and the address that was reached there.
    Client { client: ClientAddr, reached: Option<SocketAddr> },
    /// The proxy speaks for itself (`LOCAL`, as its health checks do), or cannot name its client (`UNKNOWN`).
    Nobody,
}

/// Why bytes cannot become a header any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Something else begins here.
    Missing,
    Malformed,
}

/// The header at the beginning and its length; `None` while it is not whole.
///
/// # Errors
/// When no bytes that follow can make it a header.
pub fn read(bytes: &[u8]) -> Result<Option<(Said, usize)>, Fault> {
    let begins = |with: &[u8]| bytes.iter().zip(with).all(|(byte, expected)| byte == expected);
    if begins(SIGNATURE) {
        binary::read(bytes)
    } else if begins(WORD) {
        text::read(bytes)
    } else {
        Err(Fault::Missing)
    }
}
