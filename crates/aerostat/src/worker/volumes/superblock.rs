//! The first lines of an ext4 file system, as far as a volume's numbers go. Pure.
//!
//! Offsets are those of `struct ext4_super_block` (Linux, Documentation/filesystems/ext4). While
//! the file system is mounted the kernel writes its free counts back late, so they may be old.

/// Where the superblock is in the file, and how much of it is read.
pub(super) const OFFSET: u64 = 1024;
pub(super) const BYTES: usize = 1024;

const MAGIC: u16 = 0xef53;
const INCOMPAT_64BIT: u32 = 0x80;

/// What a file system says of its room.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Superblock {
    /// Bytes.
    pub(super) block_size: u64,
    pub(super) blocks: u64,
    pub(super) blocks_free: u64,
    /// Without what is kept for root.
    pub(super) blocks_avail: u64,
}

impl Superblock {
    /// Reads the bytes at [`OFFSET`]; `None` if there is no ext4.
    pub(super) fn parse(bytes: &[u8; BYTES]) -> Option<Self> {
        let u16_at = |at: usize| Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
        let u32_at = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        if u16_at(0x38)? != MAGIC {
            return None;
        }
        let is_64bit = u32_at(0x60)? & INCOMPAT_64BIT != 0;
        let wide = |low: usize, high: usize| {
            let high = if is_64bit { u32_at(high)? } else { 0 };
            Some(u64::from(high) << 32 | u64::from(u32_at(low)?))
        };
        let shift = u32_at(0x18)?;
        // The largest block of Linux is 64 KiB.
        let block_size = (shift <= 6).then(|| 1024 << shift)?;
        let (blocks, reserved) = (wide(0x04, 0x150)?, wide(0x08, 0x154)?);
        let blocks_free = wide(0x0c, 0x158)?.min(blocks);
        Some(Self {
            block_size,
            blocks,
            blocks_free,
            blocks_avail: blocks_free.saturating_sub(reserved),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_no_file_system_says_nothing() {
        assert_eq!(Superblock::parse(&[0; BYTES]), None);
    }

    proptest! {
        #[test]
        fn a_guest_may_write_anything_there(
            bytes in prop::collection::vec(any::<u8>(), BYTES),
            shift in 0u8..8,
        ) {
            let mut bytes: [u8; BYTES] = bytes.try_into().unwrap();
            bytes[0x38..0x3a].copy_from_slice(&MAGIC.to_le_bytes());
            bytes[0x18..0x1c].copy_from_slice(&[shift, 0, 0, 0]);
            if let Some(found) = Superblock::parse(&bytes) {
                prop_assert!(found.blocks_avail <= found.blocks_free);
                prop_assert!(found.blocks_free <= found.blocks);
                prop_assert_eq!(found.block_size, 1024 << shift);
            }
        }
    }
}
