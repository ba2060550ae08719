//! Writes an OCI image layout of one image, for images that are made on this host.

use std::fs;
use std::io;
use std::path::Path;

use serde::Serialize;
use serde_json::json;

use crate::digest::Digest;
use crate::manifest::{Descriptor, OCI_INDEX, OCI_MANIFEST, Platform};

const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// The `config` object of the image specification, as far as we make images.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct RunConfig<'a> {
    pub(crate) cmd: &'a [&'a str],
    pub(crate) env: &'a [&'a str],
    pub(crate) working_dir: &'a str,
    pub(crate) labels: serde_json::Value,
}

/// Writes a layout with one image of uncompressed `layers` into `directory`.
pub(crate) fn write_layout(
    directory: &Path,
    layers: &[Vec<u8>],
    config: &RunConfig<'_>,
) -> io::Result<()> {
    fs::create_dir_all(directory.join("blobs/sha256"))?;
    let blob = |media_type: &str, bytes: &[u8]| -> io::Result<Descriptor> {
        let digest = Digest::of(bytes);
        fs::write(directory.join("blobs/sha256").join(digest.hex()), bytes)?;
        let (media_type, size) = (media_type.to_owned(), bytes.len() as u64);
        Ok(Descriptor {
            media_type,
            digest,
            size,
            platform: None,
            annotations: None,
        })
    };
    let host = Platform::host();
    let layers: Vec<Descriptor> = layers
        .iter()
        .map(|layer| blob(LAYER, layer))
        .collect::<io::Result<_>>()?;
    let diff_ids: Vec<Digest> = layers.iter().map(|layer| layer.digest).collect();
    let config = json!({
        "architecture": host.architecture,
        "os": host.os,
        "config": config,
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    let config = blob(CONFIG, &serde_json::to_vec(&config)?)?;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": config,
        "layers": layers,
    });
    let mut manifest = blob(OCI_MANIFEST, &serde_json::to_vec(&manifest)?)?;
    manifest.platform = Some(host);
    let index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [manifest] });
    fs::write(directory.join("index.json"), serde_json::to_vec(&index)?)?;
    fs::write(
        directory.join("oci-layout"),
        r#"{"imageLayoutVersion":"1.0.0"}"#,
    )
}
