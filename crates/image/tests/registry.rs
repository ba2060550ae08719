//! Pulling from Debian's registry, which each test starts for itself on a port of the kernel's
//! choice, and from servers that mean no good.

#[allow(dead_code, reason = "each test file uses its own part")]
#[path = "common/layout.rs"]
mod layout;
#[allow(dead_code, reason = "each test file uses its own part")]
#[path = "common/registry.rs"]
mod server;
#[allow(dead_code, reason = "each test file uses its own part")]
#[path = "common/tarball.rs"]
mod tarball;

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use image::{ImageError, ImageStore, Limits, Progress, PullError, PullOptions};
use serde_json::json;
use server::Registry;
use tarball::Tarball;
use types::ImageRef;

fn layers() -> Vec<Vec<u8>> {
    let layer = |n: usize| {
        let content = vec![u8::try_from(n).unwrap(); 300_000 * n];
        Tarball::new()
            .file(&format!("file-{n}"), 0o644, &content)
            .finish()
    };
    (1..=5).map(layer).collect()
}

#[tokio::test]
async fn an_image_is_pulled_by_tag_and_then_known_by_digest() {
    let Some(registry) = Registry::start("an_image_is_pulled_by_tag", "") else {
        return;
    };
    layout::layout(&registry.layout(), &layers());
    if !registry.push(&registry.layout(), "a/b:1") {
        return;
    }
    let (store, seen) = (registry.store(), Arc::new(Mutex::new(Vec::new())));
    let progress = Arc::clone(&seen);
    let options = PullOptions {
        progress: Some(Arc::new(move |p| progress.lock().unwrap().push(p))),
        ..registry.options()
    };
    let image = store
        .pull(&registry.reference("a/b:1"), &options)
        .await
        .unwrap();
    assert_eq!(image.config.entrypoint, ["/bin/serve"]);
    assert_eq!(image.config.env[0], ("A".to_owned(), "1=2".to_owned()));
    assert_eq!(image.config.stop_signal.as_deref(), Some("SIGQUIT"));
    assert!(image.size_bytes > 4_500_000);
    let seen = std::mem::take(&mut *seen.lock().unwrap());
    assert!(seen.contains(&Progress::Writing { layers: 5 }));
    let finished = |progress: &Progress| {
        matches!(progress, Progress::Downloading { done_bytes, total_bytes, .. }
            if done_bytes == total_bytes)
    };
    assert_eq!(seen.iter().filter(|progress| finished(progress)).count(), 5);

    let by_digest = registry.reference(&format!("a/b@{}", image.digest));
    assert_eq!(
        store.get(&by_digest).unwrap().unwrap(),
        image,
        "known without asking"
    );
    let options = registry.options();
    let (another, reference) = (store.clone(), by_digest.clone());
    let pull = tokio::spawn(async move { another.pull(&reference, &options).await });
    let pulled = pull.await.unwrap().unwrap();
    assert_eq!(
        (&pulled.digest, &pulled.rootfs),
        (&image.digest, &image.rootfs)
    );
    assert_eq!(store.list().unwrap().len(), 2);
}

#[tokio::test]
async fn of_an_index_the_image_for_this_host_is_taken() {
    let Some(registry) = Registry::start("of_an_index", "") else {
        return;
    };
    let directory = registry.layout();
    let described = |architecture: &str, content: &[u8]| {
        let layer = Tarball::new().file("which", 0o644, content).finish();
        let mut config = layout::config(std::slice::from_ref(&layer));
        config["architecture"] = json!(architecture);
        let config = layout::blob(&directory, layout::CONFIG, config.to_string().as_bytes());
        let gzip = format!("{}+gzip", layout::LAYER);
        let layer = layout::blob(&directory, &gzip, &layout::gzip(&layer));
        let manifest = json!({ "schemaVersion": 2, "mediaType": layout::MANIFEST,
            "config": config, "layers": [layer] });
        let text = manifest.to_string();
        let mut manifest = layout::blob(&directory, layout::MANIFEST, text.as_bytes());
        manifest["platform"] = json!({ "architecture": architecture, "os": "linux" });
        manifest
    };
    let here = if cfg!(target_arch = "x86_64") {
        "amd64"
    } else {
        "arm64"
    };
    let manifests = [described("riscv64", b"other"), described(here, b"ours")];
    let index = json!({ "schemaVersion": 2, "mediaType": layout::INDEX, "manifests": manifests });
    let index = layout::blob(&directory, layout::INDEX, index.to_string().as_bytes());
    layout::index(&directory, &[index]);
    if !registry.push(&directory, "multi:1") {
        return;
    }
    let store = registry.store();
    let image = store
        .pull(&registry.reference("multi:1"), &registry.options())
        .await
        .unwrap();
    assert_eq!(image.digest, manifests[1]["digest"].as_str().unwrap());

    let other = registry.reference(&format!(
        "multi@{}",
        manifests[0]["digest"].as_str().unwrap()
    ));
    let error = store.pull(&other, &registry.options()).await.unwrap_err();
    assert!(
        matches!(error, PullError::Image(ImageError::Platform { .. })),
        "{error}"
    );
}

#[tokio::test]
async fn a_missing_image_says_what_was_looked_for_and_where() {
    let Some(registry) = Registry::start("a_missing_image", "") else {
        return;
    };
    let reference = registry.reference("no/such:7");
    let error = registry
        .store()
        .pull(&reference, &registry.options())
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "no such image {reference}: registry {} answered 404",
            registry.address
        )
    );
    let local: ImageRef = "localhost/hello:1".parse().unwrap();
    let error = registry
        .store()
        .pull(&local, &registry.options())
        .await
        .unwrap_err();
    assert!(matches!(error, PullError::NotImported { .. }), "{error}");
    assert!(error.to_string().contains("must be imported"), "{error}");
    registry.assert_nothing_stored();
}

#[tokio::test]
async fn a_changed_layer_is_a_digest_mismatch_and_nothing_is_stored() {
    let Some(registry) = Registry::start("a_changed_layer", "") else {
        return;
    };
    let layers = layers();
    layout::layout(&registry.layout(), &layers);
    if !registry.push(&registry.layout(), "x:1") {
        return;
    }
    // Stored with gzip; plain layers are compressed by skopeo on the way.
    let digest = layout::digest(&layout::gzip(&layers[1]));
    let hex = &digest["sha256:".len()..];
    let blobs = registry
        .root
        .path()
        .join("data/docker/registry/v2/blobs/sha256");
    let data = blobs.join(&hex[..2]).join(hex).join("data");
    let mut bytes = fs::read(&data).unwrap();
    bytes[600] ^= 1;
    fs::write(&data, &bytes).unwrap();
    let store = registry.store();
    let pulled = store
        .pull(&registry.reference("x:1"), &registry.options())
        .await;
    let Err(PullError::Image(ImageError::DigestMismatch { what, .. })) = pulled else {
        panic!("{pulled:?}");
    };
    assert!(what.starts_with("layer 2 of 5"), "{what}");
    registry.assert_nothing_stored();

    fs::write(&data, &bytes[..1000]).unwrap();
    let error = store
        .pull(&registry.reference("x:1"), &registry.options())
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            PullError::Image(ImageError::SizeMismatch { .. } | ImageError::DigestMismatch { .. })
                | PullError::Unreachable { .. }
        ),
        "{error}"
    );
    registry.assert_nothing_stored();
}

/// Passes connections on to `upstream`; the answers of the first `broken` ones that are long
/// enough break off after 100 KB.
fn breaking_proxy(upstream: String, broken: usize) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let left = Arc::new(AtomicUsize::new(broken));
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.unwrap();
            let mut server = TcpStream::connect(&upstream).unwrap();
            let (mut requests, mut to_server) =
                (client.try_clone().unwrap(), server.try_clone().unwrap());
            std::thread::spawn(move || std::io::copy(&mut requests, &mut to_server));
            let left = Arc::clone(&left);
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut (&mut server).take(100_000), &mut client);
                let one_less = |n: usize| n.checked_sub(1);
                let order = Ordering::SeqCst;
                if left.fetch_update(order, order, one_less).is_err() {
                    let _ = std::io::copy(&mut server, &mut client);
                }
                let _ = client.shutdown(Shutdown::Both);
                let _ = server.shutdown(Shutdown::Both);
            });
        }
    });
    address
}

#[tokio::test]
async fn a_download_that_breaks_off_goes_on_where_it_was() {
    let Some(registry) = Registry::start("a_download_that_breaks_off", "") else {
        return;
    };
    // Noise, so that the layer stays longer than what the proxy lets through.
    let mut state = 1_u32;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    })
    .take(1_000_000)
    .collect();
    layout::layout(
        &registry.layout(),
        &[Tarball::new().file("noise", 0o644, &noise).finish()],
    );
    if !registry.push(&registry.layout(), "x:1") {
        return;
    }
    let pull = async |broken| {
        let address = breaking_proxy(registry.address.clone(), broken);
        let reference = format!("{address}/x:1").parse().unwrap();
        let options = PullOptions {
            plain_http_registries: vec![address],
            ..PullOptions::default()
        };
        registry.store().pull(&reference, &options).await
    };
    // No connection gets far enough; that the third pull ends well is the work of all before it.
    for _ in 0..2 {
        let error = pull(100).await.unwrap_err();
        assert!(matches!(error, PullError::Unreachable { .. }), "{error}");
        registry.assert_nothing_stored();
    }
    pull(100).await.unwrap();
}

#[tokio::test]
async fn an_image_larger_than_allowed_is_refused() {
    let Some(registry) = Registry::start("an_image_larger_than_allowed", "") else {
        return;
    };
    layout::layout(&registry.layout(), &layers());
    if !registry.push(&registry.layout(), "x:1") {
        return;
    }
    for unpacked_bytes_max in [1_000_000, 4_000_000] {
        let limits = Limits {
            unpacked_bytes_max,
            ..Limits::default()
        };
        let options = PullOptions {
            limits,
            ..registry.options()
        };
        let pulled = registry
            .store()
            .pull(&registry.reference("x:1"), &options)
            .await;
        let error = pulled.unwrap_err();
        assert!(
            matches!(
                error,
                PullError::Image(ImageError::TooLarge { .. } | ImageError::Refused(_))
            ),
            "{error}"
        );
        registry.assert_nothing_stored();
    }
}

/// Answers every request with the same bytes, then `tail` over and over; for three connections.
fn server(head: String, tail: &'static [u8], times: usize) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming().take(3) {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(head.as_bytes());
            let _ = (0..times).try_for_each(|_| stream.write_all(tail));
        }
    });
    address
}

async fn pull_from(address: &str) -> PullError {
    let root = tempfile::tempdir().unwrap();
    let store = ImageStore::open(root.path()).unwrap();
    let options = PullOptions {
        plain_http_registries: vec![address.to_owned()],
        ..PullOptions::default()
    };
    let reference = format!("{address}/x:1").parse().unwrap();
    store.pull(&reference, &options).await.unwrap_err()
}

#[tokio::test]
async fn nobody_listening_is_unreachable() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let error = pull_from(&address).await;
    assert!(matches!(error, PullError::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains(&address), "{error}");
}

#[tokio::test]
async fn a_registry_without_tls_must_be_named() {
    let address = server(
        "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_owned(),
        b"",
        0,
    );
    let root = tempfile::tempdir().unwrap();
    let store = ImageStore::open(root.path()).unwrap();
    let reference = format!("{address}/x:1").parse().unwrap();
    let error = store
        .pull(&reference, &PullOptions::default())
        .await
        .unwrap_err();
    assert!(matches!(error, PullError::Unreachable { .. }), "{error}");
}

#[tokio::test]
async fn a_manifest_without_end_is_cut_off() {
    let head = "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n".to_owned();
    let error = pull_from(&server(head, &[b' '; 65536], 1000)).await;
    assert!(
        matches!(error, PullError::Image(ImageError::TooLarge { .. })),
        "{error}"
    );
}

#[tokio::test]
async fn what_is_no_registry_is_told_in_words() {
    let page = "HTTP/1.1 200 OK\r\ncontent-length: 6\r\nconnection: close\r\n\r\n<html>".to_owned();
    let error = pull_from(&server(page, b"", 0)).await;
    assert!(
        matches!(error, PullError::Image(ImageError::Malformed { .. })),
        "{error}"
    );
    let broken = "HTTP/1.1 503 Busy\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_owned();
    let error = pull_from(&server(broken, b"", 0)).await;
    assert!(error.to_string().ends_with("answered 503"), "{error}");
}
