//! What a fuzzer calls: a configuration of a machine, as a client sends it.

use types::machine::MachineConfig;

use super::check::{CheckedConfig, check};

/// Reads and checks `data`, and writes what was let through as the ledger does.
///
/// # Panics
/// If a machine without containers is let through, what is kept cannot be read again, or whatever
/// a fuzzer is to find.
#[doc(hidden)]
pub fn fuzz_config(data: &[u8]) {
    let Ok(config) = serde_json::from_slice::<MachineConfig>(data) else {
        return;
    };
    let checked = match check(config) {
        Ok(checked) => checked,
        Err(invalid) => {
            assert!(invalid.field.starts_with("config"), "{invalid}");
            return;
        }
    };
    let text = serde_json::to_vec(&checked).expect("JSON");
    let again: CheckedConfig = serde_json::from_slice(&text).expect("our own");
    assert_eq!(again, checked);
    let again = check(again.as_given().clone());
    assert_eq!(again.as_ref(), Ok(&checked), "checking twice is checking");
    let containers = checked.containers();
    assert!(!containers.is_empty());
    let names = containers.iter().map(|container| container.name.clone());
    assert_eq!(names.collect::<Vec<_>>(), checked.container_names());
}
