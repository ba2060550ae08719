//! Sets of fields in `metadata.managedFields`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kube::fuzz::fields(data));
