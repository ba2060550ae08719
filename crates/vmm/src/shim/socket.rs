//! Unix sockets at paths of any length.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

/// Calls `f` with a short path to the same place: a socket address holds 107 bytes only, and run
/// directories may be deep.
pub(crate) fn through_dir<T>(
    path: &Path,
    f: impl FnOnce(PathBuf) -> io::Result<T>,
) -> io::Result<T> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let dir = File::open(parent)?;
    f(PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd())).join(name))
}
