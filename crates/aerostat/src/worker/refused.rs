//! What a worker declines, and why.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use types::machine::MachineState;
use types::{HostId, IsolationClass, MachineId, VersionId, VolumeId};

use super::check::Invalid;
use super::volumes::VolumeRefused;

/// Where there was no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    Host,
    /// The hosts that have the volumes.
    Volume,
    Region,
}

impl Scope {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Volume => "volume",
            Self::Region => "region",
        }
    }
}

/// A machine that a worker will not have; or none of those that were asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum NoBid {
    #[error(
        "could not reserve resource for machine: insufficient memory available to fulfill \
         request ({asked_mb} MB asked, {free_mb} MB free)"
    )]
    InsufficientMemory { asked_mb: u64, free_mb: u64 },
    #[error(
        "could not reserve resource for machine: insufficient CPUs available to fulfill request \
         ({asked} asked, {free} free)"
    )]
    InsufficientCpus { asked: u32, free: u32 },
    #[error(
        "could not reserve resource for machine: insufficient disk available to fulfill request \
         ({asked_mb} MB asked, {free_mb} MB free)"
    )]
    InsufficientDisk { asked_mb: u64, free_mb: u64 },
    #[error("isolation class {class} is not offered here: {reason}")]
    ClassNotOffered {
        class: IsolationClass,
        reason: String,
    },
    /// The worker's own version of Aerostat does not let the configuration through.
    #[error("the host does not take this configuration: {reason}")]
    ConfigRefused { reason: String },
    /// `known` are the regions that there are, separated by commas.
    #[error("there is no region `{region}`; there is {known}")]
    RegionUnknown { region: String, known: String },
    #[error("no worker answered in time")]
    Late,
    /// A volume that the machine names cannot be had.
    #[error(transparent)]
    Volume(VolumeRefused),
    /// The host that has the machine's volumes would not have the machine.
    #[error("{refusal}; volume {volume} is on host {host} only")]
    VolumePlacement {
        host: HostId,
        volume: VolumeId,
        refusal: Box<NoBid>,
    },
    /// A machine's volumes are on several hosts.
    #[error("volumes {one} and {other} are on different hosts; a machine is on one")]
    VolumesApart { one: VolumeId, other: VolumeId },
    #[error("host {host} cannot be reached")]
    Unreachable { host: HostId },
    /// Several hosts were asked. At least one lack, the one that is most worth knowing first.
    #[error("{}", no_host(*.asked, .lacks))]
    NoHost { asked: usize, lacks: Vec<Lack> },
}

/// What hosts lacked, all in the same way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lack {
    /// Of the host that lacked least.
    pub refusal: NoBid,
    pub hosts: usize,
}

/// How the refusals for want of room begin: Fly's clients look for it.
const NO_ROOM: &str = "could not reserve resource for machine: ";

fn no_host(asked: usize, lacks: &[Lack]) -> String {
    let each = |lack: &Lack| {
        let text = match &lack.refusal {
            NoBid::Late => "no answer in time".to_owned(),
            refusal => refusal.to_string(),
        };
        let text = text.strip_prefix(NO_ROOM).unwrap_or(&text);
        format!("{text} on {} of {asked} hosts", lack.hosts)
    };
    let each: Vec<String> = lacks.iter().map(each).collect();
    format!("{NO_ROOM}{}", each.join("; "))
}

impl From<super::ledger::LedgerError> for Refused {
    fn from(error: super::ledger::LedgerError) -> Self {
        use super::ledger::LedgerError;
        match error {
            LedgerError::Volume(refused) => Self::Volume(*refused),
            source @ (LedgerError::Sqlite { .. }
            | LedgerError::Create { .. }
            | LedgerError::Newer { .. }
            | LedgerError::Row { .. }
            | LedgerError::Volumes { .. }
            | LedgerError::Closed) => Self::Ledger { source },
        }
    }
}

impl NoBid {
    /// For programs; stable.
    pub fn code(&self) -> &'static str {
        match self {
            Self::InsufficientMemory { .. }
            | Self::InsufficientCpus { .. }
            | Self::InsufficientDisk { .. } => "insufficient_capacity",
            Self::ClassNotOffered { .. } => "isolation_not_offered",
            Self::RegionUnknown { .. } => "region_unknown",
            Self::ConfigRefused { .. } => "invalid_argument",
            Self::Late => "no_answer",
            Self::Volume(refused) => refused.code(),
            Self::VolumePlacement { .. } => "volume_placement_capacity",
            Self::VolumesApart { .. } => "invalid_argument",
            Self::Unreachable { .. } => "host_unreachable",
            Self::NoHost { lacks, .. } => first(lacks, "no_answer", Self::code),
        }
    }

    pub fn scope(&self) -> Scope {
        match self {
            Self::InsufficientMemory { .. }
            | Self::InsufficientCpus { .. }
            | Self::InsufficientDisk { .. }
            | Self::ClassNotOffered { .. }
            | Self::ConfigRefused { .. }
            | Self::Unreachable { .. } => Scope::Host,
            Self::Volume(_) | Self::VolumePlacement { .. } | Self::VolumesApart { .. } => {
                Scope::Volume
            }
            Self::RegionUnknown { .. } | Self::Late | Self::NoHost { .. } => Scope::Region,
        }
    }

    /// Whether the same request may succeed later without anything else changing.
    pub fn retryable(&self) -> bool {
        match self {
            Self::InsufficientMemory { .. }
            | Self::InsufficientCpus { .. }
            | Self::InsufficientDisk { .. }
            | Self::Late
            | Self::Unreachable { .. } => true,
            Self::ClassNotOffered { .. }
            | Self::ConfigRefused { .. }
            | Self::VolumesApart { .. }
            | Self::RegionUnknown { .. } => false,
            Self::Volume(refused) => refused.retryable(),
            Self::VolumePlacement { refusal, .. } => refusal.retryable(),
            Self::NoHost { lacks, .. } => lacks.iter().any(|lack| lack.refusal.retryable()),
        }
    }

    /// What to try next.
    pub fn hint(&self) -> String {
        match self {
            Self::InsufficientMemory { free_mb, .. } => {
                format!("ask for at most {free_mb} MB of memory, or stop a machine")
            }
            Self::InsufficientCpus { free, .. } => {
                format!("ask for at most {free} CPUs of this kind, or stop a machine")
            }
            Self::InsufficientDisk { free_mb, .. } => {
                format!("ask for a root filesystem of at most {free_mb} MB, or free some disk")
            }
            Self::ClassNotOffered { .. } => {
                "leave out the isolation class, or run `aerostat doctor` on the host".into()
            }
            Self::ConfigRefused { .. } => "leave out what it names, or update the host".into(),
            Self::RegionUnknown { known, .. } => format!("use region {known}, or none"),
            Self::Late => "try again".into(),
            Self::Volume(refused) => refused.hint(),
            Self::VolumePlacement { .. } => {
                "free some room on that host: the volume is nowhere else".into()
            }
            Self::VolumesApart { .. } => "mount volumes of one host only".into(),
            Self::Unreachable { .. } => "try again; `aerostat mesh status` shows the hosts".into(),
            Self::NoHost { lacks, .. } => first(lacks, "try again".into(), Self::hint),
        }
    }
}

/// What is to be said of the lack that is most worth knowing.
fn first<T>(lacks: &[Lack], none: T, say: impl Fn(&NoBid) -> T) -> T {
    lacks.first().map_or(none, |lack| say(&lack.refusal))
}

/// A request that is understood and declined, or that could not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    #[error("invalid machine configuration: {0}")]
    Invalid(#[from] Invalid),
    #[error(transparent)]
    NoBid(#[from] NoBid),
    #[error("machine not found")]
    NotFound { id: MachineId },
    #[error("machine name `{name}` is already taken by machine {id}")]
    NameTaken { name: String, id: MachineId },
    #[error("machine id {id} is already taken")]
    IdTaken { id: MachineId },
    /// The verb cannot be applied in this state.
    #[error("unable to {verb} machine from current state: '{state}'")]
    WrongState {
        verb: &'static str,
        state: MachineState,
    },
    #[error("the machine's version is {current}, not the one given")]
    VersionMismatch { current: VersionId },
    /// Somebody changed the machine since the caller read it.
    #[error("the machine's version is {current}, not {given}")]
    StaleVersion { current: VersionId, given: String },
    /// Fly's clients show this text.
    #[error("machine ID {id} lease currently held by {owner}, expires at {expires_at}")]
    LeaseHeld {
        id: MachineId,
        owner: String,
        expires_at: Timestamp,
    },
    #[error("lease not found")]
    LeaseNotFound,
    #[error("the reservation has expired")]
    ReservationExpired,
    /// This host has no more addresses or user ids for machines.
    #[error("no more {what} on this host")]
    Exhausted { what: &'static str },
    #[error("machine {id} has no container `{container}`; it has {known}")]
    NoContainer {
        id: MachineId,
        container: String,
        known: String,
    },
    /// The driver's or ledger's inbox is full.
    #[error("the worker is busy; try again")]
    Busy,
    #[error(transparent)]
    Volume(#[from] VolumeRefused),
    #[error("the worker is shutting down")]
    ShuttingDown,
    #[error("cannot reach into machine {id}")]
    Vmm {
        id: MachineId,
        source: vmm::VmmError,
    },
    #[error("cannot record the change")]
    Ledger { source: super::ledger::LedgerError },
}
