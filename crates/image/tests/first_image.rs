//! The image made of busybox, as the kernel shows it and as a program in it sees it.

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use common::{Mounted, fsck};
use image::ImageStore;

const BUSYBOX: &str = "/bin/busybox";

fn available(test: &str) -> bool {
    let there = Path::new(BUSYBOX).exists();
    if !there {
        eprintln!("SKIPPED: {test}: no {BUSYBOX}");
    }
    there
}

#[test]
fn the_first_image_has_a_shell_and_a_page_to_serve() {
    if !available("the_first_image_has_a_shell_and_a_page_to_serve") {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let store = ImageStore::open(root.path()).unwrap();
    let name = "localhost/hello:1".parse().unwrap();
    let image = store.busybox(Path::new(BUSYBOX), &name).unwrap();
    assert_eq!(image.config.cmd, ["hello"]);
    assert_eq!(store.get(&name).unwrap().unwrap(), image);
    assert_eq!(store.list().unwrap(), std::slice::from_ref(&image));
    fsck(&image.rootfs);
    let Some(mounted) = Mounted::new(&image.rootfs, "the_first_image_has_a_shell") else {
        return;
    };
    let mode = |path| {
        fs::metadata(mounted.path(path))
            .unwrap()
            .permissions()
            .mode()
    };
    assert_eq!(mode("tmp"), 0o041_777);
    assert_eq!(mode("bin/busybox"), 0o100_755);
    assert_eq!(
        fs::read(mounted.path("bin/busybox")).unwrap(),
        fs::read(BUSYBOX).unwrap()
    );
    assert_eq!(
        fs::read_link(mounted.path("bin/sh")).unwrap(),
        Path::new("/bin/busybox")
    );
    let said = Command::new("chroot")
        .arg(mounted.path(""))
        .args([
            "/bin/sh",
            "-c",
            "cat /www/index.html | wc -l; ls /usr/bin | wc -l; id -un",
        ])
        .output()
        .unwrap();
    let said = String::from_utf8(said.stdout).unwrap();
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines[1].parse::<u32>().unwrap() > 50, "{said}");
    assert_eq!(lines[2], "root");
}

#[test]
fn the_same_busybox_gives_the_same_image_byte_by_byte() {
    if !available("the_same_busybox_gives_the_same_image_byte_by_byte") {
        return;
    }
    let made: Vec<(String, Vec<u8>)> = (0..2)
        .map(|_| {
            let root = tempfile::tempdir().unwrap();
            let store = ImageStore::open(root.path()).unwrap();
            let name = "localhost/hello:1".parse().unwrap();
            let image = store.busybox(Path::new(BUSYBOX), &name).unwrap();
            (image.digest, fs::read(image.rootfs).unwrap())
        })
        .collect();
    assert_eq!(made[0], made[1]);
}

#[test]
fn a_removed_image_leaves_nothing_behind() {
    if !available("a_removed_image_leaves_nothing_behind") {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let store = ImageStore::open(root.path()).unwrap();
    let names = [
        "localhost/hello:1".parse().unwrap(),
        "localhost/hello:2".parse().unwrap(),
    ];
    for name in &names {
        store.busybox(Path::new(BUSYBOX), name).unwrap();
    }
    let files = || {
        let count = |directory| fs::read_dir(root.path().join(directory)).unwrap().count();
        (count("references"), count("rootfs"), count("work"))
    };
    assert_eq!(
        files(),
        (2, 1, 0),
        "equal layers share one root file system"
    );
    assert!(store.remove(&names[0]).unwrap());
    assert!(!store.remove(&names[0]).unwrap());
    assert_eq!(files(), (1, 1, 0));
    assert!(store.remove(&names[1]).unwrap());
    assert_eq!(files(), (0, 0, 0));
}
