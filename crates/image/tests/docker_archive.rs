//! Archives that skopeo writes as `docker save` did, beside the layout they were made from.

#[allow(dead_code, reason = "each test file uses its own part")]
#[path = "common/layout.rs"]
mod layout;
#[allow(dead_code, reason = "each test file uses its own part")]
#[path = "common/tarball.rs"]
mod tarball;

use std::process::Command;

use image::ImageStore;
use tarball::Tarball;

#[test]
fn an_archive_of_skopeo_gives_the_same_files_as_its_layout() {
    let root = tempfile::tempdir().unwrap();
    let (from, archive) = (root.path().join("layout"), root.path().join("image.tar"));
    let layers = [
        Tarball::new().file("a", 0o644, b"lower").finish(),
        Tarball::new()
            .whiteout("a")
            .file("b", 0o644, b"upper")
            .finish(),
    ];
    layout::layout(&from, &layers);
    let copied = Command::new("skopeo")
        .arg("copy")
        .arg(format!("oci:{}", from.display()))
        .arg(format!(
            "docker-archive:{}:localhost/team/app:7",
            archive.display()
        ))
        .output();
    let copied = match copied {
        Ok(copied) => copied,
        Err(error) => {
            eprintln!("SKIPPED: an_archive_of_skopeo: skopeo: {error}");
            return;
        }
    };
    let stderr = String::from_utf8_lossy(&copied.stderr);
    assert!(copied.status.success(), "{stderr}");
    let store = ImageStore::open(&root.path().join("store")).unwrap();
    let saved = store.import(&archive, None).unwrap();
    assert_eq!(saved.reference.to_string(), "localhost/team/app:7");
    let name = "localhost/other:1".parse().unwrap();
    let laid_out = store.import(&from, Some(&name)).unwrap();
    assert_eq!(saved.config, laid_out.config);
    // The names of the two differ, as one's layers are compressed: compare all but the UUID.
    let content = |image: &image::Image| {
        let mut bytes = std::fs::read(&image.rootfs).unwrap();
        bytes[1024..1152].fill(0);
        bytes
    };
    assert!(content(&saved) == content(&laid_out));
}
