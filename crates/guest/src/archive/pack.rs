//! Files of a container into an archive.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, readlinkat};
use nix::sys::stat::Mode;
use tar::{Builder, EntryType, Header};

use super::{ArchiveError, DEPTH_MAX, ENTRIES_MAX};
use crate::root::Root;

/// Packs the file or directory at `path`, whose last name begins the entries' names. A file has the
/// length that it had first, whatever happens to it meanwhile; what is neither file, directory nor
/// symbolic link is left out.
pub(crate) fn pack(root: &Root, path: &Path, out: impl Write) -> Result<(), ArchiveError> {
    let read = |source| ArchiveError::Read {
        path: path.to_owned(),
        source,
    };
    let start = root.find(path).map_err(read)?;
    let name = path.file_name().map(PathBuf::from).unwrap_or_default();
    let mut packer = Packer {
        builder: Builder::new(out),
        entries: 0,
    };
    packer.add(start, &name, 0)?;
    let end = packer.builder.into_inner().and_then(|mut out| out.flush());
    end.map_err(|source| ArchiveError::Send { source })
}

struct Packer<W: Write> {
    builder: Builder<W>,
    entries: usize,
}

/// The path by which this process reaches what a descriptor stands for.
fn through(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

impl<W: Write> Packer<W> {
    fn add(&mut self, fd: OwnedFd, name: &Path, depth: usize) -> Result<(), ArchiveError> {
        let read = |source| ArchiveError::Read {
            path: name.to_owned(),
            source,
        };
        self.entries += 1;
        if self.entries > ENTRIES_MAX {
            return Err(ArchiveError::TooMany);
        }
        if depth > DEPTH_MAX {
            let path = name.to_owned();
            return Err(ArchiveError::TooDeep { path });
        }
        let looked_at = File::from(fd);
        let metadata = looked_at.metadata().map_err(read)?;
        let fd = OwnedFd::from(looked_at);
        let kind = metadata.file_type();
        let mut header = Header::new_gnu();
        header.set_mode(metadata.mode() & 0o7777);
        header.set_uid(u64::from(metadata.uid()));
        header.set_gid(u64::from(metadata.gid()));
        header.set_mtime(u64::try_from(metadata.mtime()).unwrap_or(0));
        header.set_size(0);
        if kind.is_dir() {
            header.set_entry_type(EntryType::Directory);
            let own = if name.as_os_str().is_empty() {
                Path::new(".")
            } else {
                name
            };
            self.append(&mut header, own, io::empty())?;
            return self.children(&fd, name, depth);
        }
        if kind.is_symlink() {
            header.set_entry_type(EntryType::Symlink);
            let target = readlinkat(&fd, "").map_err(|errno| read(errno.into()))?;
            let appended = self.builder.append_link(&mut header, name, target);
            return appended.map_err(|source| ArchiveError::Send { source });
        }
        if !kind.is_file() {
            return Ok(());
        }
        let mut options = OpenOptions::new();
        // The very file that was looked at, so that no device is opened.
        let opened = options
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(through(&fd));
        let file = opened.map_err(read)?;
        header.set_size(metadata.len());
        // Zeros stand for what was cut off meanwhile.
        let content = file.take(metadata.len()).chain(io::repeat(0));
        self.append(&mut header, name, content.take(metadata.len()))
    }

    fn append(
        &mut self,
        header: &mut Header,
        name: &Path,
        content: impl Read,
    ) -> Result<(), ArchiveError> {
        let appended = self.builder.append_data(header, name, content);
        appended.map_err(|source| ArchiveError::Send { source })
    }

    fn children(&mut self, fd: &OwnedFd, name: &Path, depth: usize) -> Result<(), ArchiveError> {
        let read = |source| ArchiveError::Read {
            path: name.to_owned(),
            source,
        };
        for entry in fs::read_dir(through(fd)).map_err(read)? {
            let child = entry.map_err(read)?.file_name();
            let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            match openat(fd, child.as_os_str(), flags, Mode::empty()) {
                Ok(found) => self.add(found, &name.join(&child), depth + 1)?,
                // It is gone by now.
                Err(Errno::ENOENT) => {}
                Err(errno) => return Err(read(errno.into())),
            }
        }
        Ok(())
    }
}
