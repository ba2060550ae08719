//! The table in `docs/conformance.md` and the scenarios say the same.

use std::path::Path;

use super::play::{FILES, scenarios};

#[test]
fn every_scenario_stands_in_the_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/conformance.md");
    let table = std::fs::read_to_string(path).expect("read");
    for file in FILES {
        for behaviour in scenarios(file) {
            let state = if behaviour.open.is_some() {
                "not covered"
            } else {
                "covered"
            };
            let row = format!("| {} | {state} | `conformance/{file}.txt`", behaviour.name);
            assert!(table.contains(&row), "no row {row:?}");
        }
    }
}

#[test]
fn every_covered_behaviour_of_ours_has_a_scenario() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/conformance.md");
    let table = std::fs::read_to_string(path).expect("read");
    for line in table.lines() {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        let [_, name, "covered", test, ..] = cells[..] else {
            continue;
        };
        let Some(file) = test.strip_prefix("`conformance/") else {
            continue;
        };
        let file = file.split(".txt").next().expect("a name");
        let known = scenarios(file)
            .iter()
            .any(|behaviour| behaviour.name == name);
        assert!(known, "{file} has no scenario {name:?}");
    }
}
