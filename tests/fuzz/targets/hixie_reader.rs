//! Any bytes, read as what a side that speaks hixie sends.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    wsgate::wire::fuzz::hixie_reader(data);
});
