//! References to images.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| types::image_ref::fuzz(data));
