//! The structures on disk, as `fs/erofs/erofs_fs.h` has them; all numbers little-endian.

/// Block size; the one that every kernel with 4 KiB pages mounts.
pub(crate) const BLOCK_BYTES: u64 = 4096;
/// An inode's number is its byte offset over this.
pub(crate) const SLOT_BYTES: u64 = 32;
/// The superblock's place; what is before is left to boot loaders.
pub(crate) const SUPERBLOCK_OFFSET: u64 = 1024;
pub(crate) const SUPERBLOCK_BYTES: u64 = 128;
/// Size of an extended inode: 32-bit owners, nanoseconds, 32-bit link count.
pub(crate) const INODE_BYTES: u64 = 64;

const MAGIC: u32 = 0xE0F5_E1E2;
const BLOCK_BITS: u8 = 12;
const COMPAT_SUPERBLOCK_CHECKSUM: u32 = 1;
/// Inodes carry modification times, not change times.
const COMPAT_MTIME: u32 = 2;
const CHECKSUM_AT: usize = 4;

/// What differs between superblocks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Superblock {
    pub(crate) root: u16,
    pub(crate) inodes: u64,
    pub(crate) blocks: u32,
    pub(crate) uuid: [u8; 16],
}

impl Superblock {
    pub(crate) fn encode(&self) -> [u8; 128] {
        let mut out = [0; 128];
        let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &MAGIC.to_le_bytes());
        put(
            8,
            &(COMPAT_SUPERBLOCK_CHECKSUM | COMPAT_MTIME).to_le_bytes(),
        );
        put(12, &[BLOCK_BITS]);
        put(14, &self.root.to_le_bytes());
        put(16, &self.inodes.to_le_bytes());
        put(36, &self.blocks.to_le_bytes());
        put(48, &self.uuid);
        out
    }
}

/// Writes the checksum into the first block, which must be complete but for it.
pub(crate) fn seal(first_block: &mut [u8; 4096]) {
    let covered = usize::try_from(SUPERBLOCK_OFFSET).expect("small");
    let at = covered + CHECKSUM_AT;
    first_block[at..at + 4].fill(0);
    let checksum = crc32c(&first_block[covered..]);
    first_block[at..at + 4].copy_from_slice(&checksum.to_le_bytes());
}

/// CRC-32C without the final inversion, as the kernel's `crc32c(~0, …)` gives it.
fn crc32c(bytes: &[u8]) -> u32 {
    const POLYNOMIAL_REVERSED: u32 = 0x82F6_3B78;
    bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            if crc & 1 == 1 {
                crc >> 1 ^ POLYNOMIAL_REVERSED
            } else {
                crc >> 1
            }
        })
    })
}

/// Where an inode's content is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DataLayout {
    /// All of it in blocks.
    Plain = 0,
    /// Whole blocks in blocks, the rest behind the inode.
    Inline = 2,
}

/// File types as directory entries write them (`FT_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileType {
    Regular = 1,
    Directory = 2,
    Character = 3,
    Block = 4,
    Fifo = 5,
    Symlink = 7,
}

impl FileType {
    /// The type bits of `st_mode`.
    pub(crate) fn mode_bits(self) -> u16 {
        match self {
            Self::Fifo => 0o010_000,
            Self::Character => 0o020_000,
            Self::Directory => 0o040_000,
            Self::Block => 0o060_000,
            Self::Regular => 0o100_000,
            Self::Symlink => 0o120_000,
        }
    }

    pub(crate) fn byte(self) -> u8 {
        self as u8
    }
}

/// An extended inode.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Inode {
    pub(crate) layout: DataLayout,
    /// Size of the attributes, counted as the kernel does; see `xattr`.
    pub(crate) xattr_count: u16,
    pub(crate) mode: u16,
    pub(crate) bytes: u64,
    /// First data block, or the device number of a device.
    pub(crate) block_or_device: u32,
    /// For `stat` of 32-bit programs only.
    pub(crate) serial: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime_s: i64,
    pub(crate) mtime_ns: u32,
    pub(crate) links: u32,
}

impl Inode {
    pub(crate) fn encode(&self) -> [u8; 64] {
        const EXTENDED: u16 = 1;
        let format = EXTENDED | (self.layout as u16) << 1;
        let mut out = [0; 64];
        let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &format.to_le_bytes());
        put(2, &self.xattr_count.to_le_bytes());
        put(4, &self.mode.to_le_bytes());
        put(8, &self.bytes.to_le_bytes());
        put(16, &self.block_or_device.to_le_bytes());
        put(20, &self.serial.to_le_bytes());
        put(24, &self.uid.to_le_bytes());
        put(28, &self.gid.to_le_bytes());
        put(32, &self.mtime_s.to_le_bytes());
        put(40, &self.mtime_ns.to_le_bytes());
        put(44, &self.links.to_le_bytes());
        out
    }
}

/// A device number as the kernel's `new_encode_dev` writes it.
pub(crate) fn device_number(major: u32, minor: u32) -> u32 {
    (minor & 0xff) | major << 8 | (minor & !0xff) << 12
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_castagnolis() {
        // RFC 3720 appendix B.4: 32 bytes of zeros give 8a9136aa, with the final inversion.
        assert_eq!(!crc32c(&[0; 32]), 0x8a91_36aa);
    }

    #[test]
    fn device_numbers_keep_their_high_bits() {
        assert_eq!(device_number(1, 3), 0x103);
        assert_eq!(device_number(0xfff, 0xf_ffff), 0xffff_ffff);
    }
}
