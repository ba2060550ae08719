//! OCI image layouts, a directory or the tar archive of one (`skopeo copy … oci-archive:…`,
//! `docker save` since version 25), and archives of `docker save` before that, imported into the
//! store. Archives may be compressed with gzip or zstd.

mod docker;
mod source;
pub(crate) mod write;

use std::path::{Path, PathBuf};

use types::ImageRef;

use crate::convert::{self, layer_name};
use crate::digest::Digest;
use crate::error::{ImageError, Limits, StoreError};
use crate::manifest::{
    CONFIG_BYTES_MAX, ConfigFile, Descriptor, Document, INDEX_DEPTH_MAX, MANIFEST_BYTES_MAX,
    Manifest, choose,
};
use crate::spool::{Blob, Budget, spool};
use crate::store::{Image, ImageStore, Record};
pub(crate) use docker::Saved;
use source::Source;

/// Why nothing was imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    #[error("{path} is no OCI image layout: `{missing}` cannot be read")]
    NoLayout {
        path: PathBuf,
        missing: String,
        source: std::io::Error,
    },
    #[error("{path} has no image for `{reference}`; it offers: {offered}")]
    NoSuchImage {
        path: PathBuf,
        reference: String,
        offered: String,
    },
    #[error("{path} has several images: {offered}; say which")]
    Several { path: PathBuf, offered: String },
    #[error("{path} does not say what its image is called; give it a name")]
    Nameless { path: PathBuf },
    #[error(transparent)]
    Image(#[from] ImageError),
}

impl From<StoreError> for ImportError {
    fn from(error: StoreError) -> Self {
        Self::Image(error.into())
    }
}

/// An image that was found, before its layers are read.
struct Found {
    name: ImageRef,
    /// Of its manifest.
    digest: Digest,
    config: ConfigFile,
    layers: Vec<Piece>,
}

/// A layer in a source.
struct Piece {
    file: String,
    /// Of the file.
    bytes: u64,
    digest: LayerDigest,
}

#[derive(Clone, Copy)]
enum LayerDigest {
    /// As it lies in the file, which may be compressed.
    Packed(Digest),
    /// Unpacked; compared when it is.
    Unpacked(Digest),
}

impl LayerDigest {
    fn id(self) -> Digest {
        match self {
            Self::Packed(digest) | Self::Unpacked(digest) => digest,
        }
    }
}

impl ImageStore {
    /// Imports the image for this host's platform from an OCI image layout, a directory or its
    /// tar archive, or from an archive that `docker save` wrote.
    ///
    /// What has one image needs no choice, and is stored as `name`; of several, the one that is
    /// called `name` (or, in a layout, by its tag) is taken. Without a name the image is stored
    /// under its own; the first, if it has several.
    ///
    /// # Errors
    /// [`ImportError`] says what is missing or refused; then the store is as before.
    pub fn import(&self, path: &Path, name: Option<&ImageRef>) -> Result<Image, ImportError> {
        self.import_within(path, name, &Limits::default())
    }

    /// The same with a name.
    ///
    /// # Errors
    /// As [`ImageStore::import`].
    pub fn import_layout(&self, layout: &Path, name: &ImageRef) -> Result<Image, ImportError> {
        self.import(layout, Some(name))
    }

    /// The same with other bounds than the default ones.
    ///
    /// # Errors
    /// As [`ImageStore::import`].
    pub fn import_within(
        &self,
        path: &Path,
        name: Option<&ImageRef>,
        limits: &Limits,
    ) -> Result<Image, ImportError> {
        let work = self.begin()?;
        let source = Source::open(path, &work, limits)?;
        let found = match source.is_docker_archive() {
            true => docker::find(&source, path, name)?,
            false => find(&source, path, name)?,
        };
        let ids = found.layers.iter().map(|layer| layer.digest.id());
        let rootfs = convert::rootfs_id(ids);
        let ConfigFile {
            config,
            created,
            diff_ids,
        } = found.config;
        let record = Record::new(found.name, found.digest, config, rootfs, created).imported();
        if self.has_rootfs(&rootfs)
            && let Some(image) = self.commit(&record, None, &work)?
        {
            return Ok(image);
        }
        let count = found.layers.len();
        let budget = Budget::new(limits.unpacked_bytes_max);
        let mut names = Vec::with_capacity(count);
        let mut spools = Vec::with_capacity(count);
        for (index, layer) in found.layers.iter().enumerate() {
            let name = layer_name(index, count, &layer.digest.id());
            let reader = source
                .file(&layer.file)
                .map_err(ImageError::io(format!("open {name}")))?;
            let blob = Blob {
                reader,
                digest: match layer.digest {
                    LayerDigest::Packed(digest) => Some(digest),
                    LayerDigest::Unpacked(_) => None,
                },
                bytes: layer.bytes,
                name: name.clone(),
            };
            spools.push(spool(blob, work.unnamed_file()?, &budget)?);
            names.push(name);
        }
        check_diff_ids(&diff_ids, spools.iter().map(|spool| spool.diff_id), &names)?;
        let tree = convert::merge(&spools, &names, limits)?;
        let (path, file) = work.file("rootfs.erofs")?;
        convert::write(&tree, &spools, &rootfs, file)?;
        let image = self.commit(&record, Some(&path), &work)?;
        Ok(image.expect("the root file system was put there under the same lock"))
    }
}

/// The configuration lists the digests of the unpacked layers; both must tell the same story.
pub(crate) fn check_diff_ids(
    stated: &[Digest],
    actual: impl ExactSizeIterator<Item = Digest>,
    names: &[String],
) -> Result<(), ImageError> {
    if stated.len() != actual.len() {
        let why = format!(
            "it lists {} layers and the manifest {}",
            stated.len(),
            actual.len()
        );
        return Err(ImageError::Unsupported {
            what: "the image's configuration",
            why,
        });
    }
    for ((expected, actual), name) in stated.iter().zip(actual).zip(names) {
        if *expected != actual {
            let what = format!("the unpacked {name}");
            return Err(ImageError::DigestMismatch {
                what,
                expected: *expected,
                actual,
            });
        }
    }
    Ok(())
}

/// Follows the layout's index to the image that is meant.
fn find(source: &Source, layout: &Path, name: Option<&ImageRef>) -> Result<Found, ImportError> {
    let index = source
        .index(MANIFEST_BYTES_MAX)
        .map_err(|error| ImportError::NoLayout {
            path: layout.to_owned(),
            missing: "index.json".to_owned(),
            source: error,
        })?;
    let Document::Index(entries) = Document::parse(&index)? else {
        let why = "it is an image's manifest".to_owned();
        return Err(ImageError::Unsupported {
            what: "index.json",
            why,
        }
        .into());
    };
    let name = match name {
        Some(name) => name.clone(),
        None => only_name(&entries, layout)?,
    };
    let start = named(&entries, &name).ok_or_else(|| ImportError::NoSuchImage {
        path: layout.to_owned(),
        reference: name.to_string(),
        offered: offered(&entries),
    })?;
    let (digest, manifest) = follow(source, start.clone())?;
    let config = read_document(source, &manifest.config, "configuration", CONFIG_BYTES_MAX)?;
    let piece = |layer: &Descriptor| Piece {
        file: format!("blobs/sha256/{}", layer.digest.hex()),
        bytes: layer.size,
        digest: LayerDigest::Packed(layer.digest),
    };
    Ok(Found {
        name,
        digest,
        config: ConfigFile::parse(&config)?,
        layers: manifest.layers.iter().map(piece).collect(),
    })
}

/// What the only image of a layout is called by itself.
fn only_name(entries: &[Descriptor], layout: &Path) -> Result<ImageRef, ImportError> {
    let path = layout.to_owned();
    let mut names: Vec<ImageRef> = entries.iter().filter_map(full_name).collect();
    names.dedup();
    match names.as_slice() {
        [] => Err(ImportError::Nameless { path }),
        [name] => Ok(name.clone()),
        _ => Err(ImportError::Several {
            path,
            offered: offered(entries),
        }),
    }
}

fn follow(source: &Source, mut next: Descriptor) -> Result<(Digest, Manifest), ImportError> {
    for _ in 0..=INDEX_DEPTH_MAX {
        let bytes = read_document(source, &next, "manifest", MANIFEST_BYTES_MAX)?;
        match Document::parse(&bytes)? {
            Document::Manifest(manifest) => return Ok((next.digest, manifest)),
            Document::Index(entries) => next = choose(&entries)?.clone(),
        }
    }
    let why = format!("indexes are nested more than {INDEX_DEPTH_MAX} deep");
    Err(ImageError::Unsupported {
        what: "the layout",
        why,
    }
    .into())
}

const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// Where containerd, and so `docker save`, has the whole name, and only the tag in the other.
const CONTAINERD_NAME: &str = "io.containerd.image.name";

fn ref_name(entry: &Descriptor) -> Option<&str> {
    annotation(entry, REF_NAME)
}

fn annotation<'a>(entry: &'a Descriptor, key: &str) -> Option<&'a str> {
    entry.annotations.as_ref()?.get(key).map(String::as_str)
}

/// A name of this entry that says more than a tag.
fn full_name(entry: &Descriptor) -> Option<ImageRef> {
    let whole = |name: &&str| name.contains([':', '/']);
    let name = annotation(entry, CONTAINERD_NAME).or_else(|| ref_name(entry).filter(whole))?;
    name.parse().ok()
}

fn named<'a>(entries: &'a [Descriptor], name: &ImageRef) -> Option<&'a Descriptor> {
    if let Some(digest) = &name.digest {
        return entries
            .iter()
            .find(|entry| entry.digest.to_string() == *digest);
    }
    if let [only] = entries {
        return Some(only);
    }
    let full = name.to_string();
    let tag = name.tag.as_deref();
    entries
        .iter()
        .find(|entry| ref_name(entry) == Some(&full) || full_name(entry).as_ref() == Some(name))
        .or_else(|| {
            entries
                .iter()
                .find(|entry| tag.is_some() && ref_name(entry) == tag)
        })
        .or_else(|| {
            // Without any names the entries are one image for several platforms.
            let nameless = entries.iter().all(|entry| ref_name(entry).is_none());
            choose(entries).ok().filter(|_| nameless)
        })
}

fn offered(entries: &[Descriptor]) -> String {
    const SHOWN_MAX: usize = 20;
    let names: Vec<String> = entries
        .iter()
        .take(SHOWN_MAX)
        .map(
            |entry| match annotation(entry, CONTAINERD_NAME).or(ref_name(entry)) {
                Some(name) => crate::error::printable(name.as_bytes()),
                None => entry.digest.to_string(),
            },
        )
        .collect();
    if names.is_empty() {
        "nothing".to_owned()
    } else {
        names.join(", ")
    }
}

fn read_document(
    source: &Source,
    descriptor: &Descriptor,
    what: &str,
    bytes_max: u64,
) -> Result<Vec<u8>, ImageError> {
    let what = format!("the {what} ({})", descriptor.digest);
    if descriptor.size > bytes_max {
        return Err(ImageError::TooLarge {
            what,
            bytes: descriptor.size,
            bytes_max,
        });
    }
    let bytes = source
        .document(&descriptor.digest, descriptor.size)
        .map_err(ImageError::io(format!("read {what}")))?;
    check_document(&bytes, descriptor, what)?;
    Ok(bytes)
}

/// Checks a small blob against its descriptor.
pub(crate) fn check_document(
    bytes: &[u8],
    descriptor: &Descriptor,
    what: String,
) -> Result<(), ImageError> {
    let actual = bytes.len() as u64;
    if actual != descriptor.size {
        return Err(ImageError::SizeMismatch {
            what,
            expected: descriptor.size,
            actual,
        });
    }
    let actual = Digest::of(bytes);
    if actual != descriptor.digest {
        return Err(ImageError::DigestMismatch {
            what,
            expected: descriptor.digest,
            actual,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
