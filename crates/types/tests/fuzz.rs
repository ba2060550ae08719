//! Texts that are to name images: stored cases and mutations.

#[path = "../../../fuzz/corpus.rs"]
mod corpus;

use std::path::Path;

#[test]
fn any_text_names_an_image_safely_or_is_refused() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/image_ref");
    let words = [
        "@sha256:",
        "localhost/",
        "docker.io/",
        "..",
        "//",
        ":5000",
        "[::1]",
        "-",
        "_",
        "A",
    ];
    corpus::check(&folder, &words, types::image_ref::fuzz);
}
