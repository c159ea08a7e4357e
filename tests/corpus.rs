//! Every input that a fuzzer or somebody who thought of it has left in `tests/fuzz/corpus`, and some that nobody kept.
#![expect(clippy::unwrap_used, reason = "a test says what it expects by failing")]

use std::collections::HashSet;
use std::fs;
use std::hash::Hash;
use std::path::Path;
use std::time::Instant;

use proptest::prelude::*;
use wsgate::reason::Reason;
use wsgate::wire::FrameError;
use wsgate::{tunnel, wire};

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
    fn a_session_stays_in_order_whatever_happens(input in prop::collection::vec(any::<u8>(), 0..400)) {
        tunnel::fuzz::session(&input, Instant::now());
    }
}
