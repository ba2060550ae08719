//! `catalog.db`: other hosts' rows as they were signed, so that their machines are known after a
//! restart while those hosts are away, and how far the numbers of this host have gone.
//!
//! It is written behind what is in memory. What a crash loses comes again from the others, because
//! a host's rows and how far they go are written together. Only the ceiling of revisions is
//! written ahead: revisions below it may have been given out, so the next life begins at it, and
//! readers that come with one of an earlier life are told to list again.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use rusqlite::{Connection, params};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};
use types::{HostId, MachineId};

use super::Catalog;
use super::codec::Signed;
use super::rows::{Dirty, Position, Rows, Source};

const SCHEMA: i64 = 1;
/// Revisions per write of the ceiling. Years of changes at a fleet's pace; and beginnings of lives
/// stay far below 2^53, where JSON readers with floating-point numbers end.
const BLOCK: u64 = 1 << 20;
/// Changes are collected for so long before they are written.
const WRITE_DELAY: Duration = Duration::from_millis(200);
/// Pause after a write that failed.
const RETRY: Duration = Duration::from_secs(5);

const TABLES: &str = "
    CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE origins (host INTEGER PRIMARY KEY, epoch INTEGER NOT NULL,
        version INTEGER NOT NULL, floor INTEGER NOT NULL);
    CREATE TABLE rows (machine TEXT PRIMARY KEY, host INTEGER NOT NULL, epoch INTEGER NOT NULL,
        version INTEGER NOT NULL, statement BLOB NOT NULL);
";

/// The catalog's file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    #[error("cannot {doing} catalog {}", path.display())]
    Sqlite {
        doing: &'static str,
        path: PathBuf,
        source: rusqlite::Error,
    },
    #[error("catalog {} was written by a newer version of aerostat (schema {found}, not {SCHEMA})", path.display())]
    Newer { path: PathBuf, found: i64 },
}

/// The file behind a catalog. [`Disk::run`] keeps it.
#[derive(Debug)]
pub struct Disk {
    connection: Connection,
    path: PathBuf,
    ceiling: u64,
}

/// What is to be written, taken at one moment.
#[derive(Debug, Default)]
struct Batch {
    rows: Vec<(MachineId, HostId, Position, Bytes)>,
    gone: Vec<MachineId>,
    /// `None`: the host is forgotten.
    origins: Vec<(HostId, Option<(Position, u64)>)>,
    revision: u64,
}

impl Catalog {
    /// Opens (or makes) the catalog's file. Other hosts' machines are known as they were last
    /// heard of. Blocks.
    ///
    /// # Errors
    /// If the file cannot be used.
    pub fn open(path: &Path) -> Result<(Self, Disk), CatalogError> {
        // Numbers that begin with the time are above those of a file that was lost.
        let now = jiff::Timestamp::now().as_second().unsigned_abs();
        let (mut disk, fresh) = Disk::open(path)?;
        let life = disk.begin_life(now)?;
        let begin = if fresh { now << 20 } else { disk.ceiling };
        let mut rows = Rows::default();
        (rows.epoch_new, rows.revision, rows.floor) = (now, begin, begin);
        disk.load(&mut rows)?;
        rows.dirty = Some(Dirty::default());
        disk.raise_ceiling(rows.revision)?;
        Ok((Self::of(rows, life), disk))
    }
}

impl Disk {
    /// Also whether the file is new.
    fn open(path: &Path) -> Result<(Self, bool), CatalogError> {
        let fail = |doing| {
            let path = path.to_owned();
            move |source| CatalogError::Sqlite {
                doing,
                path,
                source,
            }
        };
        let mut connection = Connection::open(path).map_err(fail("open"))?;
        let prepare = |connection: &Connection| {
            connection.pragma_update(None, "journal_mode", "wal")?;
            connection.pragma_update(None, "synchronous", "full")?;
            connection.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0))
        };
        let found = prepare(&connection).map_err(fail("open"))?;
        if found > SCHEMA {
            let path = path.to_owned();
            return Err(CatalogError::Newer { path, found });
        }
        if found == 0 {
            let make = |connection: &mut Connection| {
                let transaction = connection.transaction()?;
                transaction.execute_batch(TABLES)?;
                transaction.pragma_update(None, "user_version", SCHEMA)?;
                transaction.commit()
            };
            make(&mut connection).map_err(fail("make"))?;
        }
        let mut disk = Self {
            connection,
            path: path.to_owned(),
            ceiling: 0,
        };
        disk.ceiling = disk.meta("ceiling")?.unwrap_or(0);
        Ok((disk, found == 0))
    }

    fn failed(&self, doing: &'static str) -> impl Fn(rusqlite::Error) -> CatalogError + use<> {
        let path = self.path.clone();
        move |source| CatalogError::Sqlite {
            doing,
            path: path.clone(),
            source,
        }
    }

    fn meta(&self, key: &str) -> Result<Option<u64>, CatalogError> {
        use rusqlite::OptionalExtension as _;
        let query = "SELECT value FROM meta WHERE key = ?";
        let value = self.connection.query_row(query, [key], |row| row.get(0));
        value.optional().map_err(self.failed("read"))
    }

    fn set_meta(&self, key: &str, value: u64) -> Result<(), CatalogError> {
        let put = "INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)";
        let written = self.connection.execute(put, params![key, value]);
        written.map_err(self.failed("write")).map(|_| ())
    }

    fn begin_life(&mut self, now: u64) -> Result<u64, CatalogError> {
        let before = self.meta("life")?;
        let life = before.map_or(now, |before| now.max(before + 1));
        self.set_meta("life", life)?;
        Ok(life)
    }

    fn raise_ceiling(&mut self, revision: u64) -> Result<(), CatalogError> {
        let ceiling = revision.saturating_add(BLOCK);
        self.set_meta("ceiling", ceiling)?;
        self.ceiling = ceiling;
        Ok(())
    }

    fn load(&self, rows: &mut Rows) -> Result<(), CatalogError> {
        let failed = self.failed("read");
        let mut query = self
            .connection
            .prepare("SELECT host, epoch, version, floor FROM origins")
            .map_err(&failed)?;
        let read = |row: &rusqlite::Row<'_>| {
            let host = HostId::new(row.get(0)?);
            // All 64 bits are the other host's to choose.
            let number = |index| row.get::<_, i64>(index).map(i64::cast_unsigned);
            let position = Position {
                epoch: number(1)?,
                version: number(2)?,
            };
            Ok((host, position, number(3)?))
        };
        for origin in query.query_map([], read).map_err(&failed)? {
            let (host, position, floor) = origin.map_err(&failed)?;
            let origin = rows.origins.entry(host).or_default();
            origin.position = position;
            origin.floor = floor;
            origin.older = true;
        }
        let mut query = self
            .connection
            .prepare("SELECT statement FROM rows ORDER BY host, epoch, version")
            .map_err(&failed)?;
        let read = |row: &rusqlite::Row<'_>| row.get::<_, Vec<u8>>(0);
        for statement in query.query_map([], read).map_err(&failed)? {
            let statement = Bytes::from(statement.map_err(&failed)?);
            // Verified when it came.
            let signed = Signed::parse(statement);
            match signed.and_then(|signed| Ok((signed.entry()?, signed))) {
                Ok((entry, signed)) => {
                    rows.take(entry, signed.position.epoch, signed.bytes);
                }
                Err(error) => warn!(%error, "a row of the catalog cannot be read"),
            }
        }
        Ok(())
    }

    fn write(&mut self, batch: &Batch) -> Result<(), CatalogError> {
        let failed = self.failed("write");
        let write = |connection: &mut Connection| {
            let transaction = connection.transaction()?;
            for (machine, host, position, statement) in &batch.rows {
                transaction
                    .prepare_cached("INSERT OR REPLACE INTO rows VALUES (?, ?, ?, ?, ?)")?
                    .execute(params![
                        machine.as_str(),
                        host.number(),
                        position.epoch.cast_signed(),
                        position.version.cast_signed(),
                        &statement[..]
                    ])?;
            }
            for machine in &batch.gone {
                transaction
                    .prepare_cached("DELETE FROM rows WHERE machine = ?")?
                    .execute([machine.as_str()])?;
            }
            for (host, known) in &batch.origins {
                match known {
                    Some((position, floor)) => transaction.execute(
                        "INSERT OR REPLACE INTO origins VALUES (?, ?, ?, ?)",
                        params![
                            host.number(),
                            position.epoch.cast_signed(),
                            position.version.cast_signed(),
                            floor.cast_signed()
                        ],
                    )?,
                    None => transaction
                        .execute("DELETE FROM origins WHERE host = ?", [host.number()])?,
                };
            }
            transaction.commit()
        };
        write(&mut self.connection).map_err(failed)?;
        if batch.revision + BLOCK / 2 > self.ceiling {
            self.raise_ceiling(batch.revision)?;
        }
        Ok(())
    }

    /// Writes what changes in `catalog` until `stop`, and then what is left.
    pub async fn run(self, catalog: Catalog, stop: CancellationToken) {
        let mut changed = catalog.shared.revision.subscribe();
        let mut disk = Some(self);
        let mut pause = WRITE_DELAY;
        loop {
            let stopped = tokio::select! {
                () = stop.cancelled() => true,
                // The positions of hosts may move without a change for readers.
                _ = tokio::time::timeout(RETRY, changed.changed()) => false,
            };
            if !stopped {
                let _ = tokio::time::timeout(pause, stop.cancelled()).await;
            }
            let batch = catalog.rows().take_dirty();
            let Some(mut used) = disk.take() else {
                return;
            };
            let written = tokio::task::spawn_blocking(move || {
                let result = used.write(&batch);
                (used, batch, result)
            });
            let Ok((used, batch, result)) = written.await else {
                error!("the catalog is no longer kept on disk");
                return;
            };
            disk = Some(used);
            pause = WRITE_DELAY;
            if let Err(error) = result {
                warn!(error = %types::chain(&error), "cannot write the catalog; trying again");
                catalog.rows().put_back(batch);
                pause = RETRY;
            }
            if stopped {
                return;
            }
        }
    }
}

impl Rows {
    fn take_dirty(&mut self) -> Batch {
        let mut batch = Batch {
            revision: self.revision,
            ..Batch::default()
        };
        let Some(dirty) = self.dirty.as_mut().map(std::mem::take) else {
            return batch;
        };
        for id in dirty.machines {
            match self.machines.get(&id).map(|row| (row, &row.source)) {
                Some((row, Source::Signed(statement))) => {
                    let host = row.entry.host;
                    let statement = statement.clone();
                    batch.rows.push((id, host, row.position(), statement));
                }
                Some((_, Source::Own { .. } | Source::Inferred)) | None => batch.gone.push(id),
            }
        }
        for host in dirty.origins {
            let origin = self.origins.get(&host);
            let known = origin.map(|origin| (origin.position, origin.floor));
            batch.origins.push((host, known));
        }
        batch
    }

    fn put_back(&mut self, batch: Batch) {
        let Some(dirty) = &mut self.dirty else {
            return;
        };
        let rows = batch.rows.into_iter().map(|(id, ..)| id);
        dirty.machines.extend(rows.chain(batch.gone));
        let hosts = batch.origins.into_iter().map(|(host, _)| host);
        dirty.origins.extend(hosts);
    }
}
