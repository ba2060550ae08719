//! Reads a container's log while it may be written.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use types::api::{LogLine, LogQuery};

use super::{LINE_BYTES_MAX, Name, list};

/// Bytes of lines in one batch, roughly.
const BATCH_BYTES: usize = 256 << 10;
/// Channel and time before a line's bytes.
const LINE_HEADER_BYTES: usize = 9;

/// Position in the log of one container.
#[derive(Debug)]
pub(crate) struct Reader {
    dir: PathBuf,
    /// Goes on with later files and runs.
    follow: bool,
    filter: Filter,
    at: Option<Position>,
}

#[derive(Debug)]
struct Position {
    name: Name,
    file: BufReader<File>,
}

/// What `Reader::next` found.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) lines: Vec<LogLine>,
    /// Nothing more was there at that moment.
    pub(crate) is_end: bool,
}

/// Decides which records are wanted. Lines, also those in several records, count once.
#[derive(Debug, Clone, Default)]
struct Filter {
    since_ns: Option<i64>,
    /// Lines still to be left out.
    skip: u64,
    /// Lines that were seen.
    count: u64,
    channels: [Channel; 3],
}

#[derive(Debug, Clone, Copy, Default)]
struct Channel {
    /// The last record did not end its line.
    within: bool,
    skipped: bool,
}

impl Filter {
    fn admits(&mut self, line: &LogLine) -> bool {
        if self.since_ns.is_some_and(|since| line.unix_ns < since) {
            return false;
        }
        let channel = &mut self.channels[usize::from(line.channel.min(2))];
        if !channel.within {
            self.count += 1;
            channel.skipped = self.skip > 0;
            self.skip = self.skip.saturating_sub(1);
        }
        channel.within = !line.bytes.ends_with(b"\n");
        !channel.skipped
    }
}

impl Reader {
    /// Goes to where `query` begins. Blocks for as long as counting the log's lines takes.
    pub(crate) fn open(logs: &Path, container: &str, query: &LogQuery) -> io::Result<Self> {
        let dir = logs.join(container);
        let names = list(&dir)?;
        let newest = names.last().copied();
        let run = if query.previous {
            newest.and_then(|newest| {
                let mut older = names.iter().rev();
                older.find(|name| !name.is_same_run(newest)).copied()
            })
        } else {
            newest
        };
        let filter = Filter {
            since_ns: query.since_ms.map(|ms| ms.saturating_mul(1_000_000)),
            ..Filter::default()
        };
        let mut reader = Self {
            dir,
            follow: query.follow && !query.previous,
            filter: filter.clone(),
            at: None,
        };
        let first = run.and_then(|run| names.iter().find(|name| name.is_same_run(run)));
        let Some(&first) = first else {
            return Ok(reader);
        };
        reader.go_to(first)?;
        if let Some(tail) = query.tail {
            while !reader.next()?.is_end {}
            let skip = reader.filter.count.saturating_sub(tail);
            reader.filter = Filter { skip, ..filter };
            reader.go_to(first)?;
        }
        Ok(reader)
    }

    /// The next lines that are there.
    pub(crate) fn next(&mut self) -> io::Result<Batch> {
        let mut batch = Batch::default();
        let mut bytes = 0;
        while bytes < BATCH_BYTES {
            // Looked for before the file is read to its end: what is written to this file after
            // that can only be there if there was no later one.
            let later = self.later()?;
            let Some(at) = &mut self.at else {
                match later {
                    Some(name) if self.follow => self.go_to(name)?,
                    _ => {
                        batch.is_end = true;
                        return Ok(batch);
                    }
                }
                continue;
            };
            while let Some(line) = read_record(&mut at.file)? {
                if self.filter.admits(&line) {
                    bytes += line.bytes.len() + LINE_HEADER_BYTES;
                    batch.lines.push(line);
                }
                if bytes >= BATCH_BYTES {
                    return Ok(batch);
                }
            }
            match later {
                Some(name) => self.go_to(name)?,
                None => {
                    batch.is_end = true;
                    return Ok(batch);
                }
            }
        }
        Ok(batch)
    }

    /// The file after the current one.
    fn later(&self) -> io::Result<Option<Name>> {
        let names = list(&self.dir)?;
        let Some(at) = &self.at else {
            return Ok(names.first().copied());
        };
        let later = names.into_iter().find(|&name| name > at.name);
        Ok(later.filter(|name| self.follow || name.is_same_run(at.name)))
    }

    fn go_to(&mut self, name: Name) -> io::Result<()> {
        match File::open(name.path(&self.dir)) {
            Ok(file) => {
                let file = BufReader::new(file);
                self.at = Some(Position { name, file });
                Ok(())
            }
            // Rotated away meanwhile; there is a later one.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// The next whole record. A torn or damaged one counts as the end of the file.
fn read_record(file: &mut BufReader<File>) -> io::Result<Option<LogLine>> {
    let start = file.stream_position()?;
    let mut length = [0; 4];
    let mut line = Vec::new();
    let whole = match file.read_exact(&mut length) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => false,
        Err(error) => return Err(error),
        Ok(()) => {
            let wanted = u32::from_be_bytes(length) as usize;
            let bounded = wanted <= LINE_BYTES_MAX + LINE_HEADER_BYTES;
            if bounded {
                file.take(wanted as u64).read_to_end(&mut line)?;
            }
            bounded && line.len() == wanted
        }
    };
    let line = LogLine::decode(&line).filter(|_| whole);
    if line.is_none() {
        file.seek(SeekFrom::Start(start))?;
    }
    Ok(line)
}
