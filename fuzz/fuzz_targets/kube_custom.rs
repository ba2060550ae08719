//! Schemas of custom resources, their rules and objects.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kube::fuzz::custom(data));
