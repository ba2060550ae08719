//! Hostile clients and hostile machines: stored cases and mutations.

#[path = "../../../fuzz/corpus.rs"]
mod corpus;

use std::path::Path;

fn check(target: &str, words: &[&str], run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    corpus::check(&folder.join(target), words, run);
}

#[test]
fn any_configuration_is_kept_as_it_is_or_refused() {
    let words = [
        "\"containers\":",
        "\"name\":",
        "\"image\":",
        "\"timeout\":",
        "\"1us\"",
        "\"depends_on\":",
        "\"files\":",
        "\"guest_path\":",
        "\"raw_value\":",
        "\"SIGRTMIN\"",
        "\"signal\":",
        "\"hostname\":",
        "\"guest\":",
        "1.5",
        "-0",
    ];
    check("machine_config", &words, aerostat::worker::fuzz_config);
}

#[test]
fn any_packet_is_answered_or_refused_and_no_name_of_ours_leaks() {
    let words = [
        "\x08internal\0",
        "\x07flycast\0",
        "\x07cluster\x05local\0",
        "\x03svc",
        "\x05_http\x04_tcp",
        "\x04db-0",
        "\x02vm",
        "\x03vms",
        "\u{c0}\x0c",
        "\x3f",
    ];
    check("dns_query", &words, aerostat::dns::fuzz_query);
}

#[test]
fn any_host_record_is_refused_or_is_what_was_certified() {
    let words = [
        "\"id\":",
        "\"public_key\":",
        "\"certificate\":",
        "-----BEGIN CERTIFICATE-----",
        "-----END CERTIFICATE-----",
        "\\n",
        "host-0003",
        "authority",
        "urn:aerostat:mesh:",
    ];
    check("host_record", &words, aerostat::fleet::fuzz_record);
}

#[test]
fn any_message_about_machines_is_read_or_refused() {
    let words = [
        "\x01\x01\0\x03",
        "\x02\x01\0\x03",
        "\0\0\0\x01",
        "\u{7f}\u{7f}\u{7f}\u{7f}",
        "\"machine\":",
        "\"network\":",
        "\"said\":",
        "fdaa:0:7:a7b:2:1:1:2",
    ];
    let run = aerostat::catalog::fuzz_catalog;
    check("catalog_frame", &words, run);
}

#[test]
fn any_membership_datagram_is_answered_or_refused() {
    let words = ["\x01\0\x03", "\0\x02", "\x01\x01", "\0\0\0\0", "\x06"];
    let run = aerostat::catalog::members::fuzz_members;
    check("membership_datagram", &words, run);
}

#[test]
fn any_token_is_refused_or_is_what_was_signed() {
    let words = [
        "aero_", "fm2_", "En", "\x0a\x12", "\x18\x03", "\x22\x00", "platform", "verb", "admin",
    ];
    check("token", &words, aerostat::tokens::fuzz::fuzz_token);
}
