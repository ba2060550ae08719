//! Leases over the life of a worker.

use super::*;

fn asked(ttl: Duration) -> LeaseRequest {
    LeaseRequest {
        owner: "personal".into(),
        description: String::new(),
        ttl,
    }
}

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn every_change_of_a_leased_machine_needs_the_nonce() {
    let world = World::new();
    let worker = world.start().await;
    let handle = worker.handle();
    let config = json!({"image": "x"});
    let id = create(&handle, 1, config.clone()).await.unwrap().id;
    world.until(&id, MachineState::Started).await;
    let lease = handle.acquire_lease(&id, asked(MINUTE)).await.unwrap();
    let update = || UpdateRequest {
        config: request(config.clone()).config,
        launch: true,
        current_version: None,
        cordon: false,
        secrets: SecretsWanted::default(),
    };
    let stranger = handle.permitted(Permit::Holder(Nonce::given("000000000000")));
    for other in [&handle, &stranger] {
        let refusals = [
            other.start(&id).await.map(|_| ()),
            other.stop(&id, StopRequest::default()).await.map(|_| ()),
            other.update(&id, update()).await.map(|_| ()),
            other.destroy(&id, true).await.map(|_| ()),
            other.acquire_lease(&id, asked(MINUTE)).await.map(|_| ()),
        ];
        for refused in refusals {
            assert!(matches!(refused, Err(Refused::LeaseHeld { .. })));
        }
    }
    let refused = stranger.release_lease(&id).await;
    assert!(matches!(refused, Err(Refused::LeaseHeld { .. })));
    assert_eq!(handle.get(&id).unwrap().state, MachineState::Started);

    let holder = handle.permitted(Permit::Holder(lease.nonce.clone()));
    holder.update(&id, update()).await.unwrap();
    holder.stop(&id, StopRequest::default()).await.unwrap();
    let longer = holder.acquire_lease(&id, asked(2 * MINUTE)).await.unwrap();
    assert_eq!(longer.nonce, lease.nonce);
    assert!(longer.expires_at > lease.expires_at);
    world.until(&id, MachineState::Stopped).await;
    holder.release_lease(&id).await.unwrap();
    assert_eq!(handle.lease(&id).await.unwrap(), None);
    handle.start(&id).await.unwrap();
    worker.shutdown().await;
}

#[tokio::test]
async fn a_lease_outlives_its_worker_and_ends_without_one() {
    let world = World::new();
    let worker = world.start().await;
    let handle = worker.handle();
    let mut ids = Vec::new();
    for id in 1..=2 {
        let config = json!({"image": "x"});
        ids.push(create(&handle, id, config).await.unwrap().id);
    }
    let long = handle.acquire_lease(&ids[0], asked(MINUTE)).await.unwrap();
    let short = asked(Duration::from_secs(1));
    let short = handle.acquire_lease(&ids[1], short).await.unwrap();
    worker.shutdown().await;
    tokio::time::sleep(Duration::from_millis(1100)).await;

    let world = world.with_new_catalog();
    let worker = world.start().await;
    let handle = worker.handle();
    assert_eq!(handle.lease(&ids[0]).await.unwrap(), Some(long));
    let refused = handle.destroy(&ids[0], true).await;
    assert!(matches!(refused, Err(Refused::LeaseHeld { .. })));
    assert_eq!(handle.lease(&ids[1]).await.unwrap(), None);
    let late = handle.permitted(Permit::Holder(short.nonce));
    let late = late.acquire_lease(&ids[1], asked(MINUTE)).await;
    assert!(matches!(late, Err(Refused::LeaseNotFound)));
    handle.acquire_lease(&ids[1], asked(MINUTE)).await.unwrap();
    worker.shutdown().await;
}

#[tokio::test]
async fn a_machine_may_be_born_leased_and_ends_with_its_lease() {
    let world = World::new();
    let worker = world.start().await;
    let handle = worker.handle();
    let request = request(json!({"image": "x"}));
    let reservation = handle.reserve(&request).await.unwrap();
    let create = CreateRequest {
        reservation,
        id: MachineId::from_bits(1),
        app: request.app,
        network: request.network,
        name: "m1".into(),
        config: request.config,
        launch: true,
        lease: Some(asked(MINUTE)),
        cordoned: false,
        placement: None,
        creation_key: None,
        secrets: SecretsWanted::default(),
    };
    let machine = handle.create(create).await.unwrap();
    let id = &machine.id;
    let nonce = Nonce::given(&machine.nonce.unwrap());
    assert_eq!(handle.lease(id).await.unwrap().unwrap().nonce, nonce);
    assert_eq!(handle.get(id).unwrap().nonce, None);
    let holder = handle.permitted(Permit::Holder(nonce));
    holder.destroy(id, true).await.unwrap();
    world.until(id, MachineState::Destroyed).await;
    assert_eq!(handle.lease(id).await.unwrap(), None);
    let release = holder.release_lease(id).await;
    assert!(matches!(release, Err(Refused::LeaseNotFound)));
    worker.shutdown().await;
}

#[tokio::test]
async fn whoever_deletes_the_app_need_not_wait() {
    let world = World::new();
    let worker = world.start().await;
    let handle = worker.handle();
    let id = create(&handle, 1, json!({"image": "x"})).await.unwrap().id;
    handle.acquire_lease(&id, asked(MINUTE)).await.unwrap();
    let owner = handle.permitted(Permit::Override);
    owner.destroy(&id, true).await.unwrap();
    world.until(&id, MachineState::Destroyed).await;
    worker.shutdown().await;
}
