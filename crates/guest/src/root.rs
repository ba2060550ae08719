//! Files inside a container's root, reached from outside without ever leaving it.
//!
//! Every path is resolved by the kernel as if the root were `/` (openat2, `RESOLVE_IN_ROOT`), so
//! an image's symbolic links cannot point at the files of whoever sets the container up.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, RenameFlags, ResolveFlag, open, openat2, renameat2};
use nix::sys::stat::{Mode, fchmod, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};

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

    fn resolve(&self, path: &str, flags: OFlag) -> nix::Result<OwnedFd> {
        let how = OpenHow::new()
            .flags(flags | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        openat2(&self.directory, path, how)
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
    pub fn make_directory(&self, path: &str) -> io::Result<OwnedFd> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
        match self.resolve(path, flags) {
            Err(Errno::ENOENT) => {}
            result => return Ok(result?),
        }
        let trimmed = path.trim_end_matches('/');
        let (parent, name) = trimmed.rsplit_once('/').unwrap_or(("", trimmed));
        let parent = match parent {
            "" => self.directory.try_clone()?,
            _ => self.make_directory(parent)?,
        };
        match mkdirat(&parent, name, Mode::from_bits_retain(0o755)) {
            // A symbolic link that leads nowhere is there, too, and stays an error below.
            Ok(()) | Err(Errno::EEXIST) => {}
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
