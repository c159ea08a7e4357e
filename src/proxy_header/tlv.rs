//! What a sender adds to a header of version 2: type, length, value, one after the other. Lengths and the checksum are verified,
//! everything else is passed over.

use super::crc32c;

/// `PP2_TYPE_CRC32C`.
const CHECKSUM: u8 = 0x03;

/// Whether they fill `added` exactly, and the checksum, where there is one, is that of the `whole` header, whose end `added` is.
pub fn are_right(added: &[u8], whole: &[u8]) -> bool {
    let mut rest = added;
    while let Some((&[kind, high, low], value)) = rest.split_first_chunk::<3>() {
        let Some((value, behind)) = value.split_at_checked(usize::from(u16::from_be_bytes([high, low]))) else {
            return false;
        };
        if kind == CHECKSUM && !is_right(value, whole, behind.len()) {
            return false;
        }
        rest = behind;
    }
    rest.is_empty()
}

/// It is made with zeros in its own place.
fn is_right(value: &[u8], whole: &[u8], behind: usize) -> bool {
    let Ok(value) = <[u8; 4]>::try_from(value) else { return false };
    let at = whole.len() - behind - value.len();
    let pieces = [&whole[..at], &[0; 4], &whole[at + value.len()..]];
    crc32c::of(&pieces) == u32::from_be_bytes(value)
}
