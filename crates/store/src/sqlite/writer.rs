//! The one writer: takes what has arrived, decides it, makes it durable in one transaction,
//! publishes it, answers.
//!
//! Waiting for the disk is what costs; so while one batch is being synced the next one gathers in
//! the queue. A lone writer pays one sync per write, thirty-two writers share one.
//!
//! What the history no longer needs is removed along with later batches, a bounded number of rows
//! each, and while nobody writes. When the disk refuses a batch, all of it is refused and nothing of
//! it is seen; reads go on, the next batch is tried as if nothing had been, and an idle writer tries
//! by itself, so that it is known when there is space again. At the size limit only removals are
//! taken, and the history gives way to them.

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::{mpsc, oneshot};
use tracing::{error, warn};

use rusqlite::ErrorCode;

use super::disk::{Compaction, Disk, Loaded, Row};
use crate::config::Config;
use crate::error::{Cause, WriteError};
use crate::memory::Entry;
use crate::shared::{Publisher, Shared};
use crate::write::{Op, Set};

/// More would make the first of the batch wait noticeably longer for little gain.
const BATCH_MAX: usize = 256;
/// Dead rows are removed along with a later batch once there are this many.
const DEAD_ROWS_MIN: usize = 512;
/// One commit removes no more than this, so that a burst does not make a later writer wait.
const DEAD_ROWS_MAX: usize = 2048;

pub(crate) enum Command {
    Write {
        key: Arc<str>,
        op: Op,
        reply: oneshot::Sender<Result<Written, WriteError>>,
    },
    Transact {
        writes: Vec<Set>,
        reply: oneshot::Sender<Result<Written, WriteError>>,
    },
    Compact {
        rev: u64,
        reply: oneshot::Sender<Result<(), WriteError>>,
    },
    Expire {
        now_unix_s: u64,
        reply: oneshot::Sender<Result<usize, WriteError>>,
    },
    /// Time has passed.
    Tick,
    Close {
        reply: oneshot::Sender<()>,
    },
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Written {
    pub(crate) rev: u64,
}

pub(crate) struct Writer {
    disk: Disk,
    path: PathBuf,
    size_mib_max: u32,
    shared: Arc<Shared>,
    published: Publisher,
    /// Revisions whose rows nobody needs any more, in the order in which they may go.
    dead: VecDeque<u64>,
    is_full: bool,
}

/// Writes that are decided and not yet durable.
#[derive(Default)]
struct Batch {
    rows: Vec<Row>,
    /// Index into `rows` of the latest write of each key.
    latest: HashMap<Arc<str>, usize>,
    replies: Vec<(Answer, Result<Written, WriteError>)>,
}

enum Answer {
    Write(oneshot::Sender<Result<Written, WriteError>>),
    /// A write that nobody waits for by itself.
    Nobody,
}

impl Writer {
    /// The writer of an opened database, and what it publishes.
    pub(crate) fn new(disk: Disk, loaded: Loaded, config: &Config) -> (Self, Arc<Shared>) {
        let (shared, published) = Shared::new(loaded.memory);
        let writer = Self {
            disk,
            path: config.path.clone(),
            size_mib_max: config.size_mib_max,
            shared: shared.clone(),
            published,
            dead: loaded.dead,
            is_full: false,
        };
        (writer, shared)
    }

    pub(crate) fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        while let Some(first) = commands.blocking_recv() {
            let mut batch = Batch::default();
            let mut next = Some(first);
            while let Some(command) = next.take() {
                match command {
                    Command::Write { key, op, reply } => self.decide(&mut batch, key, op, reply),
                    Command::Transact { writes, reply } => self.set(&mut batch, writes, reply),
                    Command::Compact { rev, reply } => {
                        // A full answer needs the writes before it to be visible first.
                        let _ = self.commit(std::mem::take(&mut batch));
                        let _ = reply.send(self.compact(rev));
                    }
                    Command::Expire { now_unix_s, reply } => {
                        let _ = self.commit(std::mem::take(&mut batch));
                        let _ = reply.send(self.expire(now_unix_s));
                    }
                    Command::Tick => {
                        let _ = self.commit(std::mem::take(&mut batch));
                        self.tidy(&commands);
                    }
                    Command::Close { reply } => {
                        let _ = self.commit(std::mem::take(&mut batch));
                        drop(self.disk);
                        commands.close();
                        let _ = reply.send(());
                        return;
                    }
                }
                if batch.rows.len() < BATCH_MAX {
                    next = commands.try_recv().ok();
                }
            }
            let _ = self.commit(batch);
        }
    }

    /// Checks a write against the durable state and the writes before it in this batch. Refusals
    /// by what is durable are answered at once, the rest after the commit.
    fn decide(
        &self,
        batch: &mut Batch,
        key: Arc<str>,
        op: Op,
        reply: oneshot::Sender<Result<Written, WriteError>>,
    ) {
        if self.is_full && !matches!(op, Op::Delete { .. }) {
            drop(reply.send(Err(self.limit())));
            return;
        }
        let present = self.present(batch, &key);
        let refused_for = key.clone();
        match check(&key, op, present, self.next_rev(batch)) {
            Ok(after) => self.push(batch, key, after, Answer::Write(reply)),
            // What it was refused for may not come to pass, so this answer waits for the disk too.
            Err(refusal) if batch.latest.contains_key(&refused_for) => {
                batch.replies.push((Answer::Write(reply), Err(refusal)));
            }
            Err(refusal) => drop(reply.send(Err(refusal))),
        }
    }

    /// The entry of a key as the writes of this batch leave it.
    fn present(&self, batch: &Batch, key: &Arc<str>) -> Option<Entry> {
        match batch.latest.get(key) {
            Some(&index) => batch.rows[index].after.clone(),
            None => self.shared.memory().get(key),
        }
    }

    /// A batch is committed and published whole, and it is cut between commands only, so what
    /// stands in one command is one transaction to the disk and to every reader.
    fn set(
        &self,
        batch: &mut Batch,
        writes: Vec<Set>,
        reply: oneshot::Sender<Result<Written, WriteError>>,
    ) {
        if self.is_full && writes.iter().any(|set| set.value.is_some()) {
            drop(reply.send(Err(self.limit())));
            return;
        }
        let mut written = false;
        for Set { key, value } in writes {
            let present = self.present(batch, &key);
            let rev = self.next_rev(batch);
            let after = match (value, &present) {
                (None, None) => continue,
                (None, Some(_)) => None,
                (Some(value), _) => Some(Entry {
                    rev,
                    create_rev: present.map_or(rev, |entry| entry.create_rev),
                    value,
                    expires_unix_s: None,
                }),
            };
            self.push(batch, key, after, Answer::Nobody);
            written = true;
        }
        if !written {
            let rev = self.next_rev(batch) - 1;
            let nothing = Ok(Written { rev });
            if batch.rows.is_empty() {
                drop(reply.send(nothing));
            } else {
                batch.replies.push((Answer::Write(reply), nothing));
            }
        } else if let Some((answer, _)) = batch.replies.last_mut() {
            *answer = Answer::Write(reply);
        }
    }

    fn next_rev(&self, batch: &Batch) -> u64 {
        self.shared.memory().rev() + batch.rows.len() as u64 + 1
    }

    fn push(&self, batch: &mut Batch, key: Arc<str>, after: Option<Entry>, answer: Answer) {
        let rev = self.next_rev(batch);
        batch.latest.insert(key.clone(), batch.rows.len());
        batch.rows.push(Row { rev, key, after });
        batch.replies.push((answer, Ok(Written { rev })));
    }

    fn commit(&mut self, batch: Batch) -> Result<(), WriteError> {
        if batch.rows.is_empty() {
            return Ok(());
        }
        if let Err(refusal) = self.store(&batch.rows, DEAD_ROWS_MIN) {
            for (answer, _) in batch.replies {
                answer.send(Err(refusal.clone()));
            }
            return Err(refusal);
        }
        self.publish(batch.rows);
        self.make_room();
        for (answer, written) in batch.replies {
            answer.send(written);
        }
        Ok(())
    }

    /// Makes `rows` durable, and removes dead rows if there are `dead_min`.
    fn store(&mut self, rows: &[Row], dead_min: usize) -> Result<(), WriteError> {
        let upto = self.shared.memory().floor();
        let removed = match self.dead.len() {
            enough if enough >= dead_min => enough.min(DEAD_ROWS_MAX),
            _ => 0,
        };
        let compaction = (rows.is_empty() || removed > 0).then_some(Compaction {
            dead: &self.dead.make_contiguous()[..removed],
            upto,
        });
        match self.disk.commit(rows, compaction) {
            Ok(()) => {
                self.dead.drain(..removed);
                let is_full = self.disk.is_full().unwrap_or(self.is_full);
                self.is_full = is_full;
                let trouble = is_full.then(|| self.limit_cause().to_string().into());
                self.shared.set_trouble(trouble);
                Ok(())
            }
            Err(source) => Err(self.failed(source, rows.len())),
        }
    }

    fn failed(&self, source: rusqlite::Error, writes: usize) -> WriteError {
        let cause = match source.sqlite_error_code() {
            Some(ErrorCode::DiskFull) if self.disk.is_full().unwrap_or(false) => self.limit_cause(),
            Some(ErrorCode::DiskFull) => Cause::NoSpace {
                path: self.path.clone(),
                source,
            },
            // A code of SQLite's, whose enum grows; or an error of ours, which has none.
            Some(_) | None => Cause::Sqlite(source),
        };
        let why: Arc<str> = cause.to_string().into();
        if self.shared.trouble().as_ref() != Some(&why) {
            error!(error = %why, writes, "the database refuses writes");
        }
        self.shared.set_trouble(Some(why));
        WriteError::Disk {
            source: Arc::new(cause),
        }
    }

    fn limit_cause(&self) -> Cause {
        Cause::Limit {
            mib: self.size_mib_max,
        }
    }

    fn limit(&self) -> WriteError {
        WriteError::Disk {
            source: Arc::new(self.limit_cause()),
        }
    }

    fn publish(&mut self, rows: Vec<Row>) {
        let evicted = self.published.publish(|memory| {
            let now = Instant::now();
            for row in rows {
                memory.apply(row.rev, row.key, row.after, now);
            }
            memory.evict(0, now)
        });
        self.dead.extend(evicted.iter().flat_map(dead_rows));
    }

    /// Forgets history that need not be kept, and what stands up to `upto`.
    fn evict(&mut self, upto: u64) {
        let evicted = self.shared.memory_mut().evict(upto, Instant::now());
        self.dead.extend(evicted.iter().flat_map(dead_rows));
    }

    /// Removes all dead rows, as long as `goes_on`.
    fn remove_dead(&mut self, goes_on: impl Fn() -> bool) -> Result<(), WriteError> {
        while !self.dead.is_empty() && goes_on() {
            self.store(&[], 0)?;
        }
        Ok(())
    }

    fn compact(&mut self, rev: u64) -> Result<(), WriteError> {
        self.evict(rev);
        self.store(&[], 0)?;
        self.remove_dead(|| true)?;
        self.vacuum();
        Ok(())
    }

    /// At the limit history is given up for room, the older half first.
    fn make_room(&mut self) {
        while self.is_full {
            let (floor, rev) = {
                let memory = self.shared.memory();
                (memory.floor(), memory.rev())
            };
            if floor == rev && self.dead.is_empty() {
                return;
            }
            self.evict(floor + (rev - floor).div_ceil(2));
            if let Err(error) = self.remove_dead(|| true) {
                warn!(%error, "cannot make room in the database");
                return;
            }
        }
    }

    /// The work that no caller should wait for.
    fn tidy(&mut self, commands: &mpsc::Receiver<Command>) {
        self.evict(0);
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let expired = self.expire(now.map_or(0, |since| since.as_secs()));
        let removed = self.remove_dead(|| commands.is_empty());
        // An empty write tells whether the trouble is over.
        let probed = match self.shared.trouble() {
            Some(_) if self.is_full => {
                self.make_room();
                Ok(())
            }
            Some(_) => self.store(&[], 0),
            None => Ok(()),
        };
        if expired.is_ok() && removed.is_ok() && probed.is_ok() {
            self.vacuum();
        }
    }

    fn vacuum(&self) {
        if let Err(error) = self.disk.vacuum() {
            warn!(%error, "cannot shrink the database file");
        }
    }

    fn expire(&mut self, now_unix_s: u64) -> Result<usize, WriteError> {
        let expired = self.shared.memory().expired(now_unix_s);
        let count = expired.len();
        for keys in expired.chunks(BATCH_MAX) {
            let mut batch = Batch::default();
            for key in keys {
                self.push(&mut batch, key.clone(), None, Answer::Nobody);
            }
            self.commit(batch)?;
        }
        Ok(count)
    }
}

impl Answer {
    fn send(self, result: Result<Written, WriteError>) {
        match self {
            // The caller may have gone; its write stands all the same.
            Answer::Write(reply) => drop(reply.send(result)),
            Answer::Nobody => {}
        }
    }
}

/// What a write leaves behind, or why it is refused.
fn check(
    key: &Arc<str>,
    op: Op,
    present: Option<Entry>,
    rev: u64,
) -> Result<Option<Entry>, WriteError> {
    let key = || key.clone();
    let expected = |expect_rev: u64, present: Option<Entry>| match present {
        None => Err(WriteError::NotFound { key: key() }),
        Some(entry) if entry.rev != expect_rev => Err(WriteError::Conflict {
            key: key(),
            expect_rev,
            actual_rev: entry.rev,
        }),
        Some(entry) => Ok(entry),
    };
    match op {
        Op::Create { .. } if present.is_some() => Err(WriteError::Exists { key: key() }),
        Op::Create {
            value,
            expires_unix_s,
        } => Ok(Some(Entry {
            rev,
            create_rev: rev,
            value,
            expires_unix_s,
        })),
        Op::Update {
            expect_rev,
            value,
            expires_unix_s,
        } => {
            let create_rev = expected(expect_rev, present)?.create_rev;
            Ok(Some(Entry {
                rev,
                create_rev,
                value,
                expires_unix_s,
            }))
        }
        Op::Delete { expect_rev } => expected(expect_rev, present).map(|_| None),
    }
}

/// The rows that only this event needed: the one it replaced, and its own if it left nothing.
fn dead_rows(event: &crate::Event) -> impl Iterator<Item = u64> {
    let replaced = event.before.as_ref().map(|entry| entry.rev);
    let removal = event.after.is_none().then_some(event.rev);
    replaced.into_iter().chain(removal)
}
