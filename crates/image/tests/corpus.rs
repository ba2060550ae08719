//! The stored corpus of layers: each file says by its name what becomes of it. Fuzzers start
//! from it, and what they find is added to it.

use std::fs;
use std::path::Path;

#[test]
fn every_layer_of_the_corpus_is_accepted_or_refused_as_its_name_says() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/layer");
    let mut seen = 0;
    let mut wrong = Vec::new();
    for file in fs::read_dir(corpus).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let accepted = image::fuzz_layer(&fs::read(&path).unwrap());
        let expected = name.starts_with("accepted-");
        assert!(
            expected || name.starts_with("refused-"),
            "{name} says nothing"
        );
        if accepted != expected {
            wrong.push(name.to_owned());
        }
        seen += 1;
    }
    assert!(wrong.is_empty(), "{wrong:?}");
    assert!(seen >= 60, "only {seen} layers");
}

#[test]
fn a_layer_cut_anywhere_is_read_or_refused() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/layer");
    for file in fs::read_dir(corpus).unwrap() {
        let bytes = fs::read(file.unwrap().path()).unwrap();
        for end in (0..bytes.len()).step_by((bytes.len() / 50).max(97)) {
            image::fuzz_layer(&bytes[..end]);
        }
    }
}
