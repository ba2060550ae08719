//! What readers of the catalog see.

use std::time::Duration;

use super::*;
use types::IsolationClass;
use types::machine::{ImageIdentity, MachineConfig};

/// A machine of host 2 and network 7.
pub(crate) fn entry(app: &str, id: u64, revision: u64, state: MachineState) -> Entry {
    let version: types::VersionId = "0".repeat(26).parse().unwrap();
    Entry {
        host: HostId::new(2),
        app: app.parse().unwrap(),
        network: NetworkId::try_from(7).unwrap(),
        machine: Machine {
            id: MachineId::from_bits(id),
            name: format!("m{id}"),
            state,
            region: "local".into(),
            instance_id: version.clone(),
            version,
            private_ip: "fdaa::1".into(),
            created_at: jiff::Timestamp::UNIX_EPOCH,
            updated_at: jiff::Timestamp::UNIX_EPOCH,
            config: MachineConfig::default(),
            image_ref: ImageIdentity::default(),
            events: vec![],
            checks: vec![],
            containers: vec![],
            nonce: None,
            host_status: "ok".into(),
            cordoned: false,
            creation_key: None,
            isolation: IsolationClass::Container,
            revision,
        },
    }
}

use MachineState::{Destroyed, Started, Stopped};

/// Revisions that a reader is shown until it has caught up.
fn seen(subscription: &mut Subscription) -> Vec<u64> {
    let mut seen = Vec::new();
    while let Some(entry) = subscription.try_next().unwrap() {
        seen.push(entry.machine.revision);
    }
    seen
}

#[test]
fn a_watch_from_a_list_misses_nothing_and_repeats_nothing() {
    let catalog = Catalog::new();
    catalog.publish(entry("a", 1, 1, Started));
    let list = catalog.list(&Filter::All);
    assert_eq!((list.revision, list.entries.len()), (1, 1));
    let mut watch = catalog.subscribe(Filter::All, Some(list.revision)).unwrap();
    assert!(seen(&mut watch).is_empty());
    catalog.publish(entry("a", 2, 2, Started));
    catalog.publish(entry("b", 3, 3, Started));
    catalog.publish(entry("a", 1, 4, Stopped));
    assert_eq!(seen(&mut watch), [2, 3, 4]);
    let mut of_a = catalog
        .subscribe(Filter::App("a".parse().unwrap()), Some(1))
        .unwrap();
    assert_eq!(seen(&mut of_a), [2, 4]);
    assert_eq!(of_a.revision(), 4);
}

#[test]
fn a_slow_reader_sees_the_last_change_of_each_machine() {
    let catalog = Catalog::new();
    let mut watch = catalog.subscribe(Filter::All, None).unwrap();
    for revision in 1..=5000 {
        catalog.publish(entry("a", revision % 2, revision, Started));
    }
    assert_eq!(seen(&mut watch), [4999, 5000]);
}

#[test]
fn a_watch_without_a_beginning_shows_machines_but_not_those_that_are_gone() {
    let catalog = Catalog::new();
    catalog.publish(entry("a", 1, 1, Destroyed));
    catalog.publish(entry("a", 2, 2, Stopped));
    let mut watch = catalog.subscribe(Filter::All, None).unwrap();
    assert_eq!(seen(&mut watch), [2]);
    catalog.publish(entry("a", 2, 3, Destroyed));
    assert_eq!(seen(&mut watch), [3]);
}

#[test]
fn who_was_away_too_long_must_list_again() {
    let catalog = Catalog::new();
    catalog.publish(entry("a", 9_999_999, 1, Started));
    let mut early = catalog.subscribe(Filter::All, Some(1)).unwrap();
    let mut fresh = catalog.subscribe(Filter::All, None).unwrap();
    assert_eq!(seen(&mut fresh), [1]);
    let last = 1 + DESTROYED_MAX as u64 + 1;
    for revision in 2..=last {
        catalog.publish(entry("a", revision, revision, Destroyed));
    }
    assert_eq!(catalog.get(&MachineId::from_bits(2)), None);
    assert_eq!(early.try_next().unwrap_err(), Gone { from: 1 });
    assert_eq!(fresh.try_next().unwrap_err(), Gone { from: 1 });
    assert!(catalog.subscribe(Filter::All, Some(1)).is_err());
    assert!(catalog.subscribe(Filter::All, Some(2)).is_ok());
    // Who begins anew sees old machines, whatever was forgotten before.
    let mut anew = catalog.subscribe(Filter::All, None).unwrap();
    assert_eq!(seen(&mut anew), [1]);
    assert_eq!(anew.revision(), last);
}

#[test]
fn what_a_status_changes_is_seen_by_watches_and_by_names() {
    let catalog = Catalog::new();
    let (here, there) = (HostId::new(2), HostId::new(3));
    catalog.resume(here, 0, 0);
    catalog.publish(entry("a", 1, 1, Started));
    catalog.publish(Entry {
        host: there,
        ..entry("a", 2, 1, Started)
    });
    assert_eq!(catalog.host_status(here), HostStatus::Ok);
    assert_eq!(catalog.host_status(there), HostStatus::Unknown);
    let from = catalog.revision();
    let mut watch = catalog.subscribe(Filter::All, Some(from)).unwrap();
    catalog.set_host_status(there, HostStatus::Unreachable);
    catalog.set_host_status(there, HostStatus::Unreachable);
    catalog.set_host_status(here, HostStatus::Unreachable);
    let changed = watch.try_next().unwrap().unwrap();
    assert_eq!(changed.machine.id, MachineId::from_bits(2));
    assert_eq!(changed.machine.host_status, "unreachable");
    assert_eq!(watch.revision(), from + 1);
    assert_eq!(watch.try_next().unwrap(), None);
    let network = NetworkId::try_from(7).unwrap();
    assert_eq!(catalog.started_in(network).len(), 1);
    catalog.publish(Entry {
        host: there,
        ..entry("a", 2, 2, Stopped)
    });
    assert_eq!(
        watch.try_next().unwrap().unwrap().machine.host_status,
        "unreachable"
    );
    catalog.set_host_status(there, HostStatus::Ok);
    assert_eq!(watch.try_next().unwrap().unwrap().machine.host_status, "ok");
}

#[test]
fn names_lead_to_started_machines_of_the_same_network() {
    let catalog = Catalog::new();
    catalog.publish(entry("a", 1, 1, Started));
    catalog.publish(entry("a", 2, 2, Stopped));
    let mut hidden = entry("a", 3, 3, Started);
    hidden.machine.config.dns.skip_registration = true;
    catalog.publish(hidden);
    let (app, network) = ("a".parse().unwrap(), NetworkId::try_from(7).unwrap());
    assert_eq!(catalog.started(&app, network).len(), 1);
    assert_eq!(catalog.started_in(network).len(), 1);
    let other = NetworkId::try_from(8).unwrap();
    assert!(catalog.started(&app, other).is_empty());
    assert!(
        catalog
            .started_machine(&MachineId::from_bits(1), network)
            .is_some()
    );
    assert!(
        catalog
            .started_machine(&MachineId::from_bits(1), other)
            .is_none()
    );
    assert!(
        catalog
            .started_machine(&MachineId::from_bits(2), network)
            .is_none()
    );
}

#[tokio::test]
async fn a_wait_ends_with_the_state_or_with_the_deadline() {
    let catalog = Catalog::new();
    catalog.publish(entry("a", 1, 1, Stopped));
    let id = MachineId::from_bits(1);
    let started = |entry: &Entry| entry.machine.state == Started;
    let late = catalog
        .wait_for(&id, Duration::from_millis(20), started)
        .await;
    assert!(matches!(late, Err(NotReached::Late(entry)) if entry.machine.state == Stopped));
    let waiter = catalog.clone();
    let waiting = tokio::spawn(async move {
        waiter
            .wait_for(&MachineId::from_bits(1), Duration::from_secs(60), started)
            .await
    });
    catalog.publish(entry("a", 1, 2, Started));
    assert_eq!(waiting.await.unwrap().unwrap().machine.revision, 2);
    let absent = catalog
        .wait_for(&MachineId::from_bits(5), Duration::ZERO, started)
        .await;
    assert_eq!(absent, Err(NotReached::NotFound));
}

#[tokio::test]
async fn a_reader_that_waits_is_woken() {
    let catalog = Catalog::new();
    let mut watch = catalog.subscribe(Filter::All, None).unwrap();
    let waiting = tokio::spawn(async move { watch.next().await.unwrap().machine.revision });
    tokio::task::yield_now().await;
    catalog.publish(entry("a", 1, 5, Started));
    assert_eq!(waiting.await.unwrap(), 5);
}
