//! Engines in real namespaces: what passes, what does not, and what survives.

mod door;
mod engines;
mod interop;
mod world;

#[path = "../../../../fuzz/corpus.rs"]
mod corpus;

use std::path::Path;

#[test]
fn any_datagram_is_answered_or_dropped() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/wireguard_datagram");
    corpus::check(
        &folder,
        &["\u{1}\0\0\0", "\u{2}\0\0\0", "\u{3}\0\0\0", "\u{4}\0\0\0"],
        net::wireguard::fuzz_datagram,
    );
}

#[test]
fn any_initiation_knocks_or_is_dropped() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/wireguard_initiation");
    corpus::check(&folder, &["\u{1}\0\0\0"], net::wireguard::fuzz_initiation);
}

#[test]
fn any_frame_is_split_or_dropped() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/wireguard_frame");
    corpus::check(
        &folder,
        &[
            "\u{1}\u{4}",
            "\u{1}\u{1}",
            "\u{1}\u{5}",
            "E",
            "`",
            "\u{6}",
            "\u{11}",
        ],
        net::wireguard::fuzz_frame,
    );
}
