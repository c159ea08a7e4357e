//! Frames as RFC 6455 §5 puts them on the wire: headers, opcodes, masks, close codes, legal order, and a reader of one
//! direction that never copies payload. It does not know what is done about a frame, nor who sent it.

mod close;
mod error;
#[doc(hidden)]
pub mod fuzz;
mod header;
mod hixie;
mod opcode;
mod own;
mod reader;
mod utf8;

pub use close::CloseCode;
pub use error::FrameError;
pub use header::{FrameHeader, HEADER_BYTES_MAX, Lengths};
pub use hixie::{CLOSE, HixieError, HixieEvent, HixieReader, TEXT_END, TEXT_START};
pub use opcode::Opcode;
pub use own::{OwnFrame, PING_BYTES};
pub use reader::{FrameReader, Length, Masking, Next, Reserved};
pub use utf8::{NotUtf8, Utf8Check};

/// Payload of a control frame, at most (RFC 6455 §5.5).
pub const CONTROL_PAYLOAD_MAX: usize = 125;

/// A whole control frame, at most: two bytes, four of mask, the payload.
pub const CONTROL_FRAME_MAX: usize = 2 + 4 + CONTROL_PAYLOAD_MAX;

/// Applies a mask to bytes that begin at `offset` of the payload, or takes it away (RFC 6455 §5.3).
pub fn mask(bytes: &mut [u8], key: [u8; 4], offset: usize) {
    let key = std::array::from_fn(|at| key[(offset + at) % 4]);
    let wide = u32::from_ne_bytes(key);
    let (words, rest) = bytes.as_chunks_mut::<4>();
    for word in words {
        *word = (u32::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(key) {
        *byte ^= key;
    }
}
