//! Peers that do not keep to the protocol cost an error, never a panic or an endless wait.

use std::fs;
use std::path::Path;

use guest::wire::fuzz::hostile_peer;
use proptest::prelude::*;

#[test]
fn every_stored_case_ends_well() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let mut count = 0;
    for entry in fs::read_dir(corpus).unwrap() {
        hostile_peer(&fs::read(entry.unwrap().path()).unwrap());
        count += 1;
    }
    assert!(count >= 10, "{count} cases");
}

/// A yamux header: version, type (data, window update, ping, go away), flags, stream, length.
fn yamux(kind: u8, flags: u16, stream: u32, length: u32) -> Vec<u8> {
    let mut bytes = vec![0, kind];
    bytes.extend(flags.to_be_bytes());
    bytes.extend(stream.to_be_bytes());
    bytes.extend(length.to_be_bytes());
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn random_bytes_end_well(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        hostile_peer(&bytes);
    }

    #[test]
    fn plausible_yamux_ends_well(
        frames in proptest::collection::vec(
            (0..4u8, 0..16u16, 0..6u32, proptest::collection::vec(any::<u8>(), 0..40)),
            0..40,
        ),
    ) {
        let mut bytes = Vec::new();
        for (kind, flags, stream, payload) in frames {
            let length = u32::try_from(payload.len()).unwrap();
            bytes.extend(yamux(kind, flags, stream, length));
            if kind == 0 {
                bytes.extend(payload);
            }
        }
        hostile_peer(&bytes);
    }
}
