//! Volumes, in the JSON of the Machines API.

use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{MachineId, SnapshotId, VolumeId};

/// Names the hosts whose volumes are missing in a list because they did not answer in time, as
/// four hexadecimal digits each, separated by commas.
pub const HOSTS_MISSING_HEADER: &str = "aerostat-hosts-missing";

/// A file system that outlives the machines it is mounted in, on the disk of one host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Volume {
    pub id: VolumeId,
    pub name: String,
    pub state: VolumeState,
    /// GiB.
    pub size_gb: u64,
    pub region: String,
    /// The host, as in addresses: `0003`.
    pub zone: String,
    pub encrypted: bool,
    pub fstype: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attached_machine_id: Option<MachineId>,
    pub created_at: Timestamp,
    pub host_status: String,
    pub snapshot_retention: u32,
    pub auto_backup_enabled: bool,
    pub block_size: u64,
    pub blocks: u64,
    pub blocks_free: u64,
    pub blocks_avail: u64,
    /// What it takes of the host's disk.
    pub bytes_used: u64,
    pub bytes_total: u64,
    /// Digests of the `Idempotency-Key` and the body of the request that created it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub creation_key: Option<String>,
}

/// A volume and what a list over apps says beside it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OrgVolume {
    #[serde(flatten)]
    pub volume: Volume,
    pub app_name: String,
    pub updated_at: Timestamp,
}

/// One page of an organisation's volumes, those first that changed longest ago.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OrgVolumeList {
    pub volumes: Vec<OrgVolume>,
    /// For `?cursor=`; empty on the last page.
    #[serde(default)]
    pub next_cursor: String,
    #[serde(default)]
    pub last_volume_id: String,
    #[serde(default)]
    pub last_updated_at: Option<Timestamp>,
    /// Hosts (as in `zone`) that did not answer in time; their volumes are not in the list. Not
    /// Fly's.
    #[serde(default)]
    pub hosts_missing: Vec<String>,
}

/// Where a volume stands. In words of the Machines API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum VolumeState {
    Creating,
    Created,
    Extending,
    Restoring,
    Hydrating,
    Destroying,
    Destroyed,
}

impl VolumeState {
    pub const ALL: [Self; 7] = [
        Self::Creating,
        Self::Created,
        Self::Extending,
        Self::Restoring,
        Self::Hydrating,
        Self::Destroying,
        Self::Destroyed,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Extending => "extending",
            Self::Restoring => "restoring",
            Self::Hydrating => "hydrating",
            Self::Destroying => "destroying",
            Self::Destroyed => "destroyed",
        }
    }
}

impl std::fmt::Display for VolumeState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where a snapshot stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SnapshotStatus {
    /// It is recorded; its moment has not come yet.
    Waiting,
    /// The content is there; its digest is being computed.
    Running,
    Created,
}

impl SnapshotStatus {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Created => "created",
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct CreateVolume {
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub region: String,
    /// GiB; 1 by default, or the size of what it is made from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_gb: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encrypted: Option<bool>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub fstype: String,
    /// On another host than the app's other volumes of this name. Always preferred, and never
    /// demanded: Fly's clients send true whatever there is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub require_unique_zone: Option<bool>,
    /// Begin with what this snapshot holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot_id: Option<SnapshotId>,
    /// Begin with what this volume holds now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_volume_id: Option<VolumeId>,
    /// Days; 5 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot_retention: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auto_backup_enabled: Option<bool>,
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct UpdateVolume {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot_retention: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auto_backup_enabled: Option<bool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ExtendVolume {
    /// GiB, more than now.
    pub size_gb: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ExtendedVolume {
    pub volume: Volume,
    /// Whether the machine sees the new size only after a restart.
    pub needs_restart: bool,
}

/// A volume as it was at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct VolumeSnapshot {
    pub id: SnapshotId,
    /// Bytes of disk.
    pub size: u64,
    /// Bytes of the volume.
    pub volume_size: u64,
    /// `sha256:…` of the content; empty until it is known.
    pub digest: String,
    pub created_at: Timestamp,
    pub status: SnapshotStatus,
    /// Days.
    pub retention_days: u32,
    /// Not Fly's: nothing used the volume at that moment, or its file system stood still. Otherwise
    /// the content is what a power cut would have left.
    #[serde(default)]
    pub exact: bool,
}
