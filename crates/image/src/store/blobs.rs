//! Layers as registries send them: whole ones are kept for a while, for the next image that has
//! them, and begun ones so that a download that broke off goes on where it was.
//!
//! ```text
//! <root>/blobs/<hex>        whole; had its digest when it got this name
//! <root>/blobs/<hex>.part   begun; locked by whoever downloads it
//! ```
//!
//! They are a cache: losing one costs a download. Nothing is made durable, and whoever unpacks a
//! layer checks its digest again.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::{ImageStore, StoreLock, entries};
use crate::digest::{Digest, Hasher};
use crate::error::StoreError;

/// A begun download that nobody went on with is of no use for longer.
const PART_IDLE_MAX: Duration = Duration::from_hours(24);
/// A layer that no pull has asked for in this time is unlikely to be asked for again.
const WHOLE_IDLE_MAX: Duration = Duration::from_hours(30 * 24);

const PART: &str = "part";

/// What is here of a layer.
#[derive(Debug)]
pub(crate) enum Begun {
    Whole(File),
    Part(Part),
}

/// A layer that is being downloaded, by us alone.
#[derive(Debug)]
pub(crate) struct Part {
    file: File,
    path: PathBuf,
    whole: PathBuf,
}

impl Part {
    /// The bytes that are here, and the file to append to.
    pub(crate) fn resume(&mut self) -> io::Result<(Hasher, File)> {
        const BUFFER_BYTES: usize = 256 << 10;
        let mut hasher = Hasher::new();
        let mut buffer = vec![0; BUFFER_BYTES];
        self.file.seek(SeekFrom::Start(0))?;
        loop {
            match self.file.read(&mut buffer)? {
                0 => return Ok((hasher, self.file.try_clone()?)),
                n => hasher.update(&buffer[..n]),
            }
        }
    }

    /// Forgets the bytes that are here.
    pub(crate) fn restart(&self) -> io::Result<()> {
        self.file.set_len(0)
    }

    /// Gives the finished layer its name.
    pub(crate) fn finish(self) -> Result<File, StoreError> {
        fs::rename(&self.path, &self.whole).map_err(StoreError::io("create", &self.whole))?;
        Ok(self.file)
    }

    pub(crate) fn discard(self) -> Result<(), StoreError> {
        fs::remove_file(&self.path).map_err(StoreError::io("remove", &self.path))
    }
}

impl ImageStore {
    /// The layer, or what is here of it. Waits while somebody else downloads the same one. Blocks.
    pub(crate) fn begin_blob(&self, digest: &Digest) -> Result<Begun, StoreError> {
        let whole = self.blobs().join(digest.hex());
        let path = whole.with_extension(PART);
        loop {
            if let Ok(file) = File::open(&whole) {
                // It only decides what is forgotten first.
                let _ = file.set_modified(SystemTime::now());
                return Ok(Begun::Whole(file));
            }
            let mut options = File::options();
            let file = options.create(true).read(true).append(true).open(&path);
            let file = file.map_err(StoreError::io("open", &path))?;
            file.lock().map_err(StoreError::io("lock", &path))?;
            // Whoever had the lock may have finished or discarded it.
            if is_at(&file, &path) && !whole.exists() {
                return Ok(Begun::Part(Part { file, path, whole }));
            }
        }
    }

    /// Forgets a whole layer that is not what its name says.
    pub(crate) fn forget_blob(&self, digest: &Digest) -> Result<(), StoreError> {
        remove(&self.blobs().join(digest.hex()))
    }

    /// Removes layers that nobody asked for in a long time, and then those idle longest until the
    /// others have no more than `bytes_max`. Returns how much is left and how much was removed.
    pub(super) fn collect_blobs(
        &self,
        _lock: &StoreLock,
        bytes_max: u64,
    ) -> Result<(u64, u64), StoreError> {
        let mut blobs = Vec::new();
        for path in entries(&self.blobs())? {
            // It may just have been given its name, or been removed.
            if let Ok(metadata) = fs::metadata(&path) {
                let used = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                blobs.push((used, metadata.blocks() * 512, path));
            }
        }
        blobs.sort();
        let mut left = blobs.iter().map(|(_, bytes, _)| bytes).sum();
        let mut removed = 0;
        for (used, bytes, path) in blobs {
            let part = path.extension().is_some_and(|name| name == PART);
            let idle_max = if part { PART_IDLE_MAX } else { WHOLE_IDLE_MAX };
            let idle = used.elapsed().unwrap_or_default();
            if (left <= bytes_max && idle < idle_max) || (part && is_locked(&path)) {
                continue;
            }
            remove(&path)?;
            left -= bytes;
            removed += bytes;
        }
        Ok((left, removed))
    }

    pub(super) fn blobs(&self) -> PathBuf {
        self.root.join("blobs")
    }
}

fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(open), Ok(named)) => open.ino() == named.ino() && open.dev() == named.dev(),
        (Err(_), _) | (_, Err(_)) => false,
    }
}

fn is_locked(path: &Path) -> bool {
    match File::open(path).map(|file| file.try_lock()) {
        Ok(Err(TryLockError::WouldBlock)) => true,
        Ok(Ok(()) | Err(TryLockError::Error(_))) | Err(_) => false,
    }
}

fn remove(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(StoreError::io("remove", path)(error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn store() -> (tempfile::TempDir, ImageStore) {
        let root = tempfile::tempdir().unwrap();
        let store = ImageStore::open(root.path()).unwrap();
        (root, store)
    }

    fn part(store: &ImageStore, digest: &Digest) -> Part {
        match store.begin_blob(digest).unwrap() {
            Begun::Part(part) => part,
            Begun::Whole(_) => panic!("it is whole"),
        }
    }

    #[test]
    fn a_layer_is_gone_on_with_and_then_found_whole() {
        let (_root, store) = store();
        let digest = Digest::of(b"one two");
        let mut begun = part(&store, &digest);
        begun.resume().unwrap().1.write_all(b"one ").unwrap();
        drop(begun);
        let mut begun = part(&store, &digest);
        let (mut hasher, mut file) = begun.resume().unwrap();
        assert_eq!(hasher.bytes, 4);
        hasher.update(b"two");
        file.write_all(b"two").unwrap();
        assert_eq!(hasher.finish(), digest);
        begun.finish().unwrap();
        assert!(matches!(
            store.begin_blob(&digest).unwrap(),
            Begun::Whole(_)
        ));
        store.forget_blob(&digest).unwrap();
        assert_eq!(part(&store, &digest).resume().unwrap().0.bytes, 0);
    }

    #[test]
    fn who_asks_for_a_layer_in_work_waits_and_gets_it_whole() {
        let (_root, store) = store();
        let digest = Digest::of(b"x");
        let begun = part(&store, &digest);
        let second = {
            let store = store.clone();
            std::thread::spawn(move || store.begin_blob(&digest).unwrap())
        };
        begun.finish().unwrap();
        assert!(matches!(second.join().unwrap(), Begun::Whole(_)));
    }

    #[test]
    fn the_idlest_layers_go_first_and_never_one_in_work() {
        let (_root, store) = store();
        let lock = store.lock().unwrap();
        let mut digests = Vec::new();
        for age_s in [300, 200, 100] {
            let bytes = vec![u8::try_from(age_s / 2).unwrap(); 8192];
            let digest = Digest::of(&bytes);
            let mut begun = part(&store, &digest);
            begun.resume().unwrap().1.write_all(&bytes).unwrap();
            let file = begun.finish().unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(age_s))
                .unwrap();
            digests.push(digest);
        }
        let mut working = part(&store, &Digest::of(b"in work"));
        working.resume().unwrap().1.write_all(b"in").unwrap();
        let (left, removed) = store.collect_blobs(&lock, 3 * 4096).unwrap();
        assert!(left <= 3 * 4096 && removed == 16384, "{left} {removed}");
        assert!(matches!(
            store.begin_blob(&digests[2]).unwrap(),
            Begun::Whole(_)
        ));
        store.collect_blobs(&lock, 0).unwrap();
        assert!(working.path.exists());
        drop(working);
        store.collect_blobs(&lock, 0).unwrap();
        assert_eq!(entries(&store.blobs()).unwrap().len(), 0);
    }
}
