//! What a kernel was built from.

use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

const FILE: &str = "about.json";

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct About {
    /// Of the source package.
    pub(super) version: String,
    /// First line of `gcc --version`.
    pub(super) compiler: String,
    /// Seconds since 1970.
    pub(super) built_s: i64,
}

impl About {
    /// `None` if the directory holds no finished kernel.
    pub(super) fn read(dir: &Path) -> Option<Self> {
        let about = serde_json::from_slice(&fs::read(dir.join(FILE)).ok()?).ok()?;
        dir.join("vmlinux").is_file().then_some(about)
    }

    pub(super) fn write(&self, dir: &Path) -> io::Result<()> {
        fs::write(dir.join(FILE), serde_json::to_vec_pretty(self)?)
    }
}
