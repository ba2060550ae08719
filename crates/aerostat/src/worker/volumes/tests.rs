//! Volumes on real files, with real e2fsprogs.

mod crash;
mod disk;
mod verbs;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use types::HostId;
use types::volume::CreateVolume;

use super::*;
use crate::catalog::Catalog;
use crate::worker::capacity::Capacity;
use crate::worker::ledger::Uids;

/// Where a test kills this process, by the environment.
pub(super) fn crash_point(name: &'static str) {
    if std::env::var("AEROSTAT_TEST_CRASH_AT").is_ok_and(|at| at == name) {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::this(), nix::sys::signal::Signal::SIGKILL);
        thread::sleep(Duration::from_secs(60));
    }
}

/// The volumes of a host that lives in a folder.
struct Place {
    volumes: Volumes,
    ledger: Ledger,
    thread: thread::JoinHandle<()>,
}

const HOST: u16 = 2;

impl Place {
    async fn open(folder: &Path) -> Self {
        let place = Self::open_cold(folder).await;
        place.volumes.recover().await.unwrap();
        place
    }

    /// Without going on with anything.
    async fn open_cold(folder: &Path) -> Self {
        let host = HostId::new(HOST);
        let (ledger, _, thread) = Ledger::open(
            &folder.join("ledger.db"),
            host,
            Uids(1000, 1100),
            Catalog::new(),
        )
        .unwrap();
        let capacity = Capacity {
            cpus: 1,
            memory_mb: 1024,
            disk_mb: 100 << 10,
        };
        let parts = Parts {
            host,
            region: "local".into(),
            folder: folder.join("volumes"),
            ledger: ledger.clone(),
            accounts: Arc::new(Mutex::new(Accounts::new(capacity))),
            shutdown: CancellationToken::new(),
            tasks: TaskTracker::new(),
        };
        Self {
            volumes: Volumes::open(parts).await.unwrap(),
            ledger,
            thread,
        }
    }

    async fn close(self) {
        self.volumes.inner.shutdown.cancel();
        self.volumes.inner.tasks.close();
        self.volumes.inner.tasks.wait().await;
        self.ledger.close().await;
        let thread = self.thread;
        tokio::task::spawn_blocking(move || thread.join().unwrap())
            .await
            .unwrap();
    }

    async fn create(&self, body: CreateVolume) -> Result<VolumeId, VolumeRefused> {
        let created = self.volumes.create(new(body)).await?;
        Ok(created.volume.id)
    }

    /// A volume of a GiB with a file in it.
    async fn with_file(&self, text: &str) -> VolumeId {
        let id = self.create(named_volume("data")).await.unwrap();
        write(&self.disk(id.as_str()), text);
        id
    }

    fn disk(&self, name: &str) -> PathBuf {
        self.volumes.inner.files.disk(name)
    }

    fn names(&self) -> Vec<String> {
        let mut names = self.volumes.inner.files.names().unwrap();
        names.sort();
        names
    }

    async fn list(&self) -> Vec<types::volume::Volume> {
        let query = VolumeQuery {
            of: VolumeOwner::App("web".parse().unwrap()),
            summary: false,
            destroyed: false,
        };
        let shown = self.volumes.list(query).await.unwrap();
        shown.into_iter().map(|shown| shown.volume).collect()
    }

    /// Waits until nothing is being done with any volume or snapshot.
    async fn settled(&self) {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
        loop {
            let busy = self.volumes.read(|db| {
                let volumes = tables::volumes(db, &tables::Select::All)?;
                let volumes = volumes
                    .iter()
                    .filter(|(v, _)| v.recover().is_some())
                    .count();
                let created = types::volume::SnapshotStatus::Created;
                let snapshots = tables::snapshots(db, None)?;
                let snapshots = snapshots.iter().filter(|s| s.status != created).count();
                Ok(volumes + snapshots)
            });
            if busy.await.unwrap() == 0 {
                return;
            }
            assert!(tokio::time::Instant::now() < deadline, "something is stuck");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn new(body: CreateVolume) -> NewVolume {
    NewVolume {
        app: "web".parse().unwrap(),
        org: "personal".parse().unwrap(),
        network: NetworkId::try_from(7).unwrap(),
        body,
        creation_key: None,
    }
}

fn named_volume(name: &str) -> CreateVolume {
    CreateVolume {
        name: name.into(),
        auto_backup_enabled: Some(false),
        ..CreateVolume::default()
    }
}

/// Puts a file into a file system that nobody has mounted.
fn write(disk: &Path, text: &str) {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), text).unwrap();
    debugfs(
        disk,
        &format!("write {} hello", file.path().display()),
        true,
    );
}

/// What is in that file.
fn read(disk: &Path) -> String {
    debugfs(disk, "cat hello", false)
}

fn debugfs(disk: &Path, request: &str, writing: bool) -> String {
    let mut command = Command::new("/sbin/debugfs");
    if writing {
        command.arg("-w");
    }
    let output = command.args(["-R", request]).arg(disk).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Whether the file system is whole.
fn check(disk: &Path) {
    let output = Command::new("/sbin/e2fsck")
        .args(["-f", "-n"])
        .arg(disk)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}
