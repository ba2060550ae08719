//! OCI image layouts: a directory, or the tar archive of one (`skopeo copy … oci-archive:…`,
//! `docker save` since version 25), imported into the store.

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
    #[error(transparent)]
    Image(#[from] ImageError),
}

impl From<StoreError> for ImportError {
    fn from(error: StoreError) -> Self {
        Self::Image(error.into())
    }
}

impl ImageStore {
    /// Imports the image for this host's platform from an OCI image layout, a directory or its
    /// tar archive, and stores it as `name`.
    ///
    /// A layout with one image needs no choice. Of several, the one whose
    /// `org.opencontainers.image.ref.name` is the tag of `name`, or all of it, is taken.
    ///
    /// # Errors
    /// [`ImportError`] says what is missing or refused; then the store is as before.
    pub fn import_layout(&self, layout: &Path, name: &ImageRef) -> Result<Image, ImportError> {
        self.import_layout_within(layout, name, &Limits::default())
    }

    /// The same with other bounds than the default ones.
    ///
    /// # Errors
    /// As [`ImageStore::import_layout`].
    pub fn import_layout_within(
        &self,
        layout: &Path,
        name: &ImageRef,
        limits: &Limits,
    ) -> Result<Image, ImportError> {
        let source = Source::open(layout)?;
        let (digest, manifest) = find_manifest(&source, layout, name)?;
        let config = read_document(&source, &manifest.config, "configuration", CONFIG_BYTES_MAX)?;
        let config = ConfigFile::parse(&config)?;
        let rootfs = convert::rootfs_id(manifest.layers.iter().map(|layer| layer.digest));
        let record = Record::new(name.clone(), digest, config.config, rootfs, config.created);
        let work = self.begin()?;
        if self.has_rootfs(&rootfs)
            && let Some(image) = self.commit(&record, None, &work)?
        {
            return Ok(image);
        }
        let count = manifest.layers.len();
        let budget = Budget::new(limits.unpacked_bytes_max);
        let mut names = Vec::with_capacity(count);
        let mut spools = Vec::with_capacity(count);
        for (index, layer) in manifest.layers.iter().enumerate() {
            let name = layer_name(index, count, &layer.digest);
            let reader = source
                .blob(&layer.digest)
                .map_err(ImageError::io(format!("open {name}")))?;
            let (digest, bytes) = (layer.digest, layer.size);
            let blob = Blob {
                reader,
                digest,
                bytes,
                name: name.clone(),
            };
            spools.push(spool(blob, work.unnamed_file()?, &budget)?);
            names.push(name);
        }
        check_diff_ids(
            &config.diff_ids,
            spools.iter().map(|spool| spool.diff_id),
            &names,
        )?;
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

/// Follows the layout's index to the manifest that is meant.
fn find_manifest(
    source: &Source,
    layout: &Path,
    name: &ImageRef,
) -> Result<(Digest, Manifest), ImportError> {
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
    let mut next = named(&entries, name)
        .ok_or_else(|| ImportError::NoSuchImage {
            path: layout.to_owned(),
            reference: name.to_string(),
            offered: offered(&entries),
        })?
        .clone();
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

fn ref_name(entry: &Descriptor) -> Option<&str> {
    entry
        .annotations
        .as_ref()?
        .get(REF_NAME)
        .map(String::as_str)
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
        .find(|entry| ref_name(entry) == Some(&full))
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
        .map(|entry| match ref_name(entry) {
            Some(name) => crate::error::printable(name.as_bytes()),
            None => entry.digest.to_string(),
        })
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
