//! Tokens of the Machines API.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| aerostat::tokens::fuzz::fuzz_token(data));
