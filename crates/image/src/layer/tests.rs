//! What the reader takes and what it refuses, down to the byte.

use tar::EntryType;

use super::*;
use crate::error::XATTR_BYTES_MAX;
use crate::tarball::Tarball;

fn read(tar: &[u8]) -> Result<Vec<Entry>, Reason> {
    Layer::new(tar)
        .map(|entry| match entry {
            Ok(entry) => Ok(entry),
            Err(LayerError::Refused { reason, .. }) => Err(reason),
            Err(LayerError::Io(error)) => panic!("{error}"),
        })
        .collect()
}

fn refused(tar: Tarball) -> Reason {
    match read(&tar.finish()) {
        Err(reason) => reason,
        Ok(entries) => panic!("accepted: {entries:?}"),
    }
}

fn only(tar: Tarball) -> Entry {
    let mut entries = read(&tar.finish()).unwrap();
    assert_eq!(entries.len(), 1, "{entries:?}");
    entries.remove(0)
}

#[test]
fn a_file_is_a_range_of_the_layer() {
    let tar = Tarball::new()
        .directory("etc/", 0o755)
        .file("./etc//hosts", 0o4644, b"::1 me\n")
        .finish();
    let entries = read(&tar).unwrap();
    assert_eq!(*entries[0].path, *b"etc");
    assert_eq!(*entries[1].path, *b"etc/hosts");
    let Change::File {
        meta,
        offset,
        bytes,
    } = &entries[1].change
    else {
        panic!("{entries:?}")
    };
    assert_eq!(
        (meta.mode, meta.mtime_s, *bytes),
        (0o4644, 1_600_000_000, 7)
    );
    let start = usize::try_from(*offset).unwrap();
    assert_eq!(&tar[start..start + 7], b"::1 me\n");
}

#[test]
fn an_absolute_path_is_relative_to_the_root() {
    assert_eq!(
        *only(Tarball::new().file("///etc/x", 0o644, b"")).path,
        *b"etc/x"
    );
}

#[test]
fn a_path_with_two_dots_is_refused_wherever_they_are() {
    for path in ["..", "../x", "a/../../x", "/../x", "a/.."] {
        assert_eq!(
            refused(Tarball::new().file(path, 0o644, b"")),
            Reason::ParentComponent
        );
        assert_eq!(
            refused(Tarball::new().hard_link("x", path)),
            Reason::ParentComponent
        );
    }
}

#[test]
fn long_names_come_by_pax_and_by_gnu() {
    let path = format!("{}/{}", "d".repeat(200), "f".repeat(200));
    let gnu = Tarball::new()
        .gnu_long_name(&path)
        .file("short", 0o644, b"");
    assert_eq!(*only(gnu).path, *path.as_bytes());
    let pax = Tarball::new()
        .pax(&[("path", path.as_bytes())])
        .file("short", 0o644, b"");
    assert_eq!(*only(pax).path, *path.as_bytes());
    let name = "x".repeat(256);
    let pax = Tarball::new()
        .pax(&[("path", name.as_bytes())])
        .file("short", 0o644, b"");
    assert_eq!(refused(pax), Reason::NameTooLong);
    let long = "x/".repeat(2048);
    let pax = Tarball::new()
        .pax(&[("path", long.as_bytes())])
        .file("short", 0o644, b"");
    assert_eq!(refused(pax), Reason::PathTooLong);
}

#[test]
fn pax_gives_owners_times_and_attributes() {
    let capability = b"\x01\0\0\x02\0\x20\0\n\0\0\0\0";
    let entry = only(
        Tarball::new()
            .pax(&[
                ("uid", b"3000000000"),
                ("mtime", b"-0.5"),
                ("SCHILY.xattr.security.capability", capability),
                ("SCHILY.xattr.user.b", b"2"),
                ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
                ("SCHILY.xattr.com.apple.provenance", b"x"),
            ])
            .file("ping", 0o755, b""),
    );
    let Change::File { meta, .. } = entry.change else {
        panic!()
    };
    assert_eq!(
        (meta.uid, meta.mtime_s, meta.mtime_ns),
        (3_000_000_000, -1, 500_000_000)
    );
    let names: Vec<_> = meta.xattrs.iter().map(|(name, _)| &**name).collect();
    assert_eq!(names, [&b"security.capability"[..], b"user.b"]);
    assert_eq!(*meta.xattrs[0].1, *capability);
}

#[test]
fn a_size_that_lies_is_refused() {
    let sizes = ["8", "99999999999999999999", "-1", "0x10"];
    let lies = sizes.map(|size| Tarball::new().pax(&[("size", size.as_bytes())]));
    for lie in lies {
        let end = Tarball::header(EntryType::Regular, "x", 0o644);
        let reason = read(&lie.raw(end, &[]).cut()).unwrap_err();
        assert!(
            matches!(reason, Reason::Truncated { .. } | Reason::Extension(_)),
            "{reason}"
        );
    }
    let mut header = Tarball::header(EntryType::Regular, "x", 0o644);
    header.set_size(u64::MAX >> 2);
    assert_eq!(
        read(&Tarball::new().raw(header, b"few").cut()),
        Err(Reason::Truncated {
            stated: u64::MAX >> 2
        })
    );
    let mut header = Tarball::header(EntryType::Directory, "x", 0o755);
    header.set_size(512);
    let reason = refused(Tarball::new().raw(header, &[1; 512]));
    assert_eq!(reason, Reason::Header("content where there can be none"));
}

#[test]
fn a_long_extension_is_refused_before_it_is_read() {
    let mut header = Tarball::header(EntryType::XHeader, "x", 0o644);
    header.set_size(1 << 40);
    let tar = Tarball::new().raw(header, &[]).cut();
    assert_eq!(read(&tar), Err(Reason::ExtensionTooLong(1 << 40)));
    let value = vec![b'v'; XATTR_BYTES_MAX + 1];
    let tar = Tarball::new()
        .pax(&[("SCHILY.xattr.user.x", &value)])
        .file("x", 0o644, b"");
    assert_eq!(refused(tar), Reason::XattrsTooLong);
}

#[test]
fn a_damaged_header_is_refused() {
    let mut tar = Tarball::new().file("x", 0o644, b"").finish();
    tar[3] ^= 1;
    assert_eq!(read(&tar), Err(Reason::Header("the checksum is wrong")));
    let tar = Tarball::new().raw_pax(b"nonsense").file("x", 0o644, b"");
    assert!(matches!(refused(tar), Reason::Extension(_)));
}

#[test]
fn whiteouts_name_what_they_hide() {
    let whiteout = only(Tarball::new().whiteout("a/b"));
    assert_eq!(
        (&*whiteout.path, whiteout.change),
        (&b"a/b"[..], Change::Whiteout)
    );
    let opaque = only(Tarball::new().opaque("a/b"));
    assert_eq!(
        (&*opaque.path, opaque.change),
        (&b"a/b"[..], Change::Opaque)
    );
}

#[test]
fn a_whiteout_of_a_parent_or_inside_a_path_is_refused() {
    for path in [".wh.", ".wh..", ".wh...", "a/.wh...", "a/.wh.b/c"] {
        let reason = refused(Tarball::new().file(path, 0o600, b""));
        assert_eq!(reason, Reason::BadWhiteout, "{path}");
    }
}

#[test]
fn the_books_of_aufs_are_skipped() {
    let tar = Tarball::new()
        .directory(".wh..wh.plnk/", 0o700)
        .file(".wh..wh.plnk/1.2", 0o600, b"x")
        .file(".wh..wh.aufs", 0o600, b"");
    assert_eq!(read(&tar.finish()).unwrap(), []);
}

#[test]
fn sparse_and_unknown_entries_are_refused() {
    let of = |kind| Tarball::new().raw(Tarball::header(EntryType::new(kind), "x", 0o644), &[]);
    assert_eq!(refused(of(b'S')), Reason::Sparse);
    assert_eq!(refused(of(b'V')), Reason::UnknownType('V'));
    let tar = Tarball::new()
        .pax(&[("GNU.sparse.major", b"1")])
        .file("x", 0o644, b"");
    assert_eq!(refused(tar), Reason::Sparse);
}

#[test]
fn devices_beyond_linuxs_numbers_are_refused() {
    let of = |major, minor| Tarball::new().device(EntryType::Char, "null", major, minor);
    let Change::Device { device, .. } = only(of(1, 3)).change else {
        panic!()
    };
    assert_eq!(
        (device.kind, device.major, device.minor),
        (DeviceKind::Character, 1, 3)
    );
    assert_eq!(
        refused(of(4096, 0)),
        Reason::DeviceNumber {
            major: 4096,
            minor: 0
        }
    );
}

#[test]
fn a_link_without_a_target_is_refused() {
    assert_eq!(refused(Tarball::new().symlink("x", "")), Reason::BadName);
    assert_eq!(refused(Tarball::new().hard_link("x", "")), Reason::BadName);
}
