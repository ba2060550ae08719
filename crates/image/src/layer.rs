//! One layer: a tar stream read into entries, nothing trusted.
//!
//! The layer lies in a spool, unpacked; an entry's content is a range of it and is not read
//! here. Formats: POSIX ustar and pax, GNU long names and base-256 numbers, whiteouts of the
//! OCI image specification ("Representing Changes"). Where two tar readers could disagree (a
//! directory with content, a damaged checksum, a PAX record that lies) the layer is refused.

mod extensions;
mod path;
mod pax;

use std::io;

use tar::{EntryType, Header};

use extensions::Extensions;
pub(crate) use path::split;
use path::{Marker, clean, whiteout};

use crate::error::{EXTENSION_BYTES_MAX, PATH_BYTES_MAX, Reason, printable};

const BLOCK_BYTES: u64 = 512;

/// Bytes that can be read at any offset: a spool file, or a slice in tests.
pub(crate) trait ReadAt {
    /// Fills `buffer` from `offset`.
    ///
    /// # Errors
    /// `UnexpectedEof` when there are fewer bytes, and whatever the file says.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
    /// All bytes there are.
    fn total_bytes(&self) -> u64;
}

impl ReadAt for [u8] {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let start = usize::try_from(offset).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        let from = self.get(start..).ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(
            from.get(..buffer.len())
                .ok_or(io::ErrorKind::UnexpectedEof)?,
        );
        Ok(())
    }
    fn total_bytes(&self) -> u64 {
        self.len() as u64
    }
}

/// An extended attribute: name and value.
pub(crate) type Xattr = (Box<[u8]>, Box<[u8]>);

/// Owner, mode, time and attributes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Meta {
    /// Permission, setuid, setgid and sticky bits; no file type.
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    pub mtime_s: i64,
    pub mtime_ns: u32,
    /// Name and value, sorted by name.
    pub xattrs: Vec<Xattr>,
}

impl Meta {
    /// What a directory gets that a layer uses and no layer describes.
    pub(crate) fn implied_directory() -> Self {
        Self {
            mode: 0o755,
            uid: 0,
            gid: 0,
            mtime_s: 0,
            mtime_ns: 0,
            xattrs: Vec::new(),
        }
    }
}

/// A device's kind and number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Device {
    pub kind: DeviceKind,
    pub major: u32,
    pub minor: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DeviceKind {
    Character,
    Block,
}

/// What one entry does to the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    Directory(Meta),
    /// Content is `bytes` bytes of the layer from `offset`.
    File {
        meta: Meta,
        offset: u64,
        bytes: u64,
    },
    Symlink {
        meta: Meta,
        target: Box<[u8]>,
    },
    /// `target` is a clean path from the root.
    HardLink {
        target: Box<[u8]>,
    },
    Device {
        meta: Meta,
        device: Device,
    },
    Fifo(Meta),
    /// The path, and all below it, is not taken over from the layers below.
    Whiteout,
    /// Nothing in the directory is taken over from the layers below.
    Opaque,
}

/// A path from the root, components joined by one `/`, without `.` and `..`; the root is empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub path: Box<[u8]>,
    pub change: Change,
}

/// Why a layer could not be read to its end.
#[derive(Debug)]
pub(crate) enum LayerError {
    Refused { entry: String, reason: Reason },
    Io(io::Error),
}

/// Iterates over a layer's entries. After an error there is nothing more.
pub(crate) struct Layer<'a, R: ?Sized> {
    spool: &'a R,
    position: u64,
    finished: bool,
}

impl<'a, R: ReadAt + ?Sized> Layer<'a, R> {
    pub(crate) fn new(spool: &'a R) -> Self {
        Self {
            spool,
            position: 0,
            finished: false,
        }
    }

    fn next_entry(&mut self) -> Result<Option<Entry>, LayerError> {
        let mut extensions = Extensions::default();
        loop {
            let Some(header) = self.next_header()? else {
                return Ok(None);
            };
            let name = header.path_bytes().into_owned();
            let refuse = |reason| LayerError::Refused {
                entry: printable(&name),
                reason,
            };
            let kind = header.entry_type();
            let stated = header
                .entry_size()
                .map_err(|_| refuse(Reason::Header("the size is no number")))?;
            if let EntryType::XHeader | EntryType::GNULongName | EntryType::GNULongLink = kind {
                let data = self.extension(stated).map_err(|e| e.named(&name))?;
                extensions.add(kind, data).map_err(refuse)?;
                continue;
            }
            if kind == EntryType::XGlobalHeader {
                // Go's reader, and so every container engine, lets it change no other entry.
                self.extension(stated).map_err(|e| e.named(&name))?;
                continue;
            }
            let name = extensions.path.take().unwrap_or(name);
            let refuse = |reason| LayerError::Refused {
                entry: printable(&name),
                reason,
            };
            let bytes = extensions.size.unwrap_or(stated);
            let offset = self.content(kind, bytes).map_err(refuse)?;
            if let Some(entry) = entry(&header, &name, extensions, offset, bytes).map_err(refuse)? {
                return Ok(Some(entry));
            }
            extensions = Extensions::default();
        }
    }

    /// The next header, or none at the end of the archive (a zero block, or no more blocks).
    fn next_header(&mut self) -> Result<Option<Header>, LayerError> {
        let position = self.position;
        if position + BLOCK_BYTES > self.spool.total_bytes() {
            return Ok(None);
        }
        let mut header = Header::new_old();
        self.spool
            .read_exact_at(header.as_mut_bytes(), position)
            .map_err(LayerError::Io)?;
        let bytes = header.as_bytes();
        if bytes.iter().all(|b| *b == 0) {
            return Ok(None);
        }
        let sum: u32 = bytes[..148]
            .iter()
            .chain(&bytes[156..])
            .map(|b| u32::from(*b))
            .sum();
        let spaces = 8 * u32::from(b' ');
        if header.cksum().ok() != Some(sum + spaces) {
            return Err(LayerError::Refused {
                entry: format!("at byte {position}"),
                reason: Reason::Header("the checksum is wrong"),
            });
        }
        self.position += BLOCK_BYTES;
        Ok(Some(header))
    }

    /// Passes over `bytes` of content and tells where it starts.
    fn content(&mut self, kind: EntryType, bytes: u64) -> Result<u64, Reason> {
        if bytes > 0 && !matches!(kind, EntryType::Regular | EntryType::Continuous) {
            return match kind {
                EntryType::GNUSparse => Err(Reason::Sparse),
                EntryType::Link
                | EntryType::Symlink
                | EntryType::Char
                | EntryType::Block
                | EntryType::Directory
                | EntryType::Fifo => Err(Reason::Header("content where there can be none")),
                _ => Err(Reason::UnknownType(char::from(kind.as_byte()))),
            };
        }
        let offset = self.position;
        let end = offset
            .checked_add(bytes)
            .filter(|end| *end <= self.spool.total_bytes());
        let end = end.ok_or(Reason::Truncated { stated: bytes })?;
        self.position = end.next_multiple_of(BLOCK_BYTES);
        Ok(offset)
    }

    fn extension(&mut self, bytes: u64) -> Result<Vec<u8>, LayerErrorAt> {
        if bytes > EXTENSION_BYTES_MAX {
            return Err(LayerErrorAt::Refused(Reason::ExtensionTooLong(bytes)));
        }
        let offset = self
            .content(EntryType::Regular, bytes)
            .map_err(LayerErrorAt::Refused)?;
        let length = usize::try_from(bytes).expect("bounded above");
        let mut data = vec![0; length];
        self.spool
            .read_exact_at(&mut data, offset)
            .map_err(LayerErrorAt::Io)?;
        Ok(data)
    }
}

enum LayerErrorAt {
    Refused(Reason),
    Io(io::Error),
}

impl LayerErrorAt {
    fn named(self, name: &[u8]) -> LayerError {
        match self {
            Self::Refused(reason) => LayerError::Refused {
                entry: printable(name),
                reason,
            },
            Self::Io(error) => LayerError::Io(error),
        }
    }
}

impl<R: ReadAt + ?Sized> Iterator for Layer<'_, R> {
    type Item = Result<Entry, LayerError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.finished {
            return None;
        }
        let next = self.next_entry().transpose();
        self.finished = !matches!(next, Some(Ok(_)));
        next
    }
}

/// Makes an entry of a header, or none when it only kept an old driver's books.
fn entry(
    header: &Header,
    name: &[u8],
    extensions: Extensions,
    offset: u64,
    bytes: u64,
) -> Result<Option<Entry>, Reason> {
    let path = clean(name)?;
    if let Some(marker) = whiteout(&path)? {
        return Ok(match marker {
            Marker::Entry(entry) => Some(entry),
            Marker::Ignored => None,
        });
    }
    let link = extensions.link.clone();
    let link = link.or_else(|| header.link_name_bytes().map(|name| name.into_owned()));
    let meta = || meta(header, extensions);
    let change = match header.entry_type() {
        // Before ustar, and still in Go, a name with a slash at its end is a directory.
        EntryType::Regular if name.ends_with(b"/") && bytes == 0 => Change::Directory(meta()?),
        EntryType::Regular | EntryType::Continuous => Change::File {
            meta: meta()?,
            offset,
            bytes,
        },
        EntryType::Directory => Change::Directory(meta()?),
        EntryType::Symlink => Change::Symlink {
            meta: meta()?,
            target: symlink_target(link)?,
        },
        EntryType::Link => Change::HardLink {
            target: clean(&link.ok_or(Reason::BadName)?)?,
        },
        EntryType::Char => Change::Device {
            device: device(header, DeviceKind::Character)?,
            meta: meta()?,
        },
        EntryType::Block => Change::Device {
            device: device(header, DeviceKind::Block)?,
            meta: meta()?,
        },
        EntryType::Fifo => Change::Fifo(meta()?),
        EntryType::GNUSparse => return Err(Reason::Sparse),
        other => return Err(Reason::UnknownType(char::from(other.as_byte()))),
    };
    Ok(Some(Entry { path, change }))
}

fn meta(header: &Header, extensions: Extensions) -> Result<Meta, Reason> {
    let damaged = |what| move |_| Reason::Header(what);
    let id = |number: u64| {
        u32::try_from(number).map_err(|_| Reason::Header("an owner is larger than 32 bits"))
    };
    let uid = extensions.uid.map_or_else(|| header.uid(), Ok);
    let gid = extensions.gid.map_or_else(|| header.gid(), Ok);
    let mode = header.mode().map_err(damaged("the mode is no number"))? & 0o7777;
    let (mtime_s, mtime_ns) = match extensions.mtime {
        Some(time) => time,
        None => {
            let seconds = header.mtime().map_err(damaged("the time is no number"))?;
            // Base-256 numbers of GNU tar may be negative; the sign survives the cast.
            (seconds.cast_signed(), 0)
        }
    };
    let mut xattrs = extensions.xattrs;
    xattrs.sort();
    Ok(Meta {
        mode: u16::try_from(mode).expect("twelve bits"),
        uid: id(uid.map_err(damaged("the owner is no number"))?)?,
        gid: id(gid.map_err(damaged("the group is no number"))?)?,
        mtime_s,
        mtime_ns,
        xattrs,
    })
}

fn device(header: &Header, kind: DeviceKind) -> Result<Device, Reason> {
    /// Linux device numbers have 12 bits of major and 20 of minor.
    const MAJOR_MAX: u32 = (1 << 12) - 1;
    const MINOR_MAX: u32 = (1 << 20) - 1;
    let number = |field: io::Result<Option<u32>>| {
        field
            .ok()
            .flatten()
            .ok_or(Reason::Header("the device number is no number"))
    };
    let (major, minor) = (
        number(header.device_major())?,
        number(header.device_minor())?,
    );
    if major > MAJOR_MAX || minor > MINOR_MAX {
        return Err(Reason::DeviceNumber { major, minor });
    }
    Ok(Device { kind, major, minor })
}

fn symlink_target(link: Option<Vec<u8>>) -> Result<Box<[u8]>, Reason> {
    let target = link.ok_or(Reason::BadName)?;
    if target.is_empty() || target.contains(&0) {
        return Err(Reason::BadName);
    }
    if target.len() >= PATH_BYTES_MAX {
        return Err(Reason::PathTooLong);
    }
    Ok(target.into())
}

#[cfg(test)]
mod tests;
