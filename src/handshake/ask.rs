//! A handshake in the gateway's own name, in any version: what it says that no other request does, and what the answer must
//! prove. It does not know on whose behalf it is made.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::hixie::{self, DIGEST_BYTES, Keys};
use super::key::{self, Accept};
use super::response::{Answer, Wrong};
use super::subprotocol::{self, Chosen};
use super::{Field, Key};
use crate::dialect::Dialect;

/// One handshake. Its secrets are used once.
#[derive(Clone, Debug)]
pub struct Ask {
    dialect: Dialect,
    proof: Proof,
}

#[derive(Clone, Debug)]
enum Proof {
    /// Of 7, 8 and 13: answered by an `Accept`.
    Key(String),
    /// Of hixie-76: answered by a digest.
    Keys(Keys),
    /// hixie-75 proves nothing.
    None,
}

impl Ask {
    pub fn new(dialect: Dialect, chance: &mut fastrand::Rng) -> Ask {
        let proof = match dialect {
            Dialect::Rfc6455 | Dialect::Hybi8 | Dialect::Hybi7 => {
                Proof::Key(STANDARD.encode(chance.u128(..).to_ne_bytes()))
            }
            Dialect::Hixie76 => Proof::Keys(Keys::make(chance)),
            Dialect::Hixie75 => Proof::None,
        };
        Ask { dialect, proof }
    }

    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// The value of `Upgrade`, which servers of hixie compare byte for byte.
    pub fn upgrade(&self) -> &'static str {
        if self.dialect.has_frames() { "websocket" } else { "WebSocket" }
    }

    /// The name of the line that says where the client comes from.
    pub fn origin_field(&self) -> &'static str {
        match self.dialect {
            Dialect::Hybi8 | Dialect::Hybi7 => "Sec-WebSocket-Origin",
            Dialect::Rfc6455 | Dialect::Hixie76 | Dialect::Hixie75 => "Origin",
        }
    }

    /// The lines of this version alone.
    pub fn lines(&self) -> Vec<(&'static str, String)> {
        match &self.proof {
            Proof::Key(key) => {
                vec![("Sec-WebSocket-Version", self.dialect.to_string()), ("Sec-WebSocket-Key", key.clone())]
            }
            Proof::Keys(keys) => vec![(key::KEY1, keys.key1.clone()), (key::KEY2, keys.key2.clone())],
            Proof::None => Vec::new(),
        }
    }

    /// What stands behind the head, in one write with it.
    pub fn behind_head(&self) -> &[u8] {
        match &self.proof {
            Proof::Keys(keys) => &keys.key3,
            Proof::Key(_) | Proof::None => &[],
        }
    }

    /// What stands behind the head of a 101 before the first frame.
    pub fn proof_bytes(&self) -> usize {
        if self.dialect == Dialect::Hixie76 { DIGEST_BYTES } else { 0 }
    }

    /// What stands behind the head of a right 101, where the proof stands there.
    pub fn digest(&self) -> Option<[u8; DIGEST_BYTES]> {
        match &self.proof {
            Proof::Keys(keys) => Some(keys.digest()),
            Proof::Key(_) | Proof::None => None,
        }
    }

    /// What `Sec-WebSocket-Accept` of a right 101 is, where the proof stands there.
    pub fn accept(&self) -> Option<Accept> {
        match &self.proof {
            Proof::Key(key) => {
                let line = [Field { name: "Sec-WebSocket-Key", value: key.as_bytes() }];
                Key::as_it_stands(&line).map(|key| key.accept())
            }
            Proof::Keys(_) | Proof::None => None,
        }
    }

    /// Checks a 101. `offer` is what was sent of subprotocols; `behind` begins with [`Ask::proof_bytes`] bytes.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self, answer: &Answer<'_>, offer: &[Field<'_>], behind: &[u8]) -> Result<(), Wrong> {
        match &self.proof {
            Proof::Key(_) => answer.check_101(offer, self.accept().as_ref()),
            Proof::Keys(keys) => {
                answer.check_switch()?;
                if behind.starts_with(&keys.digest()) { Ok(()) } else { Err(Wrong::Digest) }
            }
            Proof::None => {
                answer.check_switch()?;
                if ![REASON_OF_HIXIE_75, hixie::REASON].contains(&answer.reason) {
                    return Err(Wrong::StatusLine);
                }
                let has = |name| answer.fields.iter().any(|field| field.is(name));
                if has("WebSocket-Origin") && has("WebSocket-Location") { Ok(()) } else { Err(Wrong::Location) }
            }
        }
    }

    /// The subprotocol that was chosen. Servers of hixie choose what nobody offered, which is nothing then.
    pub fn chosen<'a>(&self, answer: &'a Answer<'_>, offer: &[Field<'_>]) -> Option<&'a [u8]> {
        let field = subprotocol::field(self.dialect);
        match subprotocol::chosen(&answer.fields, field) {
            Chosen::One(name) => subprotocol::offered(offer, field).any(|offered| offered == name).then_some(name),
            Chosen::None | Chosen::Malformed => None,
        }
    }
}

/// What the draft of hixie-75 has after the status, and its clients compared byte for byte (draft-hixie-thewebsocketprotocol-75
/// §4.1). There are servers that say what the next draft has.
pub const REASON_OF_HIXIE_75: &str = "Web Socket Protocol Handshake";

#[cfg(test)]
mod tests {
    use super::*;

    /// The answer to an ask of this version, `@` in it replaced by the right proof.
    fn check(dialect: Dialect, answer: &str, behind: Option<&[u8]>, expected: Result<(), Wrong>) {
        let ask = Ask::new(dialect, &mut fastrand::Rng::with_seed(1));
        let accept = ask.accept().map(|accept| String::from_utf8(accept.as_bytes().to_vec()).unwrap());
        let digest = ask.digest().map(Vec::from).unwrap_or_default();
        let text = answer.replace('@', &accept.unwrap_or_default()).replace('\n', "\r\n");
        let answer = Answer::parse(text.as_bytes()).unwrap();
        assert_eq!(ask.check(&answer, &[], behind.unwrap_or(&digest)), expected, "{text}");
    }

    #[test]
    fn each_version_is_held_to_its_own_proof() {
        let hybi = "HTTP/1.1 101 x\nUpgrade: websocket\nConnection: Upgrade\nSec-WebSocket-Accept: @\n\n";
        for dialect in [Dialect::Rfc6455, Dialect::Hybi8, Dialect::Hybi7] {
            check(dialect, hybi, None, Ok(()));
            check(dialect, &hybi.replace('@', "AAAA"), None, Err(Wrong::Accept));
        }
        let hixie = "HTTP/1.1 101 x\nUpgrade: WebSocket\nConnection: Upgrade\n\n";
        check(Dialect::Hixie76, hixie, None, Ok(()));
        check(Dialect::Hixie76, hixie, Some(b"0123456789abcdef"), Err(Wrong::Digest));
        check(Dialect::Hixie76, hixie, Some(b""), Err(Wrong::Digest));
        check(Dialect::Hixie76, "HTTP/1.1 101 x\nUpgrade: WebSocket\n\n", None, Err(Wrong::Connection));
    }

    #[test]
    fn hixie_75_shows_the_little_that_it_has() {
        let good = "HTTP/1.1 101 Web Socket Protocol Handshake\nUpgrade: WebSocket\nConnection: Upgrade\n\
                    WebSocket-Origin: a\nWebSocket-Location: ws://a/\n\n";
        check(Dialect::Hixie75, good, None, Ok(()));
        check(Dialect::Hixie75, &good.replace("WebSocket-Origin", "X-O"), None, Err(Wrong::Location));
        check(Dialect::Hixie75, &good.replace("Web Socket Protocol", "WebSocket Protocol"), None, Ok(()));
        check(Dialect::Hixie75, &good.replace("Web Socket Protocol", "Switching"), None, Err(Wrong::StatusLine));
    }

    #[test]
    fn a_choice_that_was_not_offered_is_none_in_hixie() {
        let head = "HTTP/1.1 101 x\r\nSec-WebSocket-Protocol: None\r\n\r\n";
        let answer = Answer::parse(head.as_bytes()).unwrap();
        let ask = Ask::new(Dialect::Hixie76, &mut fastrand::Rng::with_seed(1));
        let offer = |value: &'static str| [Field { name: subprotocol::FIELD, value: value.as_bytes() }];
        assert_eq!(ask.chosen(&answer, &offer("chat")), None);
        assert_eq!(ask.chosen(&answer, &offer("None")), Some(&b"None"[..]));
    }
}
