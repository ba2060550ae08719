//! Names in a layer: cleaned paths from the root, and the `.wh.` names that are not files but
//! markers.

use super::{Change, Entry};
use crate::error::{NAME_BYTES_MAX, PATH_BYTES_MAX, Reason};

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Files that the AUFS driver left in old layers; no content of the image.
const AUFS: &[u8] = b".wh..wh.";

/// Takes a path as relative to the root, whatever it starts with.
pub(super) fn clean(name: &[u8]) -> Result<Box<[u8]>, Reason> {
    if name.len() >= PATH_BYTES_MAX {
        return Err(Reason::PathTooLong);
    }
    if name.is_empty() || name.contains(&0) {
        return Err(Reason::BadName);
    }
    let mut path = Vec::with_capacity(name.len());
    for component in name
        .split(|b| *b == b'/')
        .filter(|c| !matches!(c, [] | [b'.']))
    {
        if component == b".." {
            return Err(Reason::ParentComponent);
        }
        if component.len() > NAME_BYTES_MAX {
            return Err(Reason::NameTooLong);
        }
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(component);
    }
    Ok(path.into())
}

pub(super) enum Marker {
    Entry(Entry),
    Ignored,
}

/// Reads `.wh.` names. They are markers only as the last component of a path.
pub(super) fn whiteout(path: &[u8]) -> Result<Option<Marker>, Reason> {
    let (parent, name) = split(path);
    if name == OPAQUE {
        return Ok(Some(Marker::Entry(Entry {
            path: parent.into(),
            change: Change::Opaque,
        })));
    }
    let components = || path.split(|b| *b == b'/');
    if components().any(|component| component.starts_with(AUFS)) {
        return Ok(Some(Marker::Ignored));
    }
    if components()
        .any(|component| component.starts_with(WHITEOUT) && !std::ptr::eq(component, name))
    {
        return Err(Reason::BadWhiteout);
    }
    let Some(hidden) = name.strip_prefix(WHITEOUT) else {
        return Ok(None);
    };
    if matches!(hidden, b"" | b"." | b"..") {
        return Err(Reason::BadWhiteout);
    }
    let mut path = parent.to_vec();
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(hidden);
    Ok(Some(Marker::Entry(Entry {
        path: path.into(),
        change: Change::Whiteout,
    })))
}

/// Parent and last component; the root has neither.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|b| *b == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&[], path),
    }
}
