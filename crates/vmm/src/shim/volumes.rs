//! The volumes of a boot, locked for as long as its body may write to them: two bodies never have
//! the same file, whoever believes what.
//!
//! A lock ends with this process. What it started may outlive it for a moment, which is why the
//! next boot begins only when nothing of this one is left, and why QEMU locks its disks by itself.

use std::fs::{File, OpenOptions};
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use types::guest::VolumeSpec;

use super::Failure;
use crate::VmmError;

/// For whoever copies from the volume or lets it grow to see that the machine is there.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(20);

/// Takes the lock of each volume.
pub(super) async fn lock(volumes: &[VolumeSpec]) -> Result<Vec<Flock<File>>, Failure> {
    lock_within(volumes, LOCK_TIMEOUT).await
}

async fn lock_within(
    volumes: &[VolumeSpec],
    timeout: Duration,
) -> Result<Vec<Flock<File>>, Failure> {
    let mut locks = Vec::new();
    for volume in volumes {
        locks.push(lock_one(Path::new(&volume.file), timeout).await?);
    }
    Ok(locks)
}

async fn lock_one(path: &Path, timeout: Duration) -> Result<Flock<File>, Failure> {
    let opened = OpenOptions::new().read(true).write(true).open(path);
    let mut file = opened.map_err(VmmError::file("open", path))?;
    let deadline = tokio::time::Instant::now() + timeout;
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((back, Errno::EWOULDBLOCK)) if tokio::time::Instant::now() < deadline => {
                file = back;
            }
            Err((_, Errno::EWOULDBLOCK)) => {
                return Err(
                    format!("volume {} is in use by another process", path.display()).into(),
                );
            }
            Err((_, error)) => return Err(VmmError::file("lock", path)(error.into()).into()),
        }
        tokio::time::sleep(POLL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_second_body_does_not_get_a_volume() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let volume = VolumeSpec {
            name: "data".into(),
            disk: String::new(),
            file: file.path().display().to_string(),
        };
        let volumes = [volume];
        let first = lock(&volumes).await.unwrap();
        let refused = lock_within(&volumes, POLL).await.unwrap_err();
        assert!(refused.to_string().contains("in use"), "{refused}");
        drop(first);
        assert_eq!(lock(&volumes).await.unwrap().len(), 1);
    }
}
