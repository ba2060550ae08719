//! Paths in Kubernetes' dialect of JSONPath.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kube::fuzz::json_path(data));
