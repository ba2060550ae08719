//! What hosts tell each other about machines.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| aerostat::catalog::fuzz_catalog(data));
