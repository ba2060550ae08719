//! Layers of images.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    image::fuzz_layer(data);
});
