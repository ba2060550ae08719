//! A directory's content: blocks of entries, sorted by name over the whole directory, each block
//! with its entries first and their names behind them.

use super::format::{BLOCK_BYTES, FileType};

const ENTRY_BYTES: usize = 12;
const BLOCK: usize = 4096;

/// A name in a directory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dirent<'a> {
    pub(crate) name: &'a [u8],
    pub(crate) nid: u64,
    pub(crate) file_type: FileType,
}

/// How many of the next names share a block, and the bytes they take.
fn fill<'a>(names: impl Iterator<Item = &'a [u8]>) -> (usize, usize) {
    let mut used = 0;
    let mut count = 0;
    for name in names {
        let more = ENTRY_BYTES + name.len();
        if used + more > BLOCK {
            break;
        }
        used += more;
        count += 1;
    }
    (count, used)
}

/// Size of a directory with these sorted names, `.` and `..` among them.
pub(crate) fn bytes(names: &[&[u8]]) -> u64 {
    let mut rest = names;
    let mut total = 0;
    while !rest.is_empty() {
        let (count, used) = fill(rest.iter().copied());
        rest = &rest[count..];
        total += if rest.is_empty() {
            used as u64
        } else {
            BLOCK_BYTES
        };
    }
    total
}

pub(crate) fn encode(entries: &[Dirent<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = entries;
    while !rest.is_empty() {
        let (count, _) = fill(rest.iter().map(|entry| entry.name));
        let (block, after) = rest.split_at(count);
        let mut name_at = ENTRY_BYTES * count;
        for entry in block {
            out.extend_from_slice(&entry.nid.to_le_bytes());
            let offset = u16::try_from(name_at).expect("inside a block");
            out.extend_from_slice(&offset.to_le_bytes());
            out.extend_from_slice(&[entry.file_type.byte(), 0]);
            name_at += entry.name.len();
        }
        block
            .iter()
            .for_each(|entry| out.extend_from_slice(entry.name));
        rest = after;
        if !rest.is_empty() {
            out.resize(out.len().next_multiple_of(BLOCK), 0);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_size_is_that_of_the_encoding(lengths in prop::collection::vec(1..=255_usize, 1..200)) {
            let names: Vec<Vec<u8>> = lengths.iter().map(|n| vec![b'x'; *n]).collect();
            let names: Vec<&[u8]> = names.iter().map(Vec::as_slice).collect();
            let entries: Vec<_> = names
                .iter()
                .map(|name| Dirent { name, nid: 1, file_type: FileType::Regular })
                .collect();
            prop_assert_eq!(encode(&entries).len() as u64, bytes(&names));
        }
    }
}
