//! What the worker declines about volumes, and why.

use serde::{Deserialize, Serialize};
use types::volume::VolumeState;
use types::{MachineId, SnapshotId, VolumeId};

/// A request about a volume that is understood and declined, or that could not be carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum VolumeRefused {
    #[error("volume {id} not found")]
    NotFound { id: VolumeId },
    #[error("snapshot {id} not found")]
    NoSnapshot { id: SnapshotId },
    /// Of another app, or of another organisation's network.
    #[error("volume {id} does not belong to this app")]
    Foreign { id: VolumeId },
    #[error("{field} {reason}")]
    Invalid { field: String, reason: String },
    #[error("volume {id} is attached to machine {machine}")]
    Attached { id: VolumeId, machine: MachineId },
    /// A machine keeps its volumes while anything of a boot may be there.
    #[error("machine {id} runs with its volumes, and they cannot be changed meanwhile")]
    Running { id: MachineId },
    #[error("unable to {verb} volume {id} from current state: '{state}'")]
    WrongState {
        id: VolumeId,
        verb: String,
        state: VolumeState,
    },
    /// Somebody is copying from it.
    #[error("volume {id} is being copied")]
    Copying { id: VolumeId },
    /// The file system of the host cannot copy a file that is written to.
    #[error(
        "volume {id} is in use by machine {machine}, and the disk of this host cannot take a \
         snapshot of a volume in use"
    )]
    InUse { id: VolumeId, machine: MachineId },
    /// Fly's text.
    #[error("no capacity")]
    NoCapacity { asked_gb: u64, free_gb: u64 },
    /// The disk of the host is full though there should have been room.
    #[error("the disk of the host is full")]
    DiskFull,
    #[error("this host has as many {what} as it can have")]
    TooMany { what: String },
    #[error("{doing} failed: {reason}")]
    Failed { doing: String, reason: String },
    #[error("the worker is shutting down")]
    ShuttingDown,
}

impl VolumeRefused {
    /// For programs; stable.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotFound { .. } | Self::NoSnapshot { .. } | Self::Foreign { .. } => {
                "volume_not_found"
            }
            Self::Invalid { .. } => "invalid_argument",
            Self::Attached { .. } => "volume_attached",
            Self::Running { .. }
            | Self::WrongState { .. }
            | Self::Copying { .. }
            | Self::InUse { .. } => "failed_precondition",
            Self::NoCapacity { .. } | Self::DiskFull | Self::TooMany { .. } => {
                "insufficient_capacity"
            }
            Self::Failed { .. } => "internal",
            Self::ShuttingDown => "shutting_down",
        }
    }

    /// Whether the same request may succeed later without anybody doing anything.
    pub fn retryable(&self) -> bool {
        match self {
            Self::WrongState { state, .. } => match state {
                VolumeState::Creating
                | VolumeState::Created
                | VolumeState::Extending
                | VolumeState::Restoring
                | VolumeState::Hydrating => true,
                VolumeState::Destroying | VolumeState::Destroyed => false,
            },
            Self::Copying { .. } | Self::ShuttingDown => true,
            Self::NotFound { .. }
            | Self::NoSnapshot { .. }
            | Self::Foreign { .. }
            | Self::Invalid { .. }
            | Self::Attached { .. }
            | Self::Running { .. }
            | Self::InUse { .. }
            | Self::NoCapacity { .. }
            | Self::DiskFull
            | Self::TooMany { .. }
            | Self::Failed { .. } => false,
        }
    }

    /// What to try next.
    pub fn hint(&self) -> String {
        match self {
            Self::NotFound { .. } | Self::Foreign { .. } => {
                "`aerostat volume list` shows the volumes that there are".into()
            }
            Self::NoSnapshot { .. } => {
                "`aerostat volume snapshot list` shows the snapshots that there are".into()
            }
            Self::Invalid { .. } => String::new(),
            Self::Attached { machine, .. } => {
                format!("destroy machine {machine} first, or use another volume")
            }
            Self::Running { .. } => "stop the machine first".into(),
            Self::WrongState { .. } | Self::Copying { .. } => "try again when it is done".into(),
            Self::InUse { machine, .. } => format!(
                "stop machine {machine} for the time of the copy, or put the data directory on \
                 XFS or Btrfs, which can copy at once"
            ),
            Self::NoCapacity { free_gb, .. } => {
                format!("ask for at most {free_gb} GB, or delete volumes")
            }
            Self::DiskFull => "free some room on the host's disk".into(),
            Self::TooMany { .. } => "delete some that are no longer needed".into(),
            Self::Failed { .. } => "the host's log says more".into(),
            Self::ShuttingDown => "try again".into(),
        }
    }
}
