//! Health checks: those of a machine (`checks`, by name) and those of a container
//! (`healthchecks`), as they are asked for and as they stand.

use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::duration::Duration;
use super::{is_default, null_is_empty};

/// A check of a machine. Durations are Go's text or nanoseconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Check {
    #[serde(rename = "type")]
    pub kind: CheckType,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// What its outcome means beyond being shown.
    #[serde(rename = "kind", skip_serializing_if = "Option::is_none")]
    pub meaning: Option<CheckMeaning>,
    /// Between two probes; 15 s by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<Duration>,
    /// Of one probe; 2 s by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    /// After the start, in which failures do not count; 1 s by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grace_period: Option<Duration>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// `http` (the default) or `https`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// Of `https`: the name that the certificate must have; the address by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_server_name: Option<String>,
    /// Of `https`: take any certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_skip_verify: Option<bool>,
    #[serde(
        deserialize_with = "null_is_empty",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub headers: Vec<CheckHeader>,
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CheckType {
    #[default]
    Tcp,
    Http,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CheckMeaning {
    #[default]
    Informational,
    /// Services send nothing to a machine while it fails.
    Readiness,
    /// The container is stopped when it fails, and its restart policy decides (containers only).
    Liveness,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct CheckHeader {
    pub name: String,
    #[serde(deserialize_with = "null_is_empty")]
    pub values: Vec<String>,
}

/// A check of a container. Durations are whole seconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct HealthCheck {
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<CheckMeaning>,
    /// Seconds between two probes; 10 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<u32>,
    /// Seconds of one probe; 2 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<u32>,
    /// Seconds after the container's start in which failures do not count.
    #[serde(skip_serializing_if = "is_default")]
    pub grace_period: u32,
    /// Successes in a row that make it passing; 1 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub success_threshold: Option<u32>,
    /// Failures in a row that make it critical; 3 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure_threshold: Option<u32>,
    /// `stop`: as `kind` liveness.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unhealthy: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpProbe>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp: Option<TcpProbe>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exec: Option<ExecProbe>,
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct HttpProbe {
    pub port: u16,
    /// `GET` by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// `/` by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// `http` (the default) or `https`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheme: Option<String>,
    /// Of `https`: the name that the certificate must have; the address by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_server_name: Option<String>,
    /// Of `https`: take any certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_skip_verify: Option<bool>,
    #[serde(
        deserialize_with = "null_is_empty",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub headers: Vec<CheckHeader>,
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct TcpProbe {
    pub port: u16,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ExecProbe {
    pub command: Vec<String>,
}

/// How a check of a machine stands. A container's is named `<container>/<check>`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CheckStatus {
    pub name: String,
    pub status: Health,
    /// What the last probe said, cut at 1 KiB.
    #[serde(default)]
    pub output: String,
    pub updated_at: Timestamp,
    /// Ours: whether services leave the machine out while this one does not pass.
    #[serde(skip_serializing_if = "is_default", default)]
    pub readiness: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    Passing,
    /// Not known yet, or failing within its grace period.
    Warning,
    Critical,
}
