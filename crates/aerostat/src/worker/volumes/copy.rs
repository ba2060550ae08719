//! Copies of large files that are mostly holes.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::Path;

use sha2::{Digest as _, Sha256};
use vmm::sparse::for_each_extent;

use super::files::{FileError, failed, read_block};

/// What a digest is computed over at a time.
const BLOCK_BYTES: u64 = 64 << 10;

/// Whether a file changes while it is copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stillness {
    Still,
    Written,
}

/// Whether files in `dir` can share blocks. Tried, because no file system says it.
pub(super) fn can_reflink(dir: &Path) -> Result<bool, FileError> {
    let paths = [dir.join(".reflink-from"), dir.join(".reflink-to")];
    let open = |path: &Path| {
        let mut options = OpenOptions::new();
        let options = options.create(true).truncate(true).read(true).write(true);
        options.open(path).map_err(failed("make", path))
    };
    let cloned = || {
        let (from, to) = (open(&paths[0])?, open(&paths[1])?);
        // An empty file has nothing to share.
        fs::write(&paths[0], [1; 4096]).map_err(failed("write", &paths[0]))?;
        Ok(reflink(&from, &to).is_ok())
    };
    let cloned = cloned();
    for path in &paths {
        // What stays is overwritten by the next attempt, and is no volume's name.
        let _ = fs::remove_file(path);
    }
    cloned
}

/// Makes `to` the same as `from` at this moment, sharing its blocks. Whoever writes to `from`
/// meanwhile does so before or after.
pub(super) fn reflink(from: &File, to: &File) -> io::Result<()> {
    rustix::fs::ioctl_ficlone(to, from).map_err(Into::into)
}

/// `sha256:…` of the content, the same however its holes lie: over every block of 64 KiB that is
/// not all zeros, its offset (64 bits, little endian) and its bytes, and last the length.
pub(super) fn digest(file: &File) -> io::Result<String> {
    let mut hash = Sha256::new();
    let mut block = vec![0; usize::try_from(BLOCK_BYTES).unwrap_or(0)];
    let mut next = 0;
    for_each_extent(file, |start, end| {
        let mut at = next.max(start / BLOCK_BYTES * BLOCK_BYTES);
        while at < end {
            read_block(file, at, &mut block)?;
            if block.iter().any(|byte| *byte != 0) {
                hash.update(at.to_le_bytes());
                hash.update(&block);
            }
            at += BLOCK_BYTES;
        }
        next = at;
        Ok(())
    })?;
    hash.update(file.metadata()?.len().to_le_bytes());
    Ok(format!("sha256:{:x}", hash.finalize()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileExt as _, MetadataExt as _};

    use proptest::prelude::*;

    use vmm::sparse;

    use super::*;

    fn file(length: u64, writes: &[(u64, u8, usize)]) -> File {
        let file = tempfile::tempfile().unwrap();
        file.set_len(length).unwrap();
        for (at, byte, count) in writes {
            let at = at % length;
            let count = (*count).min(usize::try_from(length - at).unwrap());
            file.write_all_at(&vec![*byte; count], at).unwrap();
        }
        file
    }

    fn content(file: &File) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(file.metadata().unwrap().len()).unwrap()];
        read_block(file, 0, &mut bytes).unwrap();
        bytes
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn a_copy_is_the_same_and_its_digest_does_not_depend_on_holes(
            length in 1u64..2_000_000,
            writes in prop::collection::vec((0u64..2_000_000, any::<u8>(), 0usize..100_000), 0..8),
        ) {
            let from = file(length, &writes);
            let to = tempfile::tempfile().unwrap();
            sparse::copy(&from, &to).unwrap();
            let bytes = content(&from);
            prop_assert!(bytes == content(&to));
            let full = tempfile::tempfile().unwrap();
            full.write_all_at(&bytes, 0).unwrap();
            prop_assert_eq!(digest(&from).unwrap(), digest(&full).unwrap());
            prop_assert_eq!(digest(&from).unwrap(), digest(&to).unwrap());
            let last = length - 1;
            full.write_all_at(&[bytes[bytes.len() - 1] ^ 1], last).unwrap();
            prop_assert_ne!(digest(&from).unwrap(), digest(&full).unwrap());
        }
    }

    #[test]
    fn a_copy_of_a_hole_takes_no_room() {
        let (from, to) = (
            file(1 << 30, &[(4096, 1, 1)]),
            tempfile::tempfile().unwrap(),
        );
        sparse::copy(&from, &to).unwrap();
        assert!(to.metadata().unwrap().blocks() * 512 < 1 << 20);
        assert_eq!(to.metadata().unwrap().len(), 1 << 30);
    }
}
