//! What a server is asked on behalf of a client, and what its answer amounts to: the client's own handshake where the server
//! speaks the client's version, else one of the gateway's own. It does not know which server is asked.

use super::arrival::Arrival;
use crate::config::model::Extensions;
use crate::dial::head::{self, Offers, Origin};
use crate::dialect::Dialect;
use crate::handshake::ask::Ask;
use crate::handshake::hixie::KEY3_BYTES;
use crate::handshake::request::Head;
use crate::handshake::response::{Answer, AnswerBody, Wrong};
use crate::handshake::subprotocol::{self, Chosen};
use crate::handshake::{Field, Key, extension};
use crate::policy::{Permit, Route};

/// A client that may pass.
pub struct Wish<'a> {
    pub head: &'a Head<'a>,
    /// Of a version-0 handshake.
    pub key3: Option<[u8; KEY3_BYTES]>,
    /// `None` where its version is only observed: then its words go on as they are.
    pub speaks: Option<Dialect>,
    pub route: &'a Route,
    origin: Origin<'a>,
    offers: Offers,
}

/// What a server is sent.
pub struct Question {
    pub bytes: Vec<u8>,
    pub words: Words,
}

pub enum Words {
    OfTheClient,
    Own {
        ask: Ask,
        /// The names of subprotocols, as they stand in the line.
        offered: Vec<u8>,
    },
}

/// What a server's answer amounts to.
pub enum Judged {
    Switching,
    Refused(AnswerBody),
    Wrong(Wrong),
}

impl<'a> Wish<'a> {
    pub fn new(
        arrival: &'a Arrival<'a>,
        permit: &Permit,
        head: &'a Head<'a>,
        key3: Option<[u8; KEY3_BYTES]>,
    ) -> Wish<'a> {
        let route = arrival.generation.policy.route(permit.route());
        let offers = match route.rules().handshake.extensions {
            Extensions::Strip => Offers::Strip,
            Extensions::Pass | Extensions::Refuse => Offers::Forward,
        };
        let (trust, scheme, certified) = (arrival.trust(), arrival.scheme(), arrival.certified());
        let origin = Origin { peer: arrival.caller.peer(), trust, scheme, certified };
        Wish { head, key3, speaks: permit.speaks(), route, origin, offers }
    }

    /// For a server that speaks these versions. Handshakes of hixie name the server in their proof, so the gateway makes its
    /// own even where the version is the same.
    pub fn question(&self, spoken: &[Dialect]) -> Question {
        let towards = self.speaks.and_then(|own| own.towards(spoken));
        match towards {
            Some(dialect) if Some(dialect) != self.speaks || !dialect.has_frames() => self.own(dialect),
            Some(_) | None => self.relayed(),
        }
    }

    fn relayed(&self) -> Question {
        let mut bytes = head::upgrade(self.head, self.origin, self.offers);
        bytes.extend(self.key3.iter().flatten());
        Question { bytes, words: Words::OfTheClient }
    }

    fn own(&self, dialect: Dialect) -> Question {
        let ask = Ask::new(dialect, &mut fastrand::Rng::new());
        let offered = self.offered(dialect);
        let mut bytes = head::own(self.head, self.origin, &ask, &offered);
        bytes.extend_from_slice(ask.behind_head());
        Question { bytes, words: Words::Own { ask, offered } }
    }

    /// The subprotocols that the client offers; to a server of hixie, which chooses from one, the first that is welcome.
    fn offered(&self, towards: Dialect) -> Vec<u8> {
        let field = self.speaks.map_or(subprotocol::FIELD, subprotocol::field);
        let all = subprotocol::offered(&self.head.fields, field);
        if towards.has_frames() {
            return all.collect::<Vec<_>>().join(&b", "[..]);
        }
        let welcome = &self.route.rules().handshake.subprotocols;
        let is_welcome = |name: &&[u8]| welcome.is_empty() || welcome.iter().any(|welcome| welcome.as_bytes() == *name);
        all.into_iter().find(is_welcome).unwrap_or_default().to_vec()
    }

    pub fn judge(&self, question: &Question, answer: &Answer<'_>, behind: &[u8]) -> Judged {
        if answer.status != 101 {
            return answer.body().map_or(Judged::Wrong(Wrong::Framing), Judged::Refused);
        }
        let (checked, chosen) = match &question.words {
            Words::OfTheClient => (self.check_relayed(answer), chosen(answer)),
            Words::Own { ask, offered } => {
                let offer = offer(ask, offered);
                (ask.check(answer, &offer, behind), ask.chosen(answer, &offer))
            }
        };
        match checked {
            Ok(()) if !self.is_welcome(chosen) => Judged::Wrong(Wrong::Subprotocol),
            Ok(()) => Judged::Switching,
            Err(wrong) => Judged::Wrong(wrong),
        }
    }

    fn check_relayed(&self, answer: &Answer<'_>) -> Result<(), Wrong> {
        // The proof of version 0 is another one, which only a client that is observed is left to check itself.
        let accept = match self.key3 {
            Some(_) => None,
            None => Key::as_it_stands(&self.head.fields).map(|key| key.accept()),
        };
        let is_sent = |line: &&Field<'_>| self.offers == Offers::Forward || !line.is(extension::FIELD);
        let offered: Vec<Field<'_>> = self.head.fields.iter().filter(is_sent).copied().collect();
        answer.check_101(&offered, accept.as_ref())
    }

    /// The client may have offered more than the route welcomes; the choice has to be among the welcome.
    fn is_welcome(&self, chosen: Option<&[u8]>) -> bool {
        let welcome = &self.route.rules().handshake.subprotocols;
        let among = |name: &[u8]| welcome.iter().any(|welcome| welcome.as_bytes() == name);
        welcome.is_empty() || chosen.is_none_or(among)
    }
}

impl Question {
    /// What a 101 has behind its head before the first frame.
    pub fn proof_bytes(&self) -> usize {
        match &self.words {
            Words::OfTheClient => 0,
            Words::Own { ask, .. } => ask.proof_bytes(),
        }
    }

    /// The version that the server is asked for, where it is not simply the client's.
    pub fn own_dialect(&self) -> Option<Dialect> {
        match &self.words {
            Words::OfTheClient => None,
            Words::Own { ask, .. } => Some(ask.dialect()),
        }
    }

    /// The subprotocol that the server chose.
    pub fn chosen<'r>(&self, answer: &'r Answer<'_>) -> Option<&'r [u8]> {
        match &self.words {
            Words::OfTheClient => chosen(answer),
            Words::Own { ask, offered } => ask.chosen(answer, &offer(ask, offered)),
        }
    }
}

fn offer<'o>(ask: &Ask, offered: &'o [u8]) -> [Field<'o>; 1] {
    [Field { name: subprotocol::field(ask.dialect()), value: offered }]
}

fn chosen<'r>(answer: &'r Answer<'_>) -> Option<&'r [u8]> {
    match subprotocol::chosen(&answer.fields, subprotocol::FIELD) {
        Chosen::One(name) => Some(name),
        Chosen::None | Chosen::Malformed => None,
    }
}
