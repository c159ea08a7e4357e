//! The proof of a version-0 handshake (draft-hixie-thewebsocketprotocol-76 §1.3, §4.1, §5.2): two numbers hidden in two header
//! lines, eight bytes behind the head, and the MD5 digest of all three. It does not know who asks.

use md5::{Digest as _, Md5};

use super::Field;
use super::header_list::{Single, single};
use super::key::{KEY1, KEY2, KeyError};

/// What both drafts of hixie-76 show after the status of a 101; nothing depends on it.
pub const REASON: &str = "WebSocket Protocol Handshake";

/// Bytes of the third key, which stands behind the head of the request.
pub const KEY3_BYTES: usize = 8;

/// Bytes of the digest, which stands behind the head of the answer.
pub const DIGEST_BYTES: usize = 16;

/// Whether a request is a handshake of hixie-75, by what it says and by what it does not: no line of a later draft. It proves
/// nothing, and its lines are compared byte for byte (draft-hixie-thewebsocketprotocol-75 §4.1).
pub fn is_75(fields: &[Field<'_>]) -> bool {
    const PREFIX: &str = "sec-websocket-";
    let of_a_later_draft =
        |field: &Field<'_>| field.name.get(..PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(PREFIX));
    single(fields, "Upgrade") == Single::One(b"WebSocket")
        && single(fields, "Connection") == Single::One(b"Upgrade")
        && matches!(single(fields, "Origin"), Single::One(_))
        && !fields.iter().any(of_a_later_draft)
}

/// The numbers of Key1 and Key2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbers(u32, u32);

impl Numbers {
    /// # Errors
    /// When one of the keys is missing, repeated, or hides no number.
    pub fn read(fields: &[Field<'_>]) -> Result<Numbers, KeyError> {
        let number = |name| match single(fields, name) {
            Single::One(value) => number(value).ok_or(KeyError::Malformed),
            Single::None | Single::Repeated => Err(KeyError::Malformed),
        };
        Ok(Numbers(number(KEY1)?, number(KEY2)?))
    }

    /// The 16 bytes that prove that the keys were read.
    pub fn digest(self, key3: &[u8; KEY3_BYTES]) -> [u8; DIGEST_BYTES] {
        Md5::new()
            .chain_update(self.0.to_be_bytes())
            .chain_update(self.1.to_be_bytes())
            .chain_update(key3)
            .finalize()
            .into()
    }
}

/// All digits of the value as one number, divided by the count of its spaces. The value is arbitrary beyond that.
fn number(value: &[u8]) -> Option<u32> {
    let spaces = value.iter().filter(|byte| **byte == b' ').count() as u64;
    let digits = value.iter().filter(|byte| byte.is_ascii_digit());
    let product = digits
        .clone()
        .try_fold(0_u64, |product, digit| product.checked_mul(10)?.checked_add(u64::from(digit - b'0')))?;
    digits.clone().next()?;
    if spaces == 0 || product % spaces != 0 {
        return None;
    }
    u32::try_from(product / spaces).ok()
}

/// The keys of a request of the gateway's own.
#[derive(Clone, Debug)]
pub struct Keys {
    pub key1: String,
    pub key2: String,
    pub key3: [u8; KEY3_BYTES],
    numbers: Numbers,
}

impl Keys {
    /// As the draft's §4.1 has a client make them, steps 16 to 26; it leaves room for smaller numbers and plainer noise, and
    /// servers that are picky about both exist.
    pub fn make(chance: &mut fastrand::Rng) -> Keys {
        let (number1, key1) = hidden(chance);
        let (number2, key2) = hidden(chance);
        Keys { key1, key2, key3: chance.u64(..).to_ne_bytes(), numbers: Numbers(number1, number2) }
    }

    /// What a server answers that read them right.
    pub fn digest(&self) -> [u8; DIGEST_BYTES] {
        self.numbers.digest(&self.key3)
    }
}

/// A number that is not 0, and a line that hides it between 1 to 12 letters and 1 to 12 spaces, none of them at an end.
fn hidden(chance: &mut fastrand::Rng) -> (u32, String) {
    let spaces = chance.u32(1..=12);
    let number = chance.u32(1..=u32::MAX / spaces);
    let mut key = (u64::from(number) * u64::from(spaces)).to_string();
    for _ in 0..chance.u32(1..=12) {
        let letter = chance.alphabetic();
        key.insert(chance.usize(0..=key.len()), letter);
    }
    for _ in 0..spaces {
        key.insert(chance.usize(1..key.len()), ' ');
    }
    (number, key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(key1: &str, key2: &str, key3: &[u8; KEY3_BYTES], expected: Result<&[u8; DIGEST_BYTES], KeyError>) {
        let fields = [Field { name: KEY1, value: key1.as_bytes() }, Field { name: KEY2, value: key2.as_bytes() }];
        let digest = Numbers::read(&fields).map(|numbers| numbers.digest(key3));
        assert_eq!(digest, expected.copied(), "{key1:?} {key2:?}");
    }

    #[test]
    fn answers_the_samples_of_the_draft() {
        check(
            "18x 6]8vM;54 *(5:  {   U1]8  z [  8",
            "1_ tx7X d  <  nw  334J702) 7]o}` 0",
            b"Tm[K T2u",
            Ok(b"fQJ,fN/4F4!~K~MH"),
        );
        check("4 @1  46546xW%0l 1 5", "12998 5 Y3 1  .P00", b"^n:ds[4U", Ok(b"8jKS'y:G*Co,Wxa-"));
    }

    #[test]
    fn a_key_hides_exactly_one_number() {
        let good = "4 @1  46546xW%0l 1 5";
        for bad in ["", "12", "a b", "1 2 3", "42949672960 ", "99999999999999999999999 9", "4294967296 x"] {
            check(bad, good, b"12345678", Err(KeyError::Malformed));
            check(good, bad, b"12345678", Err(KeyError::Malformed));
        }
        assert_eq!(number(b"0 "), Some(0));
        assert_eq!(number(b"4294967295 x"), Some(u32::MAX));
        let one = [Field { name: KEY1, value: good.as_bytes() }];
        assert_eq!(Numbers::read(&one), Err(KeyError::Malformed));
        let twice = [one[0], one[0], Field { name: KEY2, value: good.as_bytes() }];
        assert_eq!(Numbers::read(&twice), Err(KeyError::Malformed));
    }

    #[test]
    fn keys_of_our_own_are_what_a_server_expects() {
        let mut chance = fastrand::Rng::with_seed(7);
        for _ in 0..1000 {
            let keys = Keys::make(&mut chance);
            let fields =
                [Field { name: KEY1, value: keys.key1.as_bytes() }, Field { name: KEY2, value: keys.key2.as_bytes() }];
            assert_eq!(Numbers::read(&fields).map(|numbers| numbers.digest(&keys.key3)), Ok(keys.digest()));
            for key in [&keys.key1, &keys.key2] {
                assert_eq!(key.trim(), key);
                assert!(key.bytes().any(|byte| byte.is_ascii_alphabetic()));
            }
        }
    }
}
