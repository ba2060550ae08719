//! What a suspended machine leaves on disk: its memory, and what must be the same to go on.
//!
//! ```text
//!  suspended.new/ ──rename──► suspended/ ──rename──► suspended.used/ ──► deleted
//!  being written               complete               a boot went on from it
//! ```
//!
//! Each rename is one step for whoever is killed: a directory called `suspended` is complete and
//! fits the writable layers beside it; one with another name is worth nothing. It is taken away
//! before the machine goes on, for from then on its disks are those of a later moment.

use std::fmt::Display;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use types::{BootId, IsolationClass};

use crate::paths::remove;
use crate::{BootSpec, MacAddress, VmmError};

/// Changes when the meaning of the files does; others are not gone on from.
const FORMAT: u16 = 1;
/// What a saved machine needs beside its memory: the state of its devices.
const MARGIN_BYTES: u64 = 64 << 20;

/// `about.json`: what wrote the rest, and of what machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct About {
    format: u16,
    /// The boot that was suspended.
    boot: BootId,
    /// Program that ran it and its version.
    vmm: String,
    /// The machine as that program has it, such as `q35 kvm`.
    machine_type: String,
    shape: Shape,
    /// Size of each file, which shows whether it is whole.
    files: Vec<(String, u64)>,
}

/// What of a machine its memory knows about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Shape {
    isolation: IsolationClass,
    cpus: u32,
    memory_mib: u32,
    mac: MacAddress,
    /// Name and file, in the order of the disks.
    images: Vec<(String, PathBuf)>,
    volumes: Vec<(String, PathBuf)>,
}

impl Shape {
    fn of(boot: &BootSpec) -> Self {
        let image = |name: &String| {
            let image = boot.images.iter().find(|image| image.container == *name);
            (
                name.clone(),
                image.map_or_else(PathBuf::new, |i| i.rootfs.clone()),
            )
        };
        let containers = boot.spec.containers.iter();
        let volumes = boot.spec.volumes.iter();
        Self {
            isolation: boot.isolation,
            cpus: boot.guest.cpus,
            memory_mib: boot.guest.memory_mb,
            mac: boot.attachment.mac,
            images: containers.map(|container| image(&container.name)).collect(),
            volumes: volumes
                .map(|volume| (volume.name.clone(), PathBuf::from(&volume.file)))
                .collect(),
        }
    }
}

/// Why a boot cannot go on from what was saved.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unusable {
    #[error("nothing is saved of this machine")]
    Missing,
    #[error("what was saved of this machine is damaged")]
    Damaged { source: io::Error },
    #[error(
        "what was saved of this machine is damaged: {file} has {bytes} bytes instead of {expected}"
    )]
    Cut {
        file: String,
        bytes: u64,
        expected: u64,
    },
    #[error("the machine was saved with {what} {saved}, and this boot has {here}")]
    Other {
        what: &'static str,
        saved: String,
        here: String,
    },
}

impl About {
    /// What wrote `vmm`, of a machine of that type, for the machine that `boot` describes.
    pub(crate) fn new(boot: &BootSpec, vmm: String, machine_type: String) -> Self {
        Self {
            format: FORMAT,
            boot: boot.boot,
            vmm,
            machine_type,
            shape: Shape::of(boot),
            files: Vec::new(),
        }
    }

    /// Whether a boot as `here` can go on from this: the first difference is the error.
    pub(crate) fn fits(&self, here: &Self) -> Result<(), Unusable> {
        let (a, b) = (&self.shape, &here.shape);
        same("format", self.format, here.format)?;
        same("the program", &self.vmm, &here.vmm)?;
        same("machine type", &self.machine_type, &here.machine_type)?;
        same("isolation class", a.isolation, b.isolation)?;
        same("a number of CPUs of", a.cpus, b.cpus)?;
        same("a memory size in MiB of", a.memory_mib, b.memory_mib)?;
        same("the Ethernet address", a.mac, b.mac)?;
        same("the images", list(&a.images), list(&b.images))?;
        same("the volumes", list(&a.volumes), list(&b.volumes))
    }
}

fn same<T: PartialEq + Display>(what: &'static str, saved: T, here: T) -> Result<(), Unusable> {
    if saved == here {
        return Ok(());
    }
    Err(Unusable::Other {
        what,
        saved: saved.to_string(),
        here: here.to_string(),
    })
}

fn list(disks: &[(String, PathBuf)]) -> String {
    let disks = disks.iter();
    let disks = disks.map(|(name, file)| format!("{name}={}", file.display()));
    disks.collect::<Vec<_>>().join(" ")
}

/// What one machine has saved, or not.
#[derive(Debug, Clone)]
pub(crate) struct Suspended {
    /// The machine's directory.
    data: PathBuf,
}

impl Suspended {
    pub(crate) fn new(data: PathBuf) -> Self {
        Self { data }
    }

    fn complete(&self) -> PathBuf {
        self.data.join("suspended")
    }

    fn unfinished(&self) -> PathBuf {
        self.data.join("suspended.new")
    }

    fn used(&self) -> PathBuf {
        self.data.join("suspended.used")
    }

    /// A file of it.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.complete().join(name)
    }

    /// Why a machine with that much memory cannot be saved, if it cannot.
    pub(crate) fn obstacle(&self, memory_mib: u32) -> Option<String> {
        let found = nix::sys::statvfs::statvfs(&self.data).ok()?;
        let free = found.blocks_available() * found.fragment_size();
        let needed = (u64::from(memory_mib) << 20) + MARGIN_BYTES;
        let [free, wanted] = [free, needed].map(|bytes| bytes >> 20);
        (free < wanted).then(|| {
            format!("its memory needs up to {wanted} MiB on the disk, and {free} MiB are free")
        })
    }

    /// Begins to save. What was saved before is deleted.
    pub(crate) fn begin(&self) -> Result<Unfinished, VmmError> {
        self.discard()?;
        let dir = self.unfinished();
        let made = fs::DirBuilder::new().mode(0o700).create(&dir);
        made.map_err(VmmError::file("make directory", &dir))?;
        Ok(Unfinished { of: self.clone() })
    }

    /// Reads what was saved, and checks that its files are whole.
    pub(crate) fn read(&self) -> Result<About, Unusable> {
        let damaged = |source| Unusable::Damaged { source };
        let about = match fs::read(self.file(ABOUT)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Unusable::Missing),
            read => read.map_err(damaged)?,
        };
        let about: About = serde_json::from_slice(&about).map_err(|e| damaged(e.into()))?;
        for (name, expected) in &about.files {
            let bytes = fs::metadata(self.file(name)).map_err(damaged)?.len();
            if bytes != *expected {
                return Err(Unusable::Cut {
                    file: name.clone(),
                    bytes,
                    expected: *expected,
                });
            }
        }
        Ok(about)
    }

    /// Whether this is what `boot` saved.
    pub(crate) fn is_of(&self, boot: BootId) -> bool {
        self.read().is_ok_and(|about| about.boot == boot)
    }

    /// Takes it away, so that no other boot can go on from it. Files that are open stay usable.
    /// On disk when this returns.
    pub(crate) fn use_up(&self) -> Result<(), VmmError> {
        let (complete, used) = (self.complete(), self.used());
        remove(&used)?;
        fs::rename(&complete, &used).map_err(VmmError::file("take away", &complete))?;
        sync_directory(&self.data)?;
        remove(&used)
    }

    /// Deletes it and what is left of unfinished ones.
    pub(crate) fn discard(&self) -> Result<(), VmmError> {
        if self.complete().exists() {
            self.use_up()?;
        }
        self.tidy()
    }

    /// Deletes what boots left that did not come to the end of saving or of taking it up.
    pub(crate) fn tidy(&self) -> Result<(), VmmError> {
        remove(&self.unfinished())?;
        remove(&self.used())
    }
}

const ABOUT: &str = "about.json";

/// Being written.
#[derive(Debug)]
pub(crate) struct Unfinished {
    of: Suspended,
}

impl Unfinished {
    /// Makes a file that only root may read: it will hold a machine's memory.
    pub(crate) fn create(&self, name: &str) -> Result<File, VmmError> {
        let path = self.of.unfinished().join(name);
        let mut new = OpenOptions::new();
        let made = new.write(true).create_new(true).mode(0o600).open(&path);
        made.map_err(VmmError::file("make", &path))
    }

    /// Takes over a file that a VMM made under a name of its own, on the same file system.
    pub(crate) fn adopt(&self, name: &str, made: &Path) -> Result<(), VmmError> {
        let path = self.of.unfinished().join(name);
        let take = || {
            chown(made, Some(0), Some(0))?;
            fs::set_permissions(made, fs::Permissions::from_mode(0o600))?;
            fs::rename(made, &path)
        };
        take().map_err(VmmError::file("take over", made))
    }

    /// Ends it: when this returns, it and `disks` (the files it fits) are on disk.
    pub(crate) fn complete(self, mut about: About, disks: &[PathBuf]) -> Result<(), VmmError> {
        let dir = self.of.unfinished();
        let read = fs::read_dir(&dir).map_err(VmmError::file("read directory", &dir))?;
        for entry in read {
            let entry = entry.map_err(VmmError::file("read directory", &dir))?;
            let bytes = sync(&entry.path())?;
            let name = entry.file_name().to_string_lossy().into_owned();
            about.files.push((name, bytes));
        }
        for disk in disks {
            sync(disk)?;
        }
        let path = dir.join(ABOUT);
        let text = serde_json::to_vec(&about).map_err(io::Error::other);
        let text = text.map_err(VmmError::file("write", &path))?;
        let mut file = self.create(ABOUT)?;
        io::Write::write_all(&mut file, &text).map_err(VmmError::file("write", &path))?;
        file.sync_all().map_err(VmmError::file("write", &path))?;
        sync_directory(&dir)?;
        let complete = self.of.complete();
        fs::rename(&dir, &complete).map_err(VmmError::file("make", &complete))?;
        sync_directory(&self.of.data)
    }
}

fn sync(path: &Path) -> Result<u64, VmmError> {
    let sync = || {
        let file = File::open(path)?;
        file.sync_all()?;
        Ok(file.metadata()?.len())
    };
    sync().map_err(VmmError::file("write to disk", path))
}

fn sync_directory(path: &Path) -> Result<(), VmmError> {
    sync(path).map(drop)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn about(boot: &BootSpec) -> About {
        About::new(boot, "QEMU 7.2.22".into(), "q35 tcg".into())
    }

    fn save(suspended: &Suspended, boot: &BootSpec) {
        let unfinished = suspended.begin().unwrap();
        let mut memory = unfinished.create("memory").unwrap();
        memory.write_all(b"0123").unwrap();
        unfinished.complete(about(boot), &[]).unwrap();
    }

    #[test]
    fn what_was_saved_is_read_once_and_by_root_only() {
        let dir = tempfile::tempdir().unwrap();
        let suspended = Suspended::new(dir.path().to_owned());
        let boot = crate::shim::tests::spec().boot;
        assert!(matches!(suspended.read(), Err(Unusable::Missing)));
        save(&suspended, &boot);
        assert!(suspended.is_of(boot.boot));
        assert!(!suspended.is_of(BootId(boot.boot.0 + 1)));
        let memory = fs::metadata(suspended.file("memory")).unwrap();
        assert_eq!(memory.permissions().mode() & 0o777, 0o600);
        suspended.read().unwrap().fits(&about(&boot)).unwrap();
        suspended.use_up().unwrap();
        assert!(matches!(suspended.read(), Err(Unusable::Missing)));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn unfinished_and_cut_files_are_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let suspended = Suspended::new(dir.path().to_owned());
        let boot = crate::shim::tests::spec().boot;
        let unfinished = suspended.begin().unwrap();
        unfinished.create("memory").unwrap();
        assert!(matches!(suspended.read(), Err(Unusable::Missing)));
        save(&suspended, &boot);
        let memory = OpenOptions::new()
            .write(true)
            .open(suspended.file("memory"));
        memory.unwrap().set_len(3).unwrap();
        assert!(matches!(
            suspended.read(),
            Err(Unusable::Cut { bytes: 3, .. })
        ));
        fs::write(suspended.file(ABOUT), "{").unwrap();
        assert!(matches!(suspended.read(), Err(Unusable::Damaged { .. })));
        suspended.discard().unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn another_program_or_machine_does_not_fit_and_the_reason_names_the_difference() {
        let boot = crate::shim::tests::spec().boot;
        let saved = about(&boot);
        let other = About::new(&boot, "QEMU 8.2.0".into(), "q35 tcg".into());
        let reason = saved.fits(&other).unwrap_err().to_string();
        assert!(
            reason.contains("QEMU 7.2.22") && reason.contains("QEMU 8.2.0"),
            "{reason}"
        );
        let mut larger = boot.clone();
        larger.guest.memory_mb *= 2;
        let reason = saved.fits(&about(&larger)).unwrap_err().to_string();
        assert!(reason.contains("memory"), "{reason}");
        let mut later = boot;
        later.boot = BootId(99);
        saved.fits(&about(&later)).unwrap();
    }

    #[test]
    fn a_machine_that_is_larger_than_the_disk_cannot_be_saved() {
        let dir = tempfile::tempdir().unwrap();
        let suspended = Suspended::new(dir.path().to_owned());
        assert_eq!(suspended.obstacle(1), None);
        assert!(suspended.obstacle(u32::MAX).is_some());
    }
}
