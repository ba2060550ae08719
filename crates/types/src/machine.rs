//! What a machine is asked to be (`MachineConfig`) and what it is now (`Machine`), in the JSON of
//! the Machines API.
//!
//! The field names are those of Fly.io's published OpenAPI document, so that its clients work.
//! Ours beyond it: `isolation` in the configuration, and in the answer the state of each
//! container (`containers[]`), the isolation class and its VMM.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::id::{MachineId, VersionId};

/// How strongly a machine is kept apart from its host. Chosen by policy and never silently
/// changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IsolationClass {
    /// Hardware virtualisation.
    Microvm,
    /// The same guest with an emulated processor: slow, for hosts without usable KVM.
    Emulated,
    /// Linux namespaces: weaker isolation.
    Container,
}

impl IsolationClass {
    pub const ALL: [Self; 3] = [Self::Microvm, Self::Emulated, Self::Container];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Microvm => "microvm",
            Self::Emulated => "emulated",
            Self::Container => "container",
        }
    }
}

impl fmt::Display for IsolationClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Text that names no isolation class.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no isolation class; there are microvm, emulated and container")]
pub struct UnknownIsolationClass(pub String);

impl FromStr for IsolationClass {
    type Err = UnknownIsolationClass;
    fn from_str(text: &str) -> Result<Self, UnknownIsolationClass> {
        Self::ALL
            .into_iter()
            .find(|class| class.as_str() == text)
            .ok_or_else(|| UnknownIsolationClass(text.to_owned()))
    }
}

/// What a machine is asked to be.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
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
    /// Members that are not built yet. Kept, so that `check` can name them.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// How the (only) process of a machine is started. `exec` beats entry point and command, also the
/// image's.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
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
}

fn null_is_empty<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// Size of a machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Guest {
    pub cpu_kind: String,
    pub cpus: u32,
    pub memory_mb: u32,
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

impl Default for Guest {
    fn default() -> Self {
        Self {
            cpu_kind: "shared".into(),
            cpus: 1,
            memory_mb: 256,
            other: BTreeMap::new(),
        }
    }
}

/// What happens when a machine, or one container of it, ends by itself.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Restart {
    pub policy: RestartPolicy,
    /// `None`: ten for `on-failure`, no limit for `always`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_retries: Option<u32>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartPolicy {
    No,
    #[default]
    OnFailure,
    Always,
}

/// How a machine is asked to stop: a signal (`SIGINT` by default), then the time it has before it
/// is killed (5 s by default).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct StopConfig {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
}

/// A duration as Fly's clients write it: whole nanoseconds, or Go's text (`1m30s`).
/// Serialised as Go's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "Value", into = "String")]
pub struct Duration(pub std::time::Duration);

impl TryFrom<Value> for Duration {
    type Error = String;
    fn try_from(value: Value) -> Result<Self, String> {
        let problem = || format!("{value} is not a duration like \"10s\" or a number of ns");
        match &value {
            Value::Number(ns) => {
                let ns = ns.as_u64().ok_or_else(problem)?;
                Ok(Self(std::time::Duration::from_nanos(ns)))
            }
            Value::String(text) => text.parse().map_err(|()| problem()),
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => Err(problem()),
        }
    }
}

impl FromStr for Duration {
    type Err = ();
    /// Go's `time.ParseDuration`, without signs.
    fn from_str(text: &str) -> Result<Self, ()> {
        let mut rest = text;
        let mut seconds = 0f64;
        if text == "0" {
            return Ok(Self(std::time::Duration::ZERO));
        }
        while !rest.is_empty() {
            let digits = rest
                .find(|c: char| !c.is_ascii_digit() && c != '.')
                .ok_or(())?;
            let number: f64 = rest[..digits].parse().map_err(|_| ())?;
            rest = &rest[digits..];
            let unit = rest
                .find(|c: char| c.is_ascii_digit())
                .unwrap_or(rest.len());
            seconds += number
                * match &rest[..unit] {
                    "ns" => 1e-9,
                    "us" | "µs" => 1e-6,
                    "ms" => 1e-3,
                    "s" => 1.0,
                    "m" => 60.0,
                    "h" => 3600.0,
                    _ => return Err(()),
                };
            rest = &rest[unit..];
        }
        if text.is_empty() {
            return Err(());
        }
        std::time::Duration::try_from_secs_f64(seconds)
            .map(Self)
            .map_err(|_| ())
    }
}

impl From<Duration> for String {
    fn from(duration: Duration) -> String {
        if duration.0.subsec_nanos().is_multiple_of(1_000_000) {
            format!("{}ms", duration.0.as_millis())
        } else {
            format!("{}ns", duration.0.as_nanos())
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DnsOption {
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub value: String,
}

/// The writable layer over a machine's images.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RootFs {
    /// Size of the writable layer, in GiB; 0 stands for the default.
    #[serde(skip_serializing_if = "is_default")]
    pub size_gb: u32,
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// One container of a machine.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
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
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// An environment variable whose value is known only when the machine exists.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EnvFrom {
    pub env_var: String,
    pub field_ref: FieldRef,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct File {
    /// Absolute path inside the container.
    pub guest_path: String,
    /// Content, as base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub raw_value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DependsOn {
    pub name: String,
    pub condition: DependsOnCondition,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DependsOnCondition {
    Started,
    Healthy,
    ExitedSuccessfully,
}

/// A machine as the API shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    pub id: MachineId,
    pub name: String,
    pub state: MachineState,
    pub region: String,
    pub instance_id: VersionId,
    pub version: VersionId,
    /// The 6PN address.
    pub private_ip: String,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub config: MachineConfig,
    pub image_ref: ImageIdentity,
    /// Newest first; the last 20.
    #[serde(default)]
    pub events: Vec<Event>,
    #[serde(default)]
    pub checks: Vec<Value>,
    #[serde(default)]
    pub containers: Vec<ContainerStatus>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub nonce: Option<String>,
    pub host_status: String,
    pub isolation: IsolationClass,
    /// Grows with each change of the machine, and says which of two statements about it is the
    /// newer one. Lists and watches have revisions of their own.
    #[serde(default)]
    pub revision: u64,
}

/// The image that a machine runs, as far as it is known.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageIdentity {
    pub registry: String,
    pub repository: String,
    pub tag: String,
    pub digest: String,
}

/// The states of a machine, with Fly's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MachineState {
    Created,
    Starting,
    Started,
    Stopping,
    Stopped,
    Failed,
    Destroying,
    Destroyed,
}

impl MachineState {
    pub const ALL: [Self; 8] = [
        Self::Created,
        Self::Starting,
        Self::Started,
        Self::Stopping,
        Self::Stopped,
        Self::Failed,
        Self::Destroying,
        Self::Destroyed,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Starting => "starting",
            Self::Started => "started",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
            Self::Destroying => "destroying",
            Self::Destroyed => "destroyed",
        }
    }

    /// Whether the machine stays here until somebody asks for something.
    pub fn is_settled(self) -> bool {
        match self {
            Self::Created | Self::Started | Self::Stopped | Self::Failed | Self::Destroyed => true,
            Self::Starting | Self::Stopping | Self::Destroying => false,
        }
    }
}

impl fmt::Display for MachineState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Something that happened to a machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// A ULID; ids of one machine rise with time.
    pub id: String,
    /// `launch`, `start`, `exit`, `stop`, `restart`, `update`, `destroy`, …
    #[serde(rename = "type")]
    pub kind: String,
    pub status: String,
    /// `user`, or `flyd` for what the worker did by itself (the word that Fly's clients expect).
    pub source: String,
    /// Milliseconds since 1970.
    pub timestamp: i64,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub request: Option<EventRequest>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EventRequest {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_event: Option<ExitEvent>,
    #[serde(skip_serializing_if = "is_default")]
    pub restart_count: u32,
    /// Why, for people: the reason of a failed start, for example.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// How a machine, or a container of it, ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExitEvent {
    /// What a shell would say: the exit code, or 128 and the signal.
    pub exit_code: i32,
    pub guest_exit_code: i32,
    /// -1: none.
    pub guest_signal: i32,
    pub signal: i32,
    pub oom_killed: bool,
    /// Whether somebody had asked for it.
    pub requested_stop: bool,
    pub restarting: bool,
    pub exited_at: Timestamp,
}

impl Default for ExitEvent {
    fn default() -> Self {
        Self {
            exit_code: 0,
            guest_exit_code: 0,
            guest_signal: -1,
            signal: -1,
            oom_killed: false,
            requested_stop: false,
            restarting: false,
            exited_at: Timestamp::UNIX_EPOCH,
        }
    }
}

/// One container of a machine as it is now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ContainerStatus {
    pub name: String,
    pub state: ContainerState,
    pub image_ref: ImageIdentity,
    #[serde(default)]
    pub restart_count: u32,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub started_at: Option<Timestamp>,
    /// How the current run ended; present in `stopped` and `waiting`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub exit_event: Option<ExitEvent>,
    /// How the run before the current one ended, and when it had begun.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub last_exit: Option<PastRun>,
    /// Why it waits or could not start.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub message: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PastRun {
    pub started_at: Option<Timestamp>,
    pub exit_event: ExitEvent,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ContainerState {
    /// Not started in this boot yet.
    Created,
    Started,
    /// Ended, and will be started again after the back-off.
    Waiting,
    /// Ended for good in this boot.
    Stopped,
    /// Could not be started; `message` says why.
    Failed,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_of_a_fly_client_reads_and_writes_as_itself() {
        let text = r#"{"image":"nginx","init":{"exec":null},"guest":{"cpu_kind":"shared","cpus":2,
            "memory_mb":512},"restart":{"policy":"on-failure","max_retries":3},
            "stop_config":{"timeout":"1m30s"},"services":[]}"#;
        let config: MachineConfig = serde_json::from_str(text).unwrap();
        assert_eq!(config.guest.as_ref().unwrap().memory_mb, 512);
        let timeout = config.stop_config.as_ref().unwrap().timeout.unwrap();
        assert_eq!(timeout.0.as_secs(), 90);
        assert!(config.other.contains_key("services"));
        let again: MachineConfig =
            serde_json::from_value(serde_json::to_value(&config).unwrap()).unwrap();
        assert_eq!(again, config);
    }

    #[test]
    fn durations_are_text_or_nanoseconds() {
        let read = |text: &str| serde_json::from_str::<Duration>(text).map(|d| d.0.as_millis());
        assert_eq!(read("10000000000").unwrap(), 10_000);
        assert_eq!(read("\"1.5s\"").unwrap(), 1_500);
        assert_eq!(read("\"1h1m1s1ms\"").unwrap(), 3_661_001);
        for ns in [1_500_000, 1, 10_000_000_000] {
            let duration = Duration(std::time::Duration::from_nanos(ns));
            assert_eq!(String::from(duration).parse(), Ok(duration));
        }
        for text in ["\"\"", "\"s\"", "\"10\"", "\"1y\"", "-1", "true", "\"-1s\""] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
