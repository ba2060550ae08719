//! The audit log's file: appended by a thread of its own, and put aside when it is large.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use tokio::sync::mpsc;
use tracing::{error, warn};

use super::{Lost, event::Event};

/// A file, and when it is put aside.
pub(super) struct Log {
    path: PathBuf,
    size_bytes_max: u64,
    backups_max: usize,
    file: BufWriter<File>,
    size_bytes: u64,
}

impl Log {
    pub(super) fn open(path: &Path, size_bytes_max: u64, backups_max: usize) -> io::Result<Self> {
        let file = append(path)?;
        let size_bytes = file.metadata()?.len();
        Ok(Self {
            path: path.to_owned(),
            size_bytes_max,
            backups_max,
            file: BufWriter::new(file),
            size_bytes,
        })
    }

    /// Writes events until nobody can send any more.
    pub(super) fn run(mut self, mut events: mpsc::Receiver<Event>, lost: &Lost) {
        let mut failing = false;
        while let Some(event) = events.blocking_recv() {
            let mut result = self.write(&event);
            // What has piled up in the meantime goes with it, and then to the kernel.
            while result.is_ok()
                && let Ok(event) = events.try_recv()
            {
                result = self.write(&event);
            }
            let result = result.and_then(|()| self.file.flush());
            match result {
                Ok(()) => failing = false,
                // Said once: a full disk would otherwise fill the log too.
                Err(error) if !failing => {
                    error!(path = %self.path.display(), %error, "audit events are not written");
                    failing = true;
                }
                Err(_) => {}
            }
            let events = lost.take();
            if events > 0 {
                warn!(
                    events,
                    "audit events lost: the disk is slower than the requests"
                );
            }
        }
    }

    fn write(&mut self, event: &Event) -> io::Result<()> {
        let mut line = event.to_json().to_string();
        line.push('\n');
        let bytes = line.len() as u64;
        if self.size_bytes > 0 && self.size_bytes + bytes > self.size_bytes_max {
            self.rotate()?;
        }
        self.size_bytes += bytes;
        self.file.write_all(line.as_bytes())
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.file.flush()?;
        let now = Timestamp::now().strftime("%Y-%m-%dT%H-%M-%S.%6f");
        std::fs::rename(&self.path, self.backup(&now.to_string()))?;
        self.file = BufWriter::new(append(&self.path)?);
        self.size_bytes = 0;
        let mut backups = self.backups()?;
        // Their names are times, so the oldest come first.
        backups.sort_unstable();
        let surplus = backups.len().saturating_sub(self.backups_max);
        backups[..surplus].iter().try_for_each(std::fs::remove_file)
    }

    /// `audit-<time>.log` beside `audit.log`.
    fn backup(&self, time: &str) -> PathBuf {
        let (stem, extension) = self.parts();
        self.path
            .with_file_name(format!("{stem}-{time}{extension}"))
    }

    fn parts(&self) -> (String, String) {
        let text = |part: Option<&std::ffi::OsStr>| {
            part.map(|part| part.to_string_lossy().into_owned())
                .unwrap_or_default()
        };
        let extension = match text(self.path.extension()) {
            none if none.is_empty() => none,
            some => format!(".{some}"),
        };
        (text(self.path.file_stem()), extension)
    }

    fn backups(&self) -> io::Result<Vec<PathBuf>> {
        let (stem, extension) = self.parts();
        let folder = match self.path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            Some(_) | None => Path::new("."),
        };
        let mut backups = Vec::new();
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let time = name.strip_prefix(&format!("{stem}-"));
            let time = time.and_then(|name| name.strip_suffix(&extension));
            if time.is_some_and(|time| time.starts_with(|first: char| first.is_ascii_digit())) {
                backups.push(entry.path());
            }
        }
        Ok(backups)
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_large_file_is_put_aside_and_the_oldest_goes() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("audit.log");
        let mut log = Log::open(&path, 1, 2).expect("opens");
        let event = Event::example();
        for _ in 0..5 {
            log.write(&event).expect("written");
        }
        log.file.flush().expect("written");
        assert_eq!(log.backups().expect("listed").len(), 2);
        let line = std::fs::read_to_string(&path).expect("read");
        assert_eq!(line.lines().count(), 1);
        let mode = std::fs::metadata(&path).expect("written").permissions();
        assert_eq!(mode.mode() & 0o777, 0o600);
    }
}
