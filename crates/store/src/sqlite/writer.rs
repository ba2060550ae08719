//! The one writer: takes what has arrived, decides it, makes it durable in one transaction,
//! publishes it, answers.
//!
//! Waiting for the disk is what costs; so while one batch is being synced the next one gathers in
//! the queue. A lone writer pays one sync per write, thirty-two writers share one.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{mpsc, oneshot, watch};
use tracing::{error, warn};

use super::disk::{Compaction, Disk, Row};
use crate::error::{Cause, WriteError};
use crate::memory::Entry;
use crate::shared::Shared;
use crate::write::{Op, Set};

/// More would make the first of the batch wait noticeably longer for little gain.
const BATCH_MAX: usize = 256;
/// Dead rows are removed along with a later batch once there are this many.
const DEAD_ROWS_MIN: usize = 512;

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
    shared: Arc<Shared>,
    published: watch::Sender<u64>,
    /// Revisions whose rows nobody needs any more.
    dead: Vec<u64>,
}

/// Writes that are decided and not yet durable.
#[derive(Default)]
struct Batch {
    rows: Vec<Row>,
    /// Index into `rows` of the latest write of each key.
    latest: HashMap<Arc<str>, usize>,
    replies: Vec<(Answer, Written)>,
}

enum Answer {
    Write(oneshot::Sender<Result<Written, WriteError>>),
    /// A write that nobody waits for by itself.
    Nobody,
}

impl Writer {
    pub(crate) fn new(disk: Disk, shared: Arc<Shared>, published: watch::Sender<u64>) -> Self {
        Self {
            disk,
            shared,
            published,
            dead: Vec::new(),
        }
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
    /// are answered at once, the rest after the commit.
    fn decide(
        &self,
        batch: &mut Batch,
        key: Arc<str>,
        op: Op,
        reply: oneshot::Sender<Result<Written, WriteError>>,
    ) {
        let present = self.present(batch, &key);
        match check(&key, op, present, self.next_rev(batch)) {
            Ok(after) => self.push(batch, key, after, Answer::Write(reply)),
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
            drop(reply.send(Ok(Written { rev })));
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
        batch.replies.push((answer, Written { rev }));
    }

    fn commit(&mut self, batch: Batch) -> Result<(), WriteError> {
        if batch.rows.is_empty() {
            return Ok(());
        }
        let removes_dead = self.dead.len() >= DEAD_ROWS_MIN;
        let upto = self.shared.memory().floor();
        let compaction = removes_dead.then_some(Compaction {
            dead: &self.dead,
            upto,
        });
        if let Err(source) = self.disk.commit(&batch.rows, compaction) {
            error!(error = %source, writes = batch.rows.len(), "database refused a batch");
            self.shared.set_trouble(Some(source.to_string().into()));
            let refusal = WriteError::Disk {
                source: Arc::new(Cause::Sqlite(source)),
            };
            for (answer, _) in batch.replies {
                answer.send(Err(refusal.clone()));
            }
            return Err(refusal);
        }
        self.shared.set_trouble(None);
        if removes_dead {
            self.forget_dead();
        }
        self.publish(batch.rows);
        for (answer, written) in batch.replies {
            answer.send(Ok(written));
        }
        Ok(())
    }

    fn forget_dead(&mut self) {
        self.dead.clear();
        if let Err(source) = self.disk.vacuum() {
            warn!(error = %source, "cannot shrink the database file");
        }
    }

    fn publish(&mut self, rows: Vec<Row>) {
        let rev = {
            let mut memory = self.shared.memory_mut();
            let now = Instant::now();
            for row in rows {
                memory.apply(row.rev, row.key, row.after, now);
            }
            let evicted = memory.evict(0, now);
            self.dead.extend(evicted.iter().flat_map(dead_rows));
            memory.rev()
        };
        self.published.send_replace(rev);
    }

    fn compact(&mut self, rev: u64) -> Result<(), WriteError> {
        let upto = {
            let mut memory = self.shared.memory_mut();
            let evicted = memory.evict(rev, Instant::now());
            self.dead.extend(evicted.iter().flat_map(dead_rows));
            memory.floor()
        };
        self.disk
            .commit(
                &[],
                Some(Compaction {
                    dead: &self.dead,
                    upto,
                }),
            )
            .map_err(|source| WriteError::Disk {
                source: Arc::new(Cause::Sqlite(source)),
            })?;
        self.forget_dead();
        Ok(())
    }

    fn expire(&mut self, now_unix_s: u64) -> Result<usize, WriteError> {
        let expired = self.shared.memory().expired(now_unix_s);
        let count = expired.len();
        let mut batch = Batch::default();
        for key in expired {
            self.push(&mut batch, key, None, Answer::Nobody);
        }
        self.commit(batch)?;
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
