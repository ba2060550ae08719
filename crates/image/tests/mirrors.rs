//! Mirrors, and layers that several images share.

#[allow(dead_code, reason = "each test file uses its own part")]
#[path = "common/layout.rs"]
mod layout;
#[allow(dead_code, reason = "each test file uses its own part")]
#[path = "common/registry.rs"]
mod server;
#[allow(dead_code, reason = "each test file uses its own part")]
#[path = "common/tarball.rs"]
mod tarball;

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::time::Duration;

use image::{GarbageRules, Imported, PullError, PullOptions};
use server::Registry;
use tarball::Tarball;
use types::ImageRef;

fn layer(name: &str) -> Vec<u8> {
    let content = name.repeat(10_000);
    Tarball::new()
        .file(name, 0o644, content.as_bytes())
        .finish()
}

/// An address where nobody listens.
fn nowhere() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

fn options(plain: &[&str], registry: &str, mirrors: &[&str]) -> PullOptions {
    let mirrors = mirrors.iter().map(ToString::to_string).collect();
    PullOptions {
        plain_http_registries: plain.iter().map(ToString::to_string).collect(),
        mirrors: BTreeMap::from([(registry.to_owned(), mirrors)]),
        ..PullOptions::default()
    }
}

#[tokio::test]
async fn a_mirror_is_asked_first_and_one_that_fails_is_passed_over() {
    let Some(registry) = Registry::start("a_mirror_is_asked_first", "") else {
        return;
    };
    layout::layout(&registry.layout(), &[layer("a")]);
    if !registry.push(&registry.layout(), "x:1") {
        return;
    }
    let (here, down, origin) = (registry.address.as_str(), nowhere(), nowhere());
    let reference: ImageRef = format!("{origin}/x:1").parse().unwrap();
    let plain = [here, &down, &origin];
    let store = registry.store();

    let image = store
        .pull(&reference, &options(&plain, &origin, &[&down, here]))
        .await
        .unwrap();
    assert_eq!(
        image.reference, reference,
        "known by the name it was asked for"
    );

    // The registry itself has the last word, also about what is not there.
    let mirrors = options(&plain, here, &[&down]);
    store
        .pull(&registry.reference("x:1"), &mirrors)
        .await
        .unwrap();
    let missing = registry.reference("no/such:1");
    let error = store.pull(&missing, &mirrors).await.unwrap_err();
    assert!(matches!(error, PullError::NotFound { .. }), "{error}");
    let error = store
        .pull(
            &format!("{origin}/no/such:1").parse().unwrap(),
            &options(&plain, &origin, &[here]),
        )
        .await
        .unwrap_err();
    assert!(error.to_string().contains(&origin), "{error}");
}

#[tokio::test]
async fn a_layer_of_an_image_before_is_not_downloaded_again() {
    let Some(registry) = Registry::start("a_layer_of_an_image_before", "") else {
        return;
    };
    let (base, one, two) = (layer("base"), layer("one"), layer("two"));
    for (name, own) in [("x:1", &one), ("x:2", &two)] {
        let directory = registry.root.path().join(name.replace(':', "-"));
        layout::layout(&directory, &[own.clone(), base.clone()]);
        if !registry.push(&directory, name) {
            return;
        }
    }
    let store = registry.store();
    let pull = async |name: &str| {
        store
            .pull(&registry.reference(name), &registry.options())
            .await
    };
    pull("x:1").await.unwrap();
    let digest = layout::digest(&layout::gzip(&base));
    let hex = &digest["sha256:".len()..];
    let blobs = registry
        .root
        .path()
        .join("data/docker/registry/v2/blobs/sha256");
    fs::remove_dir_all(blobs.join(&hex[..2]).join(hex)).unwrap();
    pull("x:2").await.unwrap();

    // What is kept is only a cache: it goes first, and is checked before it is used.
    store.remove(&registry.reference("x:1")).unwrap();
    let kept = registry.root.path().join("store/blobs").join(hex);
    fs::write(&kept, b"rubbish").unwrap();
    assert!(pull("x:1").await.is_err());
    assert!(!kept.exists());
    let rules = GarbageRules {
        bytes_max: store
            .list()
            .unwrap()
            .iter()
            .map(|image| image.size_bytes)
            .sum(),
        idle_min: Duration::ZERO,
        imported: Imported::Stay,
    };
    let freed = store.collect_garbage(rules, Vec::new).unwrap();
    assert!(freed.images.is_empty() && freed.bytes > 0, "{freed:?}");
    assert_eq!(fs::read_dir(kept.parent().unwrap()).unwrap().count(), 0);
}
