//! Suspension, restarts, versions, metadata, cordons and repeated creations, over a fake VMM.

use types::machine::{EventRequest, Placement};

use super::*;

/// A machine of a class that can be suspended.
fn emulated() -> serde_json::Value {
    json!({"image": "x", "isolation": "emulated", "guest": {"memory_mb": 64}})
}

#[tokio::test]
async fn a_suspended_machine_outlives_its_worker_and_resumes() {
    let world = World::new();
    let worker = world.start().await;
    let handle = worker.handle();
    let id = create(&handle, 1, emulated()).await.unwrap().id;
    world.until(&id, MachineState::Started).await;
    handle.suspend(&id).await.unwrap();
    world.until(&id, MachineState::Suspended).await;
    assert!(world.network.attached().is_empty());
    worker.shutdown().await;
    let world = world.with_new_catalog();
    let worker = world.start().await;
    let handle = worker.handle();
    assert_eq!(handle.get(&id).unwrap().state, MachineState::Suspended);
    assert_eq!(handle.start(&id).await.unwrap(), MachineState::Suspended);
    world.until(&id, MachineState::Started).await;
    assert!(world.vmm.specs()[1].resume);
    world.eventually(|| world.vmm.suspended().is_empty()).await;
    handle.suspend(&id).await.unwrap();
    world.until(&id, MachineState::Suspended).await;
    // One whose memory is lost starts afresh.
    vmm::Vmm::discard_suspended(&world.vmm, &id).await.unwrap();
    handle.start(&id).await.unwrap();
    let machine = world.until(&id, MachineState::Started).await;
    assert!(!world.vmm.specs().last().unwrap().resume);
    let told = machine
        .events
        .iter()
        .filter_map(|event| event.request.as_ref());
    assert!(
        told.clone()
            .any(|request| request.message.contains("nothing is saved"))
    );
    handle.suspend(&id).await.unwrap();
    world.until(&id, MachineState::Suspended).await;
    handle.destroy(&id, false).await.unwrap();
    world.until(&id, MachineState::Destroyed).await;
    assert!(world.vmm.suspended().is_empty());
    let container = create(
        &handle,
        2,
        json!({"image": "x", "guest": {"memory_mb": 64}}),
    );
    let id = container.await.unwrap().id;
    world.until(&id, MachineState::Started).await;
    let refused = handle.suspend(&id).await;
    assert!(matches!(refused, Err(Refused::Vmm { .. })), "{refused:?}");
    worker.shutdown().await;
}

#[tokio::test]
async fn a_restart_is_seen_as_one() {
    let world = World::new();
    let worker = world.start().await;
    let handle = worker.handle();
    let id = create(&handle, 1, json!({"image": "x"})).await.unwrap().id;
    world.until(&id, MachineState::Started).await;
    let from = world.catalog.revision();
    let mut watch = world.catalog.subscribe(Filter::All, Some(from)).unwrap();
    let request = StopRequest::default();
    handle.restart(&id, request.clone(), false).await.unwrap();
    let mut seen = Vec::new();
    while seen.last() != Some(&MachineState::Started) {
        seen.push(watch.next().await.unwrap().machine.state);
    }
    seen.dedup();
    let expected = [
        MachineState::Restarting,
        MachineState::Starting,
        MachineState::Started,
    ];
    assert_eq!(seen, expected);
    assert_eq!(world.vmm.specs().len(), 2);
    let nonsense = StopRequest {
        signal: Some("SIGNONE".into()),
        ..request
    };
    let refused = handle.restart(&id, nonsense, false).await;
    assert!(matches!(refused, Err(Refused::Invalid(_))));
    worker.shutdown().await;
}

#[tokio::test]
async fn earlier_configurations_stay_known_and_metadata_makes_none() {
    let world = World::new();
    let worker = world.start().await;
    let handle = worker.handle();
    let id = create(&handle, 1, json!({"image": "x"})).await.unwrap().id;
    let first = world.until(&id, MachineState::Started).await.version;
    let update = UpdateRequest {
        config: request(json!({"image": "y"})).config,
        launch: true,
        current_version: None,
        cordon: true,
        secrets: SecretsWanted::default(),
    };
    let second = handle.update(&id, update).await.unwrap();
    assert!(second.cordoned);
    let change = MetadataChange {
        values: [("k".to_owned(), Some("v".to_owned()))].into(),
        replace: false,
        version: Some(second.version.to_string()),
    };
    let changed = handle.change_metadata(&id, change.clone()).await.unwrap();
    assert_eq!(changed.config.metadata["k"], "v");
    assert_eq!(changed.version, second.version);
    let stale = MetadataChange {
        version: Some(first.to_string()),
        ..change
    };
    let refused = handle.change_metadata(&id, stale).await;
    assert!(matches!(refused, Err(Refused::StaleVersion { .. })));
    let versions = handle.versions(&id).await.unwrap();
    let told: Vec<(&str, &str)> = versions
        .iter()
        .map(|version| (version.version.as_str(), version.user_config.image.as_str()))
        .collect();
    assert_eq!(
        told,
        [(second.version.as_str(), "y"), (first.as_str(), "x")]
    );
    assert!(versions[1].created_at.is_some());
    handle.set_cordoned(&id, false).await.unwrap();
    assert!(!handle.get(&id).unwrap().cordoned);
    worker.shutdown().await;
}

#[tokio::test]
async fn a_creation_that_is_repeated_with_its_key_gives_the_same_machine() {
    let world = World::new();
    let worker = world.start().await;
    let handle = worker.handle();
    let asked = request(json!({"image": "x", "guest": {"memory_mb": 64}}));
    let won = Placement {
        took_ms: 3,
        bids: vec![],
    };
    let keyed = |reservation, id| CreateRequest {
        reservation,
        id: MachineId::from_bits(id),
        app: asked.app.clone(),
        network: asked.network,
        name: format!("m{id}"),
        config: asked.config.clone(),
        launch: true,
        lease: None,
        cordoned: true,
        placement: Some(won.clone()),
        creation_key: Some("digest".into()),
        secrets: SecretsWanted::default(),
    };
    let free = handle.word();
    let mut ids = Vec::new();
    for id in 1..=3 {
        let reservation = handle.reserve(&asked).await.unwrap();
        let created = handle.create(keyed(reservation, id)).await.unwrap();
        assert!(created.cordoned);
        let launch = created.events.last().unwrap().request.clone();
        let placement = |request: EventRequest| request.placement;
        assert_eq!(launch.and_then(placement), Some(won.clone()));
        ids.push(created.id);
    }
    ids.dedup();
    assert_eq!(ids, [MachineId::from_bits(1)]);
    assert_eq!(handle.list(&app()).0.len(), 1);
    world.until(&ids[0], MachineState::Started).await;
    handle.destroy(&ids[0], true).await.unwrap();
    world.until(&ids[0], MachineState::Destroyed).await;
    assert_eq!(handle.word(), free, "no room was lost");
    let reservation = handle.reserve(&asked).await.unwrap();
    let late = handle.create(keyed(reservation, 4)).await.unwrap();
    assert_eq!(late.id, ids[0], "a run that is over is not repeated either");
    worker.shutdown().await;
}

#[tokio::test]
async fn a_signal_goes_to_one_container_or_to_each_and_needs_the_lease() {
    let world = World::new();
    let worker = world.start().await;
    let handle = worker.handle();
    let id = create(&handle, 1, json!({"image": "x"})).await.unwrap().id;
    world.until(&id, MachineState::Started).await;
    handle.signal(&id, None, "SIGHUP".into()).await.unwrap();
    let named = Some("app".to_owned());
    handle.signal(&id, named.clone(), "1".into()).await.unwrap();
    let sent = world.vmm.signals();
    let expected = [
        (id.clone(), None, "SIGHUP".to_owned()),
        (id.clone(), named, "1".to_owned()),
    ];
    assert_eq!(sent, expected);
    let nobody = handle.signal(&id, Some("x".into()), "1".into()).await;
    assert!(matches!(nobody, Err(Refused::NoContainer { .. })));
    let lease = LeaseRequest {
        owner: "personal".into(),
        description: String::new(),
        ttl: LEASE_TTL_MAX,
    };
    handle.acquire_lease(&id, lease).await.unwrap();
    let refused = handle.signal(&id, None, "1".into()).await;
    assert!(matches!(refused, Err(Refused::LeaseHeld { .. })));
    worker.shutdown().await;
}

#[tokio::test]
async fn a_ledger_of_schema_1_is_taken_over_with_its_machines() {
    let world = World::new();
    let connection = rusqlite::Connection::open(world.ledger()).unwrap();
    connection
        .execute_batch(include_str!("../ledger/tests/schema-1.sql"))
        .unwrap();
    drop(connection);
    let worker = world.start().await;
    let handle = worker.handle();
    // Their bodies are gone: those that ran have ended, and what was to run runs again.
    for (number, state) in [
        (2, MachineState::Stopped),
        (3, MachineState::Stopped),
        (5, MachineState::Failed),
        (6, MachineState::Destroyed),
    ] {
        world.until(&MachineId::from_bits(number), state).await;
    }
    let restarted = MachineId::from_bits(1);
    world.until(&restarted, MachineState::Started).await;
    let leased = handle.stop(&restarted, StopRequest::default()).await;
    assert!(leased.is_err() || handle.lease(&restarted).await.unwrap().is_none());
    worker.shutdown().await;
}
