//! Credentials in the headers of the Kubernetes API: tokens and impersonation.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kube::fuzz::credentials(data));
