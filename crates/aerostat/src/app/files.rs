//! Files and folders that only this host's root may read.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use anyhow::Context as _;

/// Writes a file so that a reader sees all of it or none.
pub(super) fn write_whole(path: &Path, mode: u32, bytes: &[u8]) -> anyhow::Result<()> {
    let next = path.with_extension("new");
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(mode)
            .open(&next)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&next, path)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

/// A folder that only root may look into.
pub(super) fn private_folder(path: &Path) -> anyhow::Result<()> {
    let make = || -> io::Result<()> {
        fs::create_dir_all(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))
    };
    make().with_context(|| format!("cannot make {}", path.display()))
}
