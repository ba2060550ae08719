//! Volumes and shared directories in a container's root.
//!
//! ```text
//!  source (volume or directory) -- sub path, inside it --> descriptor
//!     descriptor --bind--> staging directory, read-only there if wanted
//!     mount point, found or made inside the root --> descriptor <--bind-- staging directory
//! ```
//!
//! Images decide what is at a mount point, and other containers what is at a sub path, while this
//! runs. So both are descriptors by the time that something is mounted, and a bind mount of a
//! read-only bind mount is read-only from its first moment.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use types::guest::{DirectorySpec, MountSpec};

use crate::root::Root;
use crate::runtime::RuntimeError;

/// Where programs expect memory to share. It lies on a file system that a container gets at its
/// start, so whoever starts it mounts there what [`Mounted`] says.
pub const SHARED_MEMORY: &str = "/dev/shm";

/// For every user of every container, as Kubernetes has it.
const DIRECTORY_MODE: u32 = 0o777;

/// Where volumes and directories are, by name.
pub type Sources = BTreeMap<String, PathBuf>;

/// What is left for whoever starts the container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mounted {
    /// To be bound to [`SHARED_MEMORY`].
    pub shared_memory: Option<PathBuf>,
}

/// The root of the file system that is mounted at `path`.
///
/// # Errors
/// If there is no path, or nothing can be opened there.
pub fn open_mounted(path: Option<&PathBuf>) -> Result<OwnedFd, RuntimeError> {
    let failed = |source| RuntimeError::new("open the volume", source);
    let path = path.ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
    Ok(File::open(path).map_err(failed)?.into())
}

/// Makes the machine's directories: below `on_disk`, or as file systems of their own in memory,
/// mounted below `in_memory`.
///
/// # Errors
/// If one cannot be made.
pub fn make_directories(
    specs: &[DirectorySpec],
    on_disk: &Path,
    in_memory: &Path,
) -> Result<Sources, RuntimeError> {
    let mut made = Sources::new();
    for (number, spec) in specs.iter().enumerate() {
        let parent = if spec.memory { in_memory } else { on_disk };
        let path = parent.join(number.to_string());
        let make = || {
            // They are empty at each boot, also where the layer that holds them was kept.
            if !spec.memory && path.exists() {
                fs::remove_dir_all(&path)?;
            }
            fs::create_dir_all(&path)?;
            if spec.memory {
                let mut options = format!("mode={DIRECTORY_MODE:o}");
                if spec.size_bytes > 0 {
                    options.push_str(&format!(",size={}", spec.size_bytes));
                }
                let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
                mount(
                    Some("tmpfs"),
                    &path,
                    Some("tmpfs"),
                    flags,
                    Some(options.as_str()),
                )?;
            }
            fs::set_permissions(&path, fs::Permissions::from_mode(DIRECTORY_MODE))
        };
        make().map_err(|source| {
            RuntimeError::new(format!("make directory `{}`", spec.name), source)
        })?;
        made.insert(spec.name.clone(), path);
    }
    Ok(made)
}

/// Mounts everything that a container is to have. `staging` is a directory that only we use.
///
/// # Errors
/// If something cannot be mounted; what was mounted before stays.
pub fn mount_all(
    root: &Root,
    sources: &Sources,
    staging: &Path,
    mounts: &[MountSpec],
) -> Result<Mounted, RuntimeError> {
    let mut mounted = Mounted::default();
    let mut mounts: Vec<_> = mounts.iter().enumerate().collect();
    // One may lie within another.
    mounts.sort_by_key(|(_, spec)| Path::new(&spec.path).components().count());
    for (number, spec) in mounts {
        let failed = |source: io::Error| {
            RuntimeError::new(format!("mount `{}` at {}", spec.source, spec.path), source)
        };
        let stage = stage(sources, &staging.join(number.to_string()), spec).map_err(failed)?;
        if Path::new(&spec.path) == Path::new(SHARED_MEMORY) {
            mounted.shared_memory = Some(stage);
            continue;
        }
        let place = || {
            let target = mount_point(root, Path::new(&spec.path), stage.is_dir())?;
            bind(&stage, &through(&target))?;
            Ok(umount2(&stage, MntFlags::MNT_DETACH)?)
        };
        place().map_err(failed)?;
    }
    Ok(mounted)
}

fn through(fd: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

fn bind(from: &Path, to: &Path) -> nix::Result<()> {
    mount(Some(from), to, None::<&str>, MsFlags::MS_BIND, None::<&str>)
}

/// Binds the source to a path of ours, with the flags that the container is to see.
fn stage(sources: &Sources, path: &Path, spec: &MountSpec) -> io::Result<PathBuf> {
    let source = sources.get(&spec.source);
    let source = source.ok_or_else(|| io::Error::other("the machine has no such thing"))?;
    let source = sub_path(&Root::open(source)?, Path::new(&spec.sub_path))?;
    if fs::metadata(through(&source))?.is_dir() {
        fs::create_dir_all(path)?;
    } else {
        fs::create_dir_all(path.parent().unwrap_or(path))?;
        File::create(path)?;
    }
    bind(&through(&source), path)?;
    if spec.read_only {
        let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY | MsFlags::MS_NODEV;
        mount(None::<&str>, path, None::<&str>, flags, None::<&str>)?;
    }
    Ok(path.to_owned())
}

/// What a container gets of a source: made as a directory like the source itself, if it is missing.
fn sub_path(source: &Root, path: &Path) -> io::Result<OwnedFd> {
    if path.as_os_str().is_empty() {
        return source.make_directory("");
    }
    match source.find(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        found => return found,
    }
    let like = fs::metadata(through(&source.make_directory("")?))?;
    let made = source.make_directory(path)?;
    chown(through(&made), Some(like.uid()), Some(like.gid()))?;
    fs::set_permissions(through(&made), like.permissions())?;
    Ok(made)
}

/// Where to mount, made if it is missing.
fn mount_point(root: &Root, path: &Path, is_directory: bool) -> io::Result<OwnedFd> {
    let found = if is_directory {
        root.make_directory(path)?
    } else {
        match root.find(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                root.write(&path.to_string_lossy(), b"", 0o644)?;
                root.find(path)?
            }
            found => found?,
        }
    };
    let same = |a: &OwnedFd, b: &OwnedFd| {
        let (a, b) = (fs::metadata(through(a))?, fs::metadata(through(b))?);
        Ok::<_, io::Error>((a.dev(), a.ino()) == (b.dev(), b.ino()))
    };
    if same(&found, &root.make_directory("")?)? {
        return Err(io::Error::other("in the image this path is the root"));
    }
    Ok(found)
}

#[cfg(test)]
mod tests;
