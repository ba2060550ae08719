//! Writable layers: sparse ext4 files, fresh at each boot unless they are to be kept.
//!
//! One that is kept has a mark beside it, the version of the machine that it belongs to, which is
//! written last and taken away first: a layer with a mark is whole.
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
use crate::{BootSpec, VmmError, sparse};

/// What mkfs writes grows with the size, and machines may ask for any; larger layers are rare
/// enough to be made each time.
const TEMPLATE_BYTES_MAX: u64 = 64 << 30;

/// Makes the writable layers of a boot, or goes on with those that are there.
pub(crate) fn prepare_uppers(paths: &Paths, boot: &BootSpec) -> Result<(), VmmError> {
    let mut containers = boot.spec.containers.iter();
    containers.try_for_each(|container| {
        let path = paths.upper(&boot.machine, &container.name);
        prepare_upper(paths, &path, boot)
    })
}

/// Makes the writable layer of a boot at `path`, or goes on with the one that is there.
pub(crate) fn prepare_upper(paths: &Paths, path: &Path, boot: &BootSpec) -> Result<(), VmmError> {
    let mark = path.with_extension("of");
    let bytes = boot.rootfs_size_bytes;
    let Some(keep) = &boot.keep else {
        remove(&mark)?;
        return make_upper(paths, path, bytes);
    };
    let found = fs::read_to_string(&mark).ok();
    let fits = |found: &String| keep.any_version || *found == keep.version;
    if found.as_ref().is_some_and(fits) && path.exists() {
        grow(path, bytes).map_err(VmmError::file("go on with writable layer", path))?;
    } else {
        remove(&mark)?;
        make_upper(paths, path, bytes)?;
    }
    if found.as_ref() == Some(&keep.version) {
        return Ok(());
    }
    let finish = || {
        File::open(path)?.sync_all()?;
        let draft = path.with_extension("of.new");
        fs::write(&draft, &keep.version)?;
        File::open(&draft)?.sync_all()?;
        fs::rename(&draft, &mark)
    };
    finish().map_err(VmmError::file("mark writable layer", path))
}

/// Repairs what a machine that was killed has left, and lets the file system grow to `bytes`.
fn grow(path: &Path, bytes: u64) -> io::Result<()> {
    let is_smaller = fs::metadata(path)?.len() < bytes;
    // 0: it was whole; 1: it is now.
    let check = if is_smaller { "-fp" } else { "-p" };
    run(Command::new("e2fsck").arg(check).arg(path), 1)?;
    if is_smaller {
        OpenOptions::new().write(true).open(path)?.set_len(bytes)?;
        run(Command::new("resize2fs").arg(path), 0)?;
    }
    Ok(())
}

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
    let mut mkfs = Command::new("mkfs.ext4");
    mkfs.args(["-q", "-F", "-m", "0", "-E"])
        .arg("lazy_itable_init=1,lazy_journal_init=1,nodiscard,root_owner=0:0")
        .arg(path);
    run(&mut mkfs, 0)
}

/// Runs a program to its end; exit codes up to `code_max` are good.
fn run(command: &mut Command, code_max: i32) -> io::Result<()> {
    let output = command.stdin(Stdio::null()).output()?;
    if output.status.code().is_some_and(|code| code <= code_max) {
        return Ok(());
    }
    let program = command.get_program().to_string_lossy();
    let text = [output.stderr, output.stdout].concat();
    let text = String::from_utf8_lossy(&text);
    Err(io::Error::other(format!("{program}: {}", text.trim())))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;
    use crate::KeepLayers;

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

    #[test]
    fn a_layer_is_kept_for_its_version_or_for_all_and_grows() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths {
            data_dir: root.path().to_owned(),
            run_dir: root.path().join("run"),
        };
        let path = root.path().join("upper-web.ext4");
        let mut boot = crate::shim::tests::spec().boot;
        boot.rootfs_size_bytes = 64 << 20;
        // Written into a place of the file system that is nobody's: the boot block.
        let write = || {
            let file = OpenOptions::new().write(true).open(&path).unwrap();
            std::os::unix::fs::FileExt::write_all_at(&file, b"mine", 0).unwrap();
        };
        let mut is_kept = |version: Option<(&str, bool)>, bytes: u64| {
            boot.keep = version.map(|(version, any_version)| KeepLayers {
                version: version.to_owned(),
                any_version,
            });
            boot.rootfs_size_bytes = bytes;
            prepare_upper(&paths, &path, &boot).unwrap();
            let kept = fs::read(&path).unwrap().starts_with(b"mine");
            write();
            (kept, fs::metadata(&path).unwrap().len() >> 20)
        };
        assert_eq!(is_kept(Some(("1", false)), 64 << 20), (false, 64));
        assert_eq!(is_kept(Some(("1", false)), 64 << 20), (true, 64));
        assert_eq!(is_kept(Some(("1", false)), 96 << 20), (true, 96));
        assert_eq!(is_kept(Some(("1", false)), 64 << 20), (true, 96));
        // Another version.
        assert_eq!(is_kept(Some(("2", false)), 64 << 20), (false, 64));
        assert_eq!(is_kept(Some(("3", true)), 64 << 20), (true, 64));
        assert_eq!(is_kept(Some(("3", false)), 64 << 20), (true, 64));
        // What a boot without it has left is nobody's.
        assert_eq!(is_kept(None, 64 << 20), (false, 64));
        assert_eq!(is_kept(Some(("3", true)), 64 << 20), (false, 64));
        let checked = Command::new("e2fsck").arg("-fn").arg(&path).output();
        assert!(checked.unwrap().status.success());
    }
}
