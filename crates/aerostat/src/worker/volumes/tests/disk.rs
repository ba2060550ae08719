//! Disks of other kinds: one that is small, and one that can share blocks.

use std::time::{Duration, Instant};

use types::MachineId;

use super::*;

/// A file system that is mounted for the time of a test.
struct Mounted {
    folder: tempfile::TempDir,
}

impl Mounted {
    fn tmpfs(size: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        run(Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
            .arg(folder.path()));
        Self { folder }
    }

    /// `None`, with a word why, where there is no file system that can share blocks.
    fn reflink() -> Option<Self> {
        let test = "a_volume_in_use_is_copied_where_the_disk_can_share_blocks";
        let makers = [
            ("mkfs.xfs", "-q", "-mreflink=1"),
            ("mkfs.btrfs", "-q", "-f"),
        ];
        let image = tempfile::NamedTempFile::new().unwrap();
        image.as_file().set_len(512 << 20).unwrap();
        let is_made = makers.iter().any(|(program, quiet, option)| {
            let mut command = Command::new(program);
            let path = "/usr/sbin:/sbin:/usr/bin:/bin";
            let made = command
                .args([quiet, option])
                .arg(image.path())
                .env("PATH", path);
            made.status().is_ok_and(|status| status.success())
        });
        if !is_made {
            eprintln!("SKIPPED: {test}: neither mkfs.xfs nor mkfs.btrfs");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        let mounted = mount
            .args(["-o", "loop"])
            .arg(image.path())
            .arg(folder.path());
        if !mounted.status().is_ok_and(|status| status.success()) {
            eprintln!("SKIPPED: {test}: cannot mount a file");
            return None;
        }
        Some(Self { folder })
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount")
            .arg("-l")
            .arg(self.folder.path())
            .status();
    }
}

fn run(command: &mut Command) {
    assert!(command.status().unwrap().success(), "{command:?}");
}

fn used_by(place: &Place, id: &VolumeId) {
    let mut users = place.volumes.inner.users.lock().unwrap();
    users.insert(id.clone(), MachineId::from_bits(1));
}

#[tokio::test]
async fn a_volume_in_use_is_copied_where_the_disk_can_share_blocks() {
    let Some(disk) = Mounted::reflink() else {
        return;
    };
    let place = Place::open(disk.folder.path()).await;
    assert!(place.volumes.inner.files.reflink());
    let id = place.with_file("at that moment").await;
    used_by(&place, &id);
    // As a VMM holds it.
    let file = fs::File::open(place.disk(id.as_str())).unwrap();
    file.lock().unwrap();
    let snapshot = place.volumes.snapshot(&id).await.unwrap();
    let fork = CreateVolume {
        source_volume_id: Some(id.clone()),
        ..named_volume("fork")
    };
    let fork = place.create(fork).await.unwrap();
    debugfs(&place.disk(id.as_str()), "rm hello", true);
    for name in [snapshot.id.as_str(), fork.as_str()] {
        assert_eq!(read(&place.disk(name)), "at that moment");
        check(&place.disk(name));
    }
    let extended = place.volumes.extend(&id, 2).await.unwrap();
    assert!(extended.needs_restart);
    place.settled().await;
    place.close().await;
}

#[tokio::test]
async fn a_volume_in_use_is_not_copied_where_the_copy_would_be_no_single_moment() {
    let disk = Mounted::tmpfs("512m");
    let place = Place::open(disk.folder.path()).await;
    assert!(!place.volumes.inner.files.reflink());
    let id = place.with_file("x").await;
    used_by(&place, &id);
    let refused = place.volumes.snapshot(&id).await.unwrap_err();
    assert!(matches!(refused, VolumeRefused::InUse { .. }), "{refused}");
    assert!(refused.hint().contains("XFS or Btrfs"));
    assert_eq!(place.volumes.snapshots(&id).await.unwrap(), []);
    let fork = CreateVolume {
        source_volume_id: Some(id.clone()),
        ..named_volume("fork")
    };
    let refused = place.create(fork.clone()).await.unwrap_err();
    assert!(matches!(refused, VolumeRefused::InUse { .. }), "{refused}");
    // A process that nobody knows of is found by its lock.
    place.volumes.inner.users.lock().unwrap().clear();
    let file = fs::File::open(place.disk(id.as_str())).unwrap();
    file.lock().unwrap();
    assert!(place.volumes.snapshot(&id).await.is_err());
    assert!(place.create(fork).await.is_err());
    // It grows when that process has gone.
    let extended = place.volumes.extend(&id, 2).await.unwrap();
    assert!(extended.needs_restart);
    drop(file);
    assert_eq!(place.names(), [id.to_string()]);
    // A program that another test starts has the lock too, from its fork to its exec.
    let deadline = Instant::now() + Duration::from_secs(10);
    while let Err(refused) = place.volumes.snapshot(&id).await {
        assert!(Instant::now() < deadline, "{refused}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    place.settled().await;
    place.close().await;
}

#[tokio::test]
async fn a_full_disk_is_told_and_nothing_stays() {
    let disk = Mounted::tmpfs("160m");
    let place = Place::open(disk.folder.path()).await;
    let id = place.with_file("x").await;
    let ballast = disk.folder.path().join("ballast");
    fs::write(&ballast, vec![1; 97 << 20]).unwrap();
    let refused = place.create(named_volume("second")).await.unwrap_err();
    assert_eq!(refused, VolumeRefused::DiskFull);
    let refused = place.volumes.snapshot(&id).await.unwrap_err();
    assert_eq!(refused, VolumeRefused::DiskFull);
    assert_eq!(place.names(), [id.to_string()]);
    assert_eq!(place.volumes.snapshots(&id).await.unwrap(), []);
    fs::remove_file(ballast).unwrap();
    // A program that another test starts has the file too, from its fork to its exec.
    let deadline = Instant::now() + Duration::from_secs(10);
    while let Err(refused) = place.volumes.snapshot(&id).await {
        assert!(Instant::now() < deadline, "{refused}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    place.settled().await;
    place.close().await;
}
