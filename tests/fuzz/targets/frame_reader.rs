//! Any bytes, read as the frames of one side.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    wsgate::wire::fuzz::frame_reader(data);
});
