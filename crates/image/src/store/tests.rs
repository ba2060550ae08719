//! The store after crashes, in several hands, and with hands in it.

use super::*;

fn store() -> (tempfile::TempDir, ImageStore) {
    let root = tempfile::tempdir().unwrap();
    let store = ImageStore::open(root.path()).unwrap();
    (root, store)
}

fn record(reference: &str, rootfs: &[u8]) -> Record {
    let reference = reference.parse().unwrap();
    let (digest, rootfs) = (Digest::of(b"manifest"), Digest::of(rootfs));
    Record::new(reference, digest, ImageConfig::default(), rootfs, None)
}

fn stored(store: &ImageStore, record: &Record) -> Image {
    let work = store.begin().unwrap();
    let (path, _) = work.file("rootfs.erofs").unwrap();
    store.commit(record, Some(&path), &work).unwrap().unwrap()
}

fn count(root: &Path, directory: &str) -> usize {
    fs::read_dir(root.join(directory)).unwrap().count()
}

#[test]
fn a_tag_that_moves_takes_the_old_root_file_system_away() {
    let (root, store) = store();
    let old = stored(&store, &record("x:1", b"old"));
    let new = stored(&store, &record("x:1", b"new"));
    assert!(!old.rootfs.exists() && new.rootfs.exists());
    assert_eq!(
        (count(root.path(), "references"), store.list().unwrap()),
        (1, vec![new])
    );
}

#[test]
fn what_a_crash_left_is_removed_and_what_is_in_work_is_not() {
    let (root, store) = store();
    let kept = stored(&store, &record("x:1", b"kept"));
    let busy = store.begin().unwrap();
    let crashed = root.path().join("work/image-crashed");
    fs::create_dir(&crashed).unwrap();
    fs::write(crashed.join("lock"), "").unwrap();
    fs::write(crashed.join("rootfs.erofs"), "half").unwrap();
    fs::create_dir(root.path().join("work/image-without-a-lock")).unwrap();
    // Renamed, but the record was not written.
    let orphan = root
        .path()
        .join("rootfs")
        .join(format!("{}.erofs", Digest::of(b"o").hex()));
    fs::write(&orphan, "whole").unwrap();

    let again = ImageStore::open(root.path()).unwrap();
    assert!(busy.path().exists() && !crashed.exists() && !orphan.exists());
    assert_eq!(count(root.path(), "work"), 1);
    assert_eq!(again.list().unwrap(), [kept]);
}

#[test]
fn an_image_whose_file_was_taken_away_is_absent_until_it_is_stored_again() {
    let (_root, store) = store();
    let image = stored(&store, &record("x:1", b"x"));
    fs::remove_file(&image.rootfs).unwrap();
    assert_eq!(store.get(&image.reference).unwrap(), None);
    assert_eq!(store.list().unwrap(), []);
    let work = store.begin().unwrap();
    assert_eq!(
        store.commit(&record("x:1", b"x"), None, &work).unwrap(),
        None
    );
    stored(&store, &record("x:1", b"x"));
    assert!(store.get(&image.reference).unwrap().is_some());
}

#[test]
fn a_digest_finds_the_image_only_in_its_own_repository() {
    let (_root, store) = store();
    let image = stored(&store, &record("a/x:1", b"x"));
    let by_digest = |name: &str| format!("{name}@{}", image.digest).parse().unwrap();
    assert_eq!(store.get(&by_digest("a/x")).unwrap(), Some(image.clone()));
    assert_eq!(store.get(&by_digest("b/x")).unwrap(), None);
    assert!(store.remove(&by_digest("a/x")).unwrap());
    assert_eq!(store.list().unwrap(), []);
}

#[test]
fn many_writers_leave_one_whole_image_each() {
    let (root, store) = store();
    std::thread::scope(|scope| {
        for n in 0..8 {
            let root = root.path();
            scope.spawn(move || {
                let store = ImageStore::open(root).unwrap();
                for round in 0..10 {
                    stored(
                        &store,
                        &record(&format!("x:{n}"), format!("{n}{round}").as_bytes()),
                    );
                }
            });
        }
    });
    assert_eq!(store.list().unwrap().len(), 8);
    assert_eq!(
        (count(root.path(), "rootfs"), count(root.path(), "work")),
        (8, 0)
    );
}

#[test]
fn a_damaged_record_is_named_and_hides_no_other_image() {
    let (root, store) = store();
    let other = stored(&store, &record("y:1", b"y"));
    let image = stored(&store, &record("x:1", b"x"));
    let path = store.record_path(&image.reference);
    fs::write(&path, "{").unwrap();
    let error = store.get(&image.reference).unwrap_err().to_string();
    assert_eq!(error, format!("image record {} is damaged", path.display()));
    let store = ImageStore::open(root.path()).unwrap();
    assert_eq!(store.list().unwrap(), [other]);
    assert!(
        image.rootfs.exists(),
        "what a damaged record may name is kept"
    );
    stored(&store, &record("x:1", b"x"));
    assert!(store.get(&image.reference).unwrap().is_some());
}
