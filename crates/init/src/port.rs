//! The virtio-serial port that carries the protocol.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use guest::fd::Fd;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use types::guest::VIRTIO_PORT;

const APPEAR_TIMEOUT: Duration = Duration::from_secs(30);

/// While nobody is connected on the host's side the port reports a hang-up, and nothing says when
/// that ends.
const CONNECT_POLL: Duration = Duration::from_millis(10);

/// The open port; opening it again would make the host see a new connection.
pub(crate) struct Port {
    file: File,
}

impl Port {
    /// Opens the port by its name, waiting for it to appear.
    pub(crate) fn open() -> io::Result<Self> {
        let deadline = Instant::now() + APPEAR_TIMEOUT;
        loop {
            if let Some(path) = find()? {
                let mut options = OpenOptions::new();
                options.read(true).write(true);
                let file = options.custom_flags(libc::O_NONBLOCK).open(path)?;
                return Ok(Self { file });
            }
            if Instant::now() >= deadline {
                let text = format!("there is no virtio port named {VIRTIO_PORT}");
                return Err(io::Error::new(io::ErrorKind::NotFound, text));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The next connection of the host.
    pub(crate) async fn connected(&self) -> io::Result<Fd> {
        while self.is_hung_up()? {
            tokio::time::sleep(CONNECT_POLL).await;
        }
        Fd::new(OwnedFd::from(self.file.try_clone()?))
    }

    fn is_hung_up(&self) -> io::Result<bool> {
        let mut fds = [PollFd::new(self.file.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::ZERO)?;
        let events = fds[0].revents().unwrap_or(PollFlags::empty());
        Ok(events.contains(PollFlags::POLLHUP))
    }
}

fn find() -> io::Result<Option<PathBuf>> {
    let entries = match fs::read_dir("/sys/class/virtio-ports") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let name = fs::read_to_string(entry.path().join("name")).unwrap_or_default();
        if name.trim() == VIRTIO_PORT {
            return Ok(Some(PathBuf::from("/dev").join(entry.file_name())));
        }
    }
    Ok(None)
}
