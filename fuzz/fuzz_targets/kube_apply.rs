//! Server-side applies of Kubernetes objects.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kube::fuzz::apply(data));
