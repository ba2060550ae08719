//! A folder that is there whole or not at all, whatever kills the process that writes it.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Where the folder is prepared. Whoever writes holds the host's lock, so one name will do, and
/// what a killed process left there is taken away by the next.
fn draft_of(folder: &Path) -> PathBuf {
    folder.with_extension("new")
}

/// Makes `folder` with these files in it, readable by the owner only.
///
/// # Errors
/// If anything cannot be written, or the folder is there already and not empty. Then nothing of
/// this is left.
pub(super) fn write(folder: &Path, files: &[(&str, &str)]) -> io::Result<()> {
    let draft = draft_of(folder);
    discard(folder)?;
    let parent = folder.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(parent)?;
    DirBuilder::new().mode(0o700).create(&draft)?;
    let written = fill(&draft, files)
        // Fails if there is an identity already: rename(2) replaces empty directories only.
        .and_then(|()| fs::rename(&draft, folder))
        .and_then(|()| File::open(parent)?.sync_all());
    if written.is_err() {
        discard(folder)?;
    }
    written
}

fn fill(draft: &Path, files: &[(&str, &str)]) -> io::Result<()> {
    for (name, text) in files {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(draft.join(name))?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
    }
    File::open(draft)?.sync_all()
}

/// Takes away what a killed process left half-written.
///
/// # Errors
/// If it cannot be removed.
pub(super) fn discard(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(draft_of(folder)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}
