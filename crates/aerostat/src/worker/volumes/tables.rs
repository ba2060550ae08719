//! The tables of volumes and snapshots, in the worker's ledger. Only this module writes them.
//!
//! `volumes.machine` is who has a volume. It changes in the transaction that records the machine's
//! own change (`claim`), so that no crash leaves a volume with a machine that does not name it.

use rusqlite::{Connection, OptionalExtension as _, params};
use serde::Serialize;
use serde::de::DeserializeOwned;
use types::volume::SnapshotStatus;
use types::{AppName, MachineId, OrgSlug, SnapshotId, VolumeId};

use super::refused::VolumeRefused;
use super::snapshot::Snapshot;
use super::volume::Volume;
use crate::worker::machine::{Machine, State as MachineState};

const CREATE: &str = "
    CREATE TABLE IF NOT EXISTS volumes (
        id TEXT PRIMARY KEY,
        app TEXT NOT NULL,
        org TEXT NOT NULL,
        state TEXT NOT NULL,
        machine TEXT,
        body TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS volume_apps ON volumes (app);
    CREATE INDEX IF NOT EXISTS volume_machines ON volumes (machine) WHERE machine IS NOT NULL;
    CREATE TABLE IF NOT EXISTS snapshots (
        id TEXT PRIMARY KEY,
        volume TEXT NOT NULL,
        status TEXT NOT NULL,
        body TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS snapshot_volumes ON snapshots (volume);
";

/// A row that could not be read or written, or a change that is declined.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TableError {
    #[error("cannot read or write volumes")]
    Sqlite(#[from] rusqlite::Error),
    #[error("a volume in the ledger cannot be read")]
    Row(#[from] serde_json::Error),
    #[error(transparent)]
    Refused(#[from] VolumeRefused),
}

/// Makes the tables if they are not there.
pub(crate) fn open(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(CREATE)
}

/// A volume and the machine that it is attached to.
pub(super) type Attached = (Volume, Option<MachineId>);

/// Which volumes are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Select {
    All,
    App(AppName),
    Org(OrgSlug),
    Machine(MachineId),
}

pub(super) fn volumes(db: &Connection, select: &Select) -> Result<Vec<Attached>, TableError> {
    let (filter, key) = match select {
        Select::All => ("?1 = ''", String::new()),
        Select::App(app) => ("app = ?1", app.to_string()),
        Select::Org(org) => ("org = ?1", org.to_string()),
        Select::Machine(machine) => ("machine = ?1", machine.to_string()),
    };
    let mut query =
        db.prepare_cached(&format!("SELECT body, machine FROM volumes WHERE {filter}"))?;
    let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
    let rows: Vec<(String, Option<String>)> =
        query.query_map([key], read)?.collect::<Result<_, _>>()?;
    rows.into_iter().map(attached).collect()
}

fn attached((body, machine): (String, Option<String>)) -> Result<Attached, TableError> {
    let machine = machine.and_then(|id| id.parse().ok());
    Ok((serde_json::from_str(&body)?, machine))
}

pub(super) fn volume(db: &Connection, id: &VolumeId) -> Result<Attached, TableError> {
    let mut query = db.prepare_cached("SELECT body, machine FROM volumes WHERE id = ?")?;
    let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
    let found = query.query_row([id.as_str()], read).optional()?;
    attached(found.ok_or_else(|| VolumeRefused::NotFound { id: id.clone() })?)
}

pub(super) fn put(db: &Connection, volume: &Volume) -> Result<(), TableError> {
    db.execute(
        "INSERT INTO volumes (id, app, org, state, body) VALUES (?1, ?2, ?3, ?4, ?5) \
         ON CONFLICT (id) DO UPDATE SET state = ?4, body = ?5",
        params![
            volume.id.as_str(),
            volume.app.as_str(),
            volume.org.as_str(),
            volume.shown_state().as_str(),
            json(volume)
        ],
    )?;
    Ok(())
}

pub(super) fn forget(db: &Connection, id: &VolumeId) -> Result<(), TableError> {
    db.execute("DELETE FROM volumes WHERE id = ?", [id.as_str()])?;
    Ok(())
}

pub(super) fn count(db: &Connection, table: &'static str) -> Result<usize, TableError> {
    let count = db.query_row(&format!("SELECT count(*) FROM {table}"), [], |r| r.get(0))?;
    Ok(count)
}

/// Every snapshot, or those of one volume, oldest first.
pub(super) fn snapshots(
    db: &Connection,
    of: Option<&VolumeId>,
) -> Result<Vec<Snapshot>, TableError> {
    let mut query =
        db.prepare_cached("SELECT body FROM snapshots WHERE ?1 IS NULL OR volume = ?1")?;
    let read = |row: &rusqlite::Row<'_>| row.get::<_, String>(0);
    let bodies = query.query_map([of.map(VolumeId::as_str)], read)?;
    let mut snapshots = Vec::new();
    for body in bodies {
        snapshots.push(parse::<Snapshot>(&body?)?);
    }
    snapshots.sort_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
    Ok(snapshots)
}

pub(super) fn snapshot(db: &Connection, id: &SnapshotId) -> Result<Snapshot, TableError> {
    let mut query = db.prepare_cached("SELECT body FROM snapshots WHERE id = ?")?;
    let read = |row: &rusqlite::Row<'_>| row.get::<_, String>(0);
    let found = query.query_row([id.as_str()], read).optional()?;
    parse(&found.ok_or_else(|| VolumeRefused::NoSnapshot { id: id.clone() })?)
}

pub(super) fn put_snapshot(db: &Connection, snapshot: &Snapshot) -> Result<(), TableError> {
    db.execute(
        "INSERT INTO snapshots (id, volume, status, body) VALUES (?1, ?2, ?3, ?4) \
         ON CONFLICT (id) DO UPDATE SET status = ?3, body = ?4",
        params![
            snapshot.id.as_str(),
            snapshot.volume.as_str(),
            snapshot.status.as_str(),
            json(snapshot)
        ],
    )?;
    Ok(())
}

pub(super) fn forget_snapshot(db: &Connection, id: &SnapshotId) -> Result<(), TableError> {
    db.execute("DELETE FROM snapshots WHERE id = ?", [id.as_str()])?;
    Ok(())
}

/// Whether somebody copies from the volume: a snapshot that waits for its moment, or a fork.
pub(super) fn is_copied(db: &Connection, id: &VolumeId) -> Result<bool, TableError> {
    let waiting = "SELECT count(*) FROM snapshots WHERE volume = ? AND status = ?";
    let waiting: u64 = db.query_row(
        waiting,
        [id.as_str(), SnapshotStatus::Waiting.as_str()],
        |row| row.get(0),
    )?;
    let forks = "SELECT count(*) FROM volumes WHERE state = 'hydrating' \
                 AND json_extract(body, '$.state.source') = ?";
    let forks: u64 = db.query_row(forks, [id.as_str()], |row| row.get(0))?;
    Ok(waiting + forks > 0)
}

/// Whether a volume is being made out of the snapshot.
pub(super) fn is_restored(db: &Connection, id: &SnapshotId) -> Result<bool, TableError> {
    let query = "SELECT count(*) FROM volumes WHERE state = 'restoring' \
                 AND json_extract(body, '$.state.snapshot') = ?";
    let count: u64 = db.query_row(query, [id.as_str()], |row| row.get(0))?;
    Ok(count > 0)
}

/// Makes the machine's volumes those that it names, in the transaction that records the machine:
/// takes what is free, and gives back what it names no more or all if it is gone.
///
/// # Errors
/// [`TableError::Refused`] if one cannot be had; then the machine must not change either.
pub(crate) fn claim(db: &Connection, machine: &Machine) -> Result<(), TableError> {
    let is_gone = machine.state == MachineState::Destroyed;
    let named = super::attach::named(&machine.config);
    let wanted: Vec<VolumeId> = named.filter(|_| !is_gone).collect();
    let held = volumes(db, &Select::Machine(machine.id.clone()))?;
    for (volume, _) in &held {
        if !wanted.contains(&volume.id) {
            set_machine(db, &volume.id, None)?;
        }
    }
    for id in &wanted {
        if held.iter().any(|(volume, _)| volume.id == *id) {
            continue;
        }
        let (volume, other) = volume(db, id)?;
        if volume.app != machine.app || volume.network != machine.network {
            return Err(VolumeRefused::Foreign { id: id.clone() }.into());
        }
        if let Some(machine) = other {
            let id = id.clone();
            return Err(VolumeRefused::Attached { id, machine }.into());
        }
        volume.alive("attach")?;
        set_machine(db, id, Some(&machine.id))?;
    }
    Ok(())
}

fn set_machine(
    db: &Connection,
    id: &VolumeId,
    machine: Option<&MachineId>,
) -> Result<(), TableError> {
    let mut change = db.prepare_cached("UPDATE volumes SET machine = ?2 WHERE id = ?1")?;
    change.execute(params![id.as_str(), machine.map(MachineId::as_str)])?;
    Ok(())
}

fn parse<T: DeserializeOwned>(body: &str) -> Result<T, TableError> {
    Ok(serde_json::from_str(body)?)
}

fn json<T: Serialize>(value: &T) -> String {
    // Our own types: maps with string keys and no failing serialisers.
    serde_json::to_string(value).expect("a row is JSON")
}
