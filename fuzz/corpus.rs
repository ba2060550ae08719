//! Runs a fuzz target on the stable compiler: over its stored corpus, and over mutations of it.
//! The tests of several crates include this file.
//!
//! The mutations follow from a seed that is printed, so that a failure can be had again, and that
//! does not change by itself, so that nobody else's commit is blamed. `AEROSTAT_FUZZ_SEED` sets
//! another.

use std::fs;
use std::panic;
use std::path::Path;

const MUTATIONS: usize = 4000;
/// Mutations that are applied one after the other to a case, at most.
const STEPS_MAX: usize = 6;
/// What duplication may make of a case.
const CASE_BYTES_MAX: usize = 64 << 10;
/// What parsers treat specially, whatever they parse.
const WORDS: [&str; 16] = [
    "null",
    "true",
    "{}",
    "[]",
    "\"\"",
    "-1",
    "1e999",
    "99999999999999999999",
    "\u{e9}",
    "\0",
    ",",
    "/",
    ".",
    ":",
    "=",
    "\\u0000",
];

/// Calls `target` with every file in `folder` and with mutations of them, in which `words` turn up.
pub(crate) fn check(folder: &Path, words: &[&str], target: fn(&[u8])) {
    let mut cases: Vec<(String, Vec<u8>)> = fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| {
            let path = entry.unwrap().path();
            (path.display().to_string(), fs::read(path).unwrap())
        })
        .collect();
    // Directories are in no order, and the seed is to lead to the same cases everywhere.
    cases.sort();
    assert!(cases.len() >= 4, "{} holds too little", folder.display());
    for (name, case) in &cases {
        call(target, case, name);
    }
    let seed = std::env::var("AEROSTAT_FUZZ_SEED").map_or(1, |seed| seed.parse().unwrap());
    eprintln!("{}: seed {seed}", folder.display());
    let words: Vec<&str> = WORDS.iter().chain(words).copied().collect();
    let mut random = Random(seed);
    for number in 0..MUTATIONS {
        let mut case = cases[random.below(cases.len())].1.clone();
        for _ in 0..=random.below(STEPS_MAX) {
            mutate(&mut case, &cases, &words, &mut random);
        }
        case.truncate(CASE_BYTES_MAX);
        call(target, &case, &format!("seed {seed}, mutation {number}"));
    }
}

/// Says which case it was, which the panic itself does not know.
fn call(target: fn(&[u8]), case: &[u8], name: &str) {
    if let Err(cause) = panic::catch_unwind(|| target(case)) {
        let shown = &case[..case.len().min(2000)];
        eprintln!("{name} broke it: {}", shown.escape_ascii());
        panic::resume_unwind(cause);
    }
}

fn mutate(case: &mut Vec<u8>, cases: &[(String, Vec<u8>)], words: &[&str], random: &mut Random) {
    let at = random.below(case.len() + 1);
    let end = at + random.below((case.len() - at).min(32) + 1);
    match random.below(6) {
        0 if at < case.len() => case[at] ^= 1 << random.below(8),
        1 if at < case.len() => case[at] = random.next().to_le_bytes()[0],
        2 => drop(case.drain(at..end)),
        3 => {
            let copied = case[at..end].to_vec();
            let to = random.below(case.len() + 1);
            drop(case.splice(to..to, copied));
        }
        4 => {
            let word = words[random.below(words.len())];
            drop(case.splice(at..end, word.bytes()));
        }
        _ => {
            let other = &cases[random.below(cases.len())].1;
            let from = random.below(other.len() + 1);
            let length = random.below((other.len() - from).min(64) + 1);
            drop(case.splice(at..end, other[from..from + length].iter().copied()));
        }
    }
}

/// SplitMix64 (Steele, Lea and Flood 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).expect("less than a usize")
    }
}
