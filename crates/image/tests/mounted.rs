//! What the kernel and umoci say about our images.

mod common;
#[allow(dead_code, reason = "each test file uses its own part")]
#[path = "common/layout.rs"]
mod layout;
#[allow(dead_code, reason = "each test file uses its own part")]
#[path = "common/tarball.rs"]
mod tarball;

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Mounted, fsck};
use image::{Image, ImageStore};
use tar::EntryType;
use tarball::Tarball;

struct Imported {
    root: tempfile::TempDir,
    image: Image,
}

impl Imported {
    fn of(layers: &[Vec<u8>]) -> Self {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("layout");
        layout::layout(&directory, layers);
        let store = ImageStore::open(&root.path().join("store")).unwrap();
        let image = store
            .import_layout(&directory, &"localhost/x:1".parse().unwrap())
            .unwrap();
        fsck(&image.rootfs);
        Self { root, image }
    }
}

fn content(bytes: usize) -> Vec<u8> {
    (0..bytes)
        .map(|i| u8::try_from(i * 31 % 251).unwrap())
        .collect()
}

/// `cap_net_raw` as the kernel stores it, version 2.
const CAPABILITY: &[u8] = b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

/// Everything that a merge can meet, in three layers.
fn layers() -> Vec<Vec<u8>> {
    let mut owned = Tarball::header(EntryType::Regular, "owned", 0o4755);
    owned.set_uid(1000);
    owned.set_gid(70_000);
    let lower = Tarball::new()
        .directory("./", 0o755)
        .directory("etc/", 0o750)
        .file("etc/conf", 0o640, b"lower\n")
        .file("etc/gone", 0o644, b"x")
        .directory("dir/", 0o755)
        .file("dir/below", 0o644, b"x")
        .directory("keep/", 0o1777)
        .file("keep/old", 0o644, b"old")
        .symlink("usr", "real/usr")
        .directory("real/usr/bin/", 0o755)
        .raw(owned, &[])
        .pax(&[("SCHILY.xattr.security.capability", CAPABILITY)])
        .file("ping", 0o755, b"ping")
        .pax(&[
            ("SCHILY.xattr.user.long", &content(3000)),
            ("mtime", b"1234567890.123456789"),
        ])
        .file("attributes", 0o644, &content(100))
        .pax(&[(
            "path",
            format!("{}/{}", "d".repeat(255), "f".repeat(255)).as_bytes(),
        )])
        .file("long", 0o644, b"long")
        .device(EntryType::Char, "null", 1, 3)
        .device(EntryType::Block, "loop", 7, 300)
        .raw(Tarball::header(EntryType::Fifo, "pipe", 0o600), &[])
        .file("big", 0o644, &content(3_000_001));
    let middle = (0..=13)
        .flat_map(|power| [(1_usize << power) - 1, 1 << power, (1 << power) + 1])
        .fold(Tarball::new(), |tar, n| {
            tar.file(&format!("sizes/{n}"), 0o600, &content(n))
        })
        .whiteout("etc/gone")
        .opaque("dir")
        .file("dir/above", 0o644, b"y")
        .file("usr/bin/tool", 0o755, b"through a link")
        .hard_link("usr/bin/alias", "real/usr/bin/tool")
        .hard_link("hard-null", "null");
    let many = (0..12_000).fold(Tarball::new(), |tar, n| {
        tar.file(&format!("many/entry-{}", n * 7919 % 12_000), 0o644, b"")
    });
    let upper = many
        .file("etc/conf", 0o600, b"upper\n")
        .directory("keep/", 0o700)
        .file("keep/-sorts-before-dot", 0o644, b"")
        .hard_link("etc/conf.link", "etc/conf")
        .symlink("short", "x")
        .pax(&[("linkpath", "t".repeat(4090).as_bytes())])
        .symlink("long-link", "x");
    [lower, middle, upper].map(Tarball::finish).to_vec()
}

/// All that `stat` and its friends tell about a path.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    mode: u32,
    owner: (u32, u32),
    device: u64,
    mtime: (i64, i64),
    links: u64,
    content: Vec<u8>,
    same_inode_as: PathBuf,
}

/// Looks at a whole tree. Link counts of directories are the file system's own affair.
fn look(root: &Path) -> BTreeMap<PathBuf, Seen> {
    let mut seen = BTreeMap::new();
    let mut inodes = BTreeMap::new();
    let mut todo = vec![PathBuf::new()];
    while let Some(inside) = todo.pop() {
        let path = root.join(&inside);
        let meta = fs::symlink_metadata(&path).unwrap();
        let kind = meta.file_type();
        let mut content = Vec::new();
        if kind.is_dir() {
            todo.extend(
                fs::read_dir(&path)
                    .unwrap()
                    .map(|e| inside.join(e.unwrap().file_name())),
            );
        } else if kind.is_symlink() {
            content = fs::read_link(&path)
                .unwrap()
                .as_os_str()
                .as_bytes()
                .to_vec();
        } else if kind.is_file() {
            fs::File::open(&path)
                .unwrap()
                .read_to_end(&mut content)
                .unwrap();
            assert_eq!(content.len() as u64, meta.len());
        }
        let device = kind.is_char_device() || kind.is_block_device();
        let links = if kind.is_dir() { 0 } else { meta.nlink() };
        let shared = inodes.entry(meta.ino()).or_insert_with(|| inside.clone());
        let item = Seen {
            mode: meta.mode(),
            owner: (meta.uid(), meta.gid()),
            device: if device { meta.rdev() } else { 0 },
            mtime: (meta.mtime(), meta.mtime_nsec()),
            links,
            content,
            same_inode_as: if kind.is_dir() {
                inside.clone()
            } else {
                shared.clone()
            },
        };
        seen.insert(inside, item);
    }
    // Which name of an inode was met first differs between file systems.
    let mut first: BTreeMap<PathBuf, PathBuf> = BTreeMap::new();
    for (path, item) in &seen {
        first
            .entry(item.same_inode_as.clone())
            .or_insert_with(|| path.clone());
    }
    for item in seen.values_mut() {
        item.same_inode_as = first[&item.same_inode_as].clone();
    }
    seen
}

fn attribute(path: &Path, name: &str) -> Vec<u8> {
    let mut value = vec![0; 65536];
    let bytes = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
    value.truncate(bytes);
    value
}

#[test]
fn the_kernel_shows_what_the_layers_say() {
    let imported = Imported::of(&layers());
    let Some(mounted) = Mounted::new(&imported.image.rootfs, "the_kernel_shows") else {
        return;
    };
    let seen = look(&mounted.path(""));
    let at = |path: &str| &seen[Path::new(path)];
    assert_eq!(
        (at("owned").mode, at("owned").owner),
        (0o104_755, (1000, 70_000))
    );
    assert_eq!((at("null").mode, at("null").device), (0o020_600, 0x103));
    assert_eq!(at("loop").device, nix::sys::stat::makedev(7, 300));
    assert_eq!(at("hard-null").same_inode_as, Path::new("hard-null"));
    assert_eq!(at("null").same_inode_as, Path::new("hard-null"));
    assert_eq!(at("pipe").mode, 0o010_600);
    assert_eq!(at("big").content, content(3_000_001));
    for n in (0..=13).flat_map(|power| [(1 << power) - 1, 1 << power, (1 << power) + 1]) {
        assert_eq!(at(&format!("sizes/{n}")).content, content(n));
    }
    assert_eq!((at("etc").mode, at("keep").mode), (0o040_750, 0o040_700));
    assert_eq!(
        (&at("etc/conf").content[..], at("etc/conf").links),
        (&b"upper\n"[..], 2)
    );
    assert_eq!(
        at("real/usr/bin/alias").same_inode_as,
        Path::new("real/usr/bin/alias")
    );
    assert_eq!(at("real/usr/bin/tool").links, 2);
    assert_eq!(at("attributes").mtime, (1_234_567_890, 123_456_789));
    assert_eq!(at("attributes").content, content(100));
    assert_eq!(at("long-link").content.len(), 4090);
    assert_eq!(at("usr").content, b"real/usr");
    for gone in ["etc/gone", "dir/below", "etc/.wh.gone"] {
        assert!(!seen.contains_key(Path::new(gone)), "{gone}");
    }
    assert_eq!(
        seen.keys().filter(|path| path.starts_with("many")).count(),
        12_001
    );
    assert!(fs::symlink_metadata(mounted.path("many/entry-11999")).is_ok());
    assert!(fs::symlink_metadata(mounted.path("many/entry-12000")).is_err());
    assert_eq!(
        attribute(&mounted.path("attributes"), "user.long"),
        content(3000)
    );
    assert_eq!(
        attribute(&mounted.path("ping"), "security.capability"),
        CAPABILITY
    );
}

#[test]
fn our_tree_is_the_one_that_umoci_unpacks() {
    let imported = Imported::of(&layers());
    let Some(mounted) = Mounted::new(&imported.image.rootfs, "our_tree_is_umocis") else {
        return;
    };
    let bundle = imported.root.path().join("bundle");
    let layout = format!("{}:1", imported.root.path().join("layout").display());
    let output = Command::new("umoci")
        .args(["unpack", "--image", &layout])
        .arg(&bundle)
        .output();
    let output = match output {
        Ok(output) => output,
        Err(error) => return eprintln!("SKIPPED: our_tree_is_the_one_that_umoci_unpacks: {error}"),
    };
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let (ours, theirs) = (look(&mounted.path("")), look(&bundle.join("rootfs")));
    let paths = |tree: &BTreeMap<PathBuf, Seen>| tree.keys().cloned().collect::<Vec<_>>();
    assert_eq!(paths(&ours), paths(&theirs));
    for (path, item) in ours {
        // No layer says when `real` and the like changed, and umoci's own work changes the root.
        let implied = item.mtime == (0, 0) || path == Path::new("");
        let other = &theirs[&path];
        assert_eq!(item.mode, other.mode, "{path:?}");
        assert_eq!(item.owner, other.owner, "{path:?}");
        assert_eq!(item.device, other.device, "{path:?}");
        assert_eq!(item.links, other.links, "{path:?}");
        assert_eq!(item.same_inode_as, other.same_inode_as, "{path:?}");
        assert!(item.content == other.content, "{path:?}");
        assert!(implied || item.mtime == other.mtime, "{path:?}: {item:?}");
    }
}

#[test]
fn an_image_without_layers_is_an_empty_directory() {
    let imported = Imported::of(&[]);
    let Some(mounted) = Mounted::new(&imported.image.rootfs, "an_image_without_layers") else {
        return;
    };
    assert_eq!(fs::read_dir(mounted.path("")).unwrap().count(), 0);
}
