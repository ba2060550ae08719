//! Images: pulls, imports, and what is wrong with one.

use axum::http::StatusCode;
use image::{ImageError, ImportError, PullError, StoreError};

use super::{Verdict, internal, verdict};

pub(super) fn pull(error: &PullError) -> Verdict {
    match error {
        PullError::NotImported { .. } => verdict(StatusCode::NOT_FOUND, "image_not_found")
            .hint("`aerostat image import` takes OCI layouts and `docker save` archives"),
        PullError::NotFound { .. } => verdict(StatusCode::NOT_FOUND, "image_not_found")
            .hint("check its name, and its tag or digest"),
        PullError::Unauthorized { .. } => {
            verdict(StatusCode::UNPROCESSABLE_ENTITY, "registry_unauthorized").hint(
                "check its name; if it is not public, `docker login` as the daemon's user, or set \
                 registry_credentials",
            )
        }
        PullError::Credentials(_) => {
            verdict(StatusCode::UNPROCESSABLE_ENTITY, "registry_credentials")
                .hint("mend that file, or name another one with registry_credentials")
        }
        PullError::Unreachable { .. } => verdict(StatusCode::BAD_GATEWAY, "registry_unreachable")
            .retryable()
            .hint(
                "check the registry's name and this host's network; one without TLS must be \
                     named in plain_http_registries",
            ),
        PullError::Registry { .. } => verdict(StatusCode::BAD_GATEWAY, "registry_failed")
            .retryable()
            .hint("try again; what has arrived is not fetched twice"),
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
        ImageError::Io { source, .. } => io(source),
        ImageError::Store(error) => store(error),
    }
}

pub(super) fn store(error: &StoreError) -> Verdict {
    match error {
        StoreError::Io { source, .. } => io(source),
        StoreError::Record { .. } => internal(),
    }
}

fn io(error: &std::io::Error) -> Verdict {
    match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
            verdict(StatusCode::INSUFFICIENT_STORAGE, "disk_full")
                .retryable()
                .hint("make room on the disk of the data directory, or `aerostat image prune`")
        }
        _ => internal(),
    }
}
