//! Machines and the volumes that they name.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use proptest::prelude::*;
use types::VolumeId;
use types::volume::CreateVolume;

use super::*;

async fn volume(worker: &Worker, name: &str) -> VolumeId {
    let new = NewVolume {
        app: app(),
        org: "personal".parse().unwrap(),
        network: NetworkId::try_from(7).unwrap(),
        body: CreateVolume {
            name: name.into(),
            ..CreateVolume::default()
        },
        creation_key: None,
    };
    let handle = worker.handle();
    let created = handle.volumes().create(new).await.unwrap();
    created.volume.id
}

fn mounting(volume: &VolumeId) -> serde_json::Value {
    json!({"image": "x", "guest": {"memory_mb": 64},
        "mounts": [{"volume": volume, "path": "/data"}]})
}

async fn holder(worker: &Worker, id: &VolumeId) -> Option<MachineId> {
    let shown = worker.handle().volumes().get(id).await.unwrap();
    shown.volume.attached_machine_id
}

#[tokio::test]
async fn a_volume_grows_in_its_machine_where_that_can_be_done() {
    let world = World::new();
    world.vmm.let_volumes_grow();
    let worker = world.start().await;
    let handle = worker.handle();
    let id = volume(&worker, "data").await;
    let machine = create(&handle, 1, mounting(&id)).await.unwrap().id;
    world.until(&machine, MachineState::Started).await;
    let extended = handle.volumes().extend(&id, 2).await.unwrap();
    assert!(!extended.needs_restart);
    assert_eq!(world.vmm.grown(), [(id.clone(), 2 << 30)]);
    let file = world.vmm.specs().remove(0).spec.volumes[0].file.clone();
    let length = std::fs::metadata(file).unwrap().len();
    assert_eq!(length, 2 << 30, "there is room for it");
    handle.destroy(&machine, true).await.unwrap();
    world.until(&machine, MachineState::Destroyed).await;
    worker.shutdown().await;
}

#[tokio::test]
async fn a_machine_has_its_volume_until_it_is_destroyed() {
    let world = World::new();
    let worker = world.start().await;
    let handle = worker.handle();
    let id = volume(&worker, "data").await;
    let machine = create(&handle, 1, mounting(&id)).await.unwrap().id;
    world.until(&machine, MachineState::Started).await;
    assert_eq!(holder(&worker, &id).await, Some(machine.clone()));

    let spec = world.vmm.specs().remove(0);
    let mounts = &spec.spec.containers[0].mounts;
    assert_eq!(
        (mounts[0].source.as_str(), mounts[0].path.as_str()),
        (id.as_str(), "/data")
    );
    let file = Path::new(&spec.spec.volumes[0].file).to_owned();
    let owner = |file: &Path| std::fs::metadata(file).unwrap().uid();
    assert_eq!(owner(&file), spec.attachment.owner_uid);

    let other = create(&handle, 2, mounting(&id)).await.unwrap_err();
    let text = format!("volume {id} is attached to machine {machine}");
    assert_eq!(other.to_string(), text);
    let kept = handle.volumes().destroy(&id).await.unwrap_err();
    assert_eq!(kept.to_string(), text);
    let extended = handle.volumes().extend(&id, 2).await.unwrap();
    assert!(extended.needs_restart);

    handle.stop(&machine, StopRequest::default()).await.unwrap();
    world.until(&machine, MachineState::Stopped).await;
    assert_eq!(owner(&file), 0, "between boots it is root's");
    assert_eq!(holder(&worker, &id).await, Some(machine.clone()));
    handle.start(&machine).await.unwrap();
    world.until(&machine, MachineState::Started).await;
    let shown = handle.volumes().get(&id).await.unwrap().volume;
    assert_eq!(shown.block_size * shown.blocks, 2 << 30, "it has grown");

    handle.destroy(&machine, true).await.unwrap();
    world.until(&machine, MachineState::Destroyed).await;
    assert_eq!(holder(&worker, &id).await, None);
    create(&handle, 3, mounting(&id)).await.unwrap();
    worker.shutdown().await;
}

#[tokio::test]
async fn an_update_changes_volumes_only_while_the_machine_rests() {
    let world = World::new();
    let worker = world.start().await;
    let handle = worker.handle();
    let (one, two) = (volume(&worker, "one").await, volume(&worker, "two").await);
    let machine = create(&handle, 1, mounting(&one)).await.unwrap().id;
    world.until(&machine, MachineState::Started).await;
    let update = |volume: &VolumeId, launch| UpdateRequest {
        config: request(mounting(volume)).config,
        launch,
        current_version: None,
        cordon: false,
        secrets: SecretsWanted::default(),
    };
    let refused = handle
        .update(&machine, update(&two, true))
        .await
        .unwrap_err();
    assert!(
        refused.to_string().contains("runs with its volumes"),
        "{refused}"
    );
    // The same volume is no change.
    handle.update(&machine, update(&one, false)).await.unwrap();
    world.until(&machine, MachineState::Stopped).await;
    handle.update(&machine, update(&two, true)).await.unwrap();
    assert_eq!(holder(&worker, &one).await, None);
    assert_eq!(holder(&worker, &two).await, Some(machine));
    worker.shutdown().await;
}

#[tokio::test]
async fn a_volume_that_is_not_there_or_not_the_app_s_is_refused() {
    let world = World::new();
    let worker = world.start().await;
    let handle = worker.handle();
    let none: VolumeId = "vol_0002000000000000".parse().unwrap();
    let refused = create(&handle, 1, mounting(&none)).await.unwrap_err();
    assert_eq!(refused.to_string(), format!("volume {none} not found"));
    let id = volume(&worker, "data").await;
    let foreign = BidRequest {
        app: "other".parse().unwrap(),
        ..request(mounting(&id))
    };
    let refused = handle.bid(&foreign).await.unwrap_err();
    assert_eq!(refused.code(), "volume_not_found");
    assert_eq!(holder(&worker, &id).await, None);
    worker.shutdown().await;
}

#[derive(Debug, Clone)]
enum Step {
    Create(u64, usize),
    Update(u64, usize),
    Destroy(u64),
    Delete(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let (machine, volume) = (1u64..5, 0usize..3);
    prop_oneof![
        3 => (machine.clone(), volume.clone()).prop_map(|(m, v)| Step::Create(m, v)),
        2 => (machine.clone(), volume.clone()).prop_map(|(m, v)| Step::Update(m, v)),
        2 => machine.prop_map(Step::Destroy),
        1 => volume.prop_map(Step::Delete),
    ]
}

/// Against the smallest model: who has which volume.
async fn history(steps: Vec<Step>) {
    let world = World::new();
    let worker = world.start().await;
    let handle = worker.handle();
    let mut volumes = Vec::new();
    for name in ["a", "b", "c"] {
        volumes.push(volume(&worker, name).await);
    }
    let mut held: std::collections::BTreeMap<usize, MachineId> = Default::default();
    let mut gone = std::collections::BTreeSet::new();
    for step in steps {
        match step {
            Step::Create(machine, volume) => {
                let config = mounting(&volumes[volume]);
                let free = !held.contains_key(&volume) && !gone.contains(&volume);
                let created = create(&handle, machine, config).await;
                match created {
                    Ok(created) => {
                        assert!(free, "{volume} was taken");
                        held.insert(volume, created.id);
                    }
                    Err(Refused::IdTaken { .. }) => {}
                    Err(Refused::NameTaken { .. }) => {}
                    Err(refused) => assert!(!free, "{refused}"),
                }
            }
            Step::Update(machine, volume) => {
                let id = MachineId::from_bits(machine);
                let update = UpdateRequest {
                    config: request(mounting(&volumes[volume])).config,
                    launch: false,
                    current_version: None,
                    cordon: false,
                    secrets: SecretsWanted::default(),
                };
                if handle.update(&id, update).await.is_ok() {
                    let other = held.get(&volume).filter(|holder| **holder != id);
                    assert_eq!(other, None);
                    held.retain(|_, holder| *holder != id);
                    held.insert(volume, id);
                }
            }
            Step::Destroy(machine) => {
                let id = MachineId::from_bits(machine);
                if handle.destroy(&id, true).await.is_ok() {
                    world.until(&id, MachineState::Destroyed).await;
                    held.retain(|_, holder| *holder != id);
                }
            }
            Step::Delete(volume) => {
                let deleted = handle.volumes().destroy(&volumes[volume]).await;
                if deleted.is_ok() {
                    assert_eq!(held.get(&volume), None);
                    gone.insert(volume);
                }
            }
        }
        for (index, id) in volumes.iter().enumerate() {
            if !gone.contains(&index) {
                assert_eq!(holder(&worker, id).await.as_ref(), held.get(&index));
            }
        }
    }
    worker.shutdown().await;
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn a_volume_has_one_machine_at_most(steps in prop::collection::vec(step(), 1..16)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(history(steps));
    }
}
