//! What stays, what goes, in which order, and what a crash leaves.

use super::*;
use crate::manifest::ImageConfig;

const ALL: GarbageRules = GarbageRules {
    bytes_max: 0,
    idle_min: Duration::ZERO,
    imported: Imported::Stay,
};

struct Case {
    _root: tempfile::TempDir,
    store: ImageStore,
}

impl Case {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let store = ImageStore::open(root.path()).unwrap();
        Self { _root: root, store }
    }

    fn record(name: &str, rootfs: &str) -> Record {
        let reference = name.parse().unwrap();
        let (digest, rootfs) = (Digest::of(rootfs.as_bytes()), Digest::of(rootfs.as_bytes()));
        Record::new(reference, digest, ImageConfig::default(), rootfs, None)
    }

    /// An image of `bytes` bytes that was last used `hours` ago.
    fn put(&self, record: &Record, bytes: u64, hours: u64) {
        let work = self.store.begin().unwrap();
        let (path, file) = work.file("rootfs.erofs").unwrap();
        file.set_len(bytes).unwrap();
        self.store
            .commit(record, Some(&path), &work)
            .unwrap()
            .unwrap();
        let record = File::options()
            .write(true)
            .open(self.store.record_path(&record.reference));
        let then = SystemTime::now() - Duration::from_secs(3600 * hours);
        record.unwrap().set_modified(then).unwrap();
    }

    fn collect(&self, rules: GarbageRules, in_use: &[&str]) -> (Vec<String>, u64) {
        let in_use = in_use.iter().map(|name| name.parse().unwrap()).collect();
        let freed = self.store.collect_garbage(rules, || in_use).unwrap();
        let names = freed.images.iter().map(|image| image.reference.to_string());
        let names: Vec<String> = names.collect();
        let short = |name: &String| name.trim_start_matches("docker.io/library/").to_owned();
        (names.iter().map(short).collect(), freed.bytes)
    }
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn the_one_idle_longest_goes_first_and_no_more_than_needed() {
    let case = Case::new();
    for (name, hours) in [("a:1", 3), ("b:1", 9), ("c:1", 1), ("d:1", 6)] {
        case.put(&Case::record(name, name), 1000, hours);
    }
    let within = |bytes_max| GarbageRules { bytes_max, ..ALL };
    assert_eq!(case.collect(within(4000), &[]), (names(&[]), 0));
    assert_eq!(
        case.collect(within(2500), &[]),
        (names(&["b:1", "d:1"]), 2000)
    );
    assert_eq!(case.store.list().unwrap().len(), 2);
    let kept = case.store.get(&"a:1".parse().unwrap()).unwrap().unwrap();
    assert!(kept.rootfs.is_file());
}

#[test]
fn what_a_machine_was_made_of_stays_by_tag_or_by_digest() {
    let case = Case::new();
    let by_digest = Case::record("a/x:1", "x");
    case.put(&by_digest, 1000, 9);
    case.put(&Case::record("y:1", "y"), 1000, 9);
    case.put(&Case::record("z:1", "z"), 1000, 9);
    let x = format!("a/x@{}", by_digest.digest);
    assert_eq!(case.collect(ALL, &[&x, "y:1"]), (names(&["z:1"]), 1000));
    // To have been in use makes them young.
    let an_hour = GarbageRules {
        idle_min: Duration::from_secs(3600),
        ..ALL
    };
    assert_eq!(case.collect(an_hour, &[]), (names(&[]), 0));
    assert_eq!(case.collect(ALL, &[]).1, 2000);
}

#[test]
fn what_is_shared_with_an_image_in_use_stays_and_is_counted_once() {
    let case = Case::new();
    for name in ["a:1", "b:1"] {
        case.put(&Case::record(name, "same"), 1000, 9);
    }
    assert_eq!(case.collect(ALL, &["b:1"]), (names(&[]), 0));
    let within = GarbageRules {
        bytes_max: 1000,
        ..ALL
    };
    assert_eq!(case.collect(within, &[]), (names(&[]), 0));
    let (mut gone, bytes) = case.collect(ALL, &[]);
    gone.sort();
    assert_eq!((gone, bytes), (names(&["a:1", "b:1"]), 1000));
}

#[test]
fn what_no_registry_can_give_back_stays_unless_told() {
    let case = Case::new();
    case.put(&Case::record("localhost/built:1", "l"), 1000, 9);
    case.put(&Case::record("x:1", "x").imported(), 1000, 9);
    assert_eq!(case.collect(ALL, &[]), (names(&[]), 0));
    let all = GarbageRules {
        imported: Imported::Go,
        ..ALL
    };
    assert_eq!(case.collect(all, &[]).1, 2000);
}

#[test]
fn what_was_just_used_stays() {
    let case = Case::new();
    case.put(&Case::record("a:1", "a"), 1000, 9);
    case.put(&Case::record("b:1", "b"), 1000, 9);
    let a = "a:1".parse().unwrap();
    assert!(case.store.get_for_use(&a).unwrap().is_some());
    let rules = GarbageRules {
        idle_min: Duration::from_secs(600),
        ..ALL
    };
    assert_eq!(case.collect(rules, &[]).0, names(&["b:1"]));
    assert_eq!(
        case.store.get_for_use(&"b:1".parse().unwrap()).unwrap(),
        None
    );
}

#[test]
fn a_damaged_record_keeps_every_file_and_nothing_is_claimed_as_freed() {
    let case = Case::new();
    case.put(&Case::record("a:1", "a"), 1000, 9);
    let damaged = Case::record("b:1", "b");
    case.put(&damaged, 1000, 9);
    fs::write(case.store.record_path(&damaged.reference), "{").unwrap();
    assert_eq!(case.collect(ALL, &[]), (names(&["a:1"]), 0));
}
