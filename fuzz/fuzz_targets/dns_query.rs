//! Questions of machines to the resolver.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| aerostat::dns::fuzz_query(data));
