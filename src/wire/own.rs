//! The frames that the gateway itself sends: Ping and Close, always unfragmented.

use super::{CloseCode, FrameHeader, Opcode, mask};

/// Payload of a Ping of ours.
pub const PING_BYTES: usize = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnFrame {
    /// The payload tells the Pong that answers it from any other.
    Ping([u8; PING_BYTES]),
    /// `reason` is short ASCII, so that the payload fits a control frame.
    Close { code: CloseCode, reason: &'static str },
}

impl OwnFrame {
    /// The frame as it goes on the wire; `key` is the mask, which a frame to a server must have (RFC 6455 §5.1).
    pub fn to_bytes(self, key: Option<[u8; 4]>) -> Vec<u8> {
        let (opcode, mut payload) = match self {
            OwnFrame::Ping(payload) => (Opcode::Ping, payload.to_vec()),
            OwnFrame::Close { code, reason } => {
                let mut payload = code.0.to_be_bytes().to_vec();
                payload.extend_from_slice(reason.as_bytes());
                (Opcode::Close, payload)
            }
        };
        let header =
            FrameHeader { opcode, is_final: true, reserved: 0, mask: key, payload_bytes: payload.len() as u64 };
        let mut bytes = Vec::with_capacity(payload.len() + 6);
        header.write_to(&mut bytes);
        if let Some(key) = key {
            mask(&mut payload, key, 0);
        }
        bytes.append(&mut payload);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_to_a_client_is_bare() {
        let close = OwnFrame::Close { code: CloseCode(1001), reason: "drained" };
        assert_eq!(close.to_bytes(None), b"\x88\x09\x03\xE9drained");
        assert_eq!(OwnFrame::Ping(*b"12345678").to_bytes(None), b"\x89\x0812345678");
    }

    #[test]
    fn a_frame_to_a_server_is_masked() {
        let close = OwnFrame::Close { code: CloseCode(1001), reason: "" };
        assert_eq!(close.to_bytes(Some([0xFF, 0, 1, 2])), b"\x88\x82\xFF\x00\x01\x02\xFC\xE9");
    }
}
