//! Names of entries that do not fit into a header: GNU's and PAX's extensions, with bounds that the
//! tar library does not have.

use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use tar::{Entry, EntryType};

use super::{ArchiveError, DEPTH_MAX};

/// Of one extension: two of the longest paths, and what else programs write there.
const EXTENSION_BYTES_MAX: u64 = 64 << 10;

/// What extensions said about the entry that follows.
#[derive(Debug, Default)]
pub(super) struct Names {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
}

impl Names {
    /// Whether the entry was an extension.
    pub(super) fn take<R: Read>(&mut self, entry: &mut Entry<'_, R>) -> Result<bool, ArchiveError> {
        match entry.header().entry_type() {
            EntryType::GNULongName => self.path = Some(until_nul(read(entry)?)),
            EntryType::GNULongLink => self.link = Some(until_nul(read(entry)?)),
            EntryType::XHeader => self.records(&read(entry)?)?,
            // Comments and defaults, which say nothing about names.
            EntryType::XGlobalHeader => {}
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// PAX: `<length> <key>=<value>\n`, the length of all of it.
    fn records(&mut self, mut data: &[u8]) -> Result<(), ArchiveError> {
        while !data.is_empty() {
            let record = record(data).ok_or_else(|| malformed("a PAX record is malformed"))?;
            let (length, key, value) = record;
            match key {
                b"path" => self.path = Some(value.to_vec()),
                b"linkpath" => self.link = Some(value.to_vec()),
                b"size" => {
                    self.size = Some(number(value).ok_or_else(|| malformed("a size is no number"))?)
                }
                _ => {}
            }
            data = &data[length..];
        }
        Ok(())
    }

    /// The entry's path, without leading slashes.
    pub(super) fn path<R: Read>(&self, entry: &Entry<'_, R>) -> Result<PathBuf, ArchiveError> {
        let own = entry.header().path_bytes();
        let path = clean(self.path.as_deref().unwrap_or(&own))?;
        // The library skips as many bytes as the header says, so it must know better.
        if self.size.is_some_and(|size| size != entry.size()) {
            let reason = "is longer than its header says";
            return Err(ArchiveError::Refused { path, reason });
        }
        Ok(path)
    }

    /// The target of a symbolic link, as it stands.
    pub(super) fn link<R: Read>(&self, entry: &Entry<'_, R>) -> PathBuf {
        let own = entry.header().link_name_bytes().unwrap_or_default();
        PathBuf::from(OsStr::from_bytes(self.link.as_deref().unwrap_or(&own)))
    }

    /// The other name of a hard link's file.
    pub(super) fn hard_link<R: Read>(&self, entry: &Entry<'_, R>) -> Result<PathBuf, ArchiveError> {
        clean(self.link(entry).as_os_str().as_bytes())
    }
}

fn malformed(reason: &'static str) -> ArchiveError {
    let source = io::Error::new(io::ErrorKind::InvalidData, reason);
    ArchiveError::Archive { source }
}

fn read<R: Read>(entry: &mut Entry<'_, R>) -> Result<Vec<u8>, ArchiveError> {
    if entry.size() > EXTENSION_BYTES_MAX {
        return Err(malformed("an extension header is too long"));
    }
    let mut data = Vec::new();
    let read = entry.read_to_end(&mut data);
    read.map_err(|source| ArchiveError::Archive { source })?;
    Ok(data)
}

fn until_nul(mut data: Vec<u8>) -> Vec<u8> {
    data.truncate(
        data.iter()
            .position(|byte| *byte == 0)
            .unwrap_or(data.len()),
    );
    data
}

fn number(digits: &[u8]) -> Option<u64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn record(data: &[u8]) -> Option<(usize, &[u8], &[u8])> {
    let space = data.iter().position(|byte| *byte == b' ')?;
    let length = usize::try_from(number(&data[..space])?).ok()?;
    let record = data.get(space + 1..length)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|byte| *byte == b'=')?;
    Some((length, &record[..equals], &record[equals + 1..]))
}

/// Relative, without `.` and doubled slashes; `..` is refused.
fn clean(path: &[u8]) -> Result<PathBuf, ArchiveError> {
    let path = Path::new(OsStr::from_bytes(path));
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
            Component::ParentDir => {
                let (path, reason) = (path.to_owned(), "leads out with `..`");
                return Err(ArchiveError::Refused { path, reason });
            }
        }
    }
    if clean.components().count() > DEPTH_MAX {
        return Err(ArchiveError::TooDeep { path: clean });
    }
    Ok(clean)
}
