//! Handshake initiations from anywhere to a WireGuard engine that lets strangers knock.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| net::wireguard::fuzz_initiation(data));
