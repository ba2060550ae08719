//! A copy's own side: keeping near the authority, and asking it.
//!
//! ```text
//!         ┌────────── back-off ◄───────────┐
//!         ▼                                │ end, error, or no word for SILENCE_MAX
//!   watch(from) ── start ── row* ── reached ── row* ── reached ── …
//!                                     │
//!                        one transaction: rows, position
//! ```
//!
//! Rows gather until `reached` and are then written in one transaction, also when they are the
//! whole directory anew; readers see the state before or after, never between.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use serde::{Deserialize, Serialize};
use store::{Set, WriteError};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use types::HostId;
use types::fleet::HostRecord;

use super::command::{Command, Reply};
use super::error::Error;
use super::flights::{Flights, NoAnswer};
use super::link::Link;
use super::rows::{self, PREFIX, Rows, put};
use super::wire::{Failure, From, Line, Outcome};
use crate::rpc::Unreachable;

pub(super) const POSITION: &str = "directory-copy/v1/position";

/// The authority says something every 3 s; so long without a word, and the connection is dead.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// Between attempts: the first comes soon, because most interruptions are short; the last is what
/// an authority that comes back waits for its copies at most.
const BACK_OFF_MIN: Duration = Duration::from_millis(100);
const BACK_OFF_MAX: Duration = Duration::from_secs(5);
/// For so long a change waits until the copy has it. Usually that is the time between two packets.
const OWN_WRITE_TIMEOUT: Duration = Duration::from_secs(2);
/// A row in its line. The largest is a service with all its backends and their ports.
const LINE_BYTES_MAX: usize = 16 << 20;

/// Where the copy in this store is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Position {
    authority: HostId,
    at: From,
}

#[derive(Debug)]
pub(super) struct Follower {
    rows: Rows,
    link: Arc<dyn Link>,
    authority: HostId,
    at: watch::Sender<From>,
    flights: Flights,
}

impl Follower {
    pub(super) fn new(rows: Rows, link: Arc<dyn Link>, authority: HostId) -> Self {
        let kept: Option<Position> = rows.read(POSITION);
        let at = kept.filter(|kept| kept.authority == authority);
        Self {
            at: watch::Sender::new(at.map(|position| position.at).unwrap_or_default()),
            rows,
            link,
            authority,
            flights: Flights::default(),
        }
    }

    pub(super) fn authority(&self) -> HostId {
        self.authority
    }

    /// What people call the authority.
    pub(super) fn authority_name(&self) -> String {
        let record: Option<HostRecord> = self.rows.read(&rows::host_key(self.authority));
        record.map_or_else(|| self.authority.to_string(), |host| host.name)
    }

    fn unreachable(&self, source: Arc<Unreachable>) -> Error {
        let host = self.authority_name();
        Error::Unreachable { host, source }
    }

    pub(super) async fn look_up(&self, key: &str) -> Result<Option<String>, Error> {
        let answer = self.flights.ask(&self.link, key).await;
        answer.map_err(|problem| match problem {
            NoAnswer::Busy => Error::Busy {
                host: self.authority_name(),
            },
            NoAnswer::Unreachable(source) => self.unreachable(source),
        })
    }

    pub(super) async fn perform(&self, command: Command) -> Result<Reply, Error> {
        let answer = self.link.call(&command).await;
        match answer.map_err(|source| self.unreachable(Arc::new(source)))? {
            Ok(outcome) => {
                self.wait_for(&outcome).await;
                Ok(outcome.into_reply())
            }
            Err(Failure::Refused(refused)) => Err(refused.into()),
            Err(Failure::Failed(reason)) => Err(Error::Failed {
                host: self.authority_name(),
                reason,
            }),
        }
    }

    /// The change is done whether or not it arrives here in time.
    async fn wait_for(&self, outcome: &Outcome) {
        let mut at = self.at.subscribe();
        let seen = at.wait_for(|at| outcome.is_seen_at(*at));
        if tokio::time::timeout(OWN_WRITE_TIMEOUT, seen).await.is_err() {
            tracing::warn!(
                revision = outcome.at.revision,
                "the directory's copy is late"
            );
        }
    }

    pub(super) async fn run(&self, stop: CancellationToken) {
        let mut back_off = BACK_OFF_MIN;
        let mut was_near = true;
        loop {
            let (before, began) = (*self.at.borrow(), Instant::now());
            // Dropping it anywhere is no harm: what it writes is one transaction.
            let error = tokio::select! {
                Err(error) = self.follow() => error,
                () = stop.cancelled() => return,
            };
            // An answer that cannot be read or written down comes again at once, and everything with
            // it: that the authority is there is not enough.
            let got_on = *self.at.borrow() != before || began.elapsed() > BACK_OFF_MAX;
            if got_on {
                back_off = BACK_OFF_MIN;
            }
            let authority = self.authority_name();
            if was_near || got_on {
                tracing::warn!(
                    authority,
                    error = %types::chain(&error),
                    "the directory's host cannot be followed; its copy here serves"
                );
            }
            was_near = false;
            tokio::select! {
                () = tokio::time::sleep(back_off) => {}
                () = stop.cancelled() => return,
            }
            back_off = (back_off * 2).min(BACK_OFF_MAX);
        }
    }

    /// Follows one watch until it ends.
    async fn follow(&self) -> Result<std::convert::Infallible, Unreachable> {
        let from = *self.at.borrow();
        let watched = tokio::time::timeout(SILENCE_MAX, self.link.watch(from)).await;
        let pieces = match watched {
            Ok(Ok(pieces)) => pieces,
            Ok(Err(error)) => return Err(error),
            Err(_) => return Err(self.silent()),
        };
        let mut lines = Lines {
            pieces,
            buffer: Vec::new(),
            searched: 0,
        };
        let (epoch, mut everything) = match lines.next().await {
            Ok(Line::Start { epoch, everything }) => (epoch, everything),
            Ok(Line::Row { .. } | Line::Reached { .. }) => {
                return Err(self.broken(invalid("a watch begins with its start")));
            }
            Err(error) => return Err(self.broken(error)),
        };
        tracing::info!(
            authority = self.authority_name(),
            everything,
            "following the directory"
        );
        let mut gathered = Vec::new();
        loop {
            let line = lines.next().await;
            match line.map_err(|error| self.broken(error))? {
                Line::Row { key, value } => gathered.push((key, value)),
                Line::Reached { revision } => {
                    let at = From { epoch, revision };
                    let rows = std::mem::take(&mut gathered);
                    let shown = self.show(rows, everything, at).await;
                    shown.map_err(|error| self.broken(std::io::Error::other(error)))?;
                    everything = false;
                }
                Line::Start { .. } => {
                    return Err(self.broken(invalid("a watch starts once")));
                }
            }
        }
    }

    fn broken(&self, source: std::io::Error) -> Unreachable {
        let host = self.authority;
        Unreachable { host, source }
    }

    fn silent(&self) -> Unreachable {
        self.broken(std::io::ErrorKind::TimedOut.into())
    }

    /// Makes the copy what the authority was `at`.
    async fn show(
        &self,
        told: Vec<(String, Option<String>)>,
        everything: bool,
        at: From,
    ) -> Result<(), WriteError> {
        let told = told.into_iter().filter(|(key, _)| key.starts_with(PREFIX));
        let mut writes: Vec<Set> = match everything {
            true => difference(&self.rows, told.collect()),
            false => told.map(|(key, value)| set(key, value)).collect(),
        };
        // A position that moves without rows is not worth a write to the disk: a restart would
        // hear of the same nothing again.
        if !writes.is_empty() || everything {
            let authority = self.authority;
            writes.push(put(POSITION.to_owned(), &Position { authority, at }));
            self.rows.0.transact(writes).await?;
        }
        self.at.send_replace(at);
        Ok(())
    }
}

fn set(key: String, value: Option<String>) -> Set {
    match value {
        Some(value) => Set::put(key, value.into()),
        None => Set::remove(key),
    }
}

/// The writes that make the directory in `rows` the one that `told` is the whole of.
fn difference(rows: &Rows, told: Vec<(String, Option<String>)>) -> Vec<Set> {
    let mut present: HashMap<_, _> = rows.all(PREFIX).into_iter().collect();
    let mut writes = Vec::new();
    for (key, value) in told {
        let same = match (present.remove(&*key), &value) {
            (Some(here), Some(there)) => here == there.as_bytes(),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        if !same {
            writes.push(set(key, value));
        }
    }
    writes.extend(present.into_keys().map(Set::remove));
    writes
}

/// The lines of a watch, put together from the pieces that arrive.
struct Lines {
    pieces: BoxStream<'static, std::io::Result<Bytes>>,
    buffer: Vec<u8>,
    /// So much of the buffer is known to have no end of a line.
    searched: usize,
}

impl Lines {
    async fn next(&mut self) -> std::io::Result<Line> {
        loop {
            let fresh = &self.buffer[self.searched..];
            if let Some(end) = fresh.iter().position(|&byte| byte == b'\n') {
                let rest = self.buffer.split_off(self.searched + end + 1);
                let line = std::mem::replace(&mut self.buffer, rest);
                self.searched = 0;
                return Ok(serde_json::from_slice(&line)?);
            }
            self.searched = self.buffer.len();
            if self.searched > LINE_BYTES_MAX {
                return Err(invalid("a line of the watch is too long"));
            }
            match tokio::time::timeout(SILENCE_MAX, self.pieces.next()).await {
                Ok(Some(piece)) => self.buffer.extend_from_slice(&piece?),
                Ok(None) => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                Err(_) => return Err(std::io::ErrorKind::TimedOut.into()),
            }
        }
    }
}

fn invalid(text: &'static str) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::InvalidData, text)
}
