//! The opening handshake (RFC 6455 §4, RFC 9112): HTTP/1.1 heads in, typed requests and answers out.
//!
//! Everything here is a function of bytes. It does not know which versions, origins or subprotocols are welcome (that is
//! `policy`), nor where the bytes come from (that is `edge` and `dial`).

pub mod ask;
pub mod chunked;
pub mod extension;
pub mod header_list;
pub mod hixie;
pub mod key;
pub mod origin;
pub mod request;
pub mod response;
pub mod scan;
pub mod subprotocol;
pub mod version;

pub use key::Key;
pub use request::{Head, HeadError, Intent};
pub use scan::{HeadScan, Scan};
pub use version::{Asked, Version, VersionList};

/// One header line. The name keeps the sender's spelling; the value is trimmed of the white space around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'b> {
    pub name: &'b str,
    pub value: &'b [u8],
}

impl Field<'_> {
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }
}
