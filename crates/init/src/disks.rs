//! Disks, found by serial number: the order in which the kernel finds them means nothing.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Disks are probed while their module loads; this is for those attached meanwhile.
const APPEAR_TIMEOUT: Duration = Duration::from_secs(10);

/// virtio-blk hands on this many bytes of a serial number (VIRTIO 1.2, 5.2.6.4).
const SERIAL_BYTES_MAX: usize = 20;

/// The device node of the disk with that serial number, waiting for it to appear.
pub(crate) fn wait_for(serial: &str) -> io::Result<PathBuf> {
    let deadline = Instant::now() + APPEAR_TIMEOUT;
    loop {
        if let Some(path) = find(serial)? {
            return Ok(path);
        }
        if serial.is_empty() || Instant::now() >= deadline {
            let text = format!("there is no disk with serial number `{serial}`");
            return Err(io::Error::new(io::ErrorKind::NotFound, text));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn find(serial: &str) -> io::Result<Option<PathBuf>> {
    let wanted = &serial.as_bytes()[..serial.len().min(SERIAL_BYTES_MAX)];
    if wanted.is_empty() {
        return Ok(None);
    }
    for entry in fs::read_dir("/sys/block")? {
        let entry = entry?;
        // Some devices have none.
        let Ok(found) = fs::read(entry.path().join("serial")) else {
            continue;
        };
        if found.trim_ascii() == wanted {
            return Ok(Some(PathBuf::from("/dev").join(entry.file_name())));
        }
    }
    Ok(None)
}
