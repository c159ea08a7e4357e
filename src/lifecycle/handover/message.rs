//! The messages of a hand-over as bytes. Whatever bytes come, they end in a message, in an error, or in the wish for more, and
//! never in more memory than [`BYTES_MAX`]. It does not know how they travel, nor the descriptors that travel beside them.

use serde::{Deserialize, Serialize};

use super::SOCKETS_MAX;
use crate::lifecycle::accepting::Place;
use crate::lifecycle::notify::Service;

/// Room for [`SOCKETS_MAX`] places with the longest names and addresses.
pub const BYTES_MAX: usize = 64 * 1024;

const MAGIC: [u8; 3] = *b"wsg";
/// Another one means that the messages below mean something else. A field more is none: who does not know it passes it over.
const VERSION: u8 = 1;
/// Magic, version, and the length of what follows, most significant byte first.
const HEADER_BYTES: usize = MAGIC.len() + 1 + size_of::<u32>();

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "message", rename_all = "kebab-case")]
pub enum Message {
    /// From the running process: these are my sockets, their descriptors in the same order.
    Offer { service: Service, places: Vec<Place> },
    /// From the successor: I accept on them. With its `INVOCATION_ID`.
    Serving { invocation: Option<String> },
    /// From the running process: I go on without you.
    Withdrawn,
}

/// Why bytes are no message, or a message cannot be bytes.
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    #[error("the peer does not speak of a hand-over")]
    NotOurs,
    #[error("the peer speaks another version of the hand-over: `{0}`")]
    OtherVersion(u8),
    #[error("a message is too long: `{0}` bytes")]
    TooLong(usize),
    #[error("more sockets than can be handed over: `{0}`")]
    TooManySockets(usize),
    #[error("a message cannot be read: {0}")]
    Malformed(#[from] serde_json::Error),
}

impl Message {
    /// # Errors
    /// When there is too much to be said in one message.
    pub fn encode(&self) -> Result<Vec<u8>, MessageError> {
        self.check()?;
        let body = serde_json::to_vec(self)?;
        let length = u32::try_from(body.len()).map_err(|_| MessageError::TooLong(body.len()))?;
        let mut bytes = Vec::with_capacity(HEADER_BYTES + body.len());
        bytes.extend_from_slice(&MAGIC);
        bytes.push(VERSION);
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(&body);
        if bytes.len() > BYTES_MAX { Err(MessageError::TooLong(bytes.len())) } else { Ok(bytes) }
    }

    /// The message at the beginning and its length; `None` while it is not whole.
    ///
    /// # Errors
    /// When no bytes that follow can make it a message.
    pub fn decode(bytes: &[u8]) -> Result<Option<(Message, usize)>, MessageError> {
        if !bytes.iter().zip(&MAGIC).all(|(byte, magic)| byte == magic) {
            return Err(MessageError::NotOurs);
        }
        let Some((header, rest)) = bytes.split_first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let [_, _, _, version, length @ ..] = *header;
        if version != VERSION {
            return Err(MessageError::OtherVersion(version));
        }
        let length = u32::from_be_bytes(length) as usize;
        if length > BYTES_MAX - HEADER_BYTES {
            return Err(MessageError::TooLong(length));
        }
        let Some(body) = rest.get(..length) else { return Ok(None) };
        let message: Message = serde_json::from_slice(body)?;
        message.check()?;
        Ok(Some((message, HEADER_BYTES + length)))
    }

    fn check(&self) -> Result<(), MessageError> {
        match self {
            Message::Offer { places, .. } if places.len() > SOCKETS_MAX => {
                Err(MessageError::TooManySockets(places.len()))
            }
            Message::Offer { .. } | Message::Serving { .. } | Message::Withdrawn => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::lifecycle::accepting::Role;

    fn place(role: Role, name: &str, address: &str) -> Place {
        Place { role, name: name.to_owned(), address: address.parse().unwrap() }
    }

    fn offer() -> Message {
        let service = Service { invocation: Some("0af3".to_owned()), watchdog_usec: Some(30_000_000) };
        let places = vec![
            place(Role::Listener, "public", "0.0.0.0:8080"),
            place(Role::Listener, "admin", "[::1]:8081"),
            place(Role::Listener, "local", "unix:/run/a.sock"),
            place(Role::Admin, "admin", "127.0.0.1:9090"),
        ];
        Message::Offer { service, places }
    }

    fn framed(version: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len()).unwrap().to_be_bytes();
        [b"wsg".as_slice(), &[version], &length, body].concat()
    }

    #[test]
    fn encode_then_decode_is_identity_wherever_the_bytes_are_split() {
        for message in [offer(), Message::Serving { invocation: None }, Message::Withdrawn] {
            let mut bytes = message.encode().unwrap();
            let length = bytes.len();
            for end in 0..length {
                assert!(Message::decode(&bytes[..end]).unwrap().is_none(), "{end}");
            }
            bytes.extend_from_slice(b"the next");
            assert_eq!(Message::decode(&bytes).unwrap().unwrap(), (message, length));
        }
    }

    #[test]
    fn as_many_sockets_as_the_system_takes_fit_into_a_message() {
        let widest = place(Role::Listener, &"n".repeat(63), &format!("unix:/{}", "p".repeat(106)));
        let message = |count| Message::Offer { service: Service::default(), places: vec![widest.clone(); count] };
        let bytes = message(SOCKETS_MAX).encode().unwrap();
        assert_eq!(Message::decode(&bytes).unwrap().unwrap().0, message(SOCKETS_MAX));
        assert!(matches!(message(SOCKETS_MAX + 1).encode(), Err(MessageError::TooManySockets(254))));
    }

    #[test]
    fn refuses_what_no_release_has_sent() {
        assert!(matches!(Message::decode(b"GET / HTTP/1.1"), Err(MessageError::NotOurs)));
        assert!(matches!(Message::decode(b"x"), Err(MessageError::NotOurs)), "at the first byte");
        assert!(matches!(Message::decode(&framed(2, b"")), Err(MessageError::OtherVersion(2))));
        assert!(matches!(Message::decode(b"wsg\x01\xff\xff\xff\xff"), Err(MessageError::TooLong(0xffff_ffff))));
        for body in ["", "{}", "[]", r#"{"message":"other"}"#, r#"{"message":"offer","places":[]}"#, "\u{0}"] {
            let decoded = Message::decode(&framed(1, body.as_bytes()));
            assert!(matches!(decoded, Err(MessageError::Malformed(_))), "{body}");
        }
        let deep = "[".repeat(60_000);
        assert!(matches!(Message::decode(&framed(1, deep.as_bytes())), Err(MessageError::Malformed(_))));
    }

    /// What the first release with hand-overs sends.
    #[test]
    fn an_offer_of_an_earlier_release_is_read() {
        let said = br#"{"message":"offer","service":{"invocation":null,"watchdog_usec":null},"places":[{"role":"listener","name":"public","address":"0.0.0.0:8080"}]}"#;
        let decoded = Message::decode(&framed(1, said)).unwrap().unwrap().0;
        let places = vec![place(Role::Listener, "public", "0.0.0.0:8080")];
        assert_eq!(decoded, Message::Offer { service: Service::default(), places });
    }

    #[test]
    fn a_field_of_a_later_release_is_passed_over() {
        let decoded = Message::decode(&framed(1, br#"{"message":"withdrawn","why":"later"}"#)).unwrap().unwrap();
        assert_eq!(decoded.0, Message::Withdrawn);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256), framed_as in any::<bool>()) {
            let bytes = if framed_as { framed(1, &bytes) } else { bytes };
            let _ = Message::decode(&bytes);
        }

        #[test]
        fn a_changed_byte_is_an_error_or_another_message(at in any::<prop::sample::Index>(), to in any::<u8>()) {
            let mut bytes = offer().encode().unwrap();
            let at = at.index(bytes.len());
            bytes[at] = to;
            if let Ok(Some((_, length))) = Message::decode(&bytes) {
                prop_assert!(length <= bytes.len());
            }
        }
    }
}
