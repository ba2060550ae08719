//! Files of a container as a tar archive, in and out.
//!
//! The container's processes may rename, replace and link whatever they like while this runs, and
//! the archive may be anybody's. So nothing is reached by path twice: a descriptor is had inside the
//! container's root ([`crate::root`]), looked at, and used.

mod names;
mod pack;
mod unpack;

use std::io;
use std::path::PathBuf;

pub(crate) use pack::pack;
pub(crate) use unpack::unpack;

/// Entries of an archive in either direction.
const ENTRIES_MAX: usize = 1 << 20;
/// Directories within one another; each holds two descriptors while it is packed.
const DEPTH_MAX: usize = 128;

/// Why an archive was not packed or unpacked to its end. What was done until then stays.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ArchiveError {
    #[error("cannot read the archive")]
    Archive { source: io::Error },
    #[error("cannot send the archive")]
    Send { source: io::Error },
    #[error("cannot write {}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("entry {} of the archive {reason}", path.display())]
    Refused { path: PathBuf, reason: &'static str },
    #[error("there are more than {ENTRIES_MAX} files")]
    TooMany,
    #[error("{} lies in more than {DEPTH_MAX} directories", path.display())]
    TooDeep { path: PathBuf },
}

#[cfg(test)]
mod tests;
