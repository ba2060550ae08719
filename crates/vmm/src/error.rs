//! What can go wrong with a machine's body.

use std::io;
use std::path::PathBuf;

use types::{BootId, IsolationClass, MachineId};

#[derive(Debug, thiserror::Error)]
pub enum VmmError {
    #[error("boot {boot} of machine {machine} is not on this host")]
    Gone { machine: MachineId, boot: BootId },
    #[error("machine {machine} has no container `{container}`")]
    NoContainer {
        machine: MachineId,
        container: String,
    },
    #[error("machine {machine} has several containers; name one of {names}")]
    WhichContainer { machine: MachineId, names: String },
    #[error("isolation class {class} is not offered by this host: {reason}")]
    NotOffered {
        class: IsolationClass,
        reason: String,
    },
    #[error("the guest's files are missing: {path}; run ./x up to make them")]
    GuestMissing { path: PathBuf },
    #[error("the specification of the boot is not usable: {reason}")]
    Spec { reason: String },
    #[error("cannot {doing} {path}")]
    File {
        doing: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("cannot start shim {path}")]
    Spawn { path: PathBuf, source: io::Error },
    #[error("the shim of machine {machine} did not start: {reason}")]
    ShimFailed { machine: MachineId, reason: String },
    #[error("cannot talk to the shim of machine {machine}")]
    Channel {
        machine: MachineId,
        source: io::Error,
    },
    #[error("a machine of class {class} cannot be suspended; stop it instead")]
    CannotSuspend { class: IsolationClass },
    #[error("machine {machine} refused: {reason}")]
    Refused { machine: MachineId, reason: String },
    #[error("boot {boot} of machine {machine} was killed, but left {what}")]
    Left {
        machine: MachineId,
        boot: BootId,
        what: String,
    },
}

impl VmmError {
    pub(crate) fn file(
        doing: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File {
            doing,
            path,
            source,
        }
    }
}
