//! The merge against a model, and the cases that the model leaves out.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::convert::merge;
use crate::error::{ImageError, Limits};
use crate::layer::ReadAt;
use crate::tarball::Tarball;

impl ReadAt for Vec<u8> {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> std::io::Result<()> {
        self.as_slice().read_exact_at(buffer, offset)
    }
    fn total_bytes(&self) -> u64 {
        self.as_slice().total_bytes()
    }
}

fn merged(layers: Vec<Tarball>) -> Result<Tree, Reason> {
    let limits = Limits {
        entries_max: 5000,
        ..Limits::default()
    };
    let layers: Vec<Vec<u8>> = layers.into_iter().map(Tarball::finish).collect();
    let names: Vec<String> = (1..=layers.len()).map(|n| format!("layer {n}")).collect();
    merge(&layers, &names, &limits).map_err(|error| match error {
        ImageError::Refused(refused) => refused.reason,
        other => panic!("{other}"),
    })
}

fn reason(layers: Vec<Tarball>) -> Reason {
    merged(layers).map(|tree| flat(&tree).len()).unwrap_err()
}

/// What a path is, in few words; files with the same number are one inode.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Item {
    Directory { mode: u16 },
    File { mode: u16, inode: usize },
    Symlink,
}

type Flat = BTreeMap<String, Item>;

fn flat(tree: &Tree) -> Flat {
    let mut out = Flat::new();
    let mut todo = vec![(String::new(), ROOT)];
    while let Some((path, id)) = todo.pop() {
        let node = tree.node(id);
        let mode = node.meta.mode;
        let item = match &node.kind {
            Kind::Directory(children) => {
                for (name, child) in children {
                    let name = String::from_utf8(name.to_vec()).unwrap();
                    todo.push((format!("{path}/{name}"), *child));
                }
                Item::Directory { mode }
            }
            Kind::Symlink(_) => Item::Symlink,
            Kind::File(_) | Kind::Device(_) | Kind::Fifo => Item::File {
                mode,
                inode: id.index(),
            },
        };
        out.insert(path, item);
    }
    renumbered(out)
}

/// Numbers inodes in the order of their first names, so that trees can be compared.
fn renumbered(mut flat: Flat) -> Flat {
    let mut numbers = BTreeMap::new();
    for item in flat.values_mut() {
        if let Item::File { inode, .. } = item {
            let next = numbers.len();
            *inode = *numbers.entry(*inode).or_insert(next);
        }
    }
    flat
}

#[derive(Debug, Clone)]
enum Op {
    Directory(String, u16),
    File(String, u16),
    Symlink(String),
    HardLink(String, String),
    Whiteout(String),
    Opaque(String),
}

fn op() -> impl Strategy<Value = Op> {
    let path = || {
        prop::collection::vec(prop::sample::select(vec!["a", "b", "c"]), 1..4)
            .prop_map(|names| names.join("/"))
    };
    let mode = || 0_u16..0o1000;
    prop_oneof![
        3 => (path(), mode()).prop_map(|(path, mode)| Op::Directory(path, mode)),
        4 => (path(), mode()).prop_map(|(path, mode)| Op::File(path, mode)),
        // A symbolic link is never a parent here; following is tested by hand below.
        1 => path().prop_map(|path| Op::Symlink(format!("{path}/link"))),
        2 => (path(), path()).prop_map(|(path, target)| Op::HardLink(path, target)),
        2 => path().prop_map(Op::Whiteout),
        1 => path().prop_map(Op::Opaque),
    ]
}

fn tarball(ops: &[Op]) -> Tarball {
    ops.iter().fold(Tarball::new(), |tar, op| match op {
        Op::Directory(path, mode) => tar.directory(path, u32::from(*mode)),
        Op::File(path, mode) => tar.file(path, u32::from(*mode), b"x"),
        Op::Symlink(path) => tar.symlink(path, "/nowhere"),
        Op::HardLink(path, target) => tar.hard_link(path, target),
        Op::Whiteout(path) => tar.whiteout(path),
        Op::Opaque(path) => tar.opaque(path),
    })
}

/// The specification said again, over a flat map of paths. None where it is refused.
fn model(layers: &[Vec<Op>]) -> Option<Flat> {
    let mut flat = Flat::from([(String::new(), Item::Directory { mode: 0o755 })]);
    let mut inodes = 0;
    let below = |flat: &mut Flat, path: &str| {
        flat.retain(|other, _| !other.starts_with(&format!("{path}/")));
    };
    for layer in layers {
        for op in layer {
            match op {
                Op::Whiteout(path) => {
                    below(&mut flat, &format!("/{path}"));
                    flat.remove(&format!("/{path}"));
                }
                Op::Opaque(path) => below(&mut flat, &format!("/{path}")),
                _ => {}
            }
        }
        for op in layer {
            let (path, item) = match op {
                Op::Directory(path, mode) => (path, Item::Directory { mode: *mode }),
                Op::File(path, mode) => {
                    inodes += 1;
                    (
                        path,
                        Item::File {
                            mode: *mode,
                            inode: inodes,
                        },
                    )
                }
                Op::Symlink(path) => (path, Item::Symlink),
                Op::HardLink(path, target) => match flat.get(&format!("/{target}"))? {
                    Item::Directory { .. } => return None,
                    item => (path, item.clone()),
                },
                Op::Whiteout(_) | Op::Opaque(_) => continue,
            };
            let path = format!("/{path}");
            for (slash, _) in path.match_indices('/').skip(1) {
                let implied = Item::Directory { mode: 0o755 };
                match flat.entry(path[..slash].to_owned()).or_insert(implied) {
                    Item::Directory { .. } => {}
                    Item::File { .. } | Item::Symlink => return None,
                }
            }
            let stays = matches!(
                (&item, flat.get(&path)),
                (Item::Directory { .. }, Some(Item::Directory { .. }))
            );
            if !stays {
                below(&mut flat, &path);
            }
            flat.insert(path, item);
        }
    }
    Some(renumbered(flat))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn the_merge_is_what_the_specification_says(
        layers in prop::collection::vec(prop::collection::vec(op(), 0..8), 1..4)
    ) {
        let tree = merged(layers.iter().map(|ops| tarball(ops)).collect());
        prop_assert_eq!(tree.ok().map(|tree| flat(&tree)), model(&layers));
    }

    #[test]
    fn whatever_the_bytes_are_the_merge_returns(data in prop::collection::vec(any::<u8>(), 0..2048)) {
        crate::fuzz_layer(&data);
    }

    #[test]
    fn a_bent_layer_is_read_or_refused(
        layers in prop::collection::vec(op(), 0..8),
        bends in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4)
    ) {
        let mut tar = tarball(&layers).finish();
        for (at, byte) in bends {
            let at = at.index(tar.len());
            tar[at] = byte;
            // A checksum that is right again lets the change through to the next check.
            let header = at / 512 * 512;
            let sum: u32 = (header..header + 512)
                .map(|i| if (148..156).contains(&(i - header)) { 32 } else { u32::from(tar[i]) })
                .sum();
            tar[header + 148..header + 156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
        crate::fuzz_layer(&tar);
    }
}

#[test]
fn a_parent_that_is_a_symbolic_link_is_followed_inside_the_image() {
    let usr_merged = Tarball::new()
        .directory("usr/bin/", 0o755)
        .symlink("bin", "usr/bin");
    let tree = merged(vec![
        usr_merged,
        Tarball::new().file("bin/tool", 0o755, b"x"),
    ])
    .unwrap();
    assert!(flat(&tree).contains_key("/usr/bin/tool"));
    let absolute = Tarball::new().symlink("bin", "/usr/../usr/bin");
    let tree = merged(vec![absolute, Tarball::new().file("bin/tool", 0o755, b"x")]).unwrap();
    assert!(flat(&tree).contains_key("/usr/bin/tool"));
}

#[test]
fn writing_through_a_link_that_leaves_the_image_is_refused() {
    for target in ["..", "/../etc", "../../../../etc", "a/../../etc"] {
        let layers = vec![
            Tarball::new().directory("a/", 0o755).symlink("out", target),
            Tarball::new().file("out/passwd", 0o644, b"x"),
        ];
        assert_eq!(reason(layers), Reason::LeavesRoot, "{target}");
    }
    let alone = Tarball::new().symlink("out", "../../etc");
    assert!(merged(vec![alone]).is_ok(), "the link itself is only data");
}

#[test]
fn a_loop_of_symbolic_links_is_refused() {
    let layers = vec![
        Tarball::new()
            .symlink("a", "b")
            .symlink("b", "a")
            .file("a/x", 0o644, b""),
    ];
    assert_eq!(reason(layers), Reason::SymlinkLoop);
}

#[test]
fn the_last_component_is_never_followed() {
    let layers = vec![
        Tarball::new()
            .file("secret", 0o600, b"x")
            .symlink("link", "secret"),
        Tarball::new().file("link", 0o644, b"y"),
    ];
    let flat = flat(&merged(layers).unwrap());
    assert_eq!(
        flat["/secret"],
        Item::File {
            mode: 0o600,
            inode: 1
        }
    );
    assert_eq!(
        flat["/link"],
        Item::File {
            mode: 0o644,
            inode: 0
        }
    );
}

#[test]
fn a_directory_replaces_a_link_and_does_not_change_what_it_points_to() {
    let layers = vec![
        Tarball::new()
            .directory("real/", 0o700)
            .symlink("link", "real"),
        Tarball::new().directory("link/", 0o755),
    ];
    let flat = flat(&merged(layers).unwrap());
    assert_eq!(flat["/real"], Item::Directory { mode: 0o700 });
    assert_eq!(flat["/link"], Item::Directory { mode: 0o755 });
}

#[test]
fn a_whiteout_never_hides_what_its_own_layer_brings() {
    let layers = vec![
        Tarball::new()
            .file("d/old", 0o644, b"")
            .file("x", 0o644, b""),
        Tarball::new()
            .file("d/new", 0o600, b"")
            .opaque("d")
            .file("x", 0o600, b"")
            .whiteout("x"),
    ];
    let flat = flat(&merged(layers).unwrap());
    assert!(flat.contains_key("/d/new") && !flat.contains_key("/d/old"));
    assert_eq!(
        flat["/x"],
        Item::File {
            mode: 0o600,
            inode: 1
        }
    );
}

#[test]
fn a_whiteout_of_nothing_hides_nothing() {
    let layers = vec![
        Tarball::new().file("f", 0o644, b""),
        Tarball::new().whiteout("f/x/y").whiteout("no"),
    ];
    assert_eq!(flat(&merged(layers).unwrap()).len(), 2);
}

#[test]
fn the_root_stays_a_directory() {
    let mode = merged(vec![Tarball::new().directory("./", 0o700)])
        .unwrap()
        .node(ROOT)
        .meta
        .mode;
    assert_eq!(mode, 0o700);
    let layer = Tarball::new().file(".", 0o644, b"");
    assert_eq!(reason(vec![layer]), Reason::RootNotDirectory);
    let layer = Tarball::new().symlink("/", "x");
    assert_eq!(reason(vec![layer]), Reason::RootNotDirectory);
}

#[test]
fn a_tree_that_is_too_large_is_refused() {
    let many = (0..5001).fold(Tarball::new(), |tar, n| {
        tar.file(&n.to_string(), 0o644, b"")
    });
    assert_eq!(reason(vec![many]), Reason::TooManyEntries(5000));
    let parents = (0..200).fold(Tarball::new(), |tar, n| {
        tar.file(&format!("{n}/{}", "a/".repeat(40)), 0o644, b"x")
    });
    assert_eq!(reason(vec![parents]), Reason::TooManyEntries(5000));
    let deep = "d/".repeat(600);
    let deep = Tarball::new()
        .pax(&[("path", deep.as_bytes())])
        .directory("x", 0o755);
    assert_eq!(reason(vec![deep]), Reason::TooDeep);
    let target = "t".repeat(4000);
    let heavy = (0..4000).fold(Tarball::new(), |tar, n| {
        let value = [b'v'; 60_000];
        let records = [
            ("linkpath", target.as_bytes()),
            ("SCHILY.xattr.user.x", &value[..]),
        ];
        tar.pax(&records).symlink(&n.to_string(), "x")
    });
    assert_eq!(reason(vec![heavy]), Reason::TooMuchMetadata);
}
