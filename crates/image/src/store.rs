//! The images of this host.
//!
//! ```text
//! <root>/lock                     flock, held while anything below changes its name
//! <root>/references/<hash>.json   one record per reference
//! <root>/rootfs/<hash>.erofs      one file per list of layers, shared by the records
//! <root>/blobs/<hash>             layers as they were downloaded, whole and begun (a cache)
//! <root>/work/<random>/           one directory per conversion, with a flock of its own
//! ```
//!
//! Everything is written in a work directory, made durable and then renamed, so a crash leaves
//! a whole image or none. A work directory whose lock can be had belongs to nobody any more and
//! is removed by the next process that opens the store, as are root file systems that no record
//! names.

mod blobs;
mod garbage;
mod work;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tracing::warn;
use types::ImageRef;

use crate::digest::Digest;
use crate::error::StoreError;
use crate::manifest::ImageConfig;
pub(crate) use blobs::{Begun, Part};
pub use garbage::{Freed, GarbageRules, Imported};
pub(crate) use work::Work;

/// An image that is ready to boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Image {
    /// What it was asked for by, in full.
    pub reference: ImageRef,
    /// Digest of the manifest for this host's platform, `sha256:…`.
    pub digest: String,
    pub config: ImageConfig,
    /// The EROFS file. Whoever boots it opens it before the image can be removed.
    pub rootfs: PathBuf,
    /// Size of `rootfs`.
    pub size_bytes: u64,
    /// When the image was built, by its own word.
    pub created: Option<Timestamp>,
    /// When it came to this host.
    pub stored: Timestamp,
}

/// What is kept of an image beside its root file system.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Of this format; readers of a later one still read this.
    version: u32,
    pub(crate) reference: ImageRef,
    pub(crate) digest: Digest,
    pub(crate) config: ImageConfig,
    pub(crate) rootfs: Digest,
    pub(crate) created: Option<Timestamp>,
    stored: Timestamp,
    /// It came from this host's disk, and cannot be had again from a registry.
    #[serde(default)]
    imported: bool,
}

const RECORD_VERSION: u32 = 1;

impl Record {
    pub(crate) fn new(
        reference: ImageRef,
        digest: Digest,
        config: ImageConfig,
        rootfs: Digest,
        created: Option<Timestamp>,
    ) -> Self {
        let (version, stored) = (RECORD_VERSION, Timestamp::now());
        Self {
            version,
            reference,
            digest,
            config,
            rootfs,
            created,
            stored,
            imported: false,
        }
    }

    /// The same for an image from this host's disk.
    pub(crate) fn imported(self) -> Self {
        Self {
            imported: true,
            ..self
        }
    }
}

/// The images below one directory. Several processes may hold one at a time.
#[derive(Debug, Clone)]
pub struct ImageStore {
    root: PathBuf,
}

/// Held while names in the store change.
struct StoreLock {
    _file: File,
}

impl ImageStore {
    /// Opens the store in `root`, making the directory if it is not there, and removes what a
    /// crash left.
    ///
    /// # Errors
    /// When the directory cannot be made, read or locked.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        let store = Self {
            root: root.to_owned(),
        };
        for directory in [
            store.references(),
            store.rootfs(),
            store.blobs(),
            store.work(),
        ] {
            fs::create_dir_all(&directory).map_err(StoreError::io("create", directory))?;
        }
        let lock = store.lock()?;
        work::remove_abandoned(&store.work())?;
        store.collect(&lock)?;
        Ok(store)
    }

    /// The image stored under a reference; or, for one with a digest, any image of the same
    /// repository with that digest.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn get(&self, reference: &ImageRef) -> Result<Option<Image>, StoreError> {
        Ok(self.find(reference)?.and_then(|record| self.image(record)))
    }

    /// The same, for somebody who is about to boot it: garbage collection either sees that it is
    /// in use, or has removed it before and this finds none.
    ///
    /// # Errors
    /// When the store cannot be read or changed.
    pub fn get_for_use(&self, reference: &ImageRef) -> Result<Option<Image>, StoreError> {
        let _lock = self.lock()?;
        let Some(record) = self.find(reference)? else {
            return Ok(None);
        };
        let path = self.record_path(&record.reference);
        garbage::mark_used(&path).map_err(StoreError::io("mark", path))?;
        Ok(self.image(record))
    }

    /// All images, by reference.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn list(&self) -> Result<Vec<Image>, StoreError> {
        let mut images: Vec<Image> = self
            .records()?
            .0
            .into_iter()
            .filter_map(|record| self.image(record))
            .collect();
        images.sort_by(|a, b| a.reference.cmp(&b.reference));
        Ok(images)
    }

    /// Forgets a reference, and deletes its root file system if no other has the same one.
    /// Linux keeps the file for those who have it open or mounted. False if there was none.
    ///
    /// # Errors
    /// When the store cannot be changed.
    pub fn remove(&self, reference: &ImageRef) -> Result<bool, StoreError> {
        let lock = self.lock()?;
        let Some(record) = self.find(reference)? else {
            return Ok(false);
        };
        let path = self.record_path(&record.reference);
        fs::remove_file(&path).map_err(StoreError::io("remove", path))?;
        sync_directory(&self.references())?;
        self.collect(&lock)?;
        Ok(true)
    }

    /// A directory to convert an image in.
    pub(crate) fn begin(&self) -> Result<Work, StoreError> {
        let _lock = self.lock()?;
        Work::create(&self.work())
    }

    /// Whether a root file system is there already.
    pub(crate) fn has_rootfs(&self, rootfs: &Digest) -> bool {
        self.rootfs_path(rootfs).is_file()
    }

    /// Puts a finished conversion in its place. `made` is the written root file system in the
    /// work directory, or none to use the one that is there. `None` when it is no longer there.
    pub(crate) fn commit(
        &self,
        record: &Record,
        made: Option<&Path>,
        work: &Work,
    ) -> Result<Option<Image>, StoreError> {
        let lock = self.lock()?;
        let rootfs = self.rootfs_path(&record.rootfs);
        if let Some(made) = made {
            fs::rename(made, &rootfs).map_err(StoreError::io("create", &rootfs))?;
            sync_directory(&self.rootfs())?;
        } else if !rootfs.is_file() {
            return Ok(None);
        }
        let path = self.record_path(&record.reference);
        let draft = work.path().join("record.json");
        let text = serde_json::to_vec_pretty(record).map_err(|source| StoreError::Record {
            path: path.clone(),
            source,
        })?;
        write_durably(&draft, &text).map_err(StoreError::io("write", &draft))?;
        fs::rename(&draft, &path).map_err(StoreError::io("create", &path))?;
        sync_directory(&self.references())?;
        self.collect(&lock)?;
        Ok(self.image(record.clone()))
    }

    /// Deletes root file systems that no record names.
    fn collect(&self, _lock: &StoreLock) -> Result<(), StoreError> {
        let (records, damaged) = self.records()?;
        if damaged > 0 {
            // Nobody knows which files the damaged ones name.
            return Ok(());
        }
        let used: BTreeSet<PathBuf> = records
            .iter()
            .map(|record| self.rootfs_path(&record.rootfs))
            .collect();
        for path in entries(&self.rootfs())? {
            if !used.contains(&path) {
                fs::remove_file(&path).map_err(StoreError::io("remove", path))?;
            }
        }
        Ok(())
    }

    fn find(&self, reference: &ImageRef) -> Result<Option<Record>, StoreError> {
        if let Some(record) = read_record(&self.record_path(reference))? {
            return Ok(Some(record));
        }
        let Some(digest) = &reference.digest else {
            return Ok(None);
        };
        let same = |record: &Record| {
            record.reference.registry == reference.registry
                && record.reference.repository == reference.repository
                && record.digest.to_string() == *digest
        };
        Ok(self.records()?.0.into_iter().find(same))
    }

    /// All readable records, and how many are damaged. One of those must not keep a host from
    /// starting; pulling or importing its image again repairs it.
    fn records(&self) -> Result<(Vec<Record>, usize), StoreError> {
        let (mut records, mut damaged) = (Vec::new(), 0);
        for path in entries(&self.references())? {
            match read_record(&path) {
                Ok(record) => records.extend(record),
                Err(StoreError::Record { path, source }) => {
                    warn!(path = %path.display(), %source, "image record is damaged, image ignored");
                    damaged += 1;
                }
                Err(error @ StoreError::Io { .. }) => return Err(error),
            }
        }
        Ok((records, damaged))
    }

    /// None when the root file system has been taken away behind our back: then the image is
    /// as good as absent, and pulling it again repairs it.
    fn image(&self, record: Record) -> Option<Image> {
        let rootfs = self.rootfs_path(&record.rootfs);
        let size_bytes = fs::metadata(&rootfs).ok()?.len();
        Some(Image {
            reference: record.reference,
            digest: record.digest.to_string(),
            config: record.config,
            rootfs,
            size_bytes,
            created: record.created,
            stored: record.stored,
        })
    }

    fn lock(&self) -> Result<StoreLock, StoreError> {
        let path = self.root.join("lock");
        let file = File::options().create(true).append(true).open(&path);
        let file = file.map_err(StoreError::io("open", &path))?;
        file.lock().map_err(StoreError::io("lock", &path))?;
        Ok(StoreLock { _file: file })
    }

    fn references(&self) -> PathBuf {
        self.root.join("references")
    }
    fn rootfs(&self) -> PathBuf {
        self.root.join("rootfs")
    }
    fn work(&self) -> PathBuf {
        self.root.join("work")
    }
    fn rootfs_path(&self, rootfs: &Digest) -> PathBuf {
        self.rootfs().join(format!("{}.erofs", rootfs.hex()))
    }
    fn record_path(&self, reference: &ImageRef) -> PathBuf {
        let name = Digest::of(reference.to_string().as_bytes()).hex();
        self.references().join(format!("{name}.json"))
    }
}

fn read_record(path: &Path) -> Result<Option<Record>, StoreError> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StoreError::io("read", path)(error)),
    };
    serde_json::from_slice(&text)
        .map(Some)
        .map_err(|source| StoreError::Record {
            path: path.to_owned(),
            source,
        })
}

fn entries(directory: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let read = || {
        fs::read_dir(directory)?
            .map(|entry| Ok(entry?.path()))
            .collect()
    };
    let result: io::Result<Vec<PathBuf>> = read();
    result.map_err(StoreError::io("list", directory))
}

fn write_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn sync_directory(path: &Path) -> Result<(), StoreError> {
    let sync = || File::open(path)?.sync_all();
    sync().map_err(StoreError::io("make durable", path))
}

#[cfg(test)]
mod tests;
