//! What a machine is asked to be (`MachineConfig`) and what it is now (`Machine`), in the JSON of
//! the Machines API.
//!
//! The field names are those of Fly.io's published OpenAPI document, so that its clients work.
//! Ours beyond it: `isolation` in the configuration, and in the answer the state of each
//! container (`containers[]`), the isolation class and its VMM.

mod checks;
mod config;
mod container;
mod duration;
mod volumes;

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::{MachineId, VersionId};

pub use checks::*;
pub use config::*;
pub use container::*;
pub use duration::Duration;
pub use volumes::*;

/// How strongly a machine is kept apart from its host. Chosen by policy and never silently
/// changed.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
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

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

fn null_is_empty<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// A machine as the API shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
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
    pub checks: Vec<CheckStatus>,
    #[serde(default)]
    pub containers: Vec<ContainerStatus>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub nonce: Option<String>,
    pub host_status: String,
    /// Services send nothing to it.
    #[serde(default)]
    pub cordoned: bool,
    /// Digests of the `Idempotency-Key` and the body of the request that created it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub creation_key: Option<String>,
    pub isolation: IsolationClass,
    /// Grows with each change of the machine, and says which of two statements about it is the
    /// newer one. Lists and watches have revisions of their own.
    #[serde(default)]
    pub revision: u64,
}

impl Machine {
    /// Whether services send anything to it: it is started and not cordoned, and each of its
    /// readiness checks passes.
    pub fn serves(&self) -> bool {
        let is_ready = |check: &CheckStatus| !check.readiness || check.status == Health::Passing;
        self.state == MachineState::Started && !self.cordoned && self.checks.iter().all(is_ready)
    }
}

/// The image that a machine runs, as far as it is known.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ImageIdentity {
    pub registry: String,
    pub repository: String,
    pub tag: String,
    pub digest: String,
}

/// The states of a machine, with Fly's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum MachineState {
    Created,
    Starting,
    Started,
    /// Its memory is being written to disk.
    Suspending,
    /// Nothing of it runs; a start goes on where it stood.
    Suspended,
    Stopping,
    Stopped,
    /// Being stopped, to be started again at once.
    Restarting,
    /// Being stopped, to be started again with another configuration.
    Updating,
    Failed,
    Destroying,
    Destroyed,
}

impl MachineState {
    pub const ALL: [Self; 12] = [
        Self::Created,
        Self::Starting,
        Self::Started,
        Self::Suspending,
        Self::Suspended,
        Self::Stopping,
        Self::Stopped,
        Self::Restarting,
        Self::Updating,
        Self::Failed,
        Self::Destroying,
        Self::Destroyed,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Starting => "starting",
            Self::Started => "started",
            Self::Suspending => "suspending",
            Self::Suspended => "suspended",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Restarting => "restarting",
            Self::Updating => "updating",
            Self::Failed => "failed",
            Self::Destroying => "destroying",
            Self::Destroyed => "destroyed",
        }
    }

    /// Whether the machine stays here until somebody asks for something.
    pub fn is_settled(self) -> bool {
        match self {
            Self::Created
            | Self::Started
            | Self::Suspended
            | Self::Stopped
            | Self::Failed
            | Self::Destroyed => true,
            Self::Starting
            | Self::Suspending
            | Self::Stopping
            | Self::Restarting
            | Self::Updating
            | Self::Destroying => false,
        }
    }
}

impl fmt::Display for MachineState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Something that happened to a machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
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

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct EventRequest {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_event: Option<ExitEvent>,
    #[serde(skip_serializing_if = "is_default")]
    pub restart_count: u32,
    /// Why, for people: the reason of a failed start, for example.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Of a `launch`: how it came to this host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placement>,
}

/// How a machine came to its host: what was asked, and who answered what.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Placement {
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// In the order in which they were preferred; refusals last.
    pub bids: Vec<PlacementBid>,
}

/// One host's answer to the question who can take a machine.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct PlacementBid {
    /// `0003`, as in addresses.
    pub host: String,
    pub region: String,
    pub won: bool,
    /// Why it could not, or did not answer; empty for a bid.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub refusal: String,
    /// What it offered, for people: free memory and processors, images at hand.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub offer: String,
}

/// How a machine, or a container of it, ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
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

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PastRun {
    pub started_at: Option<Timestamp>,
    pub exit_event: ExitEvent,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
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
