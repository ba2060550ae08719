//! Archives as old Docker wrote them, and as nobody honest does.

use std::path::PathBuf;

use serde_json::Value;

use super::*;
use crate::store::{Image, ImageStore};
use crate::tarball::Tarball;

struct Case {
    root: tempfile::TempDir,
    store: ImageStore,
    archive: Tarball,
}

fn layer(text: &str) -> Vec<u8> {
    let file = Tarball::new().file("hello", 0o644, text.as_bytes());
    file.finish()
}

fn config(layers: &[Vec<u8>]) -> Vec<u8> {
    let diff_ids: Vec<Digest> = layers.iter().map(|layer| Digest::of(layer)).collect();
    let text = json!({ "os": "linux", "config": { "Cmd": ["/bin/hello"] },
        "rootfs": { "type": "layers", "diff_ids": diff_ids } });
    text.to_string().into_bytes()
}

impl Case {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let store = ImageStore::open(&root.path().join("store")).unwrap();
        let archive = Tarball::new();
        Self {
            root,
            store,
            archive,
        }
    }

    fn file(mut self, path: &str, content: &[u8]) -> Self {
        self.archive = self.archive.file(path, 0o644, content);
        self
    }

    fn symlink(mut self, path: &str, target: &str) -> Self {
        self.archive = self.archive.symlink(path, target);
        self
    }

    fn manifest(self, images: &Value) -> Self {
        self.file("manifest.json", images.to_string().as_bytes())
    }

    fn path(&self) -> PathBuf {
        let path = self.root.path().join("image.tar");
        std::fs::write(&path, self.archive.clone().finish()).unwrap();
        path
    }

    fn import(&self, name: Option<&str>) -> Result<Image, ImportError> {
        let name = name.map(|name| name.parse().unwrap());
        self.store.import(&self.path(), name.as_ref())
    }

    /// The error's text, and that nothing was stored.
    fn error(&self, name: Option<&str>) -> String {
        let error = self.import(name).unwrap_err();
        for directory in ["references", "rootfs", "work"] {
            let path = self.root.path().join("store").join(directory);
            assert_eq!(std::fs::read_dir(path).unwrap().count(), 0, "{directory}");
        }
        types::chain(&error).to_string()
    }
}

/// One image of one layer with these file names.
fn one(config_name: &str, layer_name: &str, tags: Value) -> Case {
    let layers = [layer("hello")];
    Case::new()
        .file(config_name, &config(&layers))
        .file(layer_name, &layers[0])
        .manifest(&json!([{ "Config": config_name, "RepoTags": tags, "Layers": [layer_name] }]))
}

#[test]
fn an_image_is_stored_under_the_given_name_or_its_own() {
    let case = one(
        "c.json",
        "1/layer.tar",
        json!(["team/app:3", "team/app:latest"]),
    );
    let image = case.import(None).unwrap();
    assert_eq!(image.reference.to_string(), "docker.io/team/app:3");
    assert_eq!(image.config.cmd, ["/bin/hello"]);
    let other = case.import(Some("localhost/x:1")).unwrap();
    assert_eq!(
        (other.digest, other.rootfs, other.reference.to_string()),
        (image.digest, image.rootfs, "localhost/x:1".to_owned())
    );
    let nameless = one("c.json", "1/layer.tar", json!(null));
    assert!(nameless.error(None).contains("give it a name"));
    nameless.import(Some("localhost/x:1")).unwrap();
}

#[test]
fn of_several_images_the_named_one_is_taken_or_the_offer_is_shown() {
    let (a, b) = ([layer("a")], [layer("b")]);
    let case = Case::new()
        .file("a.json", &config(&a))
        .file("b.json", &config(&b))
        .file("a.tar", &a[0])
        .file("b.tar", &b[0])
        .manifest(&json!([
            { "Config": "a.json", "RepoTags": ["x:a"], "Layers": ["a.tar"] },
            { "Config": "b.json", "RepoTags": ["x:b\u{7}", "x:b"], "Layers": ["b.tar"] },
        ]));
    let error = case.error(None);
    assert!(
        error.contains("several images: x:a, x:b\\u{7}, x:b; say which"),
        "{error}"
    );
    assert!(
        case.error(Some("x:c"))
            .contains("no image for `docker.io/library/x:c`")
    );
    assert!(case.import(Some("x:b")).is_ok());
}

#[test]
fn a_layer_that_is_a_link_to_another_is_found_and_one_that_leads_outside_is_not() {
    let layers = [layer("same")];
    let with = |target: &str| {
        Case::new()
            .file("c.json", &config(&layers))
            .file("1/layer.tar", &layers[0])
            .symlink("2/layer.tar", target)
            .manifest(&json!([{ "Config": "c.json", "Layers": ["2/layer.tar"] }]))
    };
    with("../1/layer.tar")
        .import(Some("localhost/x:1"))
        .unwrap();
    for target in [
        "../../1/layer.tar",
        "/etc/passwd",
        "layer.tar",
        "../3/layer.tar",
    ] {
        let error = with(target).error(Some("localhost/x:1"));
        assert!(
            error.contains("find layer `2/layer.tar`"),
            "{target}: {error}"
        );
    }
}

#[test]
fn what_is_not_what_its_digest_says_is_refused() {
    let name = Some("localhost/x:1");
    let other = Digest::of(b"other").hex();
    for file in [format!("{other}.json"), format!("blobs/sha256/{other}")] {
        let error = one(&file, "layer.tar", json!([])).error(name);
        assert!(
            error.contains("digest mismatch: the image's configuration"),
            "{error}"
        );
    }
    let case = Case::new()
        .file("c.json", &config(&[layer("stated")]))
        .file("layer.tar", &layer("actual"))
        .manifest(&json!([{ "Config": "c.json", "Layers": ["layer.tar"] }]));
    let error = case.error(name);
    assert!(
        error.contains("digest mismatch: the unpacked layer 1 of 1"),
        "{error}"
    );
}

#[test]
fn archives_that_lie_are_refused_in_words() {
    let name = Some("localhost/x:1");
    let layers = [layer("x")];
    let manifest = |images: Value| {
        Case::new()
            .file("c.json", &config(&layers))
            .file("layer.tar", &layers[0])
            .manifest(&images)
    };
    for (images, expected) in [
        (json!([]), "no image for"),
        (json!({}), "cannot read manifest.json"),
        (
            json!([{ "Config": "../c.json", "Layers": [] }]),
            "read the image's configuration",
        ),
        (
            json!([{ "Config": "c.json", "Layers": [] }]),
            "lists 1 layers and manifest.json 0",
        ),
        (
            json!([{ "Config": "c.json", "Layers": ["/etc/passwd"] }]),
            "find layer `/etc/passwd`",
        ),
        (
            json!([{ "Config": "layer.tar", "Layers": ["layer.tar"] }]),
            "cannot read the image's",
        ),
        (
            json!([{ "Config": "c.json", "Layers": vec!["layer.tar"; LAYERS_MAX + 1] }]),
            "more than 512",
        ),
    ] {
        let error = manifest(images).error(name);
        assert!(error.contains(expected), "{error}");
    }
    let long = vec![b' '; usize::try_from(MANIFEST_BYTES_MAX).unwrap() + 1];
    let error = Case::new().file("manifest.json", &long).error(name);
    assert!(error.contains("more than"), "{error}");
}

#[test]
fn a_compressed_archive_is_unpacked_on_the_way_and_within_bounds() {
    let name: ImageRef = "localhost/x:1".parse().unwrap();
    let case = one("c.json", "1/layer.tar", json!(null));
    let plain = std::fs::read(case.path()).unwrap();
    let image = case.store.import(&case.path(), Some(&name)).unwrap();
    let packed = case.root.path().join("image.tar.zst");
    std::fs::write(&packed, zstd::encode_all(&plain[..], 3).unwrap()).unwrap();
    let again = case.store.import(&packed, Some(&name)).unwrap();
    assert_eq!(again.digest, image.digest);

    let limits = crate::Limits {
        unpacked_bytes_max: 1000,
        ..crate::Limits::default()
    };
    let error = case.store.import_within(&packed, Some(&name), &limits);
    let error = error.unwrap_err().to_string();
    assert!(error.contains("larger than 1000 bytes"), "{error}");
    std::fs::write(&packed, [0x1f, 0x8b, 8, 0, 0, 0, 0, 0]).unwrap();
    let error = case.store.import(&packed, Some(&name)).unwrap_err();
    assert!(error.to_string().contains("damaged"), "{error}");
}
