//! Configurations of machines.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| aerostat::worker::fuzz_config(data));
