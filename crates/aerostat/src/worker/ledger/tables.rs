//! The tables of the ledger.

use std::fs::OpenOptions;
use std::net::Ipv4Addr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension as _, Transaction, params};
use types::MachineId;
use types::machine::{Event, MachineState};
use types::sixpn::MACHINE_FIELD_MIN;

use super::super::machine::Machine;
use super::super::ports::Allocation;
use super::super::volumes;
use super::versions::{self, Retired};
use super::{CreateError, Draft, LedgerError, schema};
use crate::catalog::DESTROYED_MAX;

/// Events kept of one machine.
pub(super) const EVENTS_MAX: usize = 100;

/// First and last IPv4 address of machines, inside their namespace; .0.1 is the next hop.
const IPV4_MIN: Ipv4Addr = Ipv4Addr::new(172, 19, 0, 2);
const IPV4_MAX: Ipv4Addr = Ipv4Addr::new(172, 19, 255, 254);

/// User ids that VMMs run as, first and last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Uids(pub(crate) u32, pub(crate) u32);

pub(super) struct Tables {
    path: PathBuf,
    pub(super) connection: Connection,
    uids: Uids,
}

impl Tables {
    pub(super) fn open(path: &Path, uids: Uids) -> Result<Self, LedgerError> {
        // It holds the environment of machines: for root only. SQLite gives its other files the
        // mode of this one.
        let made = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(path);
        made.map_err(|source| LedgerError::Create {
            path: path.into(),
            source,
        })?;
        let failed = |source| LedgerError::Sqlite {
            doing: "open",
            path: path.into(),
            source,
        };
        let mut connection = Connection::open(path).map_err(failed)?;
        connection
            .busy_timeout(Duration::from_secs(5))
            .map_err(failed)?;
        connection
            .pragma_update(None, "journal_mode", "WAL")
            .map_err(failed)?;
        connection
            .pragma_update(None, "synchronous", "FULL")
            .map_err(failed)?;
        let found = schema::migrate(&mut connection).map_err(failed)?;
        if found > schema::newest() {
            return Err(LedgerError::Newer {
                path: path.into(),
                found,
                known: schema::newest(),
            });
        }
        volumes::open_tables(&connection).map_err(failed)?;
        Ok(Self {
            path: path.into(),
            connection,
            uids,
        })
    }

    pub(super) fn connection(&mut self) -> &mut Connection {
        &mut self.connection
    }

    pub(super) fn failed(
        &self,
        doing: &'static str,
    ) -> impl Fn(rusqlite::Error) -> LedgerError + use<> {
        let path = self.path.clone();
        move |source| LedgerError::Sqlite {
            doing,
            path: path.clone(),
            source,
        }
    }

    /// Every machine with its revision, oldest first.
    pub(super) fn machines(&self) -> Result<Vec<(Machine, u64)>, LedgerError> {
        let failed = self.failed("read");
        let mut query = self
            .connection
            .prepare("SELECT id, revision, body FROM machines ORDER BY revision")
            .map_err(&failed)?;
        let read = |row: &rusqlite::Row<'_>| {
            Ok((
                row.get::<_, String>(0)?,
                row.get::<_, u64>(1)?,
                row.get::<_, String>(2)?,
            ))
        };
        let rows = query.query_map([], read).map_err(&failed)?;
        let mut machines = Vec::new();
        for row in rows {
            let (machine, revision, body) = row.map_err(&failed)?;
            let parsed = serde_json::from_str(&body);
            let parsed = parsed.map_err(|source| LedgerError::Row { machine, source })?;
            machines.push((parsed, revision));
        }
        Ok(machines)
    }

    /// The newest revision, and the newest one of a machine's end that was deleted.
    pub(super) fn revisions(&self) -> Result<(u64, u64), LedgerError> {
        let value = |key: &str| {
            let query = "SELECT value FROM meta WHERE key = ?";
            self.connection
                .query_row(query, [key], |row| row.get(0))
                .map_err(self.failed("read"))
        };
        Ok((value("revision")?, value("floor")?))
    }

    pub(super) fn create(&mut self, draft: Draft) -> Result<(Machine, u64), CreateError> {
        let failed = self.failed("write");
        let uids = self.uids;
        let transaction = self.connection.transaction().map_err(&failed)?;
        if let Some(key) = &draft.creation_key {
            let made = "SELECT revision, body FROM machines WHERE app = ? AND creation_key = ?";
            let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get::<_, String>(1)?));
            let made = transaction.query_row(made, params![draft.app.as_str(), key], read);
            if let Some((revision, body)) = made.optional().map_err(&failed)? {
                let machine = serde_json::from_str(&body).map_err(|source| LedgerError::Row {
                    machine: draft.id.to_string(),
                    source,
                })?;
                return Err(CreateError::Exists(Box::new(machine), revision));
            }
        }
        let taken = "SELECT id FROM machines WHERE app = ? AND name = ? AND state <> 'destroyed'";
        let taken: Option<String> = transaction
            .query_row(taken, params![draft.app.as_str(), draft.name], |row| {
                row.get(0)
            })
            .optional()
            .map_err(&failed)?;
        if let Some(id) = taken.and_then(|id| id.parse().ok()) {
            return Err(CreateError::NameTaken { id });
        }
        let there = "SELECT count(*) FROM machines WHERE id = ?";
        let there: u64 = transaction
            .query_row(there, [draft.id.as_str()], |row| row.get(0))
            .map_err(&failed)?;
        if there > 0 {
            return Err(CreateError::IdTaken);
        }
        let allocation = allocate(&transaction, &draft.id, uids).map_err(&failed)?;
        let allocation = allocation.map_err(|what| CreateError::Exhausted { what })?;
        let (machine, events) = (draft.build)(allocation);
        let revision = next_revision(&transaction).map_err(&failed)?;
        transaction
            .execute(
                "INSERT INTO machines (id, app, name, state, revision, body, creation_key) \
                 VALUES (?, ?, ?, ?, ?, ?, ?)",
                params![
                    machine.id.as_str(),
                    machine.app.as_str(),
                    machine.name,
                    machine.shown_state().as_str(),
                    revision,
                    json(&machine),
                    draft.creation_key
                ],
            )
            .map_err(&failed)?;
        insert_events(&transaction, &machine.id, &events).map_err(&failed)?;
        volumes::claim(&transaction, &machine).map_err(LedgerError::from)?;
        transaction.commit().map_err(&failed)?;
        Ok((machine, revision))
    }

    pub(super) fn commit(
        &mut self,
        machine: &Machine,
        events: &[Event],
        retired: Option<&Retired>,
    ) -> Result<u64, LedgerError> {
        let failed = self.failed("write");
        let transaction = self.connection.transaction().map_err(&failed)?;
        if let Some(retired) = retired {
            versions::retire(&transaction, &machine.id, retired).map_err(&failed)?;
        }
        let revision = write(&transaction, machine, events).map_err(&failed)?;
        volumes::claim(&transaction, machine)?;
        transaction.commit().map_err(&failed)?;
        Ok(revision)
    }

    pub(super) fn events(&self, id: &MachineId, limit: usize) -> Result<Vec<Event>, LedgerError> {
        let failed = self.failed("read");
        let mut query = self
            .connection
            .prepare("SELECT body FROM events WHERE machine = ? ORDER BY id DESC LIMIT ?")
            .map_err(&failed)?;
        let limit = u64::try_from(limit.min(EVENTS_MAX)).unwrap_or(u64::MAX);
        let read = |row: &rusqlite::Row<'_>| row.get::<_, String>(0);
        let rows = query
            .query_map(params![id.as_str(), limit], read)
            .map_err(&failed)?;
        let mut events = Vec::new();
        for row in rows {
            let parsed = serde_json::from_str(&row.map_err(&failed)?);
            let machine = id.to_string();
            events.push(parsed.map_err(|source| LedgerError::Row { machine, source })?);
        }
        Ok(events)
    }
}

pub(super) fn json<T: serde::Serialize>(value: &T) -> String {
    // Our own types: maps with string keys and no failing serialisers.
    serde_json::to_string(value).expect("a row is JSON")
}

fn next_revision(transaction: &Transaction<'_>) -> rusqlite::Result<u64> {
    let next = "UPDATE meta SET value = value + 1 WHERE key = 'revision' RETURNING value";
    transaction.query_row(next, [], |row| row.get(0))
}

fn write(
    transaction: &Transaction<'_>,
    machine: &Machine,
    events: &[Event],
) -> rusqlite::Result<u64> {
    let revision = next_revision(transaction)?;
    let state = machine.shown_state();
    let changed = transaction.execute(
        "UPDATE machines SET state = ?, revision = ?, body = ? WHERE id = ?",
        params![state.as_str(), revision, json(machine), machine.id.as_str()],
    )?;
    debug_assert_eq!(changed, 1, "a machine is created before it changes");
    insert_events(transaction, &machine.id, events)?;
    if state == MachineState::Destroyed {
        transaction.execute(
            "DELETE FROM allocations WHERE machine = ?",
            [machine.id.as_str()],
        )?;
        forget_destroyed(transaction)?;
    }
    Ok(revision)
}

fn insert_events(
    transaction: &Transaction<'_>,
    machine: &MachineId,
    events: &[Event],
) -> rusqlite::Result<()> {
    for event in events {
        transaction.execute(
            "INSERT INTO events (machine, id, body) VALUES (?, ?, ?)",
            params![machine.as_str(), event.id, json(event)],
        )?;
    }
    if !events.is_empty() {
        transaction.execute(
            "DELETE FROM events WHERE machine = ?1 AND id <= (SELECT id FROM events \
             WHERE machine = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)",
            params![
                machine.as_str(),
                u64::try_from(EVENTS_MAX).unwrap_or(u64::MAX)
            ],
        )?;
    }
    Ok(())
}

/// Deletes the machines that were destroyed longest ago, beyond those that are still shown.
fn forget_destroyed(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    let kept = u64::try_from(DESTROYED_MAX).unwrap_or(u64::MAX);
    let query = "SELECT id, revision FROM machines WHERE state = 'destroyed' \
                 ORDER BY revision DESC LIMIT -1 OFFSET ?";
    let mut query = transaction.prepare(query)?;
    let read = |row: &rusqlite::Row<'_>| Ok((row.get::<_, String>(0)?, row.get::<_, u64>(1)?));
    let old = query
        .query_map([kept], read)?
        .collect::<Result<Vec<_>, _>>()?;
    for (id, revision) in old {
        transaction.execute("DELETE FROM machines WHERE id = ?", [&id])?;
        transaction.execute("DELETE FROM events WHERE machine = ?", [&id])?;
        transaction.execute("DELETE FROM versions WHERE machine = ?", [&id])?;
        let floor = "UPDATE meta SET value = max(value, ?) WHERE key = 'floor'";
        transaction.execute(floor, [revision])?;
    }
    Ok(())
}

/// Gives the machine a field of its own (random, so that a machine that is gone does not hand its
/// address to the next one), and the lowest IPv4 address and user id that are free. The inner
/// error names what has run out.
fn allocate(
    transaction: &Transaction<'_>,
    machine: &MachineId,
    uids: Uids,
) -> rusqlite::Result<Result<Allocation, &'static str>> {
    let Some(ipv4) = lowest_free(transaction, "ipv4", IPV4_MIN.into(), IPV4_MAX.into())? else {
        return Ok(Err("IPv4 addresses"));
    };
    let Some(uid) = lowest_free(transaction, "uid", uids.0, uids.1)? else {
        return Ok(Err("user ids"));
    };
    // At most 65,533 of 2^32 are taken: the first try nearly always succeeds.
    let field = loop {
        let field = rand::random_range(MACHINE_FIELD_MIN..=u32::MAX);
        let taken = "SELECT count(*) FROM allocations WHERE field = ?";
        if transaction.query_row(taken, [field], |row| row.get::<_, u64>(0))? == 0 {
            break field;
        }
    };
    transaction.execute(
        "INSERT INTO allocations (machine, field, ipv4, uid) VALUES (?, ?, ?, ?)",
        params![machine.as_str(), field, ipv4, uid],
    )?;
    Ok(Ok(Allocation {
        field,
        ipv4: ipv4.into(),
        uid,
    }))
}

fn lowest_free(
    transaction: &Transaction<'_>,
    column: &'static str,
    min: u32,
    max: u32,
) -> rusqlite::Result<Option<u32>> {
    let query = format!("SELECT {column} FROM allocations ORDER BY {column}");
    let mut query = transaction.prepare(&query)?;
    let mut free = min;
    for taken in query.query_map([], |row| row.get::<_, u32>(0))? {
        let taken = taken?;
        if taken == free {
            free += 1;
        } else if taken > free {
            break;
        }
    }
    Ok((free <= max).then_some(free))
}
