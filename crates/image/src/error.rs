//! What can be wrong with an image, apart from where it came from.
//!
//! A [`Refused`] image is one that was read, understood and declined: its layers try something
//! that no honest builder writes, or are larger than the host allows.

use std::io;
use std::path::PathBuf;

use crate::digest::Digest;

/// An entry of a layer that is not accepted, and why.
#[derive(Debug, thiserror::Error)]
#[error("refused image: {layer}, entry `{entry}`: {reason}")]
pub struct Refused {
    /// Which layer, counted from the lowest, and its digest.
    pub layer: String,
    /// The entry's name as far as it could be read, with control characters escaped.
    pub entry: String,
    pub reason: Reason,
}

/// Why an entry was declined.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    #[error("the path has a `..`")]
    ParentComponent,
    #[error("the path, followed through symbolic links, climbs above the root")]
    LeavesRoot,
    #[error("the path has more than {DEPTH_MAX} levels")]
    TooDeep,
    #[error("the path follows more than {SYMLINKS_FOLLOWED_MAX} symbolic links")]
    SymlinkLoop,
    #[error("the path is longer than {PATH_BYTES_MAX} bytes")]
    PathTooLong,
    #[error("a name is longer than {NAME_BYTES_MAX} bytes")]
    NameTooLong,
    #[error("a name or link target has a zero byte or is empty")]
    BadName,
    #[error("a parent is there and is not a directory")]
    ParentNotDirectory,
    #[error("the root directory would become something else")]
    RootNotDirectory,
    #[error("the whiteout names `.`, `..` or nothing, or stands inside a path")]
    BadWhiteout,
    #[error("the hard link's target `{target}` is not there")]
    HardLinkTarget { target: String },
    #[error("the hard link's target `{target}` is a directory")]
    HardLinkToDirectory { target: String },
    #[error("device number {major}:{minor} is outside of what Linux has")]
    DeviceNumber { major: u32, minor: u32 },
    #[error("the header is damaged: {0}")]
    Header(&'static str),
    #[error("the header says the content has {stated} bytes, and the layer ends before that")]
    Truncated { stated: u64 },
    #[error("entries of type `{0}` are not known")]
    UnknownType(char),
    #[error("sparse files in GNU's format are not supported")]
    Sparse,
    #[error("an extension header (PAX or GNU long name) is damaged: {0}")]
    Extension(&'static str),
    #[error("an extension header has {0} bytes, more than {EXTENSION_BYTES_MAX}")]
    ExtensionTooLong(u64),
    #[error("the extended attributes take more than {XATTR_BYTES_MAX} bytes")]
    XattrsTooLong,
    #[error("more than {0} files and directories")]
    TooManyEntries(usize),
    #[error("names, link targets and attributes take more than {METADATA_BYTES_MAX} bytes")]
    TooMuchMetadata,
    #[error("the paths of all entries have more than {PATH_STEPS_MAX} components to follow")]
    TooManySteps,
    #[error("the unpacked layers are larger than {0} bytes")]
    TooManyBytes(u64),
    #[error("unpacks to more than {COMPRESSION_RATIO_MAX} times its size")]
    CompressionBomb,
    #[error("the compressed stream is damaged: {0}")]
    Compression(String),
}

/// Linux accepts names up to this length (`NAME_MAX`).
pub const NAME_BYTES_MAX: usize = 255;
/// Linux accepts paths and link targets shorter than this (`PATH_MAX`).
pub const PATH_BYTES_MAX: usize = 4096;
/// Deeper trees come from nobody's build; the bound keeps every walk short.
pub const DEPTH_MAX: usize = 512;
/// Linux gives up at the same number of links (`MAXSYMLINKS`).
pub const SYMLINKS_FOLLOWED_MAX: usize = 40;
/// Go's archive/tar, which writes most layers, has the same bound.
pub const EXTENSION_BYTES_MAX: u64 = 1 << 20;
/// All attributes of one file; Linux allows this much for one value (`XATTR_SIZE_MAX`).
pub const XATTR_BYTES_MAX: usize = 64 << 10;
/// Keeps the merge of a hostile image under 256 MiB of memory, together with
/// [`Limits::entries_max`].
pub const METADATA_BYTES_MAX: usize = 64 << 20;
/// A million entries with a hundred components each. Symbolic links to long paths could
/// otherwise make a small layer cost hours.
pub const PATH_STEPS_MAX: u64 = 100_000_000;
/// Deflate cannot do better than 1032:1; a layer past this was made to fill disks.
pub const COMPRESSION_RATIO_MAX: u64 = 1100;

/// How large an image may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of all layers, unpacked.
    pub unpacked_bytes_max: u64,
    /// Files, directories and everything else with an inode, in the tree and in each layer.
    pub entries_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            unpacked_bytes_max: 16 << 30,
            entries_max: 1_000_000,
        }
    }
}

/// An image that was found and cannot be used, or that this host could not convert.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error("digest mismatch: {what} should be {expected} and is {actual}; nothing was stored")]
    DigestMismatch {
        what: String,
        expected: Digest,
        actual: Digest,
    },
    #[error("{what} has {actual} bytes where its descriptor says {expected}; nothing was stored")]
    SizeMismatch {
        what: String,
        expected: u64,
        actual: u64,
    },
    #[error("{what} is {bytes} bytes, more than the {bytes_max} that are accepted")]
    TooLarge {
        what: String,
        bytes: u64,
        bytes_max: u64,
    },
    #[error("cannot read {what}")]
    Malformed {
        what: &'static str,
        source: serde_json::Error,
    },
    #[error("{what} is not something this version can use: {why}")]
    Unsupported { what: &'static str, why: String },
    #[error("the image is for {offered} and this host runs {wanted}")]
    Platform { offered: String, wanted: String },
    #[error("cannot {doing}")]
    Io { doing: String, source: io::Error },
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ImageError {
    /// For `map_err`: an I/O error together with what was being done.
    pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source }
    }
}

/// The image directory could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("cannot {doing} {path}")]
    Io {
        doing: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("image record {path} is damaged")]
    Record {
        path: PathBuf,
        source: serde_json::Error,
    },
}

impl StoreError {
    pub(crate) fn io(
        doing: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io {
            doing,
            path,
            source,
        }
    }
}

/// Bytes from a stranger, made fit for an error message or a log line.
pub(crate) fn printable(bytes: &[u8]) -> String {
    const SHOWN_BYTES_MAX: usize = 200;
    let shown = &bytes[..bytes.len().min(SHOWN_BYTES_MAX)];
    String::from_utf8_lossy(shown)
        .chars()
        .flat_map(|c| {
            let escape = c.is_control();
            let plain = (!escape).then_some(c);
            escape
                .then(|| c.escape_default())
                .into_iter()
                .flatten()
                .chain(plain)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_from_a_layer_cannot_drive_the_terminal() {
        assert_eq!(printable(b"a\x1b[2Jb\n\xff"), "a\\u{1b}[2Jb\\n\u{fffd}");
        assert!(printable(&[b'x'; 5000]).len() <= 200);
    }
}
