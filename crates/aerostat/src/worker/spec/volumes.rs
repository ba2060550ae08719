//! A machine's volumes in what its boot is given. Pure.
//!
//! A mount with a path is in every container. One without is only where a container's own `mounts`
//! name it: by the mount's name, the volume's, or its id.

use types::guest::{MachineSpec, MountSpec, VolumeSpec};
use types::machine::{ContainerMount, MachineConfig, Mount};

use crate::worker::check::CheckedConfig;
use crate::worker::volumes::Ready;

/// A container that wants what the machine does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("container `{container}` mounts `{name}`, which is no volume of the machine")]
pub(crate) struct NoSuchVolume {
    container: String,
    name: String,
}

/// Puts the volumes and where they are mounted into `spec`. `ready` are those of the
/// configuration's mounts, in their order.
pub(crate) fn mount_volumes(
    config: &CheckedConfig,
    ready: &[Ready],
    spec: &mut MachineSpec,
) -> Result<(), NoSuchVolume> {
    let volumes = ready.iter().map(|volume| VolumeSpec {
        name: volume.id.to_string(),
        disk: String::new(),
        file: volume.file.display().to_string(),
    });
    spec.volumes = volumes.collect();
    let given = config.as_given();
    let mounts: Vec<(&Mount, &Ready)> = given.mounts.iter().zip(ready).collect();
    for (container, spec) in config.containers().iter().zip(&mut spec.containers) {
        for (mount, volume) in &mounts {
            if !mount.path.is_empty() {
                spec.mounts.push(MountSpec {
                    source: volume.id.to_string(),
                    sub_path: String::new(),
                    path: mount.path.clone(),
                    read_only: false,
                });
            }
        }
        for wanted in &container.mounts {
            if is_directory(given, wanted) {
                continue;
            }
            let named = |(mount, volume): &&(&Mount, &Ready)| {
                [&mount.name, &mount.volume, &volume.name].contains(&&wanted.name)
            };
            let Some((_, volume)) = mounts.iter().find(named) else {
                let (container, name) = (container.name.clone(), wanted.name.clone());
                return Err(NoSuchVolume { container, name });
            };
            spec.mounts.push(MountSpec {
                source: volume.id.to_string(),
                sub_path: wanted.sub_path.clone(),
                path: wanted.path.clone(),
                read_only: wanted.read_only,
            });
        }
    }
    Ok(())
}

/// Directories come before volumes of the same name, and are mounted elsewhere.
fn is_directory(config: &MachineConfig, wanted: &ContainerMount) -> bool {
    let mut directories = config.volumes.iter();
    directories.any(|directory| directory.name == wanted.name)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use types::{HostId, VolumeId};

    use super::*;

    fn ready(number: u64, name: &str) -> Ready {
        let id = VolumeId::new(HostId::new(2), number);
        Ready {
            file: format!("/data/volumes/{id}/disk.ext4").into(),
            name: name.into(),
            id,
        }
    }

    fn mounted(
        config: serde_json::Value,
        ready: &[Ready],
    ) -> Result<Vec<Vec<(String, String)>>, NoSuchVolume> {
        let config: MachineConfig = serde_json::from_value(config).unwrap();
        let config = crate::worker::check(config).unwrap();
        let machine = super::super::tests::spec(serde_json::to_value(&config).unwrap());
        let mut spec = machine.spec;
        for container in &mut spec.containers {
            container.mounts.clear();
        }
        mount_volumes(&config, ready, &mut spec)?;
        assert_eq!(spec.volumes.len(), ready.len());
        let each = spec.containers.into_iter().map(|container| {
            let mounts = container.mounts.into_iter();
            mounts.map(|m| (m.source, m.path)).collect()
        });
        Ok(each.collect())
    }

    #[test]
    fn a_mount_with_a_path_is_in_every_container() {
        let (one, two) = (ready(1, "data"), ready(2, "data"));
        let (id_1, id_2) = (one.id.to_string(), two.id.to_string());
        let mounts = json!([{"volume": id_1, "path": "/a"}, {"volume": id_2, "path": "/b"}]);
        let both = vec![(id_1, "/a".to_owned()), (id_2, "/b".to_owned())];
        let only = mounted(
            json!({"image": "x", "mounts": mounts}),
            &[one.clone(), two.clone()],
        );
        assert_eq!(only, Ok(vec![both.clone()]));
        let containers = json!([{"name": "a", "image": "x"}, {"name": "b", "image": "x"}]);
        let config = json!({"containers": containers, "mounts": mounts});
        assert_eq!(mounted(config, &[one, two]), Ok(vec![both.clone(), both]));
    }

    #[test]
    fn a_container_names_a_volume_by_any_of_its_names() {
        let one = ready(1, "data");
        let id = one.id.to_string();
        for name in ["mine", "data", &id] {
            let containers = json!([
                {"name": "a", "image": "x", "mounts": [{"name": name, "path": "/d"}]},
                {"name": "b", "image": "x"},
            ]);
            let mounts = json!([{"volume": id, "name": "mine", "path": ""}]);
            let config = json!({"containers": containers, "mounts": mounts});
            let given = mounted(config, std::slice::from_ref(&one));
            assert_eq!(
                given,
                Ok(vec![vec![(id.clone(), "/d".into())], vec![]]),
                "{name}"
            );
        }
    }
}
