//! The database: one append-only table of writes.
//!
//! `log` holds, for every revision that is still needed, what was written. A row is needed while
//! it is the latest of its key or its event is in the kept history. The current state is not
//! stored a second time: memory is the index, and a start replays the log, which is never much
//! longer than the state. (A second table with the current rows costs a third of the write rate.)
//!
//! `meta.compacted_rev` is the last revision whose event is forgotten. Rows up to there are the
//! state at that revision, together with some that are dead and not removed yet: the latest row of
//! a key counts, and a removal counts as well, until both are gone.

use std::collections::VecDeque;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rusqlite::{Connection, ErrorCode, OpenFlags, params};

use crate::config::Config;
use crate::error::OpenError;
use crate::memory::{Entry, History, Memory};

const FORMAT: i64 = 1;
const PAGE_BYTES: u32 = 4096;
const PAGES_PER_MIB: u64 = 1024 * 1024 / PAGE_BYTES as u64;
/// Beyond the limit, so that there is room for removals, which make room.
const RESERVE_MIB: u64 = 16;
/// The log file is cut back to this after a burst.
const WAL_BYTES_KEPT: u32 = 16 * 1024 * 1024;
/// A process that is just about to end may still hold the lock.
const LOCK_WAIT: Duration = Duration::from_millis(250);
/// Revision of an empty store. Not 0, because a watch from revision 0 means "from anywhere".
const FIRST_REV: u64 = 1;
/// Freed pages are given back in steps, so that no commit waits for a whole vacuum.
const VACUUM_PAGES: u32 = 1024;
/// Fewer than this, or than a quarter of the file, are kept: the next writes need them.
const FREE_PAGES_MIN: u64 = 1024;

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
    pages_max: u64,
}

/// What a database holds.
pub(crate) struct Loaded {
    pub(crate) memory: Memory,
    /// Revisions whose rows nobody needs any more, in the order in which they may go.
    pub(crate) dead: VecDeque<u64>,
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
    /// Opens or creates the database, keeps others out of it, and checks it.
    pub(crate) fn open(config: &Config) -> Result<(Self, Loaded), OpenError> {
        let path = &config.path;
        create_private(path)?;
        let open = |source| open_error(path, source);
        let connection = Connection::open(path).map_err(open)?;
        let found = configure(&connection, config).map_err(open)?;
        match found {
            0 => create(&connection).map_err(open)?,
            FORMAT => check(&connection, path)?,
            _ => {
                return Err(OpenError::Format {
                    path: path.clone(),
                    found,
                    known: FORMAT,
                });
            }
        }
        let loaded =
            load(&connection, &config.history).map_err(|source| load_error(path, source))?;
        let disk = Self {
            connection,
            pages_max: u64::from(config.size_mib_max) * PAGES_PER_MIB,
        };
        Ok((disk, loaded))
    }

    /// Reads a database that nobody is to write to, such as a backup.
    pub(crate) fn read(path: &Path) -> Result<Memory, OpenError> {
        let open = |source| open_error(path, source);
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags).map_err(open)?;
        let found: i64 = connection
            .pragma_query_value(None, "user_version", |row| row.get(0))
            .map_err(open)?;
        if found != FORMAT {
            return Err(OpenError::Format {
                path: path.to_owned(),
                found,
                known: FORMAT,
            });
        }
        check(&connection, path)?;
        let loaded = load(&connection, &History::default());
        loaded
            .map(|loaded| loaded.memory)
            .map_err(|source| load_error(path, source))
    }

    /// Makes a database of a state at `rev`, without history, in a file that must not be there.
    /// Durable when it returns.
    pub(crate) fn write(
        path: &Path,
        rev: u64,
        entries: &[(Arc<str>, Entry)],
    ) -> Result<(), OpenError> {
        let open = |source| open_error(path, source);
        let failed = |source| OpenError::Create {
            path: path.to_owned(),
            source,
        };
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(failed)?;
        let mut connection = Connection::open(path).map_err(open)?;
        // Nobody sees the file before it is whole, so it needs no journal.
        connection
            .execute_batch(&format!(
                "PRAGMA page_size = {PAGE_BYTES};
                 PRAGMA auto_vacuum = INCREMENTAL;
                 PRAGMA journal_mode = OFF;
                 PRAGMA synchronous = OFF;"
            ))
            .and_then(|()| create(&connection))
            .map_err(open)?;
        fill(&mut connection, rev, entries).map_err(open)?;
        connection.close().map_err(|(_, source)| open(source))?;
        file.sync_all().map_err(failed)
    }

    /// Whether the size limit is reached.
    pub(crate) fn is_full(&self) -> Result<bool, rusqlite::Error> {
        let all = self.pages("PRAGMA page_count")?;
        // It seldom is, and asking costs a part of every commit.
        if all < self.pages_max {
            return Ok(false);
        }
        Ok(all - self.pages("PRAGMA freelist_count")? >= self.pages_max)
    }

    fn pages(&self, pragma: &str) -> Result<u64, rusqlite::Error> {
        let mut statement = self.connection.prepare_cached(pragma)?;
        statement.query_row([], |row| row.get(0))
    }

    /// Appends `rows`, removes what `compaction` names, and returns when both are durable. On an
    /// error nothing has happened.
    pub(crate) fn commit(
        &mut self,
        rows: &[Row],
        compaction: Option<Compaction<'_>>,
    ) -> Result<(), rusqlite::Error> {
        // Not `Connection::transaction`: it parses its two words anew every time, which a lone
        // writer waits for.
        self.run("BEGIN")?;
        let done = self.append(rows, compaction);
        let done = done.and_then(|()| self.run("COMMIT"));
        if done.is_err() && !self.connection.is_autocommit() {
            self.run("ROLLBACK")?;
        }
        done
    }

    fn append(
        &self,
        rows: &[Row],
        compaction: Option<Compaction<'_>>,
    ) -> Result<(), rusqlite::Error> {
        for Row { rev, key, after } in rows {
            insert(&self.connection, *rev, key, after.as_ref())?;
        }
        if let Some(Compaction { dead, upto }) = compaction {
            let delete = "DELETE FROM log WHERE rev = ?";
            let mut delete = self.connection.prepare_cached(delete)?;
            for rev in dead {
                delete.execute([rev])?;
            }
            let forget = "UPDATE meta SET compacted_rev = ?";
            self.connection.execute(forget, [upto])?;
        }
        Ok(())
    }

    fn run(&self, word: &str) -> Result<(), rusqlite::Error> {
        self.connection.prepare_cached(word)?.execute([]).map(drop)
    }

    /// Gives some freed pages back to the file system, if there are many.
    pub(crate) fn vacuum(&self) -> Result<(), rusqlite::Error> {
        let free = self.pages("PRAGMA freelist_count")?;
        if free < FREE_PAGES_MIN.max(self.pages("PRAGMA page_count")? / 4) {
            return Ok(());
        }
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

fn open_error(path: &Path, source: rusqlite::Error) -> OpenError {
    let path = path.to_owned();
    match source.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => OpenError::Locked { path },
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => OpenError::Damaged {
            path,
            found: source.to_string(),
        },
        // A code of SQLite's, whose enum grows; or an error of ours, which has none.
        Some(_) | None => OpenError::Open { path, source },
    }
}

fn load_error(path: &Path, source: rusqlite::Error) -> OpenError {
    match open_error(path, source) {
        OpenError::Open { path, source } => OpenError::Load { path, source },
        other => other,
    }
}

/// Reads every page once, so that damage is told before anything is built on it.
fn check(connection: &Connection, path: &Path) -> Result<(), OpenError> {
    let found: String = connection
        .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
        .map_err(|source| open_error(path, source))?;
    if found == "ok" {
        return Ok(());
    }
    Err(OpenError::Damaged {
        path: path.to_owned(),
        found,
    })
}

/// Returns the format that the database has; 0 if it is new.
fn configure(connection: &Connection, config: &Config) -> Result<i64, rusqlite::Error> {
    // EXCLUSIVE keeps a second process out for as long as this one lives, and saves the shared
    // memory file, if nothing is read before it. FULL makes every commit wait for the disk.
    let pages_max = (u64::from(config.size_mib_max) + RESERVE_MIB) * PAGES_PER_MIB;
    connection.busy_timeout(LOCK_WAIT)?;
    connection.execute_batch("PRAGMA locking_mode = EXCLUSIVE")?;
    let found = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if found == 0 {
        // Only before the first table; and later it would be a write, which a full disk refuses.
        connection.execute_batch(&format!(
            "PRAGMA page_size = {PAGE_BYTES}; PRAGMA auto_vacuum = INCREMENTAL;"
        ))?;
    }
    connection.execute_batch(&format!(
        "PRAGMA journal_mode = WAL;
         PRAGMA synchronous = FULL;
         PRAGMA journal_size_limit = {WAL_BYTES_KEPT};
         PRAGMA cache_size = -1024;
         PRAGMA max_page_count = {pages_max};
         BEGIN IMMEDIATE; COMMIT;"
    ))?;
    Ok(found)
}

fn create(connection: &Connection) -> Result<(), rusqlite::Error> {
    connection.execute_batch(&format!(
        "BEGIN; {SCHEMA} PRAGMA user_version = {FORMAT}; COMMIT;"
    ))
}

/// Entries of one revision, which etcd has and we have not, get revisions of their own.
fn fill(
    connection: &mut Connection,
    rev: u64,
    entries: &[(Arc<str>, Entry)],
) -> Result<(), rusqlite::Error> {
    let mut entries: Vec<_> = entries.iter().collect();
    entries.sort_by_key(|(_, entry)| entry.rev);
    let transaction = connection.transaction()?;
    let mut last = 0;
    for (key, entry) in entries {
        last = entry.rev.max(last + 1);
        insert(&transaction, last, key, Some(entry))?;
    }
    transaction.execute("UPDATE meta SET compacted_rev = ?", [rev.max(last)])?;
    transaction.commit()
}

fn insert(
    connection: &Connection,
    rev: u64,
    key: &str,
    after: Option<&Entry>,
) -> Result<(), rusqlite::Error> {
    let create_rev = after.map_or(rev, |entry| entry.create_rev);
    let expires = after.and_then(|entry| entry.expires_unix_s);
    let value = after.map(|entry| &entry.value[..]);
    connection
        .prepare_cached(
            "INSERT INTO log (rev, key, create_rev, expires_unix_s, value) VALUES (?,?,?,?,?)",
        )?
        .execute(params![rev, key, create_rev, expires, value])
        .map(drop)
}

fn load(connection: &Connection, history: &History) -> Result<Loaded, rusqlite::Error> {
    let compacted: u64 =
        connection.query_row("SELECT compacted_rev FROM meta", [], |row| row.get(0))?;
    let mut memory = Memory::new(compacted.max(FIRST_REV), history.clone());
    let mut dead = VecDeque::new();
    let mut select = connection
        .prepare("SELECT rev, key, create_rev, expires_unix_s, value FROM log ORDER BY rev")?;
    let mut rows = select.query([])?;
    let now = Instant::now();
    while let Some(row) = rows.next()? {
        let rev: u64 = row.get(0)?;
        let key: Arc<str> = row.get_ref(1)?.as_str()?.into();
        let create_rev = row.get(2)?;
        let expires_unix_s = row.get(3)?;
        let value = row.get_ref(4)?.as_blob_or_null()?;
        let after = value.map(|value| Entry {
            rev,
            create_rev,
            value: Bytes::copy_from_slice(value),
            expires_unix_s,
        });
        if rev > compacted {
            memory.apply(rev, key, after, now);
            continue;
        }
        let is_removal = after.is_none();
        dead.extend(memory.restore(key, after).map(|before| before.rev));
        dead.extend(is_removal.then_some(rev));
    }
    Ok(Loaded { memory, dead })
}
