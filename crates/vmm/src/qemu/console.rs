//! The guest kernel's console: written to a bounded file, its end kept for error messages.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::warn;

/// When the file is full it begins anew; the part before is kept beside it.
const FILE_BYTES_MAX: u64 = 1 << 20;
const TAIL_BYTES_MAX: usize = 1 << 10;
const END_TIMEOUT: Duration = Duration::from_millis(500);

#[derive(Debug)]
pub(crate) struct Console {
    task: JoinHandle<Vec<u8>>,
}

impl Console {
    pub(crate) fn start<R>(mut stream: R, log: &Path) -> Self
    where
        R: AsyncRead + Unpin + Send + 'static,
    {
        let log = log.to_owned();
        let task = tokio::spawn(async move {
            let mut log = Log::open(log)
                .inspect_err(|error| warn!(%error, "the console is not kept"))
                .ok();
            let mut tail = Vec::new();
            let mut buffer = vec![0; 4096];
            while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                let bytes = &buffer[..count];
                // A full disk must not stop the guest.
                let _ = log.as_mut().map(|log| log.write(bytes));
                tail.extend_from_slice(bytes);
                tail.drain(..tail.len().saturating_sub(TAIL_BYTES_MAX));
            }
            tail
        });
        Self { task }
    }

    /// Stops reading.
    pub(crate) fn stop(self) {
        self.task.abort();
    }

    /// The end of what stood there. Call when the writer has ended.
    pub(crate) async fn end(self) -> String {
        let tail = timeout(END_TIMEOUT, self.task).await;
        let tail = tail.ok().and_then(Result::ok).unwrap_or_default();
        let text = String::from_utf8_lossy(&tail);
        let printable = |c: &char| !c.is_control() || *c == '\n';
        text.chars()
            .filter(printable)
            .collect::<String>()
            .trim()
            .to_owned()
    }
}

struct Log {
    path: PathBuf,
    file: File,
    bytes: u64,
}

impl Log {
    fn open(path: PathBuf) -> io::Result<Self> {
        let file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .open(&path)?;
        Ok(Self {
            path,
            file,
            bytes: 0,
        })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.bytes > FILE_BYTES_MAX {
            std::fs::copy(&self.path, self.path.with_extension("log.old"))?;
            self.file.set_len(0)?;
            self.file.seek(SeekFrom::Start(0))?;
            self.bytes = 0;
        }
        self.file.write_all(bytes)?;
        self.bytes += bytes.len() as u64;
        Ok(())
    }
}
