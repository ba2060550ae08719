//! Hostile manifests, indexes and configurations: stored cases and mutations.

#[path = "../../../fuzz/corpus.rs"]
mod corpus;

use std::path::Path;

#[test]
fn any_document_is_read_or_refused() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/document");
    let words = [
        "\"layers\":",
        "\"config\":",
        "\"manifests\":",
        "\"platform\":",
        "\"digest\":",
        "\"size\":",
        "\"mediaType\":",
    ];
    corpus::check(&folder, &words, image::fuzz_document);
}
