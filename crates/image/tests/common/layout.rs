//! Writes OCI image layouts for tests, with every document open to change.

use std::fs;
use std::io::Write;
use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

pub(crate) fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    format!("sha256:{hex}")
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

/// Stores a blob and describes it.
pub(crate) fn blob(layout: &Path, media_type: &str, bytes: &[u8]) -> Value {
    let digest = digest(bytes);
    let directory = layout.join("blobs/sha256");
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join(&digest["sha256:".len()..]), bytes).unwrap();
    json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() })
}

pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// The configuration of an image of these unpacked layers.
pub(crate) fn config(layers: &[Vec<u8>]) -> Value {
    let diff_ids: Vec<String> = layers.iter().map(|layer| digest(layer)).collect();
    json!({
        "architecture": if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" },
        "os": "linux",
        "created": "2026-01-02T03:04:05Z",
        "config": {
            "Entrypoint": ["/bin/serve"], "Cmd": ["--port", "80"], "Env": ["A=1=2"],
            "WorkingDir": "/srv", "User": "1000:1000", "StopSignal": "SIGQUIT",
            "Labels": { "k": "v" }, "ExposedPorts": { "80/tcp": {} }, "Volumes": null,
        },
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    })
}

/// A layout of one image; even layers are stored plain and odd ones with gzip.
pub(crate) fn layout(directory: &Path, layers: &[Vec<u8>]) {
    let config = blob(directory, CONFIG, config(layers).to_string().as_bytes());
    let layers: Vec<Value> = layers
        .iter()
        .enumerate()
        .map(|(index, layer)| match index % 2 {
            0 => blob(directory, LAYER, layer),
            _ => blob(directory, &format!("{LAYER}+gzip"), &gzip(layer)),
        })
        .collect();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers,
    });
    let mut manifest = blob(directory, MANIFEST, manifest.to_string().as_bytes());
    manifest["annotations"] = json!({ "org.opencontainers.image.ref.name": "1" });
    index(directory, &[manifest]);
}

pub(crate) fn index(directory: &Path, manifests: &[Value]) {
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests });
    fs::write(directory.join("index.json"), index.to_string()).unwrap();
    fs::write(
        directory.join("oci-layout"),
        r#"{"imageLayoutVersion":"1.0.0"}"#,
    )
    .unwrap();
}
