//! Close codes (RFC 6455 §7.4).

/// Why a side closes, as its Close frame says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CloseCode(pub u16);

impl CloseCode {
    /// A Close frame came without a code. Never on the wire.
    pub const NO_STATUS: CloseCode = CloseCode(1005);

    pub const NORMAL: CloseCode = CloseCode(1000);

    /// What hybi-06 to -12 called it; RFC 6455 has no meaning for it.
    pub const FRAME_TOO_LARGE: CloseCode = CloseCode(1004);

    pub const MESSAGE_TOO_BIG: CloseCode = CloseCode(1009);

    /// Whether an endpoint may put it on the wire: what RFC 6455 §7.4.1 defines, what was registered since (1012 to 1014),
    /// and the ranges that libraries and applications use. 1005, 1006 and 1015 mean that no Close came, and 1004 means nothing.
    pub fn may_be_sent(self) -> bool {
        matches!(self.0, 1000..=1003 | 1007..=1014 | 3000..=4999)
    }

    /// A closed set, for a label: the code up to 1015, the range above, `other` for what may not be.
    pub fn label(self) -> &'static str {
        match self.0 {
            1000..=1015 => BELOW_1016[usize::from(self.0 - 1000)],
            3000..=3999 => "3xxx",
            4000..=4999 => "4xxx",
            _ => "other",
        }
    }
}

const BELOW_1016: [&str; 16] = [
    "1000", "1001", "1002", "1003", "1004", "1005", "1006", "1007", "1008", "1009", "1010", "1011", "1012", "1013",
    "1014", "1015",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_that_stand_for_the_lack_of_one_are_never_sent() {
        for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535] {
            assert!(!CloseCode(code).may_be_sent(), "{code}");
        }
        for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1014, 3000, 3999, 4000, 4999] {
            assert!(CloseCode(code).may_be_sent(), "{code}");
        }
    }

    #[test]
    fn a_label_is_of_a_small_set() {
        for (code, label) in
            [(1000, "1000"), (1015, "1015"), (3999, "3xxx"), (4000, "4xxx"), (5000, "other"), (0, "other")]
        {
            assert_eq!(CloseCode(code).label(), label);
        }
    }
}
