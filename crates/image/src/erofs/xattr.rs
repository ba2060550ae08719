//! Extended attributes behind an inode: a 12-byte header, then entries with a shortened name.

use crate::layer::Xattr;

const HEADER_BYTES: usize = 12;
const ENTRY_BYTES: usize = 4;

type Xattrs = [Xattr];

/// The number that stands for a name's prefix, and the rest of the name.
fn shorten(name: &[u8]) -> Option<(u8, &[u8])> {
    const PREFIXES: [(u8, &[u8]); 5] = [
        (1, b"user."),
        (2, b"system.posix_acl_access"),
        (3, b"system.posix_acl_default"),
        (4, b"trusted."),
        (6, b"security."),
    ];
    PREFIXES
        .iter()
        .find_map(|(index, prefix)| Some((*index, name.strip_prefix(*prefix)?)))
}

/// Bytes that `encode` gives.
pub(crate) fn bytes(xattrs: &Xattrs) -> usize {
    let entries: usize = entries(xattrs)
        .map(|(_, name, value)| (ENTRY_BYTES + name.len() + value.len()).next_multiple_of(4))
        .sum();
    if entries == 0 {
        0
    } else {
        HEADER_BYTES + entries
    }
}

/// `i_xattr_icount`: one for the header, and one for each four bytes after it.
pub(crate) fn count(xattrs: &Xattrs) -> u16 {
    match bytes(xattrs) {
        0 => 0,
        bytes => u16::try_from(1 + (bytes - HEADER_BYTES) / 4)
            .expect("the layer reader bounds attributes to a quarter of this"),
    }
}

pub(crate) fn encode(xattrs: &Xattrs) -> Vec<u8> {
    let bytes = bytes(xattrs);
    if bytes == 0 {
        return Vec::new();
    }
    let mut out = Vec::with_capacity(bytes);
    out.resize(HEADER_BYTES, 0);
    for (index, name, value) in entries(xattrs) {
        let name_bytes = u8::try_from(name.len()).expect("bounded by the layer reader");
        let value_bytes = u16::try_from(value.len()).expect("bounded by the layer reader");
        out.extend_from_slice(&[name_bytes, index]);
        out.extend_from_slice(&value_bytes.to_le_bytes());
        out.extend_from_slice(name);
        out.extend_from_slice(value);
        out.resize(out.len().next_multiple_of(4), 0);
    }
    out
}

fn entries(xattrs: &Xattrs) -> impl Iterator<Item = (u8, &[u8], &[u8])> {
    xattrs.iter().filter_map(|(name, value)| {
        let (index, name) = shorten(name)?;
        Some((index, name, &**value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_is_that_of_the_encoding() {
        let xattr = |name: &str, value: &str| (name.as_bytes().into(), value.as_bytes().into());
        let xattrs = [
            xattr("security.capability", "12345"),
            xattr("system.posix_acl_access", "x"),
            xattr("user.a", ""),
        ];
        for n in 0..=xattrs.len() {
            assert_eq!(encode(&xattrs[..n]).len(), bytes(&xattrs[..n]));
        }
        assert_eq!(count(&[]), 0);
        assert_eq!(count(&xattrs[2..]), 1 + 2);
    }
}
