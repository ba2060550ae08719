//! What a machine is asked to be.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::checks::Check;
use super::container::{ContainerConfig, EnvFrom, EnvSecret, File};
use super::duration::Duration;
use super::volumes::{Mount, SharedDirectory};
use super::{IsolationClass, is_default, null_is_empty};

/// What a machine is asked to be.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct MachineConfig {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub image: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "is_default")]
    pub init: Init,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guest: Option<Guest>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub isolation: Option<IsolationClass>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart: Option<Restart>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_config: Option<StopConfig>,
    #[serde(skip_serializing_if = "is_default")]
    pub auto_destroy: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub dns: Dns,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub containers: Vec<ContainerConfig>,
    #[serde(skip_serializing_if = "is_default")]
    pub rootfs: RootFs,
    /// Preset of `guest`, such as `shared-cpu-2x`; not both.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub size: String,
    /// Several processes of one image, each a container of its own.
    #[serde(
        deserialize_with = "null_is_empty",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub processes: Vec<Process>,
    /// Files of machines without `containers`.
    #[serde(
        deserialize_with = "null_is_empty",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub files: Vec<File>,
    #[serde(
        deserialize_with = "null_is_empty",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub mounts: Vec<Mount>,
    #[serde(
        deserialize_with = "null_is_empty",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub volumes: Vec<SharedDirectory>,
    #[serde(
        deserialize_with = "null_is_empty",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub checks: BTreeMap<String, Check>,
    /// Start again by itself, counted from the machine's creation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
    /// Not Fly's: variables and files are left out here, because another host shows this machine.
    /// Its own host, which `GET` of the machine asks, shows all. Nothing is made of such a
    /// configuration.
    #[serde(skip_serializing_if = "is_default")]
    pub withheld: bool,
    /// Members that are not built yet. Kept, so that `check` can name them.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

impl MachineConfig {
    /// The same without the variables and files of its containers, which may hold what only its
    /// own host needs to know.
    #[must_use]
    pub fn without_contents(&self) -> Self {
        let mut config = self.clone();
        config.env.clear();
        config.files.clear();
        for process in &mut config.processes {
            process.env.clear();
        }
        for container in &mut config.containers {
            container.env.clear();
            container.files.clear();
        }
        config
    }
}

/// How the (only) process of a machine is started. `exec` beats entry point and command, also the
/// image's.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Init {
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
    #[serde(skip_serializing_if = "is_default")]
    pub tty: bool,
    /// Keep standard input open for `attach`; a terminal always has it. Not Fly's.
    #[serde(skip_serializing_if = "is_default")]
    pub stdin: bool,
}

/// One of several processes of one image.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Process {
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
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user: String,
    #[serde(
        deserialize_with = "null_is_empty",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub env: BTreeMap<String, String>,
    #[serde(
        deserialize_with = "null_is_empty",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub secrets: Vec<EnvSecret>,
    /// Only `secrets`, not every secret of the app.
    #[serde(skip_serializing_if = "is_default")]
    pub ignore_app_secrets: bool,
    #[serde(
        deserialize_with = "null_is_empty",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub env_from: Vec<EnvFrom>,
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Schedule {
    Hourly,
    Daily,
    Weekly,
    Monthly,
}

/// Size of a machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Guest {
    pub cpu_kind: String,
    pub cpus: u32,
    pub memory_mb: u32,
    /// Older name of `rootfs.persist`.
    #[serde(deserialize_with = "persist", skip_serializing_if = "Option::is_none")]
    pub persist_rootfs: Option<Persist>,
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

impl Default for Guest {
    fn default() -> Self {
        Self {
            cpu_kind: "shared".into(),
            cpus: 1,
            memory_mb: 256,
            persist_rootfs: None,
            other: BTreeMap::new(),
        }
    }
}

/// What happens when a machine, or one container of it, ends by itself.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Restart {
    pub policy: RestartPolicy,
    /// `None`: ten for `on-failure`, no limit for `always`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_retries: Option<u32>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RestartPolicy {
    No,
    #[default]
    OnFailure,
    Always,
}

/// How a machine is asked to stop: a signal (`SIGINT` by default), then the time it has before it
/// is killed (5 s by default).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct StopConfig {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Dns {
    #[serde(skip_serializing_if = "is_default")]
    pub skip_registration: bool,
    #[serde(
        deserialize_with = "null_is_empty",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub nameservers: Vec<String>,
    #[serde(
        deserialize_with = "null_is_empty",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub searches: Vec<String>,
    /// For `options` of resolv.conf(5).
    #[serde(
        deserialize_with = "null_is_empty",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub options: Vec<DnsOption>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub hostname: String,
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// An option of the resolver: `ndots` and `2`, or `edns0` alone.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct DnsOption {
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub value: String,
}

/// The writable layer over a machine's images.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct RootFs {
    /// Size of the writable layer, in GiB; 0 stands for the default. One that is kept grows with
    /// it, and never shrinks.
    #[serde(skip_serializing_if = "is_default")]
    pub size_gb: u32,
    /// How long what was written there stays; `never` by default.
    #[serde(deserialize_with = "persist", skip_serializing_if = "Option::is_none")]
    pub persist: Option<Persist>,
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// How long a machine's writable layer stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Persist {
    /// Every boot begins with an empty one.
    Never,
    /// From boot to boot, until the machine is updated.
    Restart,
    /// Until the machine is destroyed.
    Always,
}

/// A word, or the number that Fly's clients may send for it; nothing, the empty word and 0 say
/// nothing.
fn persist<'de, D>(deserializer: D) -> Result<Option<Persist>, D::Error>
where
    D: serde::Deserializer<'de>,
{
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Word {
        Number(u64),
        Text(String),
    }
    Ok(match Option::<Word>::deserialize(deserializer)? {
        None | Some(Word::Number(0)) => None,
        Some(Word::Number(1)) => Some(Persist::Never),
        Some(Word::Number(2)) => Some(Persist::Restart),
        Some(Word::Number(3)) => Some(Persist::Always),
        Some(Word::Text(text)) => match text.as_str() {
            // Fly's older clients say `none`.
            "" | "none" => None,
            "never" => Some(Persist::Never),
            "restart" => Some(Persist::Restart),
            "always" => Some(Persist::Always),
            _ => return Err(wrong_persist()),
        },
        Some(Word::Number(_)) => return Err(wrong_persist()),
    })
}

fn wrong_persist<E: serde::de::Error>() -> E {
    E::custom("persist must be never, restart or always")
}
