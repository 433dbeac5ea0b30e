//! See `fuzz::jws`.
#![no_main]
libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz::jws(input));
