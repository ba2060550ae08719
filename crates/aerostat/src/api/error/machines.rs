//! Workers and their machines: no room, and what a machine will not do.

use axum::http::StatusCode;
use types::api::ErrorDetails;
use vmm::VmmError;

use super::{Verdict, internal, shutting_down, verdict};
use crate::worker::{NoBid, Refused, Scope, VolumeRefused};

pub(super) fn no_bid(refusal: &NoBid, code: StatusCode) -> Verdict {
    let code = match refusal {
        NoBid::InsufficientMemory { .. }
        | NoBid::InsufficientCpus { .. }
        | NoBid::InsufficientDisk { .. }
        | NoBid::ClassNotOffered { .. }
        | NoBid::ConfigRefused { .. }
        | NoBid::RegionUnknown { .. }
        | NoBid::NoHost { .. } => code,
        NoBid::Late | NoBid::Unreachable { .. } => StatusCode::SERVICE_UNAVAILABLE,
        NoBid::VolumePlacement { .. } => StatusCode::PRECONDITION_FAILED,
        NoBid::VolumesApart { .. } => StatusCode::BAD_REQUEST,
        NoBid::Volume(refused) => {
            let mut verdict = volume(refused);
            // 404 would say that the app is not there.
            if verdict.code == StatusCode::NOT_FOUND {
                verdict.code = StatusCode::BAD_REQUEST;
            }
            return verdict;
        }
    };
    let details = ErrorDetails {
        scope: refusal.scope().as_str().into(),
        retryable: refusal.retryable(),
        hint: refusal.hint(),
        bids: Vec::new(),
    };
    Verdict {
        code,
        status: refusal.code(),
        details,
    }
}

pub(super) fn worker(refused: &Refused) -> Verdict {
    match refused {
        Refused::Invalid(_) => verdict(StatusCode::BAD_REQUEST, "invalid_argument"),
        // Fly answers 409 when the host of an existing machine has no room.
        Refused::NoBid(refusal) => no_bid(refusal, StatusCode::CONFLICT),
        Refused::NotFound { .. } => verdict(StatusCode::NOT_FOUND, "not_found"),
        Refused::NameTaken { .. } => verdict(StatusCode::CONFLICT, "already_exists"),
        Refused::IdTaken { .. } => verdict(StatusCode::CONFLICT, "id_taken").retryable(),
        Refused::WrongState { .. } => verdict(StatusCode::CONFLICT, "failed_precondition"),
        Refused::VersionMismatch { .. } => {
            verdict(StatusCode::PRECONDITION_FAILED, "version_mismatch")
                .hint("read the machine again and send its version as current_version")
        }
        Refused::StaleVersion { .. } => {
            verdict(StatusCode::PRECONDITION_FAILED, "version_mismatch")
                .hint("read the machine again and send its version as machine_version")
        }
        Refused::LeaseHeld { .. } => verdict(StatusCode::CONFLICT, "error")
            .retryable()
            .hint("try again when the lease is over, or use the nonce of its holder"),
        Refused::LeaseNotFound => verdict(StatusCode::NOT_FOUND, "not_found"),
        Refused::ReservationExpired => {
            verdict(StatusCode::SERVICE_UNAVAILABLE, "reservation_expired").retryable()
        }
        Refused::Exhausted { .. } => {
            verdict(StatusCode::UNPROCESSABLE_ENTITY, "insufficient_capacity")
                .hint("destroy machines that are no longer needed")
        }
        Refused::NoContainer { .. } => verdict(StatusCode::BAD_REQUEST, "no_container"),
        Refused::Busy => verdict(StatusCode::SERVICE_UNAVAILABLE, "busy").retryable(),
        Refused::ShuttingDown => shutting_down(),
        Refused::Volume(refused) => volume(refused),
        Refused::Vmm { source, .. } => body(source),
        Refused::Ledger { .. } => internal(),
    }
}

fn volume(refused: &VolumeRefused) -> Verdict {
    let code = match refused {
        VolumeRefused::NotFound { .. } | VolumeRefused::NoSnapshot { .. } => StatusCode::NOT_FOUND,
        // Fly's answer where there is no room for a volume is 400.
        VolumeRefused::Foreign { .. }
        | VolumeRefused::Invalid { .. }
        | VolumeRefused::NoCapacity { .. } => StatusCode::BAD_REQUEST,
        VolumeRefused::Attached { .. }
        | VolumeRefused::WrongState { .. }
        | VolumeRefused::Copying { .. } => StatusCode::CONFLICT,
        VolumeRefused::Running { .. } | VolumeRefused::InUse { .. } => {
            StatusCode::PRECONDITION_FAILED
        }
        VolumeRefused::DiskFull | VolumeRefused::TooMany { .. } => StatusCode::UNPROCESSABLE_ENTITY,
        VolumeRefused::Failed { .. } => StatusCode::INTERNAL_SERVER_ERROR,
        VolumeRefused::ShuttingDown => return shutting_down(),
    };
    let mut verdict = verdict(code, refused.code()).hint(refused.hint());
    verdict.details.retryable = refused.retryable();
    verdict.details.scope = Scope::Volume.as_str().into();
    verdict
}

fn body(error: &VmmError) -> Verdict {
    match error {
        VmmError::Gone { .. } => verdict(StatusCode::CONFLICT, "failed_precondition"),
        VmmError::NoContainer { .. } | VmmError::WhichContainer { .. } => {
            verdict(StatusCode::BAD_REQUEST, "no_container")
        }
        VmmError::NotOffered { .. } => verdict(StatusCode::CONFLICT, "isolation_not_offered"),
        VmmError::CannotSuspend { .. } => verdict(StatusCode::CONFLICT, "failed_precondition"),
        VmmError::Refused { .. } => verdict(StatusCode::BAD_REQUEST, "refused"),
        VmmError::GuestMissing { .. }
        | VmmError::Spec { .. }
        | VmmError::File { .. }
        | VmmError::Spawn { .. }
        | VmmError::ShimFailed { .. }
        | VmmError::Channel { .. }
        | VmmError::Left { .. } => internal(),
    }
}
