//! Directories for conversions that are not finished.
//!
//! Made and swept under the store's lock, so that a new directory is never swept between being
//! made and being locked.

use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::error::StoreError;

/// A directory that is removed with its owner; if the owner crashes, by the next one to open
/// the store.
#[derive(Debug)]
pub(crate) struct Work {
    directory: tempfile::TempDir,
    _lock: File,
}

const LOCK: &str = "lock";

impl Work {
    pub(super) fn create(parent: &Path) -> Result<Self, StoreError> {
        let directory = tempfile::Builder::new()
            .prefix("image-")
            .tempdir_in(parent)
            .map_err(StoreError::io("create a directory in", parent))?;
        let path = directory.path().join(LOCK);
        let lock = File::create(&path).map_err(StoreError::io("create", &path))?;
        lock.lock().map_err(StoreError::io("lock", &path))?;
        Ok(Self {
            directory,
            _lock: lock,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// A new file that is read and written; with the permissions of an ordinary file.
    pub(crate) fn file(&self, name: &str) -> Result<(PathBuf, File), StoreError> {
        let path = self.path().join(name);
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path);
        Ok((path.clone(), file.map_err(StoreError::io("create", path))?))
    }

    /// A file without a name: its space is free again when it is closed, however that happens.
    pub(crate) fn unnamed_file(&self) -> Result<File, StoreError> {
        tempfile::tempfile_in(self.path()).map_err(StoreError::io("create a file in", self.path()))
    }
}

pub(super) fn remove_abandoned(parent: &Path) -> Result<(), StoreError> {
    for path in super::entries(parent)? {
        match File::open(path.join(LOCK)).map(|lock| lock.try_lock().map(|()| lock)) {
            Ok(Err(TryLockError::WouldBlock)) => continue,
            Ok(Err(TryLockError::Error(error))) => {
                return Err(StoreError::io("lock", path)(error));
            }
            // Without a lock file its owner died between two steps.
            Ok(Ok(_)) | Err(_) => {}
        }
        match fs::remove_dir_all(&path) {
            // An owner that has just finished removes it too, its lock file first.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            removed => removed.map_err(StoreError::io("remove", path))?,
        }
    }
    Ok(())
}
