//! The database: one append-only table of writes.
//!
//! `log` holds, for every revision that is still needed, what was written. A row is needed while
//! it is the latest of its key or its event is in the kept history. The current state is not
//! stored a second time: memory is the index, and a start replays the log, which is never much
//! longer than the state. (A second table with the current rows costs a third of the write rate.)

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use rusqlite::{Connection, params};

use crate::config::Config;
use crate::error::OpenError;
use crate::memory::{Entry, History, Memory};

const FORMAT: i64 = 1;
const PAGE_BYTES: u32 = 4096;
/// Revision of an empty store. Not 0, because a watch from revision 0 means "from anywhere".
const FIRST_REV: u64 = 1;
/// Freed pages are given back in steps, so that no commit waits for a whole vacuum.
const VACUUM_PAGES: u32 = 64;

const SCHEMA: &str = "
    CREATE TABLE log (
        rev INTEGER PRIMARY KEY,
        key TEXT NOT NULL,
        create_rev INTEGER NOT NULL,
        expires_unix_s INTEGER,
        value BLOB               -- NULL: the key was removed
    );
    CREATE TABLE meta (compacted_rev INTEGER NOT NULL);
    INSERT INTO meta VALUES (1);
";

pub(crate) struct Disk {
    connection: Connection,
}

/// A row to append.
pub(crate) struct Row {
    pub(crate) rev: u64,
    pub(crate) key: Arc<str>,
    pub(crate) after: Option<Entry>,
}

/// History that is no longer kept.
pub(crate) struct Compaction<'a> {
    /// Revisions whose rows nobody needs any more.
    pub(crate) dead: &'a [u64],
    /// The last revision that is forgotten.
    pub(crate) upto: u64,
}

impl Disk {
    pub(crate) fn open(config: &Config) -> Result<(Self, Memory), OpenError> {
        let path = &config.path;
        create_private(path)?;
        let open = |source| OpenError::Open {
            path: path.clone(),
            source,
        };
        let connection = Connection::open(path).map_err(open)?;
        configure(&connection, config).map_err(open)?;
        let found: i64 = connection
            .pragma_query_value(None, "user_version", |row| row.get(0))
            .map_err(open)?;
        match found {
            0 => create(&connection).map_err(open)?,
            FORMAT => {}
            _ => {
                return Err(OpenError::Format {
                    path: path.clone(),
                    found,
                    known: FORMAT,
                });
            }
        }
        let memory = load(&connection, &config.history).map_err(|source| OpenError::Load {
            path: path.clone(),
            source,
        })?;
        Ok((Self { connection }, memory))
    }

    /// Appends `rows`, removes what `compaction` names, and returns when both are durable. On an
    /// error nothing has happened.
    pub(crate) fn commit(
        &mut self,
        rows: &[Row],
        compaction: Option<Compaction<'_>>,
    ) -> Result<(), rusqlite::Error> {
        let transaction = self.connection.transaction()?;
        {
            let mut insert = transaction.prepare_cached(
                "INSERT INTO log (rev, key, create_rev, expires_unix_s, value) VALUES (?,?,?,?,?)",
            )?;
            for Row { rev, key, after } in rows {
                let create_rev = after.as_ref().map_or(*rev, |entry| entry.create_rev);
                let expires = after.as_ref().and_then(|entry| entry.expires_unix_s);
                let value = after.as_ref().map(|entry| &entry.value[..]);
                insert.execute(params![rev, &**key, create_rev, expires, value])?;
            }
        }
        if let Some(Compaction { dead, upto }) = compaction {
            let mut delete = transaction.prepare_cached("DELETE FROM log WHERE rev = ?")?;
            for rev in dead {
                delete.execute([rev])?;
            }
            transaction.execute("UPDATE meta SET compacted_rev = ?", [upto])?;
        }
        // A transaction that is dropped rolls back; so does one whose commit failed.
        transaction.commit()
    }

    /// Gives some freed pages back to the file system.
    pub(crate) fn vacuum(&self) -> Result<(), rusqlite::Error> {
        self.connection
            .execute_batch(&format!("PRAGMA incremental_vacuum({VACUUM_PAGES})"))
    }
}

/// Values are other people's secrets, so the file is the owner's from its first moment. SQLite gives
/// its side files the same mode.
fn create_private(path: &Path) -> Result<(), OpenError> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
        .map(drop)
        .map_err(|source| OpenError::Create {
            path: path.to_owned(),
            source,
        })
}

fn configure(connection: &Connection, config: &Config) -> Result<(), rusqlite::Error> {
    // EXCLUSIVE keeps a second process out for as long as this one lives, and saves the shared
    // memory file. FULL makes every commit wait for the disk.
    let pages_max = u64::from(config.size_mib_max) * 1024 * 1024 / u64::from(PAGE_BYTES);
    connection.execute_batch(&format!(
        "PRAGMA page_size = {PAGE_BYTES};
         PRAGMA auto_vacuum = INCREMENTAL;
         PRAGMA locking_mode = EXCLUSIVE;
         PRAGMA journal_mode = WAL;
         PRAGMA synchronous = FULL;
         PRAGMA cache_size = -1024;
         PRAGMA max_page_count = {pages_max};
         BEGIN IMMEDIATE; COMMIT;"
    ))
}

fn create(connection: &Connection) -> Result<(), rusqlite::Error> {
    connection.execute_batch(&format!(
        "BEGIN; {SCHEMA} PRAGMA user_version = {FORMAT}; COMMIT;"
    ))
}

fn load(connection: &Connection, history: &History) -> Result<Memory, rusqlite::Error> {
    let compacted: u64 =
        connection.query_row("SELECT compacted_rev FROM meta", [], |row| row.get(0))?;
    let mut memory = Memory::new(compacted.max(FIRST_REV), history.clone());
    let mut select = connection
        .prepare("SELECT rev, key, create_rev, expires_unix_s, value FROM log ORDER BY rev")?;
    let mut rows = select.query([])?;
    let now = Instant::now();
    while let Some(row) = rows.next()? {
        let rev: u64 = row.get(0)?;
        let key: Arc<str> = row.get::<_, String>(1)?.into();
        let create_rev = row.get(2)?;
        let expires_unix_s = row.get(3)?;
        let value: Option<Vec<u8>> = row.get(4)?;
        let after = value.map(Bytes::from).map(|value| Entry {
            rev,
            create_rev,
            value,
            expires_unix_s,
        });
        if rev > compacted {
            memory.apply(rev, key, after, now);
        } else {
            memory.restore(key, after);
        }
    }
    Ok(memory)
}
