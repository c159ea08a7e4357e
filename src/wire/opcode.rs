//! What a frame is (RFC 6455 §5.2, §11.8).

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Opcode {
    Continuation,
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

impl Opcode {
    pub const ALL: [Opcode; 6] =
        [Opcode::Continuation, Opcode::Text, Opcode::Binary, Opcode::Close, Opcode::Ping, Opcode::Pong];

    /// `None` for the ten that are reserved.
    pub fn from_bits(bits: u8) -> Option<Opcode> {
        match bits {
            0x0 => Some(Opcode::Continuation),
            0x1 => Some(Opcode::Text),
            0x2 => Some(Opcode::Binary),
            0x8 => Some(Opcode::Close),
            0x9 => Some(Opcode::Ping),
            0xA => Some(Opcode::Pong),
            _ => None,
        }
    }

    pub fn bits(self) -> u8 {
        match self {
            Opcode::Continuation => 0x0,
            Opcode::Text => 0x1,
            Opcode::Binary => 0x2,
            Opcode::Close => 0x8,
            Opcode::Ping => 0x9,
            Opcode::Pong => 0xA,
        }
    }

    /// Close, Ping and Pong: at most 125 bytes, never fragmented, allowed between the fragments of a message.
    pub fn is_control(self) -> bool {
        matches!(self, Opcode::Close | Opcode::Ping | Opcode::Pong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_and_names_are_one_to_one() {
        let known: Vec<Opcode> = (0..=0xFF).filter_map(Opcode::from_bits).collect();
        assert_eq!(known, Opcode::ALL);
        assert!(known.iter().all(|opcode| Opcode::from_bits(opcode.bits()) == Some(*opcode)));
    }

    #[test]
    fn control_frames_are_those_with_the_high_bit() {
        for opcode in Opcode::ALL {
            assert_eq!(opcode.is_control(), opcode.bits() & 0x8 != 0, "{opcode:?}");
        }
    }
}
