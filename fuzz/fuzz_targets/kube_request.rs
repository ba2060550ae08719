//! Request lines of the Kubernetes API: paths, selectors, `continue` tokens.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kube::fuzz::request(data));
