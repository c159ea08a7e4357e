//! Anything that may happen to a tunnel, in any order.
#![no_main]

use std::sync::LazyLock;
use std::time::Instant;

/// One for all, or an input would not come to the same twice.
static BEGINNING: LazyLock<Instant> = LazyLock::new(Instant::now);

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    wsgate::tunnel::fuzz::session(data, *BEGINNING);
});
