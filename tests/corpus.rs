//! Every input that a fuzzer or somebody who thought of it has left in `tests/fuzz/corpus`, and some that nobody kept.
#![expect(clippy::unwrap_used, reason = "a test says what it expects by failing")]

use std::collections::HashSet;
use std::fs;
use std::hash::Hash;
use std::path::Path;
use std::time::Instant;

use proptest::prelude::*;
use wsgate::bridge::Fault;
use wsgate::dialect::Dialect;
use wsgate::reason::Reason;
use wsgate::wire::fuzz::HixieEnd;
use wsgate::wire::{FrameError, HixieError};
use wsgate::{bridge, tunnel, wire};

/// What the inputs of one target come to.
fn replay<T: Eq + Hash>(target: &str, act: impl Fn(&[u8]) -> T) -> HashSet<T> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(target);
    let files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() > 30, "found only {} files", files.len());
    let replayed = files.iter().map(|file| {
        println!("{}", file.display());
        act(&fs::read(file).unwrap())
    });
    replayed.collect()
}

#[test]
fn the_reader_reads_what_was_found_as_plainly_as_the_rfc_has_it() {
    let reached = replay("frame_reader", wire::fuzz::frame_reader);
    let rules = [
        FrameError::Opcode,
        FrameError::ReservedBit,
        FrameError::Unmasked,
        FrameError::Masked,
        FrameError::LongLength,
        FrameError::LengthTooLarge,
        FrameError::ControlTooLarge,
        FrameError::ControlFragmented,
        FrameError::Continuation,
        FrameError::Interleaved,
        FrameError::AfterClose,
    ];
    assert_eq!(reached, rules.into_iter().map(Some).chain([None]).collect(), "every rule is broken somewhere");
}

#[test]
fn texts_without_frames_are_read_as_plainly_as_the_drafts_have_it() {
    let reached = replay("hixie_reader", wire::fuzz::hixie_reader);
    let ends = [
        HixieEnd::AtBorder,
        HixieEnd::Amid,
        HixieEnd::Closed,
        HixieEnd::Broken(HixieError::Length),
        HixieEnd::Broken(HixieError::Dropped),
    ];
    assert_eq!(reached, ends.into_iter().map(Some).collect(), "every end is reached somewhere");
}

#[test]
fn any_two_versions_hear_what_the_other_says_of_what_was_found() {
    let reached: HashSet<_> = replay("bridge", bridge::fuzz::bridge).into_iter().flatten().collect();
    for client in Dialect::ALL {
        for backend in Dialect::ALL {
            assert!(reached.contains(&(client, backend, None)), "never without a fault: {client} to {backend}");
        }
    }
    let faults: HashSet<_> = reached.into_iter().filter_map(|(_, _, fault)| fault).collect();
    assert_eq!(faults, HashSet::from([Fault::Frame, Fault::Text, Fault::Binary, Fault::TooBig]));
}

#[test]
fn a_session_stays_in_order_whatever_was_found_to_happen() {
    let now = Instant::now();
    let reached = replay("session", |input| tunnel::fuzz::session(input, now));
    let ends = [
        Reason::ClientClosed,
        Reason::BackendClosed,
        Reason::ClientLost,
        Reason::BackendLost,
        Reason::ClientUnresponsive,
        Reason::BackendUnresponsive,
        Reason::ClientFrameBroken,
        Reason::BackendFrameBroken,
        Reason::ClientMessageTooBig,
        Reason::BackendMessageTooBig,
        Reason::ClientTextInvalid,
        Reason::BackendTextInvalid,
        Reason::ClientBinary,
        Reason::BackendBinary,
        Reason::IdleTimeout,
        Reason::MaxAge,
        Reason::RouteRemoved,
        Reason::Drained,
    ];
    assert_eq!(reached, HashSet::from(ends), "every cause ends a tunnel somewhere");
}

proptest! {
    #[test]
    fn the_reader_reads_anything_as_plainly_as_the_rfc_has_it(input in prop::collection::vec(any::<u8>(), 0..200)) {
        wire::fuzz::frame_reader(&input);
    }

    #[test]
    fn texts_without_frames_are_read_anyhow_as_plainly_as_the_drafts_have_it(
        head in any::<[u8; 2]>(),
        bytes in prop::collection::vec(prop_oneof![Just(0), Just(0xFF), Just(0x80), 0..4_u8, any::<u8>()], 0..200),
    ) {
        wire::fuzz::hixie_reader(&[&head[..], &bytes].concat());
    }

    #[test]
    fn any_two_versions_hear_what_the_other_says(
        head in any::<[u8; 2]>(),
        pieces in prop::collection::vec((any::<u8>(), piece()), 0..20),
    ) {
        let pieces = pieces.iter().flat_map(|(what, bytes)| [&[*what, u8::try_from(bytes.len()).unwrap()][..], bytes].concat());
        bridge::fuzz::bridge(&head.into_iter().chain(pieces).collect::<Vec<u8>>());
    }

    #[test]
    fn a_session_stays_in_order_whatever_happens(input in prop::collection::vec(any::<u8>(), 0..400)) {
        tunnel::fuzz::session(&input, Instant::now());
    }
}

/// What one side sends at once: some text, base64, or anything.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        "[a-zé€𝄞]{0,12}".prop_map(String::into_bytes),
        prop::sample::select(vec!["", "YQ==", "YWI=", "YWJj", "YWJjYWJj"]).prop_map(|text| text.as_bytes().to_vec()),
        prop::collection::vec(
            prop_oneof![Just(0_u8), Just(0xFF), Just(0x80), Just(0x81), Just(0x03), any::<u8>()],
            0..60
        ),
    ]
}
