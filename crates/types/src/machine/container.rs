//! One container of a machine, as it is asked for.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::checks::HealthCheck;
use super::config::{Restart, StopConfig};
use super::volumes::ContainerMount;
use super::{is_default, null_is_empty};

/// One container of a machine.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ContainerConfig {
    pub name: String,
    pub image: String,
    #[serde(
        deserialize_with = "null_is_empty",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub exec: Vec<String>,
    #[serde(
        deserialize_with = "null_is_empty",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub entrypoint: Vec<String>,
    #[serde(
        deserialize_with = "null_is_empty",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub cmd: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    #[serde(
        deserialize_with = "null_is_empty",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub env: BTreeMap<String, String>,
    #[serde(
        deserialize_with = "null_is_empty",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub env_from: Vec<EnvFrom>,
    #[serde(
        deserialize_with = "null_is_empty",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub files: Vec<File>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart: Option<Restart>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop: Option<StopConfig>,
    #[serde(
        deserialize_with = "null_is_empty",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub depends_on: Vec<DependsOn>,
    #[serde(skip_serializing_if = "is_default")]
    pub tty: bool,
    /// Keep standard input open for `attach` (Kubernetes' `stdin: true`).
    #[serde(skip_serializing_if = "is_default")]
    pub stdin: bool,
    /// Directory that the process starts in; the image's when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// Secrets of the app that this container gets as variables. A container that names any gets
    /// no others; one that names none gets all of them.
    #[serde(
        deserialize_with = "null_is_empty",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub secrets: Vec<EnvSecret>,
    #[serde(
        deserialize_with = "null_is_empty",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub mounts: Vec<ContainerMount>,
    #[serde(
        deserialize_with = "null_is_empty",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub healthchecks: Vec<HealthCheck>,
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// A secret of the app as an environment variable.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct EnvSecret {
    pub env_var: String,
    /// The secret's name; the variable's if empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
}

/// An environment variable whose value is known only when the machine exists.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct EnvFrom {
    pub env_var: String,
    pub field_ref: FieldRef,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FieldRef {
    Id,
    Version,
    AppName,
    PrivateIp,
    Region,
    Image,
}

/// A file that is written into the container before it starts.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct File {
    /// Absolute path inside the container.
    pub guest_path: String,
    /// Content, as base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub raw_value: Option<String>,
    /// Name of an app secret that holds the content, as base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DependsOn {
    pub name: String,
    pub condition: DependsOnCondition,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DependsOnCondition {
    Started,
    Healthy,
    ExitedSuccessfully,
}
