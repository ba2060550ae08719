//! Bodies of requests to the Kubernetes API, JSON and protobuf.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kube::fuzz::body(data));
