//! Frames of the WireGuard engine's TUN device, guests' super-packets among them.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| net::wireguard::fuzz_frame(data));
