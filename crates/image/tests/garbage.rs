//! A collection that is killed at any moment leaves whole images and nothing else.

#[allow(dead_code, reason = "each test file uses its own part")]
#[path = "common/layout.rs"]
mod layout;
#[allow(dead_code, reason = "each test file uses its own part")]
#[path = "common/tarball.rs"]
mod tarball;

use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use image::{GarbageRules, ImageStore, Imported};
use tarball::Tarball;
use types::ImageRef;

const STORE: &str = "AEROSTAT_TEST_STORE";
const IMAGES: usize = 24;

fn name(n: usize) -> ImageRef {
    format!("localhost/x:{n}").parse().unwrap()
}

/// Every third image is in use.
fn in_use() -> Vec<ImageRef> {
    (0..IMAGES).step_by(3).map(name).collect()
}

/// Not a test of its own: what the other one starts and kills.
#[test]
fn collect_where_the_environment_says() {
    let Some(root) = std::env::var_os(STORE) else {
        return;
    };
    let store = ImageStore::open(Path::new(&root)).unwrap();
    eprintln!("begin");
    let images = store.list().unwrap();
    // One at a time, so that there are many steps to be killed between.
    let whole: u64 = images.iter().map(|image| image.size_bytes).sum();
    for bytes_max in (0..whole).rev().step_by(4096) {
        let rules = GarbageRules {
            bytes_max,
            idle_min: Duration::ZERO,
            imported: Imported::Go,
        };
        store.collect_garbage(rules, in_use).unwrap();
    }
}

#[test]
fn a_collection_killed_at_any_moment_leaves_whole_images() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("store");
    let (mut cut_short, mut left) = (0, IMAGES);
    for round in 0..12 {
        let store = ImageStore::open(&path).unwrap();
        for n in 0..IMAGES {
            if store.get(&name(n)).unwrap().is_none() {
                let layout = root.path().join(format!("layout-{n}"));
                let content = format!("image {n}").repeat(2000);
                let layer = Tarball::new().file("x", 0o644, content.as_bytes()).finish();
                layout::layout(&layout, &[layer]);
                store.import(&layout, Some(&name(n))).unwrap();
            }
        }
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "collect_where_the_environment_says",
                "--nocapture",
            ])
            .env(STORE, &path)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut begin = [0; 6];
        child.stderr.take().unwrap().read_exact(&mut begin).unwrap();
        std::thread::sleep(Duration::from_millis(6 * round));
        child.kill().unwrap();
        child.wait().unwrap();

        let store = ImageStore::open(&path).unwrap();
        let images = store.list().unwrap();
        let files = |folder: &str| std::fs::read_dir(path.join(folder)).unwrap().count();
        assert_eq!(
            files("references"),
            images.len(),
            "a record without its file"
        );
        assert_eq!(files("rootfs"), images.len(), "a file without its record");
        assert_eq!(files("work"), 0);
        for image in in_use() {
            assert!(store.get(&image).unwrap().is_some(), "{image} was in use");
        }
        cut_short += usize::from(images.len() > in_use().len());
        left = left.min(images.len());
    }
    assert!(cut_short > 0, "no collection was cut short");
    eprintln!("{cut_short} of 12 collections were cut short; the furthest left {left} images");
}
