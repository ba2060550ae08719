//! Images: pulls, imports, and what is wrong with one.

use axum::http::StatusCode;
use image::{ImageError, ImportError, PullError, StoreError};

use super::{Verdict, internal, verdict};

pub(super) fn pull(error: &PullError) -> Verdict {
    match error {
        PullError::NotImported { .. } => verdict(StatusCode::NOT_FOUND, "image_not_found")
            .hint("`aerostat image import` takes OCI layouts and `docker save` archives"),
        PullError::NotFound { .. } => verdict(StatusCode::NOT_FOUND, "image_not_found"),
        PullError::Unauthorized { .. } => {
            verdict(StatusCode::UNPROCESSABLE_ENTITY, "registry_unauthorized")
        }
        PullError::Credentials(_) => {
            verdict(StatusCode::UNPROCESSABLE_ENTITY, "registry_credentials")
        }
        PullError::Unreachable { .. } => {
            verdict(StatusCode::BAD_GATEWAY, "registry_unreachable").retryable()
        }
        PullError::Registry { .. } => {
            verdict(StatusCode::BAD_GATEWAY, "registry_failed").retryable()
        }
        PullError::Image(error) => image(error),
    }
}

pub(super) fn import(error: &ImportError) -> Verdict {
    match error {
        ImportError::NoLayout { .. }
        | ImportError::NoSuchImage { .. }
        | ImportError::Several { .. }
        | ImportError::Nameless { .. } => {
            verdict(StatusCode::UNPROCESSABLE_ENTITY, "image_not_found")
        }
        ImportError::Image(error) => image(error),
    }
}

fn image(error: &ImageError) -> Verdict {
    match error {
        ImageError::Refused(_)
        | ImageError::DigestMismatch { .. }
        | ImageError::SizeMismatch { .. }
        | ImageError::TooLarge { .. }
        | ImageError::Malformed { .. }
        | ImageError::Unsupported { .. }
        | ImageError::Platform { .. } => {
            verdict(StatusCode::UNPROCESSABLE_ENTITY, "image_unusable")
        }
        ImageError::Io { .. } => internal(),
        ImageError::Store(StoreError::Io { .. } | StoreError::Record { .. }) => internal(),
    }
}
