//! A tree becomes one EROFS file: uncompressed, read-only, the same bytes for the same tree.
//!
//! ```text
//! block 0                      metadata                               data
//! | 1024 bytes | superblock | root inode … inodes, small tails … | whole blocks of files |
//! ```
//!
//! Every inode is followed by its attributes and, where it fits into the same block, by the
//! tail of its content, so that small files and most directories cost no block of their own.
//! [`plan`] decides where everything goes and is pure; [`write`] follows it from the first byte
//! to the last. Format: Linux `fs/erofs/erofs_fs.h` and Documentation/filesystems/erofs.rst.

mod directory;
mod format;
mod plan;
mod write;
mod xattr;

pub(crate) use plan::plan;
pub(crate) use write::write;

/// Changes whenever the same tree would give other bytes; part of every image file's name.
pub(crate) const WRITER_VERSION: u32 = 1;

/// The tree needs more than the format can say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unrepresentable {
    #[error("more than 16 TiB of content")]
    Blocks,
    #[error("a directory of more than 4 GiB")]
    Directory,
}

#[cfg(test)]
mod tests;
