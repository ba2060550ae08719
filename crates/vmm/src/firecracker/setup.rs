//! What one Firecracker is told, in the order in which it is told.
//!
//! Before the start everything may be set, and after it nothing; a snapshot may be loaded only as
//! long as nothing was set. Rate limits are left out: none.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::SNAPSHOT_TIMEOUT;
use super::api::{Api, ApiError};
use super::jail::{Access, Jail, serial};
use super::model::{
    Action, BackendType, BootSource, CacheType, Drive, Entropy, MachineConfig, MemoryBackend,
    NetworkInterface, NetworkOverride, SnapshotLoad, VCPUS_MAX, Vsock,
};
use crate::api::image_of;
use crate::paths::Paths;
use crate::shim::ShimSpec;
use crate::upper::prepare_uppers;
use crate::{BootSpec, VmmError};

/// Firecracker's own default would forbid modules and leave out the console. It ends when the
/// keyboard controller is told to reset, and takes a triple fault for a failure. `init` finds its
/// host on vsock.
const KERNEL_COMMAND_LINE: &str = "console=ttyS0 8250.nr_uarts=1 reboot=k panic=-1 quiet tsc=reliable \
     no_timer_check i8042.noaux i8042.nomux i8042.dumbkbd aerostat.control=vsock";
/// Where the guest's vsock is, inside the jail.
pub(super) const VSOCK: &str = "/v.sock";
/// Directory for snapshots, inside the jail.
pub(super) const SAVE: &str = "save";
/// Any that is not the host's: there is one guest to a socket.
const GUEST_CID: u32 = 3;
const INTERFACE: &str = "eth0";

/// How the machine comes to life. Paths are those inside the jail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Begin {
    Boot {
        kernel: PathBuf,
        initramfs: PathBuf,
        drives: Vec<Drive>,
    },
    /// The machine stands still after that.
    Restore { state: PathBuf, memory: PathBuf },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Setup {
    machine: MachineConfig,
    network: NetworkInterface,
    begin: Begin,
}

impl Setup {
    pub(super) fn new(boot: &BootSpec, begin: Begin) -> Result<Self, VmmError> {
        let cpus = boot.guest.cpus.max(1);
        if cpus > VCPUS_MAX {
            let reason = format!("{cpus} CPUs; Firecracker has {VCPUS_MAX} at most");
            return Err(VmmError::Spec { reason });
        }
        Ok(Self {
            machine: MachineConfig {
                vcpu_count: cpus,
                mem_size_mib: boot.guest.memory_mb,
                smt: false,
                track_dirty_pages: false,
            },
            network: NetworkInterface {
                iface_id: INTERFACE.into(),
                host_dev_name: boot.attachment.ifname.clone(),
                guest_mac: boot.attachment.mac.to_string(),
            },
            begin,
        })
    }

    /// Tells Firecracker all of it.
    pub(super) async fn carry_out(&self, api: &mut Api) -> Result<(), ApiError> {
        match &self.begin {
            Begin::Boot {
                kernel,
                initramfs,
                drives,
            } => self.boot(api, kernel, initramfs, drives).await,
            Begin::Restore { state, memory } => self.restore(api, state, memory).await,
        }
    }

    async fn boot(
        &self,
        api: &mut Api,
        kernel: &Path,
        initramfs: &Path,
        drives: &[Drive],
    ) -> Result<(), ApiError> {
        api.put("/machine-config", &self.machine).await?;
        let source = BootSource {
            kernel_image_path: kernel.to_owned(),
            initrd_path: Some(initramfs.to_owned()),
            boot_args: KERNEL_COMMAND_LINE.into(),
        };
        api.put("/boot-source", &source).await?;
        for drive in drives {
            api.put(&format!("/drives/{}", drive.drive_id), drive)
                .await?;
        }
        let interface = format!("/network-interfaces/{}", self.network.iface_id);
        api.put(&interface, &self.network).await?;
        let vsock = Vsock {
            guest_cid: GUEST_CID,
            uds_path: VSOCK.into(),
        };
        api.put("/vsock", &vsock).await?;
        api.put("/entropy", &Entropy {}).await?;
        api.put("/actions", &Action::InstanceStart).await
    }

    async fn restore(&self, api: &mut Api, state: &Path, memory: &Path) -> Result<(), ApiError> {
        let load = SnapshotLoad {
            snapshot_path: state.to_owned(),
            mem_backend: MemoryBackend {
                backend_type: BackendType::File,
                backend_path: memory.to_owned(),
            },
            resume_vm: false,
            network_overrides: vec![NetworkOverride {
                iface_id: self.network.iface_id.clone(),
                host_dev_name: self.network.host_dev_name.clone(),
            }],
        };
        api.put_slow("/snapshot/load", &load, SNAPSHOT_TIMEOUT)
            .await
    }
}

/// Shows the jail an image and a writable layer for each container, and every volume. Sets the
/// serial numbers under which the guest finds them. An image that several containers have is one
/// drive: two would have the same number.
pub(super) fn drives(
    jail: &Jail,
    paths: &Paths,
    spec: &mut ShimSpec,
) -> Result<Vec<Drive>, VmmError> {
    if !spec.boot.resume {
        prepare_uppers(paths, &spec.boot)?;
    }
    let boot = &mut spec.boot;
    let mut drives = Drives {
        jail,
        drives: Vec::new(),
        known: BTreeMap::new(),
    };
    for (index, container) in boot.spec.containers.iter_mut().enumerate() {
        let name = &container.name;
        let image = image_of(&boot.images, name)?;
        let upper = paths.upper(&boot.machine, name);
        let (image_id, upper_id) = (format!("image{index}"), format!("upper{index}"));
        container.image_disk = drives.add(image_id, image, Kind::Image)?;
        container.upper_disk = drives.add(upper_id, &upper, Kind::Upper)?;
    }
    for (index, volume) in boot.spec.volumes.iter_mut().enumerate() {
        let id = format!("volume{index}");
        volume.disk = drives.add(id, Path::new(&volume.file), Kind::Volume)?;
    }
    Ok(drives.drives)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Read only, and shared by many machines.
    Image,
    /// Lives as long as the boot.
    Upper,
    /// Outlives the machine: what the guest flushes must be on the host's disk.
    Volume,
}

struct Drives<'a> {
    jail: &'a Jail,
    drives: Vec<Drive>,
    /// Files by serial number.
    known: BTreeMap<String, PathBuf>,
}

impl Drives<'_> {
    fn add(&mut self, id: String, file: &Path, kind: Kind) -> Result<String, VmmError> {
        let file = fs::canonicalize(file).map_err(VmmError::file("find disk", file))?;
        let serial = serial(&file).map_err(VmmError::file("look at", &file))?;
        match self.known.get(&serial) {
            Some(known) if *known == file && kind == Kind::Image => return Ok(serial),
            Some(known) => {
                // With inode numbers of more than 14 digits the end of them is cut off.
                let (a, b) = (known.display(), file.display());
                return Err(VmmError::Spec {
                    reason: format!("the guest could not tell the disks {a} and {b} apart"),
                });
            }
            None => self.known.insert(serial.clone(), file.clone()),
        };
        let access = match kind {
            Kind::Image => Access::Shared,
            Kind::Upper | Kind::Volume => Access::Writable,
        };
        self.drives.push(Drive {
            path_on_host: self.jail.file(&id, &file, access)?,
            drive_id: id,
            is_root_device: false,
            is_read_only: kind == Kind::Image,
            cache_type: match kind {
                Kind::Image | Kind::Upper => CacheType::Unsafe,
                Kind::Volume => CacheType::Writeback,
            },
        });
        Ok(serial)
    }
}
