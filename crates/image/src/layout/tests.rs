//! Layouts that are damaged or mean no good. Good ones are under `tests/`.

use std::fs;

use serde_json::{Value, json};

use super::*;
use crate::Reason;
use crate::layout::write::{RunConfig, write_layout};
use crate::tarball::Tarball;

const CONFIG: RunConfig<'_> = RunConfig {
    cmd: &["/bin/sh"],
    env: &[],
    working_dir: "/",
    labels: Value::Null,
};

struct Case {
    root: tempfile::TempDir,
    store: ImageStore,
}

impl Case {
    fn of(layers: Vec<Tarball>) -> Self {
        let root = tempfile::tempdir().unwrap();
        let layers: Vec<Vec<u8>> = layers.into_iter().map(Tarball::finish).collect();
        write_layout(&root.path().join("layout"), &layers, &CONFIG).unwrap();
        let store = ImageStore::open(&root.path().join("store")).unwrap();
        Self { root, store }
    }

    fn layout(&self) -> PathBuf {
        self.root.path().join("layout")
    }

    fn import(&self, path: &Path) -> Result<Image, ImportError> {
        self.store
            .import_layout(path, &"localhost/x:1".parse().unwrap())
    }

    /// The error, and that nothing was stored.
    fn error(&self) -> ImportError {
        let error = self.import(&self.layout()).unwrap_err();
        for directory in ["references", "rootfs", "work"] {
            let path = self.root.path().join("store").join(directory);
            assert_eq!(fs::read_dir(path).unwrap().count(), 0, "{directory}");
        }
        error
    }

    fn blob(&self, text: &str) -> PathBuf {
        fs::read_dir(self.layout().join("blobs/sha256"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .find(|path| String::from_utf8_lossy(&fs::read(path).unwrap()).contains(text))
            .unwrap()
    }
}

fn hello() -> Tarball {
    Tarball::new().file("hello", 0o644, b"hello, world\n")
}

#[test]
fn a_directory_and_its_archive_give_the_same_image() {
    let case = Case::of(vec![hello()]);
    let archive = case.root.path().join("layout.tar");
    let mut tar = tar::Builder::new(fs::File::create(&archive).unwrap());
    tar.append_dir_all(".", case.layout()).unwrap();
    tar.finish().unwrap();
    let image = case.import(&case.layout()).unwrap();
    let other = case.import(&archive).unwrap();
    assert_eq!((image.digest, image.rootfs), (other.digest, other.rootfs));
}

#[test]
fn a_hostile_layer_is_refused_with_its_place_and_reason() {
    let case = Case::of(vec![hello(), hello().file("a/../../x", 0o644, b"")]);
    let ImportError::Image(ImageError::Refused(refused)) = case.error() else {
        panic!()
    };
    assert!(
        refused.layer.starts_with("layer 2 of 2 (sha256:"),
        "{refused}"
    );
    assert_eq!(
        (refused.entry.as_str(), refused.reason),
        ("a/../../x", Reason::ParentComponent)
    );
}

#[test]
fn a_changed_blob_is_a_digest_mismatch() {
    for text in ["hello, world", "diff_ids", "schemaVersion"] {
        let case = Case::of(vec![hello()]);
        let path = case.blob(text);
        let mut bytes = fs::read(&path).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        fs::write(&path, bytes).unwrap();
        let error = case.error();
        let mismatch = matches!(error, ImportError::Image(ImageError::DigestMismatch { .. }));
        assert!(mismatch, "{text}: {error}");
        fs::write(&path, b"short").unwrap();
        let error = case.error();
        let mismatch = matches!(error, ImportError::Image(ImageError::SizeMismatch { .. }));
        assert!(mismatch, "{text}: {error}");
    }
}

#[test]
fn layers_that_are_not_those_of_the_configuration_are_a_mismatch() {
    let case = Case::of(vec![hello()]);
    let other = Digest::of(b"other").to_string();
    let config = fs::read(case.blob("diff_ids")).unwrap();
    let mut config: Value = serde_json::from_slice(&config).unwrap();
    config["rootfs"]["diff_ids"] = json!([other]);
    let config = put(&case, config.to_string().as_bytes());
    let manifest = fs::read(case.blob("schemaVersion")).unwrap();
    let mut manifest: Value = serde_json::from_slice(&manifest).unwrap();
    for (key, value) in config.as_object().unwrap() {
        manifest["config"][key] = value.clone();
    }
    let manifest = put(&case, manifest.to_string().as_bytes());
    set_index(&case, &[manifest]);
    let ImportError::Image(ImageError::DigestMismatch { what, .. }) = case.error() else {
        panic!()
    };
    assert!(what.starts_with("the unpacked layer 1 of 1"), "{what}");
}

/// Stores a blob; its digest and size.
fn put(case: &Case, bytes: &[u8]) -> Value {
    let digest = Digest::of(bytes);
    fs::write(case.layout().join("blobs/sha256").join(digest.hex()), bytes).unwrap();
    json!({ "digest": digest, "size": bytes.len() })
}

fn set_index(case: &Case, manifests: &[Value]) {
    let index = json!({ "schemaVersion": 2, "manifests": manifests });
    fs::write(case.layout().join("index.json"), index.to_string()).unwrap();
}

#[test]
fn of_several_images_the_named_one_is_taken_or_the_offer_is_shown() {
    let case = Case::of(vec![hello()]);
    let index: Value =
        serde_json::from_slice(&fs::read(case.layout().join("index.json")).unwrap()).unwrap();
    let named = |name: &str| {
        let mut entry = index["manifests"][0].clone();
        entry["annotations"] = json!({ "org.opencontainers.image.ref.name": name });
        entry
    };
    set_index(&case, &[named("0"), named("1")]);
    assert!(case.import(&case.layout()).is_ok());
    let case = Case::of(vec![hello()]);
    set_index(&case, &[named("8"), named("9\u{7}")]);
    let error = case.error().to_string();
    assert!(error.ends_with("it offers: 8, 9\\u{7}"), "{error}");
}

#[test]
fn indexes_without_end_are_refused() {
    let case = Case::of(vec![hello()]);
    let mut entry = json!({ "digest": Digest::of(b"none"), "size": 1 });
    for _ in 0..100 {
        let index = json!({ "schemaVersion": 2, "manifests": [entry] });
        entry = put(&case, index.to_string().as_bytes());
    }
    set_index(&case, &[entry]);
    assert!(case.error().to_string().contains("nested"));
}

#[test]
fn what_is_no_layout_says_what_is_missing() {
    let case = Case::of(vec![hello()]);
    fs::remove_file(case.layout().join("oci-layout")).unwrap();
    let error = case.error();
    assert!(
        error.to_string().contains("`oci-layout` cannot be read"),
        "{error}"
    );
    let case = Case::of(vec![hello()]);
    fs::remove_file(case.layout().join("index.json")).unwrap();
    assert!(case.error().to_string().contains("index.json"));
    let text = case.root.path().join("text");
    fs::write(
        &text,
        "no archive, and long enough to be read as one".repeat(100),
    )
    .unwrap();
    assert!(matches!(
        case.import(&text),
        Err(ImportError::NoLayout { .. })
    ));
    let nothing = case.root.path().join("nothing");
    assert!(matches!(
        case.import(&nothing),
        Err(ImportError::NoLayout { .. })
    ));
}

#[test]
fn a_pipe_in_place_of_a_blob_does_not_hang_the_import() {
    let case = Case::of(vec![hello()]);
    let path = case.blob("diff_ids");
    fs::remove_file(&path).unwrap();
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(matches!(
        case.error(),
        ImportError::Image(ImageError::Io { .. })
    ));
}
