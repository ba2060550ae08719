//! Whose images are in use.

use types::machine::{ContainerConfig, MachineConfig, MachineState};

use super::*;
use crate::catalog::Entry;

fn entry(host: u16, id: u64, state: MachineState, config: MachineConfig) -> Entry {
    let mut entry = crate::catalog::tests::entry("app", id, id, state);
    entry.host = HostId::new(host);
    entry.machine.config = config;
    entry
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
