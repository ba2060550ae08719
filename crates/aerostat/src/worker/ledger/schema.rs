//! The ledger's schema, as the steps that lead to it. A ledger of an earlier version takes those
//! that it lacks when it is opened, all of them or none; rows of machines are JSON and need no step
//! for a member that may be missing.

use rusqlite::Connection;

/// Each brings the schema to its number, from 1. A step is never changed once it was released.
pub(super) const STEPS: &[&str] = &[
    "
    CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
    INSERT INTO meta VALUES ('revision', 0), ('floor', 0);
    CREATE TABLE machines (
        id TEXT PRIMARY KEY,
        app TEXT NOT NULL,
        name TEXT NOT NULL,
        state TEXT NOT NULL,
        revision INTEGER NOT NULL UNIQUE,
        body TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE UNIQUE INDEX machine_names ON machines (app, name) WHERE state <> 'destroyed';
    CREATE INDEX machine_ends ON machines (revision) WHERE state = 'destroyed';
    CREATE TABLE events (
        machine TEXT NOT NULL,
        id TEXT NOT NULL,
        body TEXT NOT NULL,
        PRIMARY KEY (machine, id)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE allocations (
        machine TEXT PRIMARY KEY,
        field INTEGER NOT NULL UNIQUE,
        ipv4 INTEGER NOT NULL UNIQUE,
        uid INTEGER NOT NULL UNIQUE
    ) STRICT, WITHOUT ROWID;
    ",
    "
    ALTER TABLE machines ADD COLUMN creation_key TEXT;
    CREATE UNIQUE INDEX machine_creation_keys ON machines (app, creation_key)
        WHERE creation_key IS NOT NULL;
    CREATE TABLE versions (
        machine TEXT NOT NULL,
        version TEXT NOT NULL,
        body TEXT NOT NULL,
        PRIMARY KEY (machine, version)
    ) STRICT, WITHOUT ROWID;
    ",
];

/// Version of the schema; kept in SQLite's `user_version`.
pub(super) fn newest() -> i64 {
    i64::try_from(STEPS.len()).unwrap_or(i64::MAX)
}

/// Takes the steps that the database lacks. Returns the version that it had; if that is a newer
/// one than [`newest`], nothing has changed.
pub(super) fn migrate(connection: &mut Connection) -> rusqlite::Result<i64> {
    let transaction = connection.transaction()?;
    let found = transaction.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let taken = usize::try_from(found).unwrap_or(usize::MAX);
    if taken < STEPS.len() {
        for step in &STEPS[taken..] {
            transaction.execute_batch(step)?;
        }
        transaction.pragma_update(None, "user_version", newest())?;
        transaction.commit()?;
    }
    Ok(found)
}
