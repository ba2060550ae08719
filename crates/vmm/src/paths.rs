//! Where the parts of machines and boots are on disk, and which of them can be cleaned by whom.
//!
//! ```text
//!  <data_dir>/machines/<id>/             until forget()
//!      logs/<container>/<boot>.<run>.<n>.log
//!      upper-<container>.ext4            writable layers, made new at each boot or kept
//!      upper-<container>.of              the version that one is kept for
//!      console.log                       of the newest boot (VM classes)
//!      firecracker.log firecracker/      of the newest boot (Firecracker)
//!      suspended/                        memory of a suspended machine
//!  <run_dir>/machines/<id>/<boot>/       until kill()
//!      spec.json lock reports shim.sock shim.log control.sock
//!      mnt/<container>/{image,upper,root}   oci/ jail/   (mounts are the shim's only)
//! ```

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use types::{BootId, MachineId};

use crate::suspended::Suspended;
use crate::{BootSpec, VmmError};

#[derive(Debug, Clone)]
pub(crate) struct Paths {
    pub(crate) data_dir: PathBuf,
    pub(crate) run_dir: PathBuf,
}

impl Paths {
    pub(crate) fn data(&self, machine: &MachineId) -> PathBuf {
        self.data_dir.join("machines").join(machine.as_str())
    }

    /// What fresh writable layers are copied from.
    pub(crate) fn templates(&self) -> PathBuf {
        self.data_dir.join("templates")
    }

    pub(crate) fn logs(&self, machine: &MachineId) -> PathBuf {
        self.data(machine).join("logs")
    }

    /// What the machine has saved, or not.
    pub(crate) fn suspended(&self, machine: &MachineId) -> Suspended {
        Suspended::new(self.data(machine))
    }

    /// Every file that a machine's memory has to fit: writable layers and volumes.
    pub(crate) fn disks(&self, boot: &BootSpec) -> Vec<PathBuf> {
        let containers = boot.spec.containers.iter();
        let uppers = containers.map(|container| self.upper(&boot.machine, &container.name));
        let volumes = boot.spec.volumes.iter();
        let volumes = volumes.map(|volume| PathBuf::from(&volume.file));
        uppers.chain(volumes).collect()
    }

    /// The writable layer of a container.
    pub(crate) fn upper(&self, machine: &MachineId, container: &str) -> PathBuf {
        self.data(machine).join(format!("upper-{container}.ext4"))
    }

    pub(crate) fn boot(&self, machine: &MachineId, boot: BootId) -> BootDir {
        let machine = self.run_dir.join("machines").join(machine.as_str());
        BootDir(machine.join(boot.to_string()))
    }

    /// Machines and boots with a directory under `run_dir`.
    pub(crate) fn boots(&self) -> Result<Vec<(MachineId, BootId)>, VmmError> {
        let mut found = Vec::new();
        for (machine, path) in entries::<MachineId>(&self.run_dir.join("machines"))? {
            let boots = entries::<u64>(&path)?;
            found.extend(
                boots
                    .into_iter()
                    .map(|(boot, _)| (machine.clone(), BootId(boot))),
            );
        }
        Ok(found)
    }

    /// Machines with a directory under `data_dir`.
    pub(crate) fn machines(&self) -> Result<Vec<MachineId>, VmmError> {
        let found = entries::<MachineId>(&self.data_dir.join("machines"))?;
        Ok(found.into_iter().map(|(machine, _)| machine).collect())
    }
}

/// Entries of a directory whose name is a `T`; none if there is no such directory.
fn entries<T: std::str::FromStr>(dir: &Path) -> Result<Vec<(T, PathBuf)>, VmmError> {
    let read = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        result => result.map_err(VmmError::file("read directory", dir))?,
    };
    let mut found = Vec::new();
    for entry in read {
        let entry = entry.map_err(VmmError::file("read directory", dir))?;
        let name = entry.file_name();
        if let Some(value) = name.to_str().and_then(|name| name.parse().ok()) {
            found.push((value, entry.path()));
        }
    }
    Ok(found)
}

/// The run directory of one boot.
#[derive(Debug, Clone)]
pub(crate) struct BootDir(pub(crate) PathBuf);

impl BootDir {
    pub(crate) fn spec(&self) -> PathBuf {
        self.0.join("spec.json")
    }

    /// Held for as long as the shim lives.
    pub(crate) fn lock(&self) -> PathBuf {
        self.0.join("lock")
    }

    pub(crate) fn reports(&self) -> PathBuf {
        self.0.join("reports")
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.0.join("shim.log")
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.0.join("shim.sock")
    }

    /// The host's end of QEMU's control port.
    pub(crate) fn control(&self) -> PathBuf {
        self.0.join("control.sock")
    }

    /// Root directory of QEMU, or base of Firecracker's.
    pub(crate) fn jail(&self) -> PathBuf {
        self.0.join("jail")
    }

    pub(crate) fn mounts(&self, container: &str) -> PathBuf {
        self.0.join("mnt").join(container)
    }

    pub(crate) fn oci(&self) -> PathBuf {
        self.0.join("oci")
    }
}

/// Whether a container's name can be part of paths: a label as DNS and Kubernetes have it, where
/// dots and underscores may also stand.
pub(crate) fn is_file_name(name: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    (1..=63).contains(&name.len())
        && name.bytes().all(inner)
        && name
            .bytes()
            .next()
            .is_some_and(|b| b.is_ascii_alphanumeric())
}

/// Deletes a file or directory. That there is none is no error.
pub(crate) fn remove(path: &Path) -> Result<(), VmmError> {
    let result = match path.symlink_metadata() {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.map_err(VmmError::file("delete", path)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_leave_their_directory_are_refused() {
        for name in ["web", "a.b-c_d", "0"] {
            assert!(is_file_name(name), "{name}");
        }
        for name in ["", ".", "..", "a/b", "-a", ".a", "a\0", &"a".repeat(64)] {
            assert!(!is_file_name(name), "{name}");
        }
    }

    #[test]
    fn boots_and_machines_are_found_and_other_files_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths {
            data_dir: dir.path().join("data"),
            run_dir: dir.path().join("run"),
        };
        assert_eq!(paths.boots().unwrap(), []);
        let machine = MachineId::from_bits(7);
        fs::create_dir_all(&paths.boot(&machine, BootId(3)).0).unwrap();
        fs::create_dir_all(paths.run_dir.join("machines/other")).unwrap();
        fs::create_dir_all(paths.logs(&machine)).unwrap();
        assert_eq!(paths.boots().unwrap(), [(machine.clone(), BootId(3))]);
        assert_eq!(paths.machines().unwrap(), std::slice::from_ref(&machine));
        remove(&paths.data(&machine)).unwrap();
        remove(&paths.data(&machine)).unwrap();
        assert_eq!(paths.machines().unwrap(), []);
    }
}
