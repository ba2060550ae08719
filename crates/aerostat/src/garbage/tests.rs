//! Whose images are in use.

use jiff::Timestamp;
use types::machine::{ContainerConfig, ImageIdentity, Machine, MachineConfig, MachineState};
use types::{IsolationClass, MachineId, NetworkId};

use super::*;
use crate::catalog::Entry;

fn entry(host: u16, id: u64, state: MachineState, config: MachineConfig) -> Entry {
    let version: types::VersionId = "0".repeat(26).parse().unwrap();
    Entry {
        host: HostId::new(host),
        app: "app".parse().unwrap(),
        network: NetworkId::try_from(7).unwrap(),
        machine: Machine {
            id: MachineId::from_bits(id),
            name: format!("m{id}"),
            state,
            region: "local".into(),
            instance_id: version.clone(),
            version,
            private_ip: "fdaa::1".into(),
            created_at: Timestamp::UNIX_EPOCH,
            updated_at: Timestamp::UNIX_EPOCH,
            config,
            image_ref: ImageIdentity::default(),
            events: vec![],
            checks: vec![],
            containers: vec![],
            nonce: None,
            host_status: "ok".into(),
            isolation: IsolationClass::Container,
            revision: id,
        },
    }
}

fn of(image: &str) -> MachineConfig {
    MachineConfig {
        image: image.into(),
        ..MachineConfig::default()
    }
}

#[test]
fn images_of_this_hosts_machines_are_in_use_until_they_are_destroyed() {
    let root = tempfile::tempdir().unwrap();
    let store = ImageStore::open(root.path()).unwrap();
    let (catalog, here) = (Catalog::new(), HostId::new(2));
    let garbage = ImageGarbage::new(store, None, catalog.clone(), here);
    let sidecar = ContainerConfig {
        name: "sidecar".into(),
        image: "sidecar:1".into(),
        ..ContainerConfig::default()
    };
    let both = MachineConfig {
        containers: vec![sidecar],
        ..of("")
    };
    catalog.publish(entry(2, 1, MachineState::Started, of("running:1")));
    catalog.publish(entry(2, 2, MachineState::Stopped, of("stopped:1")));
    catalog.publish(entry(2, 3, MachineState::Destroyed, of("gone:1")));
    catalog.publish(entry(2, 4, MachineState::Created, both));
    let mut images: Vec<String> = garbage.in_use().iter().map(ToString::to_string).collect();
    images.sort();
    let library = |name: &str| format!("docker.io/library/{name}:1");
    assert_eq!(images, ["running", "sidecar", "stopped"].map(library));
}
