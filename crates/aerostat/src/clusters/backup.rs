//! Backups of clusters: one tar archive with the state and the keys, without which the state
//! cannot be read and nobody would be recognized.
//!
//! ```text
//!   store.db     the state, without history
//!   pki/…        keys and certificates, and the keys of Secrets
//! ```

use std::fs::{self, File};
use std::io::{self, Read, Seek as _, SeekFrom};
use std::path::{Component, Path, PathBuf};

use jiff::Timestamp;
use store::Store;

use super::{ClusterError, disk};
use crate::files::private_folder;

const STATE: &str = "store.db";
const KEYS: &str = "pki";
/// Far above what keys and certificates take.
const KEY_BYTES_MAX: u64 = 1 << 20;

/// Why a backup was not restored. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RestoreError {
    #[error("cannot use {}", path.display())]
    Disk { path: PathBuf, source: io::Error },
    #[error("{} is no backup of a cluster: {reason}", path.display())]
    NoBackup { path: PathBuf, reason: String },
    #[error("the cluster cannot be recorded")]
    Record(#[source] Box<ClusterError>),
    #[error("the state in the backup cannot be restored")]
    State(#[source] Box<store::CopyError>),
}

/// Writes a backup of `store` and of the keys in `dir` into a file that has no name any more.
pub(super) async fn write(store: &Store, dir: &Path) -> Result<File, ClusterError> {
    let scratch = tempfile::Builder::new().prefix("backup-").tempdir_in(dir);
    let scratch = scratch.map_err(disk(dir))?;
    let state = scratch.path().join(STATE);
    store
        .backup(&state)
        .await
        .map_err(|error| ClusterError::Backup(Box::new(error)))?;
    let dir = dir.to_owned();
    let written = tokio::task::spawn_blocking(move || {
        let mut archive = tar::Builder::new(tempfile::tempfile_in(&dir)?);
        archive.append_path_with_name(&state, STATE)?;
        archive.append_dir_all(KEYS, dir.join(KEYS))?;
        let mut file = archive.into_inner()?;
        file.seek(SeekFrom::Start(0))?;
        io::Result::Ok((file, scratch))
    });
    let written = written.await.map_err(io::Error::other);
    let written = written.and_then(|written| written);
    written
        .map(|(file, _scratch)| file)
        .map_err(|source| ClusterError::Disk {
            path: PathBuf::from("backup"),
            source,
        })
}

/// Makes a backup the cluster in `dir`, which must not run. What is there is kept beside it, under
/// the name that is returned.
pub(super) async fn restore(backup: &Path, dir: &Path) -> Result<Option<PathBuf>, RestoreError> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |source| RestoreError::Disk { path, source }
    };
    private_folder(dir).map_err(at(dir))?;
    let scratch = tempfile::Builder::new().prefix("restore-").tempdir_in(dir);
    let scratch = scratch.map_err(at(dir))?;
    let (from, to) = (backup.to_owned(), scratch.path().to_owned());
    let unpacked = tokio::task::spawn_blocking(move || unpack(&from, &to)).await;
    unpacked.map_err(|error| at(backup)(io::Error::other(error)))??;
    // Made anew beside the old one: opening it proves that it is whole.
    let whole = scratch.path().join("new.db");
    let location = store::Location::Sqlite(store::Config::new(&whole));
    store::restore(&scratch.path().join(STATE), &location)
        .await
        .map_err(|error| RestoreError::State(Box::new(error)))?;
    let old = set_aside(dir).map_err(at(dir))?;
    let swap = || -> io::Result<()> {
        fs::rename(&whole, dir.join(STATE))?;
        fs::rename(scratch.path().join(KEYS), dir.join(KEYS))?;
        File::open(dir)?.sync_all()
    };
    swap().map_err(at(dir))?;
    Ok(old)
}

/// Moves state and keys into a directory of their own.
fn set_aside(dir: &Path) -> io::Result<Option<PathBuf>> {
    let now = Timestamp::now().strftime("%Y%m%dT%H%M%SZ");
    let aside = dir.join(format!("before-{now}"));
    let mut is_any = false;
    for name in [STATE, "store.db-wal", "store.db-shm", KEYS] {
        if !dir.join(name).exists() {
            continue;
        }
        private_folder(&aside)?;
        fs::rename(dir.join(name), aside.join(name))?;
        is_any = true;
    }
    Ok(is_any.then_some(aside))
}

/// Unpacks what belongs into a backup and refuses everything else: it may come from anywhere.
fn unpack(backup: &Path, to: &Path) -> Result<(), RestoreError> {
    let no = |reason: String| RestoreError::NoBackup {
        path: backup.to_owned(),
        reason,
    };
    let unreadable = |error: io::Error| no(error.to_string());
    let file = File::open(backup).map_err(|source| RestoreError::Disk {
        path: backup.to_owned(),
        source,
    })?;
    private_folder(&to.join(KEYS)).map_err(unreadable)?;
    for entry in tar::Archive::new(file).entries().map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let path = entry.path().map_err(unreadable)?.into_owned();
        let parts: Vec<_> = path.components().collect();
        let kind = entry.header().entry_type();
        let limit = match parts.as_slice() {
            [Component::Normal(name)] if *name == STATE && kind.is_file() => u64::MAX,
            [Component::Normal(name)] if *name == KEYS && kind.is_dir() => continue,
            [Component::Normal(name), Component::Normal(_)] if *name == KEYS && kind.is_file() => {
                KEY_BYTES_MAX
            }
            _ => return Err(no(format!("it holds {}", path.display()))),
        };
        if entry.size() > limit {
            return Err(no(format!("its {} is too large", path.display())));
        }
        let mut new = private_file(&to.join(&path)).map_err(unreadable)?;
        io::copy(&mut entry.take(limit), &mut new).map_err(unreadable)?;
        new.sync_all().map_err(unreadable)?;
    }
    if to.join(STATE).exists() {
        Ok(())
    } else {
        Err(no(format!("it has no {STATE}")))
    }
}

fn private_file(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut options = File::options();
    options.write(true).create_new(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn open(path: &Path) -> Store {
        let location = store::Location::Sqlite(store::Config::new(path));
        Store::open_at(&location).await.unwrap()
    }

    #[tokio::test]
    async fn what_was_backed_up_is_there_again_and_what_it_replaced_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let cluster = dir.path().join("cluster");
        fs::create_dir_all(cluster.join(KEYS)).unwrap();
        fs::write(cluster.join(KEYS).join("ca.key"), "secret").unwrap();
        let store = open(&cluster.join(STATE)).await;
        store.create("/a", "1".into(), None).await.unwrap();
        let mut archive = write(&store, &cluster).await.unwrap();
        store.create("/b", "2".into(), None).await.unwrap();
        store.close().await;
        let file = dir.path().join("backup.tar");
        io::copy(&mut archive, &mut File::create(&file).unwrap()).unwrap();
        fs::write(cluster.join(KEYS).join("ca.key"), "another").unwrap();

        let old = restore(&file, &cluster).await.unwrap().unwrap();
        assert_eq!(fs::read(old.join(KEYS).join("ca.key")).unwrap(), b"another");
        assert_eq!(
            fs::read(cluster.join(KEYS).join("ca.key")).unwrap(),
            b"secret"
        );
        let store = open(&cluster.join(STATE)).await;
        assert!(store.get("/a").is_some() && store.get("/b").is_none());
        let left: Vec<_> = fs::read_dir(&cluster).unwrap().flatten().collect();
        let is_scratch = |name: &str| name.starts_with("restore-") || name.starts_with("backup-");
        assert!(
            !left
                .iter()
                .any(|entry| is_scratch(&entry.file_name().to_string_lossy()))
        );
    }

    #[tokio::test]
    async fn anything_else_is_refused_and_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let cluster = dir.path().join("cluster");
        fs::create_dir_all(cluster.join(KEYS)).unwrap();
        fs::write(cluster.join(STATE), "as it was").unwrap();
        let archive = |name: &str, kind: tar::EntryType| {
            let mut archive = tar::Builder::new(Vec::new());
            let mut header = tar::Header::new_gnu();
            // Written past the builder, which refuses such names.
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_entry_type(kind);
            header.set_size(0);
            header.set_cksum();
            archive.append(&header, io::empty()).unwrap();
            archive.into_inner().unwrap()
        };
        let cases = [
            archive("../escape", tar::EntryType::Regular),
            archive("pki/a/b", tar::EntryType::Regular),
            archive("pki/link", tar::EntryType::Symlink),
            archive("other", tar::EntryType::Regular),
            archive("pki/only-a-key", tar::EntryType::Regular),
            b"no archive at all".repeat(100),
        ];
        for case in cases {
            let file = dir.path().join("backup.tar");
            fs::write(&file, &case).unwrap();
            let error = restore(&file, &cluster).await.unwrap_err();
            assert!(matches!(error, RestoreError::NoBackup { .. }), "{error}");
            assert_eq!(fs::read(cluster.join(STATE)).unwrap(), b"as it was");
        }
        assert!(!dir.path().join("escape").exists());
    }
}
