//! Membership datagrams from a host of the fleet.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| aerostat::catalog::members::fuzz_members(data));
