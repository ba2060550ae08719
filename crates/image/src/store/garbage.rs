//! Garbage collection: which images go when they take too much room, and in which order.
//!
//! Layers that were kept for later pulls go first. Then, what is removed is a root file system together with all records that name it, the one that has
//! been idle longest first. A record's modification time is when its image was last used.
//!
//! The users are asked under the store's lock, under which they also get what they use
//! ([`ImageStore::get_for_use`]), so nothing is taken from a machine that is just starting. The
//! records go first and durably: a crash between two steps leaves a file that nobody names, which
//! the next process to open the store removes.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use types::ImageRef;

use super::{Image, ImageStore, Record, sync_directory};
use crate::digest::Digest;
use crate::error::StoreError;

/// What may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GarbageRules {
    /// All root file systems and kept layers together may have this size; 0 removes all that may be
    /// removed.
    pub bytes_max: u64,
    /// What was used, pulled or imported within this time stays.
    pub idle_min: Duration,
    pub imported: Imported,
}

/// What happens to images that no registry can give back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Imported {
    Stay,
    Go,
}

/// What went.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Freed {
    pub images: Vec<Image>,
    /// Disk space; files that are still open or mounted give theirs back when they are closed.
    pub bytes: u64,
}

/// A root file system and those who name it.
#[derive(Debug)]
struct Group {
    records: Vec<Record>,
    bytes: u64,
    last_used: SystemTime,
    may_go: bool,
}

impl ImageStore {
    /// Removes images that nobody uses until the rest is small enough. `in_use` must name every
    /// image that any machine, running or stopped, was made of.
    ///
    /// # Errors
    /// When the store cannot be read or changed; what went until then is gone, the rest whole.
    pub fn collect_garbage(
        &self,
        rules: GarbageRules,
        in_use: impl FnOnce() -> Vec<ImageRef>,
    ) -> Result<Freed, StoreError> {
        let lock = self.lock()?;
        let groups = self.groups(rules, &in_use())?;
        let images_bytes: u64 = groups.iter().map(|group| group.bytes).sum();
        // What costs only a download goes first.
        let for_blobs = rules.bytes_max.saturating_sub(images_bytes);
        let (blobs_bytes, blobs_freed) = self.collect_blobs(&lock, for_blobs)?;
        let mut freed = Freed {
            images: Vec::new(),
            bytes: blobs_freed,
        };
        let mut files = Vec::new();
        for group in surplus(groups, rules.bytes_max.saturating_sub(blobs_bytes)) {
            for record in group.records {
                let path = self.record_path(&record.reference);
                fs::remove_file(&path).map_err(StoreError::io("remove", path))?;
                files.push((self.rootfs_path(&record.rootfs), group.bytes));
                freed.images.extend(self.image(record));
            }
        }
        if files.is_empty() {
            return Ok(freed);
        }
        sync_directory(&self.references())?;
        self.collect(&lock)?;
        files.dedup();
        // A damaged record keeps files: nobody knows which ones it names.
        files.retain(|(path, _)| !path.exists());
        freed.bytes += files.iter().map(|(_, bytes)| bytes).sum::<u64>();
        Ok(freed)
    }

    fn groups(&self, rules: GarbageRules, in_use: &[ImageRef]) -> Result<Vec<Group>, StoreError> {
        let mut groups: BTreeMap<Digest, Group> = BTreeMap::new();
        for record in self.records()?.0 {
            let path = self.record_path(&record.reference);
            let used = in_use.iter().any(|image| is_meant(&record, image));
            if used {
                mark_used(&path).map_err(StoreError::io("mark", &path))?;
            }
            let last_used = fs::metadata(&path).and_then(|metadata| metadata.modified());
            let last_used = last_used.map_err(StoreError::io("read", &path))?;
            let bytes = fs::metadata(self.rootfs_path(&record.rootfs)).map_or(0, |file| file.len());
            let only_here = record.imported || record.reference.is_local();
            // A clock that was set back makes it young, not old.
            let idle = last_used.elapsed().unwrap_or_default() >= rules.idle_min;
            let may_go = !used && idle && (!only_here || rules.imported == Imported::Go);
            let group = groups.entry(record.rootfs).or_insert(Group {
                records: Vec::new(),
                bytes,
                last_used,
                may_go: true,
            });
            group.records.push(record);
            group.last_used = group.last_used.max(last_used);
            group.may_go &= may_go;
        }
        Ok(groups.into_values().collect())
    }
}

/// Those that go: idle longest first, and no more than needed.
fn surplus(mut groups: Vec<Group>, bytes_max: u64) -> Vec<Group> {
    let mut bytes: u64 = groups.iter().map(|group| group.bytes).sum();
    groups.retain(|group| group.may_go);
    groups.sort_by_key(|group| group.last_used);
    let count = groups.iter().take_while(|group| {
        let over = bytes > bytes_max;
        bytes -= group.bytes;
        over
    });
    let count = count.count();
    groups.truncate(count);
    groups
}

/// Whether a machine that asks for `image` gets this record's.
fn is_meant(record: &Record, image: &ImageRef) -> bool {
    record.reference == *image
        || (image.digest == Some(record.digest.to_string())
            && record.reference.registry == image.registry
            && record.reference.repository == image.repository)
}

pub(super) fn mark_used(record: &Path) -> io::Result<()> {
    File::options()
        .write(true)
        .open(record)?
        .set_modified(SystemTime::now())
}

#[cfg(test)]
mod tests;
