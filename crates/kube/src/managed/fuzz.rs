//! What a fuzzer calls: sets of fields as clients write them.

use serde_json::Value;

use super::entries::Entries;
use super::fields::{Fields, show};

/// Reads `data` as two sets of fields, one per line, or as entries of an object.
///
/// # Panics
/// If what is read is not what is written, if the sets do not behave like sets, or whatever a
/// fuzzer is to find.
#[doc(hidden)]
pub fn fields(data: &[u8]) {
    let sets: Vec<Value> = data
        .split(|byte| *byte == b'\n')
        .take(2)
        .filter_map(|line| serde_json::from_slice(line).ok())
        .collect();
    if let [list @ Value::Array(_), ..] = &sets[..]
        && let Ok(entries) = Entries::decode(Some(list))
    {
        let again = Entries::decode(entries.encode().as_ref());
        assert_eq!(again.as_ref(), Ok(&entries), "entries are read as written");
        let mut capped = entries;
        capped.cap();
    }
    let sets: Vec<Fields> = sets
        .iter()
        .filter_map(|set| Fields::decode(set).ok())
        .collect();
    for set in &sets {
        let again = Fields::decode(&set.encode()).expect("our own");
        assert_eq!(&again, set, "a set is read as written");
        set.each(&mut Vec::new(), &mut |path| {
            assert!(set.has(path.iter().copied()), "{}", show(path));
        });
    }
    if let [one, two] = &sets[..] {
        check_algebra(one, two);
    }
}

fn check_algebra(one: &Fields, two: &Fields) {
    let mut union = one.clone();
    union.add(two.clone());
    let mut other = two.clone();
    other.add(one.clone());
    assert_eq!(union, other, "a union has no order");
    let common = one.common(two);
    assert_eq!(common, two.common(one));
    let mut left = one.clone();
    left.remove(two);
    assert!(left.common(two).is_empty(), "what is removed is gone");
    left.add(common);
    assert_eq!(&left, one, "a set is what it has alone and in common");
    let mut deep = one.clone();
    deep.remove_with_below(two);
    assert!(deep.common(two).is_empty());
}
