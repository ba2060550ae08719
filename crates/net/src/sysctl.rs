//! `/proc/sys/net` of the calling thread's network namespace (the kernel resolves these files by
//! the thread that opens them).

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::NetError;

pub(crate) fn read(key: &str) -> Result<String, NetError> {
    let path = path(key);
    match fs::read_to_string(&path) {
        Ok(text) => Ok(text.trim().to_owned()),
        Err(source) => Err(NetError::Sysctl {
            action: "read",
            path,
            source,
        }),
    }
}

/// Writes only what differs, since some writes have side effects even when nothing changes.
pub(crate) fn set(key: &str, value: &str) -> Result<(), NetError> {
    if read(key)?.split_whitespace().eq(value.split_whitespace()) {
        return Ok(());
    }
    let path = path(key);
    fs::write(&path, value).map_err(|source| NetError::Sysctl {
        action: "write",
        path,
        source,
    })
}

fn path(key: &str) -> PathBuf {
    Path::new("/proc/sys/net").join(key)
}
