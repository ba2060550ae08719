//! Mounts for tests: an image is judged by what the kernel shows of it.

use std::path::{Path, PathBuf};
use std::process::Command;

use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// A mounted image; unmounted when dropped.
pub(crate) struct Mounted {
    directory: tempfile::TempDir,
}

impl Mounted {
    /// None, with a line on stderr, where this machine does not let us mount.
    pub(crate) fn new(rootfs: &Path, test: &str) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let flags = MsFlags::MS_RDONLY;
        match mount(
            Some(rootfs),
            directory.path(),
            Some("erofs"),
            flags,
            None::<&str>,
        ) {
            Ok(()) => return Some(Self { directory }),
            // Before Linux 6.12 files are not mounted directly.
            Err(nix::Error::ENOTBLK) => {}
            Err(error @ (nix::Error::EPERM | nix::Error::ENODEV)) => {
                eprintln!("SKIPPED: {test}: mounting EROFS: {error}");
                return None;
            }
            Err(error) => panic!("the kernel refuses {}: {error}", rootfs.display()),
        }
        let status = Command::new("mount")
            .args(["-t", "erofs", "-o", "loop,ro"])
            .args([rootfs, directory.path()])
            .status();
        if !status.is_ok_and(|status| status.success()) {
            eprintln!("SKIPPED: {test}: no EROFS mounts of files and no loop devices");
            return None;
        }
        Some(Self { directory })
    }

    pub(crate) fn path(&self, inside: &str) -> PathBuf {
        self.directory.path().join(inside)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = umount2(self.directory.path(), MntFlags::MNT_DETACH);
    }
}

/// Runs the checker of erofs-utils, where it is installed.
pub(crate) fn fsck(rootfs: &Path) {
    match Command::new("fsck.erofs").arg(rootfs).output() {
        Ok(output) => assert!(
            output.status.success(),
            "fsck.erofs: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        ),
        Err(error) => eprintln!("SKIPPED: fsck.erofs: {error}"),
    }
}
