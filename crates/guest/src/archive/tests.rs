//! Archives there and back, and hostile ones.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;
use tar::{Builder, EntryType, Header};

use super::*;
use crate::root::{Owner, Root};

fn own() -> Owner {
    Owner {
        uid: nix::unistd::getuid().as_raw(),
        gid: nix::unistd::getgid().as_raw(),
    }
}

/// A root, and something beside it that must not change.
fn root() -> (tempfile::TempDir, Root) {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("root")).unwrap();
    fs::create_dir(directory.path().join("outside")).unwrap();
    let root = Root::open(&directory.path().join("root")).unwrap();
    (directory, root)
}

fn entry(kind: EntryType, name: &str, link: &str, data: &[u8]) -> Vec<u8> {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(0o4755);
    header.set_mtime(1_000_000_000);
    header.set_size(data.len() as u64);
    // Past the library's checks.
    let raw = header.as_old_mut();
    raw.name[..name.len()].copy_from_slice(name.as_bytes());
    raw.linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend_from_slice(data);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn pax(records: &str) -> Vec<u8> {
    entry(EntryType::XHeader, "pax", "", records.as_bytes())
}

fn unpack_all(root: &Root, entries: &[Vec<u8>]) -> Result<(), ArchiveError> {
    unpack(root, own(), entries.concat().as_slice())
}

#[test]
fn files_directories_and_links_come_back_as_they_were() {
    let (directory, root) = root();
    let tree = directory.path().join("root/tree");
    fs::create_dir_all(tree.join("sub")).unwrap();
    fs::write(tree.join("sub/file"), "content").unwrap();
    let long = "n".repeat(200);
    fs::write(tree.join(&long), "long").unwrap();
    symlink("/etc/passwd", tree.join("link")).unwrap();
    nix::unistd::mkfifo(&tree.join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let mut archive = Vec::new();
    pack(&root, Path::new("/tree"), &mut archive).unwrap();
    let target = Root::open(&directory.path().join("outside")).unwrap();
    unpack(&target, own(), archive.as_slice()).unwrap();
    let copy = directory.path().join("outside/tree");
    assert_eq!(fs::read(copy.join("sub/file")).unwrap(), b"content");
    assert_eq!(fs::read(copy.join(&long)).unwrap(), b"long");
    assert_eq!(
        fs::read_link(copy.join("link")).unwrap(),
        Path::new("/etc/passwd")
    );
    assert!(!copy.join("fifo").exists());
    assert_eq!(fs::read_dir(&copy).unwrap().count(), 3);
    // Again over what is there, and a single file.
    unpack(&target, own(), archive.as_slice()).unwrap();
    let mut archive = Vec::new();
    pack(&root, Path::new("tree/sub/file"), &mut archive).unwrap();
    unpack(&target, own(), archive.as_slice()).unwrap();
    assert_eq!(
        fs::read(directory.path().join("outside/file")).unwrap(),
        b"content"
    );
    let missing = pack(&root, Path::new("/missing"), Vec::new()).unwrap_err();
    assert!(matches!(missing, ArchiveError::Read { .. }), "{missing}");
}

#[test]
fn a_file_has_its_bits_and_time_but_no_set_user_id() {
    let (directory, root) = root();
    let file = entry(EntryType::Regular, "bin/tool", "", b"x");
    unpack_all(
        &root,
        &[file, entry(EntryType::Link, "bin/other", "bin/tool", b"")],
    )
    .unwrap();
    let path = directory.path().join("root/bin/tool");
    let found = fs::metadata(&path).unwrap();
    assert_eq!(
        (found.mode() & 0o7777, found.mtime(), found.nlink()),
        (0o755, 1_000_000_000, 2)
    );
    // A name given to what has it already.
    unpack_all(
        &root,
        &[entry(EntryType::Link, "bin/other", "/bin/tool", b"")],
    )
    .unwrap();
    assert_eq!(
        fs::read_dir(directory.path().join("root/bin"))
            .unwrap()
            .count(),
        2
    );
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o7000,
        0
    );
}

#[test]
fn nothing_is_written_outside_by_any_kind_of_entry() {
    let (directory, root) = root();
    let outside = directory.path().join("outside");
    fs::write(outside.join("secret"), "secret").unwrap();
    symlink(&outside, directory.path().join("root/absolute")).unwrap();
    symlink("../outside", directory.path().join("root/relative")).unwrap();
    let file = |name| entry(EntryType::Regular, name, "", b"x");
    let refused = [
        vec![file("../outside/new")],
        vec![file("a/../../outside/new")],
        vec![pax("27 path=../outside/newnew\n"), file("a")],
        vec![entry(EntryType::Link, "a", "../outside/secret", b"")],
        vec![entry(EntryType::Link, "a", "relative/secret", b"")],
        vec![entry(EntryType::Char, "a", "", b"")],
        vec![entry(EntryType::Block, "a", "", b"")],
        vec![entry(EntryType::Fifo, "a", "", b"")],
        vec![entry(EntryType::GNUSparse, "a", "", b"")],
        vec![pax("99 path=a\n"), file("a")],
        vec![pax("12 size=999\n"), file("a")],
        vec![
            entry(EntryType::GNULongName, "", "", &[b'a'; 100_000]),
            file("a"),
        ],
    ];
    for entries in refused {
        assert!(unpack_all(&root, &entries).is_err());
    }
    // Links in the way are followed inside only: these lead nowhere there, or are replaced.
    for entries in [
        vec![file("absolute/new")],
        vec![file("relative/new")],
        vec![entry(EntryType::Symlink, "up", "..", b""), file("up/new")],
        vec![
            entry(EntryType::Symlink, "to", "/outside/secret", b""),
            file("to"),
        ],
    ] {
        let _ = unpack_all(&root, &entries);
    }
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    assert_eq!(fs::read(outside.join("secret")).unwrap(), b"secret");
    assert_eq!(fs::read(directory.path().join("root/to")).unwrap(), b"x");
    let mut archive = Vec::new();
    assert!(pack(&root, Path::new("/absolute/secret"), &mut archive).is_err());
    assert!(pack(&root, Path::new("/../outside/secret"), &mut archive).is_err());
    pack(&root, Path::new("/"), &mut archive).unwrap();
    assert!(!archive.windows(6).any(|window| window == b"secret"));
}

/// Somebody exchanges a directory and a link out of the root for as long as this goes on.
#[test]
fn nothing_leaves_the_root_while_somebody_renames() {
    let (directory, root) = root();
    let inside = directory.path().join("root");
    fs::create_dir(inside.join("a")).unwrap();
    symlink("../outside", inside.join("b")).unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let (stop, place) = (over.clone(), inside.clone());
    let hostile = std::thread::spawn(move || {
        while !stop.load(Ordering::Relaxed) {
            for (from, to) in [("a", "c"), ("b", "a"), ("a", "b"), ("c", "a")] {
                // An unpacking may have made one of them meanwhile.
                let _ = fs::rename(place.join(from), place.join(to));
            }
        }
    });
    fs::write(directory.path().join("outside/secret"), "secret").unwrap();
    for _ in 0..300 {
        let _ = unpack_all(&root, &[entry(EntryType::Regular, "a/new", "", b"x")]);
        let mut archive = Vec::new();
        let _ = pack(&root, Path::new("/a/"), &mut archive);
        assert!(!archive.windows(6).any(|window| window == b"secret"));
    }
    over.store(true, Ordering::Relaxed);
    hostile.join().unwrap();
    let outside = fs::read_dir(directory.path().join("outside")).unwrap();
    assert_eq!(outside.count(), 1);
}

#[test]
fn an_archive_that_is_cut_off_is_an_error() {
    let (_directory, root) = root();
    let mut builder = Builder::new(Vec::new());
    let mut header = Header::new_gnu();
    header.set_size(1000);
    header.set_mode(0o644);
    builder
        .append_data(&mut header, "file", [7; 1000].as_slice())
        .unwrap();
    let archive = builder.into_inner().unwrap();
    for length in [1, 511, 512, 1000, 1511] {
        assert!(
            unpack(&root, own(), &archive[..length]).is_err(),
            "{length}"
        );
    }
    unpack(&root, own(), archive.as_slice()).unwrap();
    unpack(&root, own(), [].as_slice()).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn hostile_archives_end_and_write_nothing_outside(
        entries in proptest::collection::vec(
            (
                proptest::sample::select(b"0123457LKxgS".to_vec()),
                "[a/.]{0,12}",
                "[a/.]{0,12}",
                proptest::collection::vec(any::<u8>(), 0..40),
            ),
            0..20,
        ),
    ) {
        let (directory, root) = root();
        let entries: Vec<_> = entries
            .iter()
            .map(|(kind, name, link, data)| entry(EntryType::new(*kind), name, link, data))
            .collect();
        let _ = unpack_all(&root, &entries);
        prop_assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
        prop_assert_eq!(fs::read_dir(directory.path().join("outside")).unwrap().count(), 0);
    }
}
