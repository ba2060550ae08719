//! The documents of an image: manifest, index and configuration, as the OCI image specification
//! 1.1 and Docker's schema 2 have them. Parsed once, here; unknown fields are skipped.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::error::ImageError;

/// Larger manifests are refused by registries too (the distribution specification asks for 4 MiB).
pub(crate) const MANIFEST_BYTES_MAX: u64 = 4 << 20;
/// A configuration carries the build's history; megabytes happen, more does not.
pub(crate) const CONFIG_BYTES_MAX: u64 = 8 << 20;
/// Docker stops at 127; builders without that limit stay far below this.
pub(crate) const LAYERS_MAX: usize = 512;
/// An index names manifests; an index inside of an index is allowed once.
pub(crate) const INDEX_DEPTH_MAX: usize = 2;

pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub(crate) const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

const LAYER_TYPES: [&str; 6] = [
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.oci.image.layer.v1.tar+zstd",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd",
];
const CONFIG_TYPES: [&str; 2] = [
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.docker.container.image.v1+json",
];

/// What an image says about how to run it. Fields that the image left out are empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageConfig {
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    /// In the image's order; an entry without `=` has an empty value.
    pub env: Vec<(String, String)>,
    pub working_dir: String,
    /// `user`, `uid`, `user:group` or `uid:gid`; names are those of the image's /etc/passwd.
    pub user: String,
    /// `SIGTERM` or a number; none means SIGTERM.
    pub stop_signal: Option<String>,
    pub labels: BTreeMap<String, String>,
    /// `8080/tcp` and the like, for information.
    pub exposed_ports: Vec<String>,
    /// Directories that the image's author wants on a volume, for information.
    pub volumes: Vec<String>,
}

/// A blob: its type, digest and size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default)]
    pub(crate) media_type: String,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) platform: Option<Platform>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) annotations: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Platform {
    #[serde(default)]
    pub(crate) architecture: String,
    #[serde(default)]
    pub(crate) os: String,
}

impl Platform {
    /// What this host runs, in OCI's words (those of Go).
    pub(crate) fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        Self {
            architecture: architecture.to_owned(),
            os: "linux".to_owned(),
        }
    }

    pub(crate) fn name(&self) -> String {
        format!("{}/{}", self.os, self.architecture)
    }
}

/// Manifest of an image for one platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) config: Descriptor,
    pub(crate) layers: Vec<Descriptor>,
}

/// What a reference may lead to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Document {
    Manifest(Manifest),
    Index(Vec<Descriptor>),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDocument {
    schema_version: u32,
    media_type: Option<String>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
}

impl Document {
    /// Reads a manifest or an index. One that could be both is refused, because readers would
    /// disagree about it.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, ImageError> {
        let raw: RawDocument =
            serde_json::from_slice(bytes).map_err(|source| ImageError::Malformed {
                what: "the manifest",
                source,
            })?;
        let unsupported = |why: String| ImageError::Unsupported {
            what: "the manifest",
            why,
        };
        if raw.schema_version != 2 {
            let version = raw.schema_version;
            return Err(unsupported(format!(
                "its schema version is {version} and not 2"
            )));
        }
        let media_type = raw.media_type.as_deref().unwrap_or_default();
        match (raw.config, raw.layers, raw.manifests) {
            (Some(config), Some(layers), None)
                if matches!(media_type, "" | OCI_MANIFEST | DOCKER_MANIFEST) =>
            {
                check_types(&config, &layers)?;
                Ok(Self::Manifest(Manifest { config, layers }))
            }
            (None, None, Some(manifests)) if matches!(media_type, "" | OCI_INDEX | DOCKER_LIST) => {
                Ok(Self::Index(manifests))
            }
            _ => Err(unsupported(format!(
                "it is neither an image nor an index of images (media type `{}`)",
                media_type.chars().take(100).collect::<String>()
            ))),
        }
    }
}

fn check_types(config: &Descriptor, layers: &[Descriptor]) -> Result<(), ImageError> {
    let unsupported = |what, media_type: &str| {
        let media_type: String = media_type.chars().take(100).collect();
        Err(ImageError::Unsupported {
            what,
            why: format!("its media type is `{media_type}`"),
        })
    };
    if !CONFIG_TYPES.contains(&config.media_type.as_str()) {
        return unsupported("the image's configuration", &config.media_type);
    }
    if let Some(layer) = layers
        .iter()
        .find(|l| !LAYER_TYPES.contains(&l.media_type.as_str()))
    {
        return unsupported("a layer", &layer.media_type);
    }
    if layers.len() > LAYERS_MAX {
        let why = format!("it has {} layers, more than {LAYERS_MAX}", layers.len());
        return Err(ImageError::Unsupported {
            what: "the manifest",
            why,
        });
    }
    Ok(())
}

/// The entry of an index that this host can run.
pub(crate) fn choose(manifests: &[Descriptor]) -> Result<&Descriptor, ImageError> {
    let host = Platform::host();
    let mut offered: Vec<String> = Vec::new();
    for manifest in manifests {
        match &manifest.platform {
            Some(platform) if *platform == host => return Ok(manifest),
            Some(platform) => offered.push(platform.name()),
            None => {}
        }
    }
    if let [only] = manifests
        && only.platform.is_none()
    {
        return Ok(only);
    }
    offered.truncate(20);
    Err(ImageError::Platform {
        offered: offered.join(", "),
        wanted: host.name(),
    })
}

/// The parts of an image's configuration file that are used.
#[derive(Debug)]
pub(crate) struct ConfigFile {
    pub(crate) config: ImageConfig,
    pub(crate) diff_ids: Vec<Digest>,
    pub(crate) created: Option<jiff::Timestamp>,
}

#[derive(Deserialize)]
struct RawConfigFile {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
    created: Option<String>,
    config: Option<RawConfig>,
    rootfs: RawRootFs,
}

#[derive(Deserialize)]
struct RawRootFs {
    diff_ids: Vec<Digest>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct RawConfig {
    user: Option<String>,
    env: Option<Vec<String>>,
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    working_dir: Option<String>,
    labels: Option<BTreeMap<String, Option<String>>>,
    stop_signal: Option<String>,
    exposed_ports: Option<BTreeMap<String, serde_json::Value>>,
    volumes: Option<BTreeMap<String, serde_json::Value>>,
}

impl ConfigFile {
    /// Reads a configuration and checks that it is for this host.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, ImageError> {
        let what = "the image's configuration";
        let raw: RawConfigFile = serde_json::from_slice(bytes)
            .map_err(|source| ImageError::Malformed { what, source })?;
        let offered = Platform {
            architecture: raw.architecture,
            os: raw.os,
        };
        let host = Platform::host();
        let differs = |offered: &str, host: &str| !offered.is_empty() && offered != host;
        if differs(&offered.os, &host.os) || differs(&offered.architecture, &host.architecture) {
            return Err(ImageError::Platform {
                offered: offered.name(),
                wanted: host.name(),
            });
        }
        Ok(Self {
            config: raw.config.unwrap_or_default().into(),
            diff_ids: raw.rootfs.diff_ids,
            created: raw.created.and_then(|text| text.parse().ok()),
        })
    }
}

impl From<RawConfig> for ImageConfig {
    fn from(raw: RawConfig) -> Self {
        let pair = |text: String| match text.split_once('=') {
            Some((name, value)) => (name.to_owned(), value.to_owned()),
            None => (text, String::new()),
        };
        let labels = raw.labels.unwrap_or_default();
        Self {
            entrypoint: raw.entrypoint.unwrap_or_default(),
            cmd: raw.cmd.unwrap_or_default(),
            env: raw.env.unwrap_or_default().into_iter().map(pair).collect(),
            working_dir: raw.working_dir.unwrap_or_default(),
            user: raw.user.unwrap_or_default(),
            stop_signal: raw.stop_signal.filter(|signal| !signal.is_empty()),
            labels: labels
                .into_iter()
                .map(|(k, v)| (k, v.unwrap_or_default()))
                .collect(),
            exposed_ports: raw.exposed_ports.unwrap_or_default().into_keys().collect(),
            volumes: raw.volumes.unwrap_or_default().into_keys().collect(),
        }
    }
}

/// What a fuzzer calls: reads `data` as each of an image's documents.
///
/// # Panics
/// If more layers than can be are let through, what is kept cannot be read again, or whatever a
/// fuzzer is to find.
#[doc(hidden)]
pub fn fuzz_document(data: &[u8]) {
    match Document::parse(data) {
        Ok(Document::Manifest(manifest)) => {
            assert!(manifest.layers.len() <= LAYERS_MAX);
            let text = serde_json::to_vec(&manifest.config).expect("JSON");
            let again: Descriptor = serde_json::from_slice(&text).expect("our own");
            assert_eq!(again, manifest.config);
        }
        Ok(Document::Index(manifests)) => {
            if let Ok(chosen) = choose(&manifests) {
                assert!(manifests.contains(chosen));
            }
        }
        Err(error) => drop(error.to_string()),
    }
    if let Ok(images) = crate::layout::Saved::parse(data) {
        drop(format!("{images:?}"));
    }
    if let Ok(file) = ConfigFile::parse(data) {
        let text = serde_json::to_vec(&file.config).expect("JSON");
        let again: ImageConfig = serde_json::from_slice(&text).expect("our own");
        assert_eq!(again, file.config);
    }
}

#[cfg(test)]
mod tests;
