//! Datagrams from anywhere to the WireGuard engine.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| net::wireguard::fuzz_datagram(data));
