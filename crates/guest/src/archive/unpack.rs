//! An archive into a container.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, OpenHow, ResolveFlag, openat2, renameat};
use nix::sys::stat::{Mode, fchmod, futimens, mkdirat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, linkat, symlinkat, unlinkat};
use tar::{Entry, EntryType};

use super::names::Names;
use super::{ArchiveError, ENTRIES_MAX};
use crate::root::{Owner, Root};

/// Distinguishes files that are being written at the same time.
static UNFINISHED: AtomicU64 = AtomicU64::new(0);

/// Makes what the archive holds below `target`, as files of `owner`. Files and links that are there
/// are replaced, directories stay as they are. Set-user-ID bits are dropped, and devices are refused.
pub(crate) fn unpack(target: &Root, owner: Owner, archive: impl Read) -> Result<(), ArchiveError> {
    let broken = |source| ArchiveError::Archive { source };
    let mut archive = tar::Archive::new(archive);
    let entries = archive.entries().map_err(broken)?;
    let mut names = Names::default();
    for (count, entry) in entries.raw(true).enumerate() {
        if count >= ENTRIES_MAX {
            return Err(ArchiveError::TooMany);
        }
        let mut entry = entry.map_err(broken)?;
        if names.take(&mut entry)? {
            continue;
        }
        let names = std::mem::take(&mut names);
        let path = names.path(&entry)?;
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            // The directory itself.
            continue;
        };
        let write = |source| ArchiveError::Write {
            path: path.clone(),
            source,
        };
        let parent = target.make_directories(parent, owner).map_err(write)?;
        let place = Place {
            parent,
            name,
            owner,
        };
        match entry.header().entry_type() {
            EntryType::Regular | EntryType::Continuous => place.file(&mut entry).map_err(write)?,
            EntryType::Directory => place.directory(&entry, target, &path).map_err(write)?,
            EntryType::Symlink => place.symlink(&names.link(&entry)).map_err(write)?,
            EntryType::Link => {
                let other = names.hard_link(&entry)?;
                place.hard_link(target, &other).map_err(write)?;
            }
            _ => {
                let reason = "is neither a file, a directory nor a link";
                return Err(ArchiveError::Refused { path, reason });
            }
        }
    }
    Ok(())
}

/// Where an entry goes.
struct Place<'a> {
    parent: OwnedFd,
    name: &'a OsStr,
    owner: Owner,
}

impl Place<'_> {
    /// Makes something under another name, and renames it to its own.
    fn put(&self, make: impl FnOnce(&OsStr) -> io::Result<()>) -> io::Result<()> {
        let number = UNFINISHED.fetch_add(1, Ordering::Relaxed);
        let unfinished = PathBuf::from(format!(".aerostat-copy-{}-{number}", std::process::id()));
        let made = make(unfinished.as_os_str()).and_then(|()| {
            let renamed = renameat(&self.parent, &unfinished, &self.parent, self.name);
            Ok(renamed?)
        });
        // Renaming a hard link to itself leaves both names. The first error is the one that matters.
        let _ = unlinkat(&self.parent, &unfinished, UnlinkatFlags::NoRemoveDir);
        made
    }

    fn file<R: Read>(&self, entry: &mut Entry<'_, R>) -> io::Result<()> {
        let mode = mode(entry)?;
        let modified = i64::try_from(entry.header().mtime()?).unwrap_or(i64::MAX);
        self.put(|unfinished| {
            let how = OpenHow::new()
                .flags(OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC)
                .mode(Mode::from_bits_retain(0o600))
                .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
            let mut file = File::from(openat2(&self.parent, unfinished, how)?);
            io::copy(entry, &mut file)?;
            let Owner { uid, gid } = self.owner;
            fchown(
                file.as_fd(),
                Some(Uid::from_raw(uid)),
                Some(Gid::from_raw(gid)),
            )?;
            fchmod(file.as_fd(), mode)?;
            let modified = TimeSpec::new(modified, 0);
            // A file system may know no such year.
            let _ = futimens(file.as_fd(), &TimeSpec::UTIME_OMIT, &modified);
            Ok(())
        })
    }

    fn directory<R: Read>(
        &self,
        entry: &Entry<'_, R>,
        target: &Root,
        path: &Path,
    ) -> io::Result<()> {
        match mkdirat(&self.parent, self.name, mode(entry)?) {
            Ok(()) => self.owner.take(&self.parent, self.name),
            // A link to a directory is one.
            Err(Errno::EEXIST) => target.make_directories(path, self.owner).map(drop),
            Err(errno) => Err(errno.into()),
        }
    }

    fn symlink(&self, link: &Path) -> io::Result<()> {
        self.put(|unfinished| {
            symlinkat(link, &self.parent, unfinished)?;
            self.owner.take(&self.parent, unfinished)
        })
    }

    fn hard_link(&self, target: &Root, other: &Path) -> io::Result<()> {
        let file = target.find_itself(other)?;
        let file_path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
        self.put(|unfinished| {
            let follow = AtFlags::AT_SYMLINK_FOLLOW;
            Ok(linkat(
                AT_FDCWD,
                &file_path,
                &self.parent,
                unfinished,
                follow,
            )?)
        })
    }
}

fn mode<R: Read>(entry: &Entry<'_, R>) -> io::Result<Mode> {
    Ok(Mode::from_bits_truncate(entry.header().mode()? & 0o777))
}
