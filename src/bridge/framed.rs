//! The port of a side that has frames: 7, 8 and 13 share their framing, and differ in which lengths, close codes and texts they
//! let pass. Nothing changes on the way to it.

use super::Fault;
use crate::dialect::Dialect;
use crate::wire::{CloseCode, FrameHeader, Lengths, Opcode, Utf8Check, mask};

/// ```text
///   Border ──header of a data frame──► Payload ──its last byte──► Border
/// ```
#[derive(Debug)]
pub struct FramedPort {
    /// hybi-07 and -08 to -12 let a length be longer than it needs.
    lengths: Lengths,
    /// What 7 and 8 called 1004, 13 calls 1009.
    has_old_codes: bool,
    /// `None` where the other side does not ask for it, or checks it itself.
    utf8: Option<Utf8Check>,
    /// The message at hand is a text.
    is_text: bool,
    payload: Option<Payload>,
}

/// Of the data frame at hand.
#[derive(Clone, Copy, Debug)]
struct Payload {
    left: u64,
    key: [u8; 4],
    /// How far `key` is into its four bytes.
    offset: usize,
    is_final: bool,
}

impl FramedPort {
    pub fn new(own: Dialect, other: Dialect) -> FramedPort {
        let is_old = own != Dialect::Rfc6455;
        FramedPort {
            lengths: if is_old { Lengths::Any } else { Lengths::Shortest },
            has_old_codes: is_old,
            utf8: (other == Dialect::Rfc6455).then(Utf8Check::default),
            is_text: false,
            payload: None,
        }
    }

    pub fn decode(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<usize, Fault> {
        let mut at = 0;
        loop {
            at += self.take_payload(&bytes[at..], out)?;
            if at == bytes.len() || self.payload.is_some() {
                return Ok(at);
            }
            let rest = &bytes[at..];
            let parsed = FrameHeader::parse_with(rest, self.lengths).map_err(|_| Fault::Frame)?;
            let Some((header, header_bytes)) = parsed else { return Ok(at) };
            if header.opcode.is_control() {
                let end = header_bytes + usize::try_from(header.payload_bytes).map_err(|_| Fault::Frame)?;
                let Some(payload) = rest.get(header_bytes..end) else { return Ok(at) };
                self.control(&header, payload, out);
                at += end;
            } else {
                self.enter(&header);
                if header.payload_bytes == 0 {
                    // It is whole with its header, which may not go on if it ends a text that is none.
                    self.take_payload(&[], out)?;
                }
                header.write_to(out);
                at += header_bytes;
            }
        }
    }

    fn enter(&mut self, header: &FrameHeader) {
        if header.opcode != Opcode::Continuation {
            self.is_text = header.opcode == Opcode::Text;
        }
        self.payload = Some(Payload {
            left: header.payload_bytes,
            key: header.mask.unwrap_or_default(),
            offset: 0,
            is_final: header.is_final,
        });
    }

    fn take_payload(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<usize, Fault> {
        let Some(payload) = &mut self.payload else { return Ok(0) };
        let taken = usize::try_from(payload.left).unwrap_or(usize::MAX).min(bytes.len());
        let bytes = &bytes[..taken];
        if let (Some(utf8), true) = (&mut self.utf8, self.is_text) {
            check_text(utf8, bytes, payload)?;
        }
        out.extend_from_slice(bytes);
        payload.left -= taken as u64;
        payload.offset = (payload.offset + taken) % 4;
        if payload.left == 0 {
            self.payload = None;
        }
        Ok(taken)
    }

    fn control(&self, header: &FrameHeader, payload: &[u8], out: &mut Vec<u8>) {
        if header.opcode != Opcode::Close {
            header.write_to(out);
            out.extend_from_slice(payload);
            return;
        }
        let key = header.mask.unwrap_or_default();
        let mut payload = payload.to_vec();
        mask(&mut payload, key, 0);
        let mut cleaned = self.cleaned(&payload).to_vec();
        let header = FrameHeader { payload_bytes: cleaned.len() as u64, ..*header };
        header.write_to(out);
        mask(&mut cleaned, key, 0);
        out.append(&mut cleaned);
    }

    /// The payload of a Close as it may go on: its code where that is one, its reason where that is a text. Real servers close
    /// with codes that are none, and mean no harm.
    fn cleaned<'p>(&self, payload: &'p [u8]) -> std::borrow::Cow<'p, [u8]> {
        let Some((&[high, low], reason)) = payload.split_first_chunk::<2>() else { return payload[..0].into() };
        let code = CloseCode(u16::from_be_bytes([high, low]));
        let is_text = std::str::from_utf8(reason).is_ok();
        match code {
            CloseCode::FRAME_TOO_LARGE if self.has_old_codes => {
                let reason = if is_text { reason } else { &[] };
                [&CloseCode::MESSAGE_TOO_BIG.0.to_be_bytes(), reason].concat().into()
            }
            code if !code.may_be_sent() => payload[..0].into(),
            _ if is_text => payload.into(),
            _ => payload[..2].into(),
        }
    }
}

/// Unmasked piece by piece, because what goes on keeps its mask.
fn check_text(utf8: &mut Utf8Check, bytes: &[u8], payload: &Payload) -> Result<(), Fault> {
    let mut offset = payload.offset;
    let mut plain = [0; 4096];
    for piece in bytes.chunks(plain.len()) {
        let plain = &mut plain[..piece.len()];
        plain.copy_from_slice(piece);
        mask(plain, payload.key, offset);
        offset += piece.len();
        utf8.push(plain).map_err(|_| Fault::Text)?;
    }
    if payload.is_final && bytes.len() as u64 == payload.left {
        utf8.finish().map_err(|_| Fault::Text)?;
    }
    Ok(())
}
