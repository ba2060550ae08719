//! Bodies of Firecracker's API, as its OpenAPI document (v1.16) has them; only the fields that we
//! send. Paths are those that Firecracker sees: inside its jail.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// `PUT /machine-config`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MachineConfig {
    /// 1 to [`VCPUS_MAX`].
    pub(super) vcpu_count: u32,
    pub(super) mem_size_mib: u32,
    pub(super) smt: bool,
    pub(super) track_dirty_pages: bool,
}

/// Firecracker takes no more.
pub(super) const VCPUS_MAX: u32 = 32;

/// `PUT /boot-source`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BootSource {
    /// An uncompressed ELF kernel.
    pub(super) kernel_image_path: PathBuf,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) initrd_path: Option<PathBuf>,
    pub(super) boot_args: String,
}

/// `PUT /drives/{drive_id}`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Drive {
    /// Letters, digits and underscores.
    pub(super) drive_id: String,
    pub(super) path_on_host: PathBuf,
    pub(super) is_root_device: bool,
    pub(super) is_read_only: bool,
    pub(super) cache_type: CacheType,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum CacheType {
    /// The guest's flushes are not passed on.
    Unsafe,
    Writeback,
}

/// `PUT /network-interfaces/{iface_id}`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NetworkInterface {
    pub(super) iface_id: String,
    /// Name of the tap.
    pub(super) host_dev_name: String,
    pub(super) guest_mac: String,
}

/// `PUT /vsock`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Vsock {
    /// 3 or more. No other machine sees it.
    pub(super) guest_cid: u32,
    pub(super) uds_path: PathBuf,
}

/// `PUT /entropy`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entropy {}

/// `PUT /actions`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action_type", deny_unknown_fields)]
pub(super) enum Action {
    InstanceStart,
}

/// `PATCH /vm`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", deny_unknown_fields)]
pub(super) enum VmState {
    Paused,
    Resumed,
}

/// `PUT /snapshot/create`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SnapshotCreate {
    pub(super) snapshot_type: SnapshotType,
    pub(super) snapshot_path: PathBuf,
    pub(super) mem_file_path: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum SnapshotType {
    Full,
}

/// `PUT /snapshot/load`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SnapshotLoad {
    pub(super) snapshot_path: PathBuf,
    pub(super) mem_backend: MemoryBackend,
    pub(super) resume_vm: bool,
    /// The tap may have another name than when the snapshot was taken.
    pub(super) network_overrides: Vec<NetworkOverride>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MemoryBackend {
    pub(super) backend_type: BackendType,
    /// Mapped privately: its content must stay for as long as the machine runs.
    pub(super) backend_path: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum BackendType {
    File,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NetworkOverride {
    pub(super) iface_id: String,
    pub(super) host_dev_name: String,
}

/// Body of every answer that is not a success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Fault {
    pub(super) fault_message: String,
}
