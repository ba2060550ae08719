//! Where a layout's blobs are read from: files of a directory, or ranges of a tar archive.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::ImportError;
use crate::digest::Digest;
use crate::layer::{Change, Layer, LayerError, ReadAt};

#[derive(Debug)]
pub(super) enum Source {
    Directory(PathBuf),
    Archive {
        archive: Archive,
        files: HashMap<Box<[u8]>, (u64, u64)>,
    },
}

#[derive(Debug)]
pub(super) struct Archive {
    file: File,
    bytes: u64,
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

impl Source {
    pub(super) fn open(layout: &Path) -> Result<Self, ImportError> {
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
            Self::archive(Archive {
                file,
                bytes: metadata.len(),
            })
            .map_err(fail("."))?
        };
        source.file("oci-layout").map_err(fail("oci-layout"))?;
        Ok(source)
    }

    fn archive(archive: Archive) -> io::Result<Self> {
        let mut files = HashMap::new();
        for entry in Layer::new(&archive) {
            let entry = entry.map_err(|error| match error {
                LayerError::Io(error) => error,
                LayerError::Refused { entry, reason } => {
                    io::Error::other(format!("entry `{entry}`: {reason}"))
                }
            })?;
            if let Change::File { offset, bytes, .. } = entry.change {
                files.insert(entry.path, (offset, bytes));
            }
            if files.len() > ARCHIVE_ENTRIES_MAX {
                return Err(io::Error::other("the archive has more than 100,000 files"));
            }
        }
        Ok(Self::Archive { archive, files })
    }

    pub(super) fn index(&self, bytes_max: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.file("index.json")?
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

    fn file(&self, path: &str) -> io::Result<Box<dyn Read + Send + '_>> {
        match self {
            Self::Directory(directory) => Ok(Box::new(open_regular(&directory.join(path))?)),
            Self::Archive { archive, files } => {
                let (offset, bytes) = files.get(path.as_bytes()).ok_or(io::ErrorKind::NotFound)?;
                Ok(Box::new(Range {
                    archive,
                    at: *offset,
                    end: offset + bytes,
                }))
            }
        }
    }
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
