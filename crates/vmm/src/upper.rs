//! Writable layers: sparse ext4 files, fresh at each boot.
//!
//! mkfs takes longer than everything else that a container's start does together, so it runs once
//! for each size, and what it wrote is copied: a few hundred kilobytes of the whole. That all have
//! one UUID matters to nobody, as each is mounted by its device.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::paths::{Paths, remove};
use crate::{VmmError, sparse};

/// What mkfs writes grows with the size, and machines may ask for any; larger layers are rare
/// enough to be made each time.
const TEMPLATE_BYTES_MAX: u64 = 64 << 30;

/// Makes a file with an empty ext4 file system of this size.
pub(crate) fn make_upper(paths: &Paths, path: &Path, bytes: u64) -> Result<(), VmmError> {
    let make = || {
        remove(path).map_err(io::Error::other)?;
        if bytes > TEMPLATE_BYTES_MAX {
            return format(path, bytes);
        }
        let folder = paths.templates();
        let template = folder.join(format!("ext4-{bytes}"));
        let Ok(found) = File::open(&template) else {
            fs::create_dir_all(&folder)?;
            // Under a name of its own until it is whole (mkfs makes it durable); whoever is second
            // replaces the first's.
            let draft = folder.join(format!("draft-{}", std::process::id()));
            remove(&draft).map_err(io::Error::other)?;
            format(&draft, bytes)?;
            sparse::copy(&File::open(&draft)?, &create(path)?)?;
            return fs::rename(&draft, &template);
        };
        sparse::copy(&found, &create(path)?)
    };
    make().map_err(VmmError::file("make writable layer", path))
}

fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600).open(path)
}

fn format(path: &Path, bytes: u64) -> io::Result<()> {
    create(path)?.set_len(bytes)?;
    let output = Command::new("mkfs.ext4")
        .args(["-q", "-F", "-m", "0", "-E"])
        .arg("lazy_itable_init=1,lazy_journal_init=1,nodiscard,root_owner=0:0")
        .arg(path)
        .stdin(Stdio::null())
        .output()?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(text.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn each_layer_is_a_sparse_and_whole_file_system_of_its_own() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths {
            data_dir: root.path().to_owned(),
            run_dir: root.path().join("run"),
        };
        let bytes = 256 << 20;
        for name in ["a", "b"] {
            let path = root.path().join(name);
            make_upper(&paths, &path, bytes).unwrap();
            let metadata = fs::metadata(&path).unwrap();
            assert_eq!(metadata.len(), bytes);
            assert!(metadata.blocks() * 512 < 8 << 20, "{}", metadata.blocks());
            assert_eq!(metadata.mode() & 0o777, 0o600);
            let checked = Command::new("e2fsck")
                .arg("-fn")
                .arg(&path)
                .output()
                .unwrap();
            assert!(checked.status.success(), "{checked:?}");
        }
        assert_eq!(fs::read_dir(paths.templates()).unwrap().count(), 1);
        // Written to by one machine, read by no other.
        fs::write(root.path().join("a"), b"x").unwrap();
        make_upper(&paths, &root.path().join("c"), bytes).unwrap();
        let (b, c) = (root.path().join("b"), root.path().join("c"));
        assert!(fs::read(b).unwrap() == fs::read(c).unwrap());
    }
}
