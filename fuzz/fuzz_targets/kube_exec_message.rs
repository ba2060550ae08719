//! Messages of clients of `exec` and `attach`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kube::fuzz::exec_message(data));
