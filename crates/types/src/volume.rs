//! Volumes, in the JSON of the Machines API.

use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A file system that outlives the machines it is mounted in, on the disk of one host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Volume {
    /// `vol_` and 16 lower-case letters and digits.
    pub id: String,
    pub name: String,
    pub state: VolumeState,
    /// GiB.
    pub size_gb: u64,
    pub region: String,
    /// The host, as in addresses: `0003`.
    pub zone: String,
    pub encrypted: bool,
    pub fstype: String,
    #[serde(default)]
    pub attached_machine_id: Option<String>,
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
}

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
    /// On another host than the app's other volumes of this name. Fly's default is true; ours is
    /// to prefer it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub require_unique_zone: Option<bool>,
    /// Begin with what this snapshot holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot_id: Option<String>,
    /// Begin with what this volume holds now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_volume_id: Option<String>,
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
    /// `vs_` and 16 lower-case letters and digits.
    pub id: String,
    /// Bytes of disk.
    pub size: u64,
    /// Bytes of the volume.
    pub volume_size: u64,
    /// `sha256:…` of the content.
    pub digest: String,
    pub created_at: Timestamp,
    /// `created`.
    pub status: String,
    /// Days.
    pub retention_days: u32,
}
