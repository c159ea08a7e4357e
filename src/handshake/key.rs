//! `Sec-WebSocket-Key` and the proof that answers it (RFC 6455 §1.3, §4.2.2). It does not know who made the key.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};

use super::Field;
use super::header_list::{Single, single};

/// What RFC 6455 §1.3 has every server append to the key.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// What a client of version 0 hides its two numbers in, instead.
pub const KEY1: &str = "Sec-WebSocket-Key1";
pub const KEY2: &str = "Sec-WebSocket-Key2";

/// The key of a request, in base64 as it stood there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key<'b>(&'b [u8]);

/// Why a request has no usable key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyError {
    Missing,
    /// Not base64 of 16 bytes, repeated, or beside the keys of a version-0 handshake.
    Malformed,
}

impl<'b> Key<'b> {
    pub fn read(fields: &'b [Field<'b>]) -> Result<Key<'b>, KeyError> {
        let legacy = has_legacy_key(fields);
        match single(fields, "Sec-WebSocket-Key") {
            Single::One(value) if is_nonce(value) && !legacy => Ok(Key(value)),
            Single::None if !legacy => Err(KeyError::Missing),
            Single::None | Single::One(_) | Single::Repeated => Err(KeyError::Malformed),
        }
    }

    /// A key of version 7 or 8, whose clients send other lengths than 16 bytes too.
    pub fn read_of_a_draft(fields: &'b [Field<'b>]) -> Result<Key<'b>, KeyError> {
        match (Key::read(fields), single(fields, "Sec-WebSocket-Key")) {
            (Err(KeyError::Malformed), Single::One(value)) if is_base64(value) && !has_legacy_key(fields) => {
                Ok(Key(value))
            }
            (read, _) => read,
        }
    }

    /// A key that a relaxed check let through: whatever stands in the only key line.
    pub fn as_it_stands(fields: &'b [Field<'b>]) -> Option<Key<'b>> {
        match single(fields, "Sec-WebSocket-Key") {
            Single::One(value) => Some(Key(value)),
            Single::None | Single::Repeated => None,
        }
    }

    pub fn accept(&self) -> Accept {
        let digest = Sha1::new().chain_update(self.0).chain_update(GUID).finalize();
        let mut text = [0; 28];
        STANDARD.encode_slice(digest, &mut text).expect("20 bytes are 28 characters of base64");
        Accept(text)
    }
}

/// The value that `Sec-WebSocket-Accept` must have: 28 characters of base64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accept([u8; 28]);

impl Accept {
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

fn has_legacy_key(fields: &[Field<'_>]) -> bool {
    fields.iter().any(|field| field.is(KEY1) || field.is(KEY2))
}

fn is_base64(value: &[u8]) -> bool {
    const MOST: usize = 128;
    let alphabet = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/=".contains(byte);
    (1..=MOST).contains(&value.len()) && value.iter().all(alphabet)
}

/// 16 bytes in base64: 22 characters and two signs of padding. The last character carries four unused bits, which
/// clients in the field do not always leave at zero, so they are not looked at.
fn is_nonce(value: &[u8]) -> bool {
    let alphabet = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'+' || *byte == b'/';
    value.len() == 24 && value[22..] == *b"==" && value[..22].iter().all(alphabet)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(values: &[&str], expected: Result<(), KeyError>) {
        let fields: Vec<Field> =
            values.iter().map(|value| Field { name: "Sec-WebSocket-Key", value: value.as_bytes() }).collect();
        assert_eq!(Key::read(&fields).map(|_| ()), expected, "{values:?}");
    }

    #[test]
    fn takes_exactly_one_key_of_16_bytes() {
        check(&["dGhlIHNhbXBsZSBub25jZQ=="], Ok(()));
        check(&[], Err(KeyError::Missing));
        check(&["dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZQ=="], Err(KeyError::Malformed));
        check(&[""], Err(KeyError::Malformed));
        check(&["dGhlIHNhbXBsZSBub25jZQ"], Err(KeyError::Malformed));
        check(&["dGhlIHNhbXBsZSBub25j"], Err(KeyError::Malformed));
        check(&["dGhlIHNhbXBsZSBub25jZQ=a"], Err(KeyError::Malformed));
        check(&["dGhl HNhbXBsZSBub25jZQ=="], Err(KeyError::Malformed));
    }

    #[test]
    fn a_key_beside_the_keys_of_version_0_is_malformed() {
        let fields = [
            Field { name: "Sec-WebSocket-Key", value: b"dGhlIHNhbXBsZSBub25jZQ==" },
            Field { name: "Sec-WebSocket-Key1", value: b"1 2" },
        ];
        assert_eq!(Key::read(&fields), Err(KeyError::Malformed));
        assert_eq!(Key::read(&fields[1..]), Err(KeyError::Malformed));
    }

    #[test]
    fn answers_the_sample_of_section_1_3() {
        assert_eq!(Key(b"dGhlIHNhbXBsZSBub25jZQ==").accept().as_bytes(), b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
