//! What a worker declines, and why.

use jiff::Timestamp;
use types::machine::MachineState;
use types::{IsolationClass, MachineId, VersionId};

use super::check::Invalid;

/// Where there was no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    Host,
    Region,
}

impl Scope {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Region => "region",
        }
    }
}

/// A machine that a worker will not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
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
    #[error("there is no region `{region}`; this is `{known}`")]
    RegionUnknown { region: String, known: String },
    #[error("no worker answered in time")]
    Late,
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
            Self::Late => "no_answer",
        }
    }

    pub fn scope(&self) -> Scope {
        match self {
            Self::InsufficientMemory { .. }
            | Self::InsufficientCpus { .. }
            | Self::InsufficientDisk { .. }
            | Self::ClassNotOffered { .. } => Scope::Host,
            Self::RegionUnknown { .. } | Self::Late => Scope::Region,
        }
    }

    /// Whether the same request may succeed later without anything else changing.
    pub fn retryable(&self) -> bool {
        match self {
            Self::InsufficientMemory { .. }
            | Self::InsufficientCpus { .. }
            | Self::InsufficientDisk { .. }
            | Self::Late => true,
            Self::ClassNotOffered { .. } | Self::RegionUnknown { .. } => false,
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
            Self::RegionUnknown { known, .. } => format!("use region `{known}`, or none"),
            Self::Late => "try again".into(),
        }
    }
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
