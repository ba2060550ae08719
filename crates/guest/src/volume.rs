//! Volumes of a machine that runs: held still while the host takes a copy, and grown in place.
//!
//! A file system that stands still lets everything wait that writes to it, so whatever becomes of
//! the host, it goes on after [`FREEZE_MS_MAX`].

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::stat::{fstat, major, minor};
use nix::sys::statfs::fstatfs;
use tokio::io::{ReadHalf, WriteHalf};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use types::guest::{ExecEnd, FREEZE_MS_MAX, Frame, FrameKind};

use crate::session::finish;
use crate::sys;
use crate::wire::{SMALL_FRAME_BYTES_MAX, Stream, WireError, read_frame, write_frame};

/// For a disk's new size to arrive in the guest.
const SIZE_TIMEOUT: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(20);
/// The unit of sizes in /sys/block.
const SECTOR_BYTES: u64 = 512;

/// A file system that stands still until this is dropped.
struct Still(OwnedFd);

impl Still {
    fn of(directory: OwnedFd) -> io::Result<Self> {
        sys::freeze(directory.as_fd())?;
        Ok(Self(directory))
    }
}

impl Drop for Still {
    fn drop(&mut self) {
        if let Err(error) = sys::thaw(self.0.as_fd()) {
            tracing::warn!(%error, "a volume does not go on");
        }
    }
}

/// Holds the file system of `directory` still until the host has what it wants.
pub(crate) async fn freeze(
    mut reader: ReadHalf<Stream>,
    mut writer: WriteHalf<Stream>,
    directory: Result<OwnedFd, String>,
) -> Result<(), WireError> {
    let frozen = match directory {
        // Everything that waits to be written is written first.
        Ok(directory) => match spawn_blocking(move || Still::of(directory)).await {
            Ok(frozen) => frozen.map_err(|error| format!("cannot freeze it: {error}")),
            Err(panic) => Err(panic.to_string()),
        },
        Err(reason) => Err(reason),
    };
    let still = match frozen {
        Ok(still) => still,
        Err(reason) => return finish(writer, ExecEnd::Failed { reason }).await,
    };
    write_frame(&mut writer, &Frame::data(FrameKind::Stdout, *b"frozen")).await?;
    let limit = Duration::from_millis(FREEZE_MS_MAX);
    let released = timeout(limit, read_frame(&mut reader, SMALL_FRAME_BYTES_MAX)).await;
    drop(still);
    let end = match released {
        Ok(Ok(Some(frame))) if frame.kind == FrameKind::CloseStdin => {
            ExecEnd::Exited { exit_code: 0 }
        }
        Ok(_) => return Ok(()),
        Err(_) => ExecEnd::Failed {
            reason: format!("it went on after {limit:?}"),
        },
    };
    finish(writer, end).await
}

/// Lets the ext4 of `directory` take up its disk, which has `bytes` or is about to. Blocks.
pub(crate) fn grow(directory: &OwnedFd, bytes: u64) -> io::Result<()> {
    let device = Device::of(directory)?;
    if device.is_loop() {
        sys::reread_size(device.open()?.as_fd())?;
    }
    let deadline = Instant::now() + SIZE_TIMEOUT;
    while device.bytes()? < bytes {
        if Instant::now() > deadline {
            let told = format!("the disk has {} bytes instead of {bytes}", device.bytes()?);
            return Err(io::Error::other(told));
        }
        std::thread::sleep(POLL);
    }
    let block_bytes = u64::try_from(fstatfs(directory)?.block_size()).unwrap_or_default();
    let blocks = bytes.checked_div(block_bytes);
    let blocks = blocks.ok_or_else(|| io::Error::other("the file system has no blocks"))?;
    sys::resize_ext4(directory.as_fd(), blocks)
}

/// The block device of a file system.
struct Device(PathBuf);

impl Device {
    fn of(directory: &OwnedFd) -> io::Result<Self> {
        let device = fstat(directory)?.st_dev;
        let number = format!("{}:{}", major(device), minor(device));
        Ok(Self(Path::new("/sys/dev/block").join(number)))
    }

    fn is_loop(&self) -> bool {
        self.0.join("loop").exists()
    }

    fn open(&self) -> io::Result<File> {
        let event = fs::read_to_string(self.0.join("uevent"))?;
        let name = event.lines().find_map(|line| line.strip_prefix("DEVNAME="));
        let name = name.ok_or_else(|| io::Error::other("the disk has no name"))?;
        let path = Path::new("/dev").join(name);
        File::options().read(true).write(true).open(path)
    }

    fn bytes(&self) -> io::Result<u64> {
        let sectors = fs::read_to_string(self.0.join("size"))?;
        let sectors: u64 = sectors.trim().parse().map_err(io::Error::other)?;
        Ok(sectors * SECTOR_BYTES)
    }
}
