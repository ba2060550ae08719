//! The role as a whole: a worker over a fake VMM, network and images.

mod changes;
mod crash;
mod fakes;
mod leases;
mod secrets;
mod volumes;

use std::time::Duration;

use serde_json::json;
use types::guest::ExecRequest;
use types::machine::{ContainerState, ExitEvent, Machine, MachineState};
use types::{AppName, MachineId, NetworkId};
use vmm::fake::Script;
use vmm::{Input, Output};

use super::*;
use crate::catalog::Filter;
pub(crate) use fakes::World;

fn app() -> AppName {
    "web".parse().unwrap()
}

fn request(config: serde_json::Value) -> BidRequest {
    let config = check(serde_json::from_value(config).unwrap()).unwrap();
    let network = NetworkId::try_from(7).unwrap();
    BidRequest {
        app: app(),
        network,
        region: String::new(),
        config,
    }
}

async fn create(handle: &Handle, id: u64, config: serde_json::Value) -> Result<Machine, Refused> {
    let request = request(config);
    let reservation = handle.reserve(&request).await?;
    let create = CreateRequest {
        reservation,
        id: MachineId::from_bits(id),
        app: request.app,
        network: request.network,
        name: format!("m{id}"),
        config: request.config,
        launch: true,
        lease: None,
        cordoned: false,
        placement: None,
        creation_key: None,
        secrets: SecretsWanted::default(),
    };
    handle.create(create).await
}

impl World {
    async fn until(&self, id: &MachineId, state: MachineState) -> Machine {
        let reached = |entry: &crate::catalog::Entry| entry.machine.state == state;
        let entry = self
            .catalog
            .wait_for(id, Duration::from_secs(20), reached)
            .await;
        entry.unwrap().machine.clone()
    }
}

#[tokio::test]
async fn a_machine_lives_from_create_to_destroy() {
    let world = World::new();
    let worker = world.start().await;
    let handle = worker.handle();
    let id = create(&handle, 1, json!({"image": "x"})).await.unwrap().id;
    let machine = world.until(&id, MachineState::Started).await;
    assert_eq!(machine.image_ref.digest, "sha256:x");
    let spec = &world.vmm.specs()[0];
    assert_eq!(
        spec.spec.containers[0].env["FLY_PRIVATE_IP"],
        machine.private_ip
    );
    assert_eq!(spec.spec.network.ipv6.to_string(), machine.private_ip);
    assert_eq!(world.network.attached().len(), 1);
    assert_eq!(handle.start(&id).await.unwrap(), MachineState::Started);
    handle.stop(&id, StopRequest::default()).await.unwrap();
    world.until(&id, MachineState::Stopped).await;
    assert!(world.network.attached().is_empty());
    handle.destroy(&id, false).await.unwrap();
    world.until(&id, MachineState::Destroyed).await;
    assert!(
        handle.destroy(&id, false).await.is_ok(),
        "destroying twice is no error"
    );
    assert!(handle.list(&app()).0.is_empty());
    let kinds: Vec<String> = handle
        .events(&id, 99)
        .await
        .unwrap()
        .into_iter()
        .map(|event| event.kind)
        .collect();
    assert_eq!(
        kinds,
        [
            "destroy", "destroy", "exit", "stop", "start", "start", "launch"
        ]
    );
    worker.shutdown().await;
}

#[tokio::test]
async fn an_image_that_is_nowhere_fails_the_machine_with_a_reason() {
    let world = World::new();
    let worker = world.start().await;
    let id = create(&worker.handle(), 1, json!({"image": "missing"}))
        .await
        .unwrap()
        .id;
    let machine = world.until(&id, MachineState::Failed).await;
    let container = &machine.containers[0];
    assert_eq!(container.state, ContainerState::Failed);
    let image = "docker.io/library/missing:latest";
    assert_eq!(
        container.message,
        format!("cannot get image {image}: the registry has no {image}")
    );
    assert!(machine.events.iter().any(|event| event.kind == "pull"));
    worker.shutdown().await;
}

#[tokio::test]
async fn a_machine_can_be_stopped_while_its_image_is_pulled() {
    let world = World::new();
    let worker = world.start().await;
    let handle = worker.handle();
    let id = create(&handle, 1, json!({"image": "slow"}))
        .await
        .unwrap()
        .id;
    world.until(&id, MachineState::Starting).await;
    let stopped = handle.stop(&id, StopRequest::default()).await.unwrap();
    assert_eq!(stopped.state, MachineState::Stopped);
    assert_eq!(handle.start(&id).await.unwrap(), MachineState::Stopped);
    handle.destroy(&id, true).await.unwrap();
    world.until(&id, MachineState::Destroyed).await;
    worker.shutdown().await;
}

#[tokio::test]
async fn a_machine_survives_its_worker() {
    let world = World::new();
    let worker = world.start().await;
    let id = create(&worker.handle(), 1, json!({"image": "x"}))
        .await
        .unwrap()
        .id;
    let before = world.until(&id, MachineState::Started).await;
    worker.shutdown().await;
    assert_eq!(world.vmm.alive().len(), 1);
    let world = world.with_new_catalog();
    let worker = world.start().await;
    let handle = worker.handle();
    assert_eq!(handle.get(&id), Some(before.clone()));
    let now = world.catalog.revision();
    let mut watch = world.catalog.subscribe(Filter::All, Some(now)).unwrap();
    assert_eq!(watch.try_next(), Ok(None));
    world.vmm.exit(&id, ExitEvent::default());
    let after = world.until(&id, MachineState::Stopped).await;
    assert!(after.revision > before.revision);
    assert_eq!(watch.next().await.unwrap().machine.id, id);
    worker.shutdown().await;
}

#[tokio::test]
async fn what_belongs_to_no_machine_is_swept_away() {
    let world = World::new();
    let worker = world.start().await;
    let id = create(&worker.handle(), 1, json!({"image": "x"}))
        .await
        .unwrap()
        .id;
    world.until(&id, MachineState::Started).await;
    worker.shutdown().await;
    std::fs::remove_file(world.ledger()).unwrap();
    world.network.attach_stray(0x9999_9999);
    let world = world.with_new_catalog();
    let worker = world.start().await;
    assert!(world.vmm.alive().is_empty());
    assert!(world.network.attached().is_empty());
    worker.shutdown().await;
}

#[tokio::test]
async fn a_handle_that_is_held_after_the_shutdown_refuses() {
    let world = World::new();
    let worker = world.start().await;
    let handle = worker.handle();
    let id = create(&handle, 1, json!({"image": "x"})).await.unwrap().id;
    worker.shutdown().await;
    assert!(matches!(
        handle.start(&id).await,
        Err(Refused::ShuttingDown)
    ));
    let created = create(&handle, 2, json!({"image": "x"})).await;
    assert!(matches!(created, Err(Refused::ShuttingDown)));
}

#[tokio::test]
async fn names_and_ids_are_taken_once() {
    let world = World::new();
    let worker = world.start().await;
    let handle = worker.handle();
    let first = create(&handle, 1, json!({"image": "x"})).await.unwrap().id;
    let again = create(&handle, 1, json!({"image": "x"})).await;
    assert!(matches!(again, Err(Refused::NameTaken { id, .. }) if id == first));
    let request = request(json!({"image": "x"}));
    let reservation = handle.reserve(&request).await.unwrap();
    let mut same_id = CreateRequest {
        reservation,
        id: first.clone(),
        app: app(),
        network: request.network,
        name: "other".into(),
        config: request.config.clone(),
        launch: false,
        lease: None,
        cordoned: false,
        placement: None,
        creation_key: None,
        secrets: SecretsWanted::default(),
    };
    let refused = handle.create(same_id.clone()).await;
    assert!(matches!(refused, Err(Refused::IdTaken { .. })));
    same_id.id = MachineId::from_bits(2);
    let refused = handle.create(same_id).await;
    assert!(matches!(refused, Err(Refused::ReservationExpired)));
    worker.shutdown().await;
}

#[tokio::test]
async fn no_room_is_an_answer_at_once_and_room_comes_back() {
    let world = World::new();
    let worker = world.start().await;
    let handle = worker.handle();
    let large = json!({"image": "x", "guest": {"memory_mb": 3000}});
    let id = create(&handle, 1, large.clone()).await.unwrap().id;
    let refused = create(&handle, 2, large.clone()).await;
    let Err(Refused::NoBid(no_bid)) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!(
        no_bid,
        NoBid::InsufficientMemory {
            asked_mb: 3000,
            free_mb: 1096
        }
    );
    assert!(no_bid.retryable());
    world.until(&id, MachineState::Started).await;
    handle.stop(&id, StopRequest::default()).await.unwrap();
    world.until(&id, MachineState::Stopped).await;
    create(&handle, 2, large).await.unwrap();
    assert!(matches!(handle.start(&id).await, Err(Refused::NoBid(_))));
    let class = json!({"image": "x", "isolation": "microvm"});
    let refused = create(&handle, 3, class).await;
    assert!(matches!(
        refused,
        Err(Refused::NoBid(NoBid::ClassNotOffered { .. }))
    ));
    worker.shutdown().await;
}

#[tokio::test]
async fn one_reaches_into_a_started_machine_only() {
    let world = World::new();
    let worker = world.start().await;
    let handle = worker.handle();
    world.vmm.script(Script::Hang);
    let id = create(&handle, 1, json!({"image": "x"})).await.unwrap().id;
    let exec = ExecRequest {
        container: String::new(),
        command: vec!["cat".into()],
        env: [].into(),
        tty: false,
        stdin: true,
        size: None,
        machine: false,
    };
    let early = handle.exec(&id, exec.clone()).await;
    assert!(matches!(
        early,
        Err(Refused::WrongState {
            state: MachineState::Starting,
            ..
        })
    ));
    world.eventually(|| !world.vmm.alive().is_empty()).await;
    world.vmm.report(&id, vmm::ReportEvent::Ready);
    world.until(&id, MachineState::Started).await;
    let unknown = handle.attach(&id, "nobody").await;
    assert!(matches!(unknown, Err(Refused::NoContainer { known, .. }) if known == "app"));
    let mut io = handle.exec(&id, exec).await.unwrap();
    io.input.send(Input::Stdin("hi".into())).await.unwrap();
    assert_eq!(io.output.recv().await, Some(Output::Stdout("hi".into())));
    worker.shutdown().await;
}

#[tokio::test]
async fn a_body_that_cannot_be_started_follows_the_restart_policy() {
    let world = World::new();
    let worker = world.start().await;
    world.vmm.script(Script::Refuse {
        reason: "no".into(),
    });
    let config = json!({"image": "x", "restart": {"policy": "no"}});
    let id = create(&worker.handle(), 1, config).await.unwrap().id;
    let machine = world.until(&id, MachineState::Failed).await;
    let message = &machine.events[0].request.as_ref().unwrap().message;
    assert!(message.contains("did not start"), "{message}");
    assert!(world.network.attached().is_empty());
    worker.shutdown().await;
}

#[tokio::test]
async fn an_update_runs_the_new_configuration() {
    let world = World::new();
    let worker = world.start().await;
    let handle = worker.handle();
    let id = create(&handle, 1, json!({"image": "x"})).await.unwrap().id;
    let before = world.until(&id, MachineState::Started).await;
    let config = request(json!({"image": "y"})).config;
    let update = UpdateRequest {
        config,
        launch: true,
        current_version: Some(before.version),
        cordon: false,
        secrets: SecretsWanted::default(),
    };
    let updated = handle.update(&id, update.clone()).await.unwrap();
    assert_eq!(updated.state, MachineState::Updating);
    world.eventually(|| world.vmm.specs().len() == 2).await;
    let after = world.until(&id, MachineState::Started).await;
    assert_eq!(after.image_ref.digest, "sha256:y");
    let stale = handle.update(&id, update).await;
    assert!(matches!(stale, Err(Refused::VersionMismatch { .. })));
    worker.shutdown().await;
}
