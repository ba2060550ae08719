//! Where a layout's blobs are read from: files of a directory, or ranges of a tar archive.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::ImportError;
use crate::digest::Digest;
use crate::error::Limits;
use crate::layer::{Change, Layer, LayerError, ReadAt};
use crate::spool::{Blob, Budget, is_compressed, spool};
use crate::store::Work;

#[derive(Debug)]
pub(super) enum Source {
    Directory(PathBuf),
    Archive {
        archive: Archive,
        files: HashMap<Box<[u8]>, Place>,
    },
}

/// Where an archive's name leads.
#[derive(Debug)]
pub(super) enum Place {
    Content {
        offset: u64,
        bytes: u64,
    },
    /// To another name of the archive; old `docker save` wrote layers that occur twice so.
    Name(Box<[u8]>),
}

#[derive(Debug)]
pub(super) struct Archive {
    file: File,
    bytes: u64,
}

impl Archive {
    fn is_compressed(&self) -> bool {
        let mut magic = [0; 4];
        self.read_exact_at(&mut magic, 0).is_ok() && is_compressed(&magic)
    }

    fn unpack(self, path: &Path, work: &Work, limits: &Limits) -> Result<Self, ImportError> {
        let blob = Blob {
            reader: self.file,
            digest: None,
            bytes: self.bytes,
            name: format!("archive {}", path.display()),
        };
        let budget = Budget::new(limits.unpacked_bytes_max);
        let spool = spool(blob, work.unnamed_file()?, &budget)?;
        let bytes = spool.total_bytes();
        let file = spool.into_file();
        Ok(Self { file, bytes })
    }
}

impl ReadAt for Archive {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }
    fn total_bytes(&self) -> u64 {
        self.bytes
    }
}

/// A layout holds a few files per image; more is something else.
const ARCHIVE_ENTRIES_MAX: usize = 100_000;
/// All names of an archive together, those that are links' targets too.
const ARCHIVE_NAMES_BYTES_MAX: usize = 16 << 20;
/// Links that lead to links; one is what tools write.
const LINKS_FOLLOWED_MAX: usize = 8;

impl Source {
    /// Opens a directory or an archive; a compressed one is unpacked into a file of `work` first.
    pub(super) fn open(layout: &Path, work: &Work, limits: &Limits) -> Result<Self, ImportError> {
        let fail = |missing: &str| {
            let (path, missing) = (layout.to_owned(), missing.to_owned());
            move |source| ImportError::NoLayout {
                path,
                missing,
                source,
            }
        };
        let metadata = std::fs::metadata(layout).map_err(fail("."))?;
        let source = if metadata.is_dir() {
            Self::Directory(layout.to_owned())
        } else {
            let file = open_regular(layout).map_err(fail("."))?;
            let mut archive = Archive {
                file,
                bytes: metadata.len(),
            };
            if archive.is_compressed() {
                archive = archive.unpack(layout, work, limits)?;
            }
            Self::archive(archive).map_err(fail("."))?
        };
        if let (Err(error), false) = (source.file("oci-layout"), source.is_docker_archive()) {
            return Err(fail("oci-layout")(error));
        }
        Ok(source)
    }

    /// Whether this is what `docker save` writes and no OCI layout. Only from an archive: names in
    /// it cannot lead to other files of this host.
    pub(super) fn is_docker_archive(&self) -> bool {
        matches!(self, Self::Archive { .. })
            && self.file("oci-layout").is_err()
            && self.file("manifest.json").is_ok()
    }

    fn archive(archive: Archive) -> io::Result<Self> {
        let mut files = HashMap::new();
        let mut names_bytes = 0;
        for entry in Layer::new(&archive) {
            let entry = entry.map_err(|error| match error {
                LayerError::Io(error) => error,
                LayerError::Refused { entry, reason } => {
                    io::Error::other(format!("entry `{entry}`: {reason}"))
                }
            })?;
            let place = match entry.change {
                Change::File { offset, bytes, .. } => Place::Content { offset, bytes },
                Change::HardLink { target } => Place::Name(target),
                Change::Symlink { target, .. } => match beside(&entry.path, &target) {
                    Some(target) => Place::Name(target),
                    None => continue,
                },
                Change::Directory(_)
                | Change::Fifo(_)
                | Change::Device { .. }
                | Change::Whiteout
                | Change::Opaque => continue,
            };
            names_bytes += entry.path.len();
            if let Place::Name(target) = &place {
                names_bytes += target.len();
            }
            if names_bytes > ARCHIVE_NAMES_BYTES_MAX {
                return Err(io::Error::other(
                    "the archive's names take more than 16 MiB",
                ));
            }
            files.insert(entry.path, place);
            if files.len() > ARCHIVE_ENTRIES_MAX {
                return Err(io::Error::other("the archive has more than 100,000 files"));
            }
        }
        Ok(Self::Archive { archive, files })
    }

    pub(super) fn index(&self, bytes_max: u64) -> io::Result<Vec<u8>> {
        self.bounded("index.json", bytes_max)
    }

    /// A small file, whole.
    pub(super) fn bounded(&self, path: &str, bytes_max: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.file(path)?
            .take(bytes_max + 1)
            .read_to_end(&mut bytes)?;
        if bytes.len() as u64 > bytes_max {
            return Err(io::Error::other(format!(
                "it has more than {bytes_max} bytes"
            )));
        }
        Ok(bytes)
    }

    /// At most one byte more than `bytes`, so that a longer blob is noticed.
    pub(super) fn document(&self, digest: &Digest, bytes: u64) -> io::Result<Vec<u8>> {
        let mut document = Vec::new();
        self.blob(digest)?
            .take(bytes + 1)
            .read_to_end(&mut document)?;
        Ok(document)
    }

    pub(super) fn blob(&self, digest: &Digest) -> io::Result<Box<dyn Read + Send + '_>> {
        self.file(&format!("blobs/sha256/{}", digest.hex()))
    }

    pub(super) fn file(&self, path: &str) -> io::Result<Box<dyn Read + Send + '_>> {
        match self {
            Self::Directory(directory) => Ok(Box::new(open_regular(&directory.join(path))?)),
            Self::Archive { archive, .. } => {
                let (at, bytes) = self.place(path)?;
                let end = at + bytes;
                Ok(Box::new(Range { archive, at, end }))
            }
        }
    }

    /// Where a file of an archive begins, and its length.
    pub(super) fn place(&self, path: &str) -> io::Result<(u64, u64)> {
        let Self::Archive { files, .. } = self else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        let mut name = path.as_bytes();
        for _ in 0..=LINKS_FOLLOWED_MAX {
            match files.get(name).ok_or(io::ErrorKind::NotFound)? {
                Place::Content { offset, bytes } => return Ok((*offset, *bytes)),
                Place::Name(target) => name = target,
            }
        }
        Err(io::Error::other("links lead in a circle"))
    }
}

/// The name that a symbolic link at `path` leads to. None if it leaves the archive.
fn beside(path: &[u8], target: &[u8]) -> Option<Box<[u8]>> {
    if target.starts_with(b"/") {
        return None;
    }
    let mut name: Vec<&[u8]> = path.split(|b| *b == b'/').collect();
    name.pop();
    for component in target.split(|b| *b == b'/') {
        match component {
            b"" | b"." => {}
            b".." => drop(name.pop()?),
            component => name.push(component),
        }
    }
    Some(name.join(&b'/').into())
}

/// A FIFO or a device in a layout would hang the import or worse.
fn open_regular(path: &Path) -> io::Result<File> {
    let nonblocking = nix::fcntl::OFlag::O_NONBLOCK.bits();
    let file = File::options()
        .read(true)
        .custom_flags(nonblocking)
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    Ok(file)
}

struct Range<'a> {
    archive: &'a Archive,
    at: u64,
    end: u64,
}

impl Read for Range<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        let n = left.min(buffer.len());
        let n = self.archive.file.read_at(&mut buffer[..n], self.at)?;
        self.at += n as u64;
        Ok(n)
    }
}
