//! Extension headers, PAX and GNU: what they add to the entry that follows.

use tar::EntryType;

use super::{Xattr, pax};
use crate::error::{NAME_BYTES_MAX, Reason, XATTR_BYTES_MAX};

/// What extension headers said about the entry that follows them.
#[derive(Default)]
pub(super) struct Extensions {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) mtime: Option<(i64, u32)>,
    pub(super) xattrs: Vec<Xattr>,
}

impl Extensions {
    pub(super) fn add(&mut self, kind: EntryType, mut data: Vec<u8>) -> Result<(), Reason> {
        if matches!(kind, EntryType::GNULongName | EntryType::GNULongLink) {
            data.truncate(data.iter().position(|b| *b == 0).unwrap_or(data.len()));
            let slot = if kind == EntryType::GNULongName {
                &mut self.path
            } else {
                &mut self.link
            };
            *slot = Some(data);
            return Ok(());
        }
        let number =
            |value| pax::decimal(value).ok_or(Reason::Extension("a size or an owner is no number"));
        for record in pax::records(&data) {
            let pax::Record { key, value } = record?;
            match key {
                b"path" => self.path = Some(value.to_vec()),
                b"linkpath" => self.link = Some(value.to_vec()),
                b"size" => self.size = Some(number(value)?),
                b"uid" => self.uid = Some(number(value)?),
                b"gid" => self.gid = Some(number(value)?),
                b"mtime" => {
                    let time = pax::time(value);
                    self.mtime = Some(time.ok_or(Reason::Extension("a time is no number"))?);
                }
                _ if key.starts_with(b"GNU.sparse.") => return Err(Reason::Sparse),
                _ => {
                    if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                        self.add_xattr(name, value)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn add_xattr(&mut self, name: &[u8], value: &[u8]) -> Result<(), Reason> {
        if name.is_empty() || name.contains(&0) {
            return Err(Reason::BadName);
        }
        if name.len() > NAME_BYTES_MAX {
            return Err(Reason::NameTooLong);
        }
        if !kept(name) {
            return Ok(());
        }
        self.xattrs.retain(|(other, _)| **other != *name);
        self.xattrs.push((name.into(), value.into()));
        let bytes: usize = self
            .xattrs
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .sum();
        if bytes > XATTR_BYTES_MAX {
            return Err(Reason::XattrsTooLong);
        }
        Ok(())
    }
}

/// Attributes that mean something to Linux, without those that would steer the overlay which is
/// mounted on top of the image.
fn kept(name: &[u8]) -> bool {
    let overlay = [&b"trusted.overlay."[..], b"user.overlay."];
    let kept = [&b"user."[..], b"trusted.", b"security."];
    let acl = [&b"system.posix_acl_access"[..], b"system.posix_acl_default"];
    !overlay.iter().any(|prefix| name.starts_with(prefix))
        && (acl.contains(&name)
            || kept
                .iter()
                .any(|prefix| name.len() > prefix.len() && name.starts_with(prefix)))
}
