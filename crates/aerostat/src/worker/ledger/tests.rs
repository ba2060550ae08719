//! What the ledger keeps, and what it refuses.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use types::machine::MachineConfig;
use types::{HostId, IsolationClass, NetworkId};

use super::super::capacity::Reservation;
use super::super::handle::CreateRequest;
use super::super::machine::{Event as Happening, New};
use super::*;
use crate::worker::check;

struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("ledger.db")
    }

    fn tables(&self) -> Tables {
        Tables::open(&self.path(), Uids(1000, 1002)).unwrap()
    }
}

fn draft(id: u64) -> Draft {
    let config: MachineConfig = serde_json::from_value(json!({"image": "x"})).unwrap();
    let request = CreateRequest {
        reservation: Reservation {
            id: ulid::Ulid::nil(),
        },
        id: MachineId::from_bits(id),
        app: "web".parse().unwrap(),
        network: NetworkId::try_from(7).unwrap(),
        name: format!("m{id}"),
        config: check(config).unwrap(),
        launch: false,
        lease: None,
        cordoned: false,
        placement: None,
        creation_key: None,
        secrets: crate::worker::SecretsWanted::default(),
    };
    let isolation = IsolationClass::Container;
    let build = move |allocation| {
        let host = HostId::new(2);
        let given = New {
            request,
            isolation,
            region: "local".into(),
            host,
            allocation,
        };
        Machine::create(given, jiff::Timestamp::UNIX_EPOCH).launch(
            jiff::Timestamp::UNIX_EPOCH,
            false,
            None,
        )
    };
    Draft {
        id: MachineId::from_bits(id),
        app: "web".parse().unwrap(),
        name: format!("m{id}"),
        creation_key: None,
        build: Box::new(build),
    }
}

/// Destroys a machine in the tables.
fn destroy(tables: &mut Tables, mut machine: Machine) {
    let now = jiff::Timestamp::UNIX_EPOCH + Duration::from_secs(1);
    machine
        .apply(now, Happening::Destroy { force: true })
        .unwrap();
    machine.apply(now, Happening::Forgotten).unwrap();
    tables.commit(&machine, &[], None).unwrap();
}

#[test]
fn what_was_written_is_there_after_opening_again() {
    let home = Home::new();
    let mut tables = home.tables();
    let (machine, revision) = tables.create(draft(1)).unwrap();
    assert_eq!(revision, 1);
    drop(tables);
    let mut tables = home.tables();
    assert_eq!(tables.machines().unwrap(), [(machine.clone(), 1)]);
    assert_eq!(tables.commit(&machine, &[], None).unwrap(), 2);
    assert_eq!(tables.revisions().unwrap(), (2, 0));
    assert_eq!(tables.events(&machine.id, 10).unwrap()[0].kind, "launch");
}

#[test]
fn allocations_are_unique_lowest_first_and_come_back() {
    let home = Home::new();
    let mut tables = home.tables();
    let mut machines = Vec::new();
    for id in 1..=3 {
        machines.push(tables.create(draft(id)).unwrap().0);
    }
    let given: Vec<(String, u32)> = machines
        .iter()
        .map(|m| (m.allocation.ipv4.to_string(), m.allocation.uid))
        .collect();
    let expected = [
        ("172.19.0.2", 1000),
        ("172.19.0.3", 1001),
        ("172.19.0.4", 1002),
    ];
    assert_eq!(given, expected.map(|(ipv4, uid)| (ipv4.to_owned(), uid)));
    assert_ne!(machines[0].allocation.field, machines[1].allocation.field);
    let full = tables.create(draft(4));
    assert!(matches!(
        full,
        Err(CreateError::Exhausted { what: "user ids" })
    ));
    destroy(&mut tables, machines.swap_remove(1));
    assert_eq!(tables.create(draft(4)).unwrap().0.allocation.uid, 1001);
}

#[test]
fn a_name_is_free_again_when_its_machine_is_destroyed_and_an_id_never() {
    let home = Home::new();
    let mut tables = home.tables();
    let (machine, _) = tables.create(draft(1)).unwrap();
    assert!(matches!(
        tables.create(draft(1)),
        Err(CreateError::NameTaken { .. })
    ));
    destroy(&mut tables, machine);
    assert!(matches!(tables.create(draft(1)), Err(CreateError::IdTaken)));
    let named = Draft {
        id: MachineId::from_bits(2),
        name: "m1".into(),
        ..draft(2)
    };
    assert!(tables.create(named).is_ok());
}

#[test]
fn only_the_last_events_are_kept() {
    let home = Home::new();
    let mut tables = home.tables();
    let (mut machine, _) = tables.create(draft(1)).unwrap();
    for second in 0..150 {
        let now = jiff::Timestamp::UNIX_EPOCH + Duration::from_secs(second);
        machine.record_launch(now, None);
        let event = machine.events[0].clone();
        tables.commit(&machine, &[event], None).unwrap();
    }
    let events = tables.events(&machine.id, 1000).unwrap();
    assert_eq!(events.len(), 100);
    assert_eq!(events[0].id, machine.events[0].id, "newest first");
}

#[test]
fn a_ledger_of_a_newer_version_or_of_nonsense_is_refused_and_left_alone() {
    let home = Home::new();
    drop(home.tables());
    let connection = rusqlite::Connection::open(home.path()).unwrap();
    connection.pragma_update(None, "user_version", 9).unwrap();
    drop(connection);
    let newer = Tables::open(&home.path(), Uids(1, 2)).map(|_| ());
    assert!(matches!(newer, Err(LedgerError::Newer { found: 9, .. })));
    std::fs::write(
        home.path(),
        b"not a database, but long enough to be looked at",
    )
    .unwrap();
    let nonsense = Tables::open(&home.path(), Uids(1, 2)).map(|_| ());
    assert!(matches!(nonsense, Err(LedgerError::Sqlite { .. })));
}

#[test]
fn the_ledger_is_for_its_owner_only() {
    use std::os::unix::fs::PermissionsExt as _;
    let home = Home::new();
    drop(home.tables());
    let mode = std::fs::metadata(home.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o077, 0);
}

#[test]
fn a_ledger_of_schema_1_opens_with_everything_that_it_holds() {
    let home = Home::new();
    let connection = rusqlite::Connection::open(home.path()).unwrap();
    connection
        .execute_batch(include_str!("tests/schema-1.sql"))
        .unwrap();
    drop(connection);
    for _ in 0..2 {
        let tables = home.tables();
        let machines = tables.machines().unwrap();
        let states: Vec<(&str, &str)> = machines
            .iter()
            .map(|(machine, _)| (machine.name.as_str(), machine.shown_state().as_str()))
            .collect();
        let expected = [
            ("m1", "started"),
            ("m8", "started"),
            ("m2", "stopped"),
            ("m6", "destroyed"),
            ("m5", "failed"),
            ("m7", "starting"),
            ("m3", "stopping"),
            ("m4", "starting"),
        ];
        assert_eq!(states, expected);
        assert_eq!(tables.revisions().unwrap(), (46, 0));
        let (first, _) = &machines[0];
        assert_eq!(first.config.as_given().env["A"], "b");
        assert!(first.lease.is_some() && !first.cordoned && first.saved.is_none());
        assert_eq!(tables.events(&first.id, 99).unwrap().len(), 3);
        assert!(tables.versions(&first.id).unwrap().is_empty());
    }
    let mut tables = home.tables();
    assert!(tables.create(draft(9)).is_ok());
}

#[test]
fn a_key_creates_one_machine() {
    let home = Home::new();
    let mut tables = home.tables();
    let keyed = |id| Draft {
        creation_key: Some("key".into()),
        ..draft(id)
    };
    let (machine, revision) = tables.create(keyed(1)).unwrap();
    let again = tables.create(keyed(2));
    assert!(
        matches!(again, Err(CreateError::Exists(found, at)) if *found == machine && at == revision)
    );
}

#[test]
fn the_last_versions_are_kept_newest_first() {
    let home = Home::new();
    let mut tables = home.tables();
    let (machine, _) = tables.create(draft(1)).unwrap();
    for number in 0..60u64 {
        let retired = Retired {
            version: ulid::Ulid::from_parts(number, 0)
                .to_string()
                .parse()
                .unwrap(),
            config: Arc::clone(&machine.config),
        };
        tables.commit(&machine, &[], Some(&retired)).unwrap();
    }
    let versions = tables.versions(&machine.id).unwrap();
    assert_eq!(versions.len(), versions::VERSIONS_MAX);
    assert!(versions.is_sorted_by(|a, b| a.0 > b.0));
    assert_eq!(
        versions[0].0.as_str(),
        ulid::Ulid::from_parts(59, 0).to_string()
    );
}
