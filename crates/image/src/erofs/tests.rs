//! What can be said of an image without a kernel. With one: `tests/mounted.rs`.

use std::io::Cursor;

use super::format::BLOCK_BYTES;
use super::*;
use crate::convert::merge;
use crate::error::Limits;
use crate::tarball::Tarball;
use crate::tree::Tree;

fn image(tar: Tarball) -> Vec<u8> {
    let spools = [tar.finish()];
    let tree = merge(&spools, &["layer".to_owned()], &Limits::default()).unwrap();
    let plan = plan(&tree).unwrap();
    write(&tree, &plan, &spools, [7; 16], Cursor::new(Vec::new()))
        .unwrap()
        .into_inner()
}

#[test]
fn the_order_of_a_layers_entries_does_not_change_the_image_of_a_directory() {
    let a = Tarball::new()
        .directory("d/", 0o755)
        .symlink("d/a", "x")
        .symlink("d/b", "y");
    let b = Tarball::new()
        .directory("d/", 0o755)
        .symlink("d/b", "y")
        .symlink("d/a", "x");
    assert_eq!(image(a), image(b));
}

#[test]
fn an_image_is_whole_blocks_with_the_superblock_in_the_first() {
    let image = image(Tarball::new().file("x", 0o644, &[1; 10_000]));
    assert_eq!(image.len() as u64 % BLOCK_BYTES, 0);
    assert_eq!(image[1024..1028], [0xe2, 0xe1, 0xf5, 0xe0]);
    let blocks = u32::from_le_bytes(image[1024 + 36..1024 + 40].try_into().unwrap());
    assert_eq!(u64::from(blocks) * BLOCK_BYTES, image.len() as u64);
}

#[test]
fn no_inode_and_no_tail_crosses_a_block_and_nothing_overlaps() {
    let mut tar = Tarball::new();
    for n in 0..300_usize {
        let value = vec![b'v'; n * 37 % 5000];
        let content = vec![b'c'; n * 613 % 9000];
        let path = format!("d{}/f{n}", n % 7);
        tar = tar
            .pax(&[("SCHILY.xattr.user.x", &value)])
            .file(&path, 0o644, &content);
    }
    let spools = [tar.finish()];
    let tree: Tree = merge(&spools, &["layer".to_owned()], &Limits::default()).unwrap();
    let plan = plan(&tree).unwrap();
    let mut end = 1152;
    for placed in &plan.placed {
        assert!(placed.offset >= end, "{placed:?} begins before {end}");
        assert!(
            placed.offset % BLOCK_BYTES + 64 <= BLOCK_BYTES,
            "{placed:?}"
        );
        let header = 64 + xattr::bytes(&tree.node(placed.node).meta.xattrs) as u64;
        let tail = placed.tail_bytes();
        if tail > 0 {
            assert!(
                placed.offset % BLOCK_BYTES + header + tail <= BLOCK_BYTES,
                "{placed:?}"
            );
        }
        end = placed.offset + header + tail;
    }
    assert!(end <= plan.metadata_blocks * BLOCK_BYTES);
}
