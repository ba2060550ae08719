//! Mounts that make no sense, or would stand in for what the kernel tells a container.

use std::collections::BTreeSet;
use std::path::{Component, Path};

use types::guest::{MachineSpec, MountSpec};

use super::settings::Refused;
use crate::mounts::SHARED_MEMORY;

/// File systems that every container gets from the kernel.
const KERNEL: [&str; 3] = ["/proc", "/sys", "/dev"];

pub(super) fn check(spec: &MachineSpec) -> Result<(), Refused> {
    let mut sources = BTreeSet::new();
    let volumes = spec.volumes.iter().map(|volume| &volume.name);
    for name in volumes.chain(spec.directories.iter().map(|directory| &directory.name)) {
        if !sources.insert(name.as_str()) {
            let name = name.clone();
            return Err(Refused::SourceTaken { name });
        }
    }
    for container in &spec.containers {
        let mut paths = BTreeSet::new();
        for mount in &container.mounts {
            let wrong = if paths.insert(Path::new(&mount.path)) {
                wrong(mount, &sources)
            } else {
                Some("there is one already")
            };
            if let Some(reason) = wrong {
                return Err(Refused::Mount {
                    name: container.name.clone(),
                    path: mount.path.clone(),
                    reason,
                });
            }
        }
    }
    Ok(())
}

fn wrong(mount: &MountSpec, sources: &BTreeSet<&str>) -> Option<&'static str> {
    let path = Path::new(&mount.path);
    let is_plain = |path: &Path| path.components().all(|c| matches!(c, Component::Normal(_)));
    if !sources.contains(mount.source.as_str()) {
        return Some("its source is no volume or directory of the machine");
    }
    if mount.path.contains('\0') || mount.sub_path.contains('\0') {
        return Some("there is a NUL byte in it");
    }
    if !is_plain(Path::new(&mount.sub_path)) {
        return Some("its sub path is not relative, or has `..` in it");
    }
    if !path.strip_prefix("/").is_ok_and(is_plain) {
        return Some("it is not absolute, or has `..` in it");
    }
    if path == Path::new("/") {
        return Some("that is the root");
    }
    let is_kernels = KERNEL.iter().any(|kernel| path.starts_with(kernel));
    if is_kernels && path != Path::new(SHARED_MEMORY) {
        return Some("that belongs to the kernel; of these only /dev/shm is possible");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervisor::tests::{container, machine};
    use types::guest::{DirectorySpec, VolumeSpec};
    use types::machine::RestartPolicy;

    fn with(mounts: &[(&str, &str, &str)]) -> MachineSpec {
        let mut main = container("main", RestartPolicy::No);
        main.mounts = mounts
            .iter()
            .map(|(source, sub_path, path)| MountSpec {
                source: (*source).into(),
                sub_path: (*sub_path).into(),
                path: (*path).into(),
                read_only: false,
            })
            .collect();
        let mut spec = machine(vec![main]);
        spec.volumes.push(VolumeSpec {
            name: "data".into(),
            disk: String::new(),
            file: String::new(),
        });
        spec.directories.push(DirectorySpec {
            name: "tmp".into(),
            memory: true,
            size_bytes: 0,
        });
        spec
    }

    #[test]
    fn mounts_that_make_sense_are_taken() {
        let mounts = [
            ("data", "", "/data"),
            ("data", "a/b", "/data/sub"),
            ("tmp", "", "/dev/shm"),
            ("tmp", "", "/devices"),
        ];
        assert_eq!(check(&with(&mounts)), Ok(()));
    }

    #[test]
    fn mounts_that_make_none_are_refused() {
        for (source, sub_path, path) in [
            ("other", "", "/data"),
            ("data", "/a", "/data"),
            ("data", "a/../..", "/data"),
            ("data", "", "data"),
            ("data", "", ""),
            ("data", "", "/"),
            ("data", "", "/a/../b"),
            ("data", "", "/proc"),
            ("data", "", "/proc/self"),
            ("data", "", "/sys/fs"),
            ("data", "", "/dev"),
            ("data", "", "/dev/shm/x"),
            ("data", "a\0", "/data"),
        ] {
            let refused = check(&with(&[(source, sub_path, path)]));
            assert!(matches!(refused, Err(Refused::Mount { .. })), "{path}");
        }
        let twice = check(&with(&[("data", "", "/a"), ("tmp", "", "/a/")]));
        assert!(matches!(twice, Err(Refused::Mount { .. })), "{twice:?}");
        let mut same = with(&[]);
        same.directories[0].name = "data".into();
        assert!(matches!(check(&same), Err(Refused::SourceTaken { .. })));
    }
}
