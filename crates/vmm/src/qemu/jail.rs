//! QEMU's root directory: programs and libraries, read only, and the files of the guest.
//!
//! Made of bind mounts in the mount namespace of the shim, with which they vanish. There is no
//! `/proc`, no `/etc` and nothing that can be written: a QEMU that its guest has taken over sees
//! what every Debian system has, and its own descriptors.

use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};

use crate::{VmmError, probe};

/// What stands in `/` of systems with one directory for programs, as symbolic links to it.
const LINKS: [&str; 5] = ["bin", "lib", "lib32", "lib64", "sbin"];
const LIBRARY_CACHE: &str = "etc/ld.so.cache";
/// Names of the guest's files, seen from inside.
pub(super) const KERNEL: &str = "/vmlinux";
pub(super) const INITRAMFS: &str = "/initramfs.cpio";

#[derive(Debug)]
pub(super) struct Jail {
    pub(super) root: CString,
    /// QEMU, seen from inside as from outside.
    pub(super) program: PathBuf,
}

impl Jail {
    /// Makes it at `root`, where nothing is yet. `devices` are names in `/dev`.
    pub(super) fn make(
        root: &Path,
        kernel: &Path,
        initramfs: &Path,
        devices: &[&str],
    ) -> Result<Self, VmmError> {
        let program = find(probe::QEMU).ok_or(io::ErrorKind::NotFound.into());
        let program = program.map_err(VmmError::file("find", probe::QEMU))?;
        let make = || -> io::Result<()> {
            fs::create_dir(root)?;
            bind_directory(root, Path::new("/usr"))?;
            // Where QEMU was installed by hand: `<prefix>/bin/qemu…`.
            let prefix = program.parent().and_then(Path::parent);
            if let Some(prefix) = prefix.filter(|p| !p.starts_with("/usr")) {
                bind_directory(root, prefix)?;
            }
            for name in LINKS {
                let path = Path::new("/").join(name);
                match fs::read_link(&path) {
                    Ok(target) => std::os::unix::fs::symlink(target, root.join(name))?,
                    Err(_) if path.is_dir() => bind_directory(root, &path)?,
                    Err(_) => {}
                }
            }
            let cache = Path::new("/").join(LIBRARY_CACHE);
            if cache.exists() {
                bind_file(&cache, &root.join(LIBRARY_CACHE), MsFlags::MS_NODEV)?;
            }
            bind_file(kernel, &inside(root, KERNEL), MsFlags::MS_NODEV)?;
            bind_file(initramfs, &inside(root, INITRAMFS), MsFlags::MS_NODEV)?;
            for name in devices {
                let device = Path::new("/dev").join(name);
                bind_file(&device, &inside(root, &device), MsFlags::MS_NOEXEC)?;
            }
            Ok(())
        };
        make().map_err(VmmError::file("make root directory", root))?;
        let root = CString::new(root.as_os_str().as_bytes())
            .map_err(io::Error::other)
            .map_err(VmmError::file("make root directory", root))?;
        Ok(Self { root, program })
    }
}

fn inside(root: &Path, path: impl AsRef<Path>) -> PathBuf {
    let path = path.as_ref();
    root.join(path.strip_prefix("/").unwrap_or(path))
}

fn bind_directory(root: &Path, path: &Path) -> io::Result<()> {
    let target = inside(root, path);
    fs::create_dir_all(&target)?;
    bind(path, &target, MsFlags::MS_NODEV)
}

fn bind_file(path: &Path, target: &Path, flags: MsFlags) -> io::Result<()> {
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent)?;
    }
    File::create(target)?;
    bind(path, target, flags)
}

fn bind(path: &Path, target: &Path, flags: MsFlags) -> io::Result<()> {
    let none = None::<&str>;
    mount(Some(path), target, none, MsFlags::MS_BIND, none)?;
    // A bind mount takes flags the second time only.
    let flags = flags | MsFlags::MS_BIND | MsFlags::MS_REMOUNT;
    let flags = flags | MsFlags::MS_RDONLY | MsFlags::MS_NOSUID;
    Ok(mount(none, target, none, flags, none)?)
}

/// A program by its name, without symbolic links.
fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .filter_map(|dir| dir.join(name).canonicalize().ok())
        .find(|path| path.is_file())
}
