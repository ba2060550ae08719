//! YAML bodies of requests to the Kubernetes API.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kube::fuzz::yaml(data));
