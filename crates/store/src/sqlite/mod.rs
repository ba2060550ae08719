//! The state in a database file of this process alone.
//!
//! ```text
//!  create/update/delete ──> queue ──> writer thread: check, one transaction per batch, fsync
//!                                         │ durable
//!                                         v
//!                                      Memory
//! ```
//!
//! Compare-and-swap is decided by the one writer thread, so two writers can never both win. When
//! the disk refuses a batch, everybody in that batch gets the error and the state is as if they had
//! never asked.

mod disk;
mod writer;

use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

pub(crate) use self::disk::Disk;
use self::writer::{Command, Writer, Written};
use crate::config::Config;
use crate::error::{OpenError, WriteError};
use crate::shared::Shared;
use crate::write::{Op, Set};

/// Writes waiting for the disk. Far above what one batch takes; full means that the disk is slower
/// than the callers, and they wait in line.
const QUEUE_MAX: usize = 1024;

/// How often a writer that nobody asks for anything looks what it can tidy.
const TICK: Duration = Duration::from_secs(10);

/// The writer thread ends when the last clone is gone.
#[derive(Clone)]
pub(crate) struct Sqlite {
    queue: mpsc::Sender<Command>,
}

impl Sqlite {
    /// Blocks while it reads the state into memory.
    pub(crate) fn open(config: &Config) -> Result<(Self, Arc<Shared>), OpenError> {
        let (disk, loaded) = Disk::open(config)?;
        let (writer, shared) = Writer::new(disk, loaded, config);
        let (queue, commands) = mpsc::channel(QUEUE_MAX);
        // Nothing is sent; the other end notices that this one is gone.
        let (alive, ended) = std::sync::mpsc::sync_channel(0);
        spawn("store writer", move || {
            writer.run(commands);
            drop(alive);
        })?;
        let ticks = queue.downgrade();
        spawn("store clock", move || tick(&ended, &ticks))?;
        Ok((Self { queue }, shared))
    }

    pub(crate) async fn write(&self, key: &str, op: Op) -> Result<u64, WriteError> {
        let key = key.into();
        let op = op.compact();
        self.ask(|reply| Command::Write { key, op, reply })
            .await?
            .map(|Written { rev }| rev)
    }

    pub(crate) async fn transact(&self, writes: Vec<Set>) -> Result<u64, WriteError> {
        self.ask(|reply| Command::Transact { writes, reply })
            .await?
            .map(|Written { rev }| rev)
    }

    pub(crate) async fn compact(&self, rev: u64) -> Result<(), WriteError> {
        self.ask(|reply| Command::Compact { rev, reply }).await?
    }

    pub(crate) async fn expire(&self, now_unix_s: u64) -> Result<usize, WriteError> {
        self.ask(|reply| Command::Expire { now_unix_s, reply })
            .await?
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, WriteError> {
        let (reply, answer) = oneshot::channel();
        self.queue
            .send(command(reply))
            .await
            .map_err(|_| WriteError::Closed)?;
        answer.await.map_err(|_| WriteError::Closed)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.queue.is_closed()
    }

    pub(crate) async fn close(self) {
        // An error means that the writer has already gone.
        let _ = self.ask(|reply| Command::Close { reply }).await;
    }
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<(), OpenError> {
    std::thread::Builder::new()
        .name(name.into())
        .spawn(body)
        .map(drop)
        .map_err(|source| OpenError::Thread { source })
}

fn tick(ended: &std::sync::mpsc::Receiver<()>, queue: &mpsc::WeakSender<Command>) {
    while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(TICK) {
        // A full queue is busy enough without this.
        let _ = queue.upgrade().map(|queue| queue.try_send(Command::Tick));
    }
}
