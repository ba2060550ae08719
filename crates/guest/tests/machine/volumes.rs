//! Volumes that stand still and grow while a machine has them: ext4 on a file, mounted here.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use guest::wire::host::FromProcess;
use types::guest::ExecEnd;

use crate::fixture::{Host, shell};

const SIZE: u64 = 64 << 20;

/// Taken away when it is dropped.
struct Volume(tempfile::TempDir);

impl Volume {
    /// `None`, with a word why, where nothing can be mounted.
    fn mount() -> Option<Self> {
        let volume = Self(tempfile::tempdir().unwrap());
        let (file, at) = (volume.file(), volume.path());
        fs::create_dir(&at).unwrap();
        fs::File::create(&file).unwrap().set_len(SIZE).unwrap();
        let mut make = Command::new("mkfs.ext4");
        let mut mount = Command::new("mount");
        make.args(["-q", "-F"])
            .arg(&file)
            .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin");
        mount.args(["-o", "loop"]).arg(&file).arg(&at);
        for command in [&mut make, &mut mount] {
            if !command.status().is_ok_and(|status| status.success()) {
                eprintln!("SKIPPED: volumes of a guest: {command:?} failed");
                return None;
            }
        }
        Some(volume)
    }

    fn file(&self) -> std::path::PathBuf {
        self.0.path().join("disk.ext4")
    }

    fn path(&self) -> std::path::PathBuf {
        self.0.path().join("mounted")
    }

    fn name(&self) -> String {
        self.path().display().to_string()
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

fn blocks(path: &Path) -> u64 {
    nix::sys::statvfs::statvfs(path).unwrap().blocks()
}

#[tokio::test]
async fn a_volume_stands_still_until_its_host_lets_go() {
    let Some(volume) = Volume::mount() else {
        return;
    };
    let mut host = Host::start(vec![shell("a", "sleep 1000")]).await;
    host.report().await;
    for is_released in [true, false] {
        let (mut input, mut output) = host.connection.freeze(&volume.name()).await.unwrap();
        let frozen = output.next().await.unwrap();
        assert_eq!(frozen, Some(FromProcess::Stdout("frozen".into())));
        let path = volume.path().join("mark");
        let writing = std::thread::spawn(move || fs::write(path, "x").unwrap());
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(!writing.is_finished(), "it waits");
        if is_released {
            input.close_stdin().await.unwrap();
            let end = output.next().await.unwrap();
            let done = ExecEnd::Exited { exit_code: 0 };
            assert_eq!(end, Some(FromProcess::End(done)));
        }
        // A host that has gone lets go as well.
        drop((input, output));
        let deadline = Instant::now() + Duration::from_secs(9);
        while !writing.is_finished() {
            assert!(Instant::now() < deadline, "it goes on");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    let (_input, mut output) = host.connection.freeze("/nowhere").await.unwrap();
    let end = output.next().await.unwrap();
    assert!(
        matches!(&end, Some(FromProcess::End(ExecEnd::Failed { reason })) if reason.contains("volume")),
        "{end:?}"
    );
    host.stop(Duration::ZERO).await;
    host.exit().await;
}

#[tokio::test]
async fn a_volume_takes_up_its_disk_while_it_is_mounted() {
    let Some(volume) = Volume::mount() else {
        return;
    };
    let mut host = Host::start(vec![shell("a", "sleep 1000")]).await;
    host.report().await;
    let before = blocks(&volume.path());
    let file = fs::OpenOptions::new().write(true).open(volume.file());
    file.unwrap().set_len(2 * SIZE).unwrap();
    let grown = host.connection.grow(&volume.name(), 2 * SIZE).await;
    if let Err(error) = &grown
        && error.to_string().contains("not permitted")
    {
        eprintln!("SKIPPED: a volume that grows while it is mounted: no CAP_SYS_RESOURCE here");
        return;
    }
    grown.unwrap();
    assert!(blocks(&volume.path()) > before * 3 / 2);
    // Again: it has that size.
    host.connection
        .grow(&volume.name(), 2 * SIZE)
        .await
        .unwrap();
    let refused = host.connection.grow("/nowhere", SIZE).await.unwrap_err();
    assert!(refused.to_string().contains("volume"), "{refused}");
    host.stop(Duration::ZERO).await;
    host.exit().await;
}
