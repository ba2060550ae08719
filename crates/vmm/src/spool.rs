//! What containers wrote, bounded, on disk.
//!
//! A container has a directory; each of its runs has one or two files there, named by boot, run
//! and a number that rises when a file is full. The current run and the one before are kept, of
//! each the last two files. A file is a sequence of records: `length u32 | LogLine`, big-endian.
//! A record holds a line, or a part of one: then it does not end with a line feed.

mod reader;

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use tokio::sync::watch;
use types::BootId;
use types::api::{LogLine, channel};
use types::guest::LogChunk;

pub(crate) use reader::Reader;

pub(crate) const FILE_BYTES_MAX: u64 = 8 << 20;
/// Files kept of a run, and runs kept of a container.
const FILES_MAX: usize = 2;
const RUNS_MAX: usize = 2;
/// Longest record; what is written without line feeds is cut here.
const LINE_BYTES_MAX: usize = 64 << 10;

/// Which file of a container: the order is that of writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Name {
    boot: u64,
    run: u32,
    number: u64,
}

impl Name {
    fn parse(name: &str) -> Option<Self> {
        let mut parts = name.strip_suffix(".log")?.split('.');
        let parsed = Self {
            boot: parts.next()?.parse().ok()?,
            run: parts.next()?.parse().ok()?,
            number: parts.next()?.parse().ok()?,
        };
        parts.next().is_none().then_some(parsed)
    }

    fn path(self, dir: &Path) -> PathBuf {
        let Self { boot, run, number } = self;
        dir.join(format!("{boot}.{run}.{number}.log"))
    }

    fn is_same_run(self, other: Self) -> bool {
        (self.boot, self.run) == (other.boot, other.run)
    }
}

/// Names of the files in a container's directory, oldest first.
fn list(dir: &Path) -> io::Result<Vec<Name>> {
    let read = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        result => result?,
    };
    let mut names = Vec::new();
    for entry in read {
        names.extend(entry?.file_name().to_str().and_then(Name::parse));
    }
    names.sort_unstable();
    Ok(names)
}

/// Containers that have logs.
pub(crate) fn containers(logs: &Path) -> io::Result<Vec<String>> {
    let read = match fs::read_dir(logs) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        result => result?,
    };
    let mut names = Vec::new();
    for entry in read {
        names.extend(entry?.file_name().into_string().ok());
    }
    names.sort();
    Ok(names)
}

/// The writer, of which a machine has one: its shim.
#[derive(Debug)]
pub(crate) struct Spool {
    logs: PathBuf,
    boot: BootId,
    file_bytes_max: u64,
    open: HashMap<String, Current>,
    /// Counts writes, so that readers know when to look again.
    written: watch::Sender<u64>,
}

#[derive(Debug)]
struct Current {
    name: Name,
    file: File,
    bytes: u64,
}

impl Spool {
    pub(crate) fn new(logs: PathBuf, boot: BootId, file_bytes_max: u64) -> Self {
        Self {
            logs,
            boot,
            file_bytes_max,
            open: HashMap::new(),
            written: watch::Sender::new(0),
        }
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.written.subscribe()
    }

    /// Makes an empty file for a run, so that the one before becomes the previous one also when
    /// this one writes nothing.
    pub(crate) fn begin(&mut self, container: &str, run: u32) -> io::Result<()> {
        self.current(container, run).map(drop)
    }

    /// Adds what a container wrote.
    pub(crate) fn append(&mut self, chunk: &LogChunk) -> io::Result<()> {
        let channel = if chunk.stderr {
            channel::STDERR
        } else {
            channel::STDOUT
        };
        let limit = self.file_bytes_max;
        for line in lines(&chunk.bytes) {
            let record = record(&LogLine {
                channel,
                unix_ns: chunk.unix_ns,
                bytes: line.to_vec(),
            });
            let mut current = self.current(&chunk.container, chunk.run)?;
            if current.bytes > 0 && current.bytes + record.len() as u64 > limit {
                let next = Name {
                    number: current.name.number + 1,
                    ..current.name
                };
                current = self.rotate(&chunk.container, next)?;
            }
            current.file.write_all(&record)?;
            current.bytes += record.len() as u64;
        }
        self.written.send_modify(|count| *count += 1);
        Ok(())
    }

    fn current(&mut self, container: &str, run: u32) -> io::Result<&mut Current> {
        let name = Name {
            boot: self.boot.0,
            run,
            number: 0,
        };
        let known = self.open.get(container).map(|current| current.name);
        if known.is_none_or(|known| !known.is_same_run(name)) {
            return self.rotate(container, name);
        }
        self.open
            .get_mut(container)
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Goes on in another file and deletes those that are too many now.
    fn rotate(&mut self, container: &str, name: Name) -> io::Result<&mut Current> {
        let dir = self.logs.join(container);
        fs::create_dir_all(&dir)?;
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(name.path(&dir))?;
        for old in superfluous(&list(&dir)?) {
            fs::remove_file(old.path(&dir))?;
        }
        let bytes = file.metadata()?.len();
        let current = Current { name, file, bytes };
        self.written.send_modify(|count| *count += 1);
        let entry = self.open.entry(container.to_owned()).insert_entry(current);
        Ok(entry.into_mut())
    }
}

/// Files beyond what is kept; `names` are in order.
fn superfluous(names: &[Name]) -> Vec<Name> {
    let mut runs: Vec<Vec<Name>> = Vec::new();
    for &name in names {
        match runs.last_mut() {
            Some(run) if run[0].is_same_run(name) => run.push(name),
            _ => runs.push(vec![name]),
        }
    }
    let dropped = runs.len().saturating_sub(RUNS_MAX);
    let mut old: Vec<Name> = runs.drain(..dropped).flatten().collect();
    for run in runs {
        old.extend(&run[..run.len().saturating_sub(FILES_MAX)]);
    }
    old
}

fn record(line: &LogLine) -> Vec<u8> {
    let line = line.encode();
    let length = u32::try_from(line.len()).unwrap_or(u32::MAX);
    [&length.to_be_bytes()[..], &line].concat()
}

fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes
        .split_inclusive(|&byte| byte == b'\n')
        .flat_map(|line| line.chunks(LINE_BYTES_MAX))
}

#[cfg(test)]
mod tests;
