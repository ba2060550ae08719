//! The authority's own side: one change at a time.

use std::sync::Arc;

use store::WriteError;
use tokio::sync::Mutex;

use super::command::{Command, Decision, decide};
use super::error::Error;
use super::rows::{self, Org, Rows, put};
use super::wire::{From, Outcome};
use super::{PERSONAL, Reply};

/// Decides and writes.
#[derive(Debug, Clone)]
pub(super) struct Writer {
    rows: Rows,
    /// Of this start; see [`From`].
    pub(super) epoch: u64,
    /// Held from the reading that a decision rests on to the writing.
    turn: Arc<Mutex<()>>,
}

impl Writer {
    pub(super) fn new(rows: Rows) -> Self {
        Self {
            rows,
            epoch: rand::random::<u64>().max(1),
            turn: Arc::default(),
        }
    }

    /// Makes the first organisation if there is none.
    pub(super) async fn found(&self) -> Result<(), Error> {
        let slug = PERSONAL.parse().expect("the constant is a slug");
        let key = rows::org_key(&slug);
        if self.rows.has(&key) {
            return Ok(());
        }
        let name = "Personal".into();
        let org = Org { slug, name };
        let written = self.rows.0.transact(vec![put(key, &org)]).await;
        written.map(drop).map_err(|source| Error::Write { source })
    }

    pub(super) async fn perform(&self, command: Command) -> Result<Outcome, Error> {
        // A task of its own, because a caller may go away at any time: the turn must not be over
        // before what was decided in it is written.
        let writer = self.clone();
        let performing = tokio::spawn(async move { writer.perform_whole(command).await });
        performing.await.unwrap_or(Err(Error::Write {
            source: WriteError::Closed,
        }))
    }

    async fn perform_whole(&self, command: Command) -> Result<Outcome, Error> {
        let _turn = self.turn.lock().await;
        let Decision { writes, reply } = decide(&self.rows, command)?;
        let revision = match writes.is_empty() {
            true => Ok(self.rows.0.current_rev()),
            false => self.rows.0.transact(writes).await,
        };
        let revision = revision.map_err(|source| Error::Write { source })?;
        let epoch = self.epoch;
        let at = From { epoch, revision };
        Ok(Outcome { at, reply })
    }
}

impl Outcome {
    /// Whether somebody who is at `position` has seen it.
    pub(super) fn is_seen_at(&self, position: From) -> bool {
        self.at.epoch == position.epoch && self.at.revision <= position.revision
    }

    pub(super) fn into_reply(self) -> Reply {
        self.reply
    }
}
