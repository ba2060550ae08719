//! What of a machine's disk outlives it, and what its containers share: volumes that are mounted,
//! and directories that live as long as the machine runs.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::is_default;

/// A volume in every container of a machine.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Mount {
    /// The volume's id.
    pub volume: String,
    /// Absolute path inside the containers. With `containers[]` it may stay empty: then only the
    /// containers whose `mounts` name it have it.
    pub path: String,
    /// What containers call it in their `mounts`; the volume's name if empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// A directory that containers of a machine share, empty at each boot.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct SharedDirectory {
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temp_dir: Option<TempDir>,
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct TempDir {
    pub storage_type: StorageType,
    /// Bound in MiB; 0: that of the disk or of the machine's memory.
    #[serde(skip_serializing_if = "is_default")]
    pub size_mb: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum StorageType {
    #[default]
    Disk,
    Memory,
}

/// A volume or shared directory in one container.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ContainerMount {
    /// Of the machine's `volumes` or `mounts`.
    pub name: String,
    /// Absolute path inside the container.
    pub path: String,
    /// A directory inside of it, relative and without `..`; made if it is missing. Not Fly's.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub sub_path: String,
    /// Not Fly's.
    #[serde(skip_serializing_if = "is_default")]
    pub read_only: bool,
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}
