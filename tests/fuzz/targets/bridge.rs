//! What two sides that speak any two versions say to each other, in any pieces.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    wsgate::bridge::fuzz::bridge(data);
});
