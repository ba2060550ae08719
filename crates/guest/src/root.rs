//! Files inside a container's root, reached from outside without ever leaving it.
//!
//! Every path is resolved by the kernel as if the root were `/` (openat2, `RESOLVE_IN_ROOT`), so
//! an image's symbolic links cannot point at the files of whoever sets the container up, also while
//! the container's processes rename things.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::NixPath;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, RenameFlags, ResolveFlag, open, openat2, renameat2};
use nix::sys::stat::{Mode, fchmod, mkdirat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchownat, unlinkat};

/// A container that renames without end keeps the kernel unsure for ever.
const RESOLVE_TRIES: u32 = 1000;

/// Name under which a file is written before it takes its place.
const UNFINISHED: &str = ".aerostat-unfinished";

/// The root directory of a container.
#[derive(Debug)]
pub struct Root {
    directory: OwnedFd,
}

impl Root {
    /// # Errors
    /// If `path` is no directory that can be opened.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let directory = open(path, flags, Mode::empty())?;
        Ok(Self { directory })
    }

    /// A directory as the root of what lies below it.
    pub(crate) fn from_directory(directory: OwnedFd) -> Self {
        Self { directory }
    }

    fn resolve<P: ?Sized + NixPath>(&self, path: &P, flags: OFlag) -> nix::Result<OwnedFd> {
        let how = OpenHow::new()
            .flags(flags | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        let mut tries = 0;
        loop {
            match openat2(&self.directory, path, how) {
                // Something was renamed meanwhile, so the kernel cannot be sure.
                Err(Errno::EAGAIN) if tries < RESOLVE_TRIES => tries += 1,
                result => return result,
            }
        }
    }

    /// Whatever is at `path`, to be looked at only (`O_PATH`). Links are followed, inside.
    ///
    /// # Errors
    /// If there is nothing.
    pub(crate) fn find(&self, path: &Path) -> io::Result<OwnedFd> {
        Ok(self.resolve(path, OFlag::O_PATH)?)
    }

    /// As [`Self::find`], but not following a link at the end of `path`.
    pub(crate) fn find_itself(&self, path: &Path) -> io::Result<OwnedFd> {
        Ok(self.resolve(path, OFlag::O_PATH | OFlag::O_NOFOLLOW)?)
    }

    /// The first `bytes_max` bytes of a regular file; empty if there is none.
    ///
    /// # Errors
    /// If there is one and it cannot be read.
    pub fn read(&self, path: &str, bytes_max: u64) -> io::Result<Vec<u8>> {
        // Not blocking: an image may hold a FIFO of that name.
        let file = match self.resolve(path, OFlag::O_RDONLY | OFlag::O_NONBLOCK) {
            Ok(file) => File::from(file),
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => return Ok(Vec::new()),
            Err(errno) => return Err(errno.into()),
        };
        let mut bytes = Vec::new();
        if file.metadata()?.is_file() {
            file.take(bytes_max).read_to_end(&mut bytes)?;
        }
        Ok(bytes)
    }

    /// Makes a directory and those above it, where they are missing.
    ///
    /// # Errors
    /// If something on the way is no directory, or cannot be made.
    pub fn make_directory(&self, path: impl AsRef<Path>) -> io::Result<OwnedFd> {
        self.make_directories(path.as_ref(), Owner::ROOT)
    }

    /// As [`Self::make_directory`]; those that were missing belong to `owner`.
    ///
    /// # Errors
    /// If something on the way is no directory, or cannot be made.
    pub fn make_directories(&self, path: &Path, owner: Owner) -> io::Result<OwnedFd> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
        if path.as_os_str().is_empty() {
            return self.directory.try_clone();
        }
        match self.resolve(path, flags) {
            Err(Errno::ENOENT) => {}
            result => return Ok(result?),
        }
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(Errno::ENOENT.into());
        };
        let parent = self.make_directories(parent, owner)?;
        match mkdirat(&parent, name, Mode::from_bits_retain(0o755)) {
            Ok(()) => owner.take(&parent, name)?,
            // A symbolic link that leads nowhere is there, too, and stays an error below.
            Err(Errno::EEXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
        Ok(self.resolve(path, flags)?)
    }

    /// Writes a file whole or not at all, with the directories above it. What was there is
    /// replaced, also if it is a symbolic link.
    ///
    /// # Errors
    /// If `path` is a directory, or something cannot be written.
    pub fn write(&self, path: &str, content: &[u8], mode: u32) -> io::Result<()> {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let parent = match parent {
            "" => self.directory.try_clone()?,
            _ => self.make_directory(parent)?,
        };
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
        let create = || {
            let how = OpenHow::new()
                .flags(flags)
                .mode(Mode::from_bits_retain(0o600))
                .resolve(ResolveFlag::RESOLVE_BENEATH);
            openat2(&parent, UNFINISHED, how)
        };
        let file = match create() {
            Err(Errno::EEXIST) => {
                unlinkat(&parent, UNFINISHED, UnlinkatFlags::NoRemoveDir)?;
                create()
            }
            result => result,
        }?;
        let mut file = File::from(file);
        let written = file.write_all(content).and_then(|()| {
            fchmod(file.as_fd(), Mode::from_bits_truncate(mode))?;
            let flags = RenameFlags::empty();
            Ok(renameat2(&parent, UNFINISHED, &parent, name, flags)?)
        });
        if written.is_err() {
            // The first error is the one that matters.
            let _ = unlinkat(&parent, UNFINISHED, UnlinkatFlags::NoRemoveDir);
        }
        written
    }
}

/// Who something belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    pub uid: u32,
    pub gid: u32,
}

impl Owner {
    pub const ROOT: Self = Self { uid: 0, gid: 0 };

    /// Gives what was just made to this owner, whatever it is. It is root's otherwise.
    pub(crate) fn take<P: ?Sized + NixPath>(self, parent: impl AsFd, name: &P) -> io::Result<()> {
        if self == Self::ROOT {
            return Ok(());
        }
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        let flags = AtFlags::AT_SYMLINK_NOFOLLOW;
        Ok(fchownat(parent, name, Some(uid), Some(gid), flags)?)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn root() -> (tempfile::TempDir, Root) {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("root")).unwrap();
        fs::write(directory.path().join("secret"), "outside").unwrap();
        let root = Root::open(&directory.path().join("root")).unwrap();
        (directory, root)
    }

    #[test]
    fn files_are_written_with_directories_and_mode_and_read_back() {
        let (directory, root) = root();
        root.write("/a/b/c", b"one", 0o640).unwrap();
        root.write("/a/b/c", b"two", 0o600).unwrap();
        root.write("/top", b"x", 0o644).unwrap();
        assert_eq!(root.read("/a/b/c", 2).unwrap(), b"tw");
        assert_eq!(root.read("/missing/file", 9).unwrap(), b"");
        let path = directory.path().join("root/a/b/c");
        assert_eq!(
            fs::metadata(path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(
            fs::read_dir(directory.path().join("root/a/b"))
                .unwrap()
                .count(),
            1
        );
        assert!(root.write("/a/b", b"", 0o600).is_err());
    }

    #[test]
    fn symbolic_links_never_lead_out() {
        let (directory, root) = root();
        let inside = directory.path().join("root");
        symlink("../secret", inside.join("up")).unwrap();
        symlink(directory.path().join("secret"), inside.join("absolute")).unwrap();
        symlink("../../../..", inside.join("etc")).unwrap();
        assert_eq!(root.read("/up", 99).unwrap(), b"");
        assert_eq!(root.read("/absolute", 99).unwrap(), b"");
        root.write("/up", b"new", 0o600).unwrap();
        root.write("/etc/secret", b"inside", 0o600).unwrap();
        assert_eq!(fs::read(inside.join("secret")).unwrap(), b"inside");
        assert_eq!(
            fs::read(directory.path().join("secret")).unwrap(),
            b"outside"
        );
        symlink("nowhere/else", inside.join("dangling")).unwrap();
        assert!(root.write("/dangling/file", b"", 0o600).is_err());
    }
}
