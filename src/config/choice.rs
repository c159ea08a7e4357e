//! Keys that take one word of a few: the words, in the order in which they are shown. It does not know which key takes
//! which.

use super::model::{
    Balance, Binary, Check, ClientAddress, ClientCertificates, Extensions, ForwardedField, Frames, HealthCheck,
    LogFormat, LogLevel, Mode, OnRemove, PlainHttp, ProxyProtocol, SameSite, TlsVersion,
};

/// A closed set of words.
pub trait Choice: Copy + PartialEq + 'static {
    /// Every value with its word in the file.
    const WORDS: &'static [(&'static str, Self)];

    fn word(self) -> &'static str {
        let entry = Self::WORDS.iter().find(|(_, value)| *value == self);
        entry.expect("a test holds that every value has a word").0
    }

    fn from_word(word: &str) -> Option<Self> {
        let entry = Self::WORDS.iter().find(|(known, _)| *known == word);
        entry.map(|(_, value)| *value)
    }

    fn words() -> impl Iterator<Item = &'static str> {
        Self::WORDS.iter().map(|(word, _)| *word)
    }
}

impl Choice for LogLevel {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("error", LogLevel::Error),
        ("warn", LogLevel::Warn),
        ("info", LogLevel::Info),
        ("debug", LogLevel::Debug),
        ("trace", LogLevel::Trace),
    ];
}

impl Choice for LogFormat {
    const WORDS: &'static [(&'static str, Self)] = &[("text", LogFormat::Text), ("json", LogFormat::Json)];
}

impl Choice for ClientAddress {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("peer", ClientAddress::Peer),
        ("proxy-protocol", ClientAddress::ProxyProtocol),
        ("forwarded", ClientAddress::Forwarded),
    ];
}

impl Choice for ForwardedField {
    const WORDS: &'static [(&'static str, Self)] =
        &[("x-forwarded-for", ForwardedField::XForwardedFor), ("forwarded", ForwardedField::Forwarded)];
}

impl Choice for ProxyProtocol {
    const WORDS: &'static [(&'static str, Self)] =
        &[("off", ProxyProtocol::Off), ("v1", ProxyProtocol::V1), ("v2", ProxyProtocol::V2)];
}

impl Choice for PlainHttp {
    const WORDS: &'static [(&'static str, Self)] = &[("forward", PlainHttp::Forward), ("refuse", PlainHttp::Refuse)];
}

impl Choice for Mode {
    const WORDS: &'static [(&'static str, Self)] = &[("enforce", Mode::Enforce), ("observe", Mode::Observe)];
}

impl Choice for Extensions {
    const WORDS: &'static [(&'static str, Self)] =
        &[("pass", Extensions::Pass), ("strip", Extensions::Strip), ("refuse", Extensions::Refuse)];
}

impl Choice for Binary {
    const WORDS: &'static [(&'static str, Self)] = &[("refuse", Binary::Refuse), ("base64", Binary::Base64)];
}

impl Choice for Frames {
    const WORDS: &'static [(&'static str, Self)] =
        &[("track", Frames::Track), ("enforce", Frames::Enforce), ("blind", Frames::Blind)];
}

impl Choice for OnRemove {
    const WORDS: &'static [(&'static str, Self)] = &[("keep", OnRemove::Keep), ("close", OnRemove::Close)];
}

impl Choice for Balance {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("least-tunnels", Balance::LeastTunnels),
        ("round-robin", Balance::RoundRobin),
        ("client-hash", Balance::ClientHash),
        ("header-hash", Balance::HeaderHash),
    ];
}

impl Choice for SameSite {
    const WORDS: &'static [(&'static str, Self)] =
        &[("strict", SameSite::Strict), ("lax", SameSite::Lax), ("none", SameSite::None)];
}

impl Choice for HealthCheck {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("off", HealthCheck::Off),
        ("tcp", HealthCheck::Tcp),
        ("http", HealthCheck::Http),
        ("websocket", HealthCheck::WebSocket),
    ];
}

impl Choice for TlsVersion {
    const WORDS: &'static [(&'static str, Self)] = &[("1.2", TlsVersion::V1_2), ("1.3", TlsVersion::V1_3)];
}

impl Choice for ClientCertificates {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("off", ClientCertificates::Off),
        ("optional", ClientCertificates::Optional),
        ("required", ClientCertificates::Required),
    ];
}

/// The check that a reason's code names, for `relax`.
pub fn check_from_word(word: &str) -> Option<Check> {
    Check::ALL.into_iter().find(|check| check.name() == word)
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use super::*;

    fn check<C: Choice + Debug>(values: &[C]) {
        assert_eq!(C::words().count(), values.len());
        for value in values {
            assert_eq!(C::from_word(value.word()), Some(*value));
        }
    }

    #[test]
    fn every_value_has_a_word_of_its_own() {
        check(&[LogLevel::Error, LogLevel::Warn, LogLevel::Info, LogLevel::Debug, LogLevel::Trace]);
        check(&[LogFormat::Text, LogFormat::Json]);
        check(&[ClientAddress::Peer, ClientAddress::ProxyProtocol, ClientAddress::Forwarded]);
        check(&[ForwardedField::XForwardedFor, ForwardedField::Forwarded]);
        check(&[ProxyProtocol::Off, ProxyProtocol::V1, ProxyProtocol::V2]);
        check(&[PlainHttp::Forward, PlainHttp::Refuse]);
        check(&[Mode::Enforce, Mode::Observe]);
        check(&[Extensions::Pass, Extensions::Strip, Extensions::Refuse]);
        check(&[Balance::LeastTunnels, Balance::RoundRobin, Balance::ClientHash, Balance::HeaderHash]);
        check(&[SameSite::Strict, SameSite::Lax, SameSite::None]);
        check(&[HealthCheck::Off, HealthCheck::Tcp, HealthCheck::Http, HealthCheck::WebSocket]);
        check(&[TlsVersion::V1_2, TlsVersion::V1_3]);
        check(&[ClientCertificates::Off, ClientCertificates::Optional, ClientCertificates::Required]);
    }

    #[test]
    fn every_check_is_found_by_its_name() {
        for check in Check::ALL {
            assert_eq!(check_from_word(check.name()), Some(check));
        }
        assert_eq!(check_from_word("version-unsupported"), None);
    }
}
