//! Records of hosts, which travel through third parties.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| aerostat::fleet::fuzz_record(data));
