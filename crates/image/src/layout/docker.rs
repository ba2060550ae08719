//! Archives that `docker save` wrote before version 25, and that podman, skopeo and other tools
//! still write: `manifest.json` names the configuration and the layers of each image.
//!
//! There is no manifest with digests. The configuration's digest is its name, and it has the
//! digests of the unpacked layers, so nothing is used unchecked. The image gets the digest of the
//! manifest that a registry would have for the same configuration and layers.

use std::path::Path;

use serde::Deserialize;
use serde_json::json;
use types::ImageRef;

use super::source::Source;
use super::{Found, ImportError, LayerDigest, Piece};
use crate::digest::Digest;
use crate::error::{ImageError, printable};
use crate::manifest::{
    CONFIG_BYTES_MAX, ConfigFile, DOCKER_MANIFEST, LAYERS_MAX, MANIFEST_BYTES_MAX,
};

/// One image of the archive.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Saved {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

impl Saved {
    /// Reads `manifest.json`.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Vec<Self>, ImageError> {
        let what = "manifest.json";
        let images: Vec<Self> = serde_json::from_slice(bytes)
            .map_err(|source| ImageError::Malformed { what, source })?;
        if let Some(image) = images.iter().find(|image| image.layers.len() > LAYERS_MAX) {
            let layers = image.layers.len();
            let why = format!("an image has {layers} layers, more than {LAYERS_MAX}");
            return Err(ImageError::Unsupported { what, why });
        }
        Ok(images)
    }

    fn tags(&self) -> impl Iterator<Item = &String> {
        self.repo_tags.iter().flatten()
    }

    fn names(&self) -> impl Iterator<Item = ImageRef> {
        self.tags().filter_map(|tag| tag.parse().ok())
    }
}

/// The image that is meant.
pub(super) fn find(
    source: &Source,
    path: &Path,
    name: Option<&ImageRef>,
) -> Result<Found, ImportError> {
    let bytes = source.bounded("manifest.json", MANIFEST_BYTES_MAX);
    let images = Saved::parse(&bytes.map_err(ImageError::io("read manifest.json"))?)?;
    let (saved, name) = choose(&images, path, name)?;
    let (config_digest, config_bytes, config) = configuration(source, &saved.config)?;
    if config.diff_ids.len() != saved.layers.len() {
        let (listed, there) = (config.diff_ids.len(), saved.layers.len());
        let why = format!("it lists {listed} layers and manifest.json {there}");
        let what = "the image's configuration";
        return Err(ImageError::Unsupported { what, why }.into());
    }
    let mut layers = Vec::with_capacity(saved.layers.len());
    for (file, diff_id) in saved.layers.iter().zip(&config.diff_ids) {
        let shown = printable(file.as_bytes());
        let place = source.place(file);
        let (_, bytes) = place.map_err(ImageError::io(format!("find layer `{shown}`")))?;
        layers.push(Piece {
            file: file.clone(),
            bytes,
            digest: LayerDigest::Unpacked(*diff_id),
        });
    }
    let described = |layer: &Piece| {
        json!({
            "mediaType": "application/vnd.docker.image.rootfs.diff.tar",
            "size": layer.bytes, "digest": layer.digest.id(),
        })
    };
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": DOCKER_MANIFEST,
        "config": {
            "mediaType": "application/vnd.docker.container.image.v1+json",
            "size": config_bytes, "digest": config_digest,
        },
        "layers": layers.iter().map(described).collect::<Vec<_>>(),
    });
    Ok(Found {
        name,
        digest: Digest::of(manifest.to_string().as_bytes()),
        config,
        layers,
    })
}

fn choose<'a>(
    images: &'a [Saved],
    path: &Path,
    name: Option<&ImageRef>,
) -> Result<(&'a Saved, ImageRef), ImportError> {
    let path = path.to_owned();
    match (images, name) {
        ([only], Some(name)) => Ok((only, name.clone())),
        ([only], None) => match only.names().next() {
            Some(name) => Ok((only, name)),
            None => Err(ImportError::Nameless { path }),
        },
        (several, Some(name)) => several
            .iter()
            .find(|image| image.names().any(|tag| tag == *name))
            .map(|image| (image, name.clone()))
            .ok_or_else(|| ImportError::NoSuchImage {
                path,
                reference: name.to_string(),
                offered: offered(several),
            }),
        (several, None) => Err(ImportError::Several {
            path,
            offered: offered(several),
        }),
    }
}

fn offered(images: &[Saved]) -> String {
    const SHOWN_MAX: usize = 20;
    let tags = images.iter().flat_map(Saved::tags).take(SHOWN_MAX);
    let tags: Vec<String> = tags.map(|tag| printable(tag.as_bytes())).collect();
    match tags.is_empty() {
        true => "nothing with a name".to_owned(),
        false => tags.join(", "),
    }
}

/// Digest, length and content of the configuration; checked, where its name is its digest.
fn configuration(source: &Source, file: &str) -> Result<(Digest, usize, ConfigFile), ImageError> {
    let what = format!("the image's configuration `{}`", printable(file.as_bytes()));
    let bytes = source
        .bounded(file, CONFIG_BYTES_MAX)
        .map_err(ImageError::io(format!("read {what}")))?;
    let actual = Digest::of(&bytes);
    let name = file.rsplit('/').next().unwrap_or(file);
    let stem = name.strip_suffix(".json").unwrap_or(name);
    let stated: Option<Digest> = format!("sha256:{stem}").parse().ok();
    if let Some(expected) = stated.filter(|stated| *stated != actual) {
        return Err(ImageError::DigestMismatch {
            what,
            expected,
            actual,
        });
    }
    Ok((actual, bytes.len(), ConfigFile::parse(&bytes)?))
}

#[cfg(test)]
mod tests;
