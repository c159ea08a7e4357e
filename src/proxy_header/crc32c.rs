//! CRC-32C (RFC 9260, appendix A). It knows nothing of what it is made of.

/// The polynomial of Castagnoli, lowest bit first.
const POLYNOMIAL: u32 = 0x82F6_3B78;

const TABLE: [u32; 256] = table();

const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut byte: u32 = 0;
    while byte < 256 {
        let mut value = byte;
        let mut bit = 0;
        while bit < 8 {
            value = if value & 1 == 1 { (value >> 1) ^ POLYNOMIAL } else { value >> 1 };
            bit += 1;
        }
        table[byte as usize] = value;
        byte += 1;
    }
    table
}

pub fn of(pieces: &[&[u8]]) -> u32 {
    let bytes = pieces.iter().copied().flatten();
    !bytes.fold(!0, |sum, &byte| (sum >> 8) ^ TABLE[usize::from((sum ^ u32::from(byte)).to_le_bytes()[0])])
}

#[cfg(test)]
mod tests {
    #[test]
    fn is_the_one_that_everybody_checks_with() {
        assert_eq!(super::of(&[b"1234", b"56789"]), 0xE306_9283);
    }
}
