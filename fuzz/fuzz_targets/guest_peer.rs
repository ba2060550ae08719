//! Either end of the guest protocol.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| guest::wire::fuzz::hostile_peer(data));
