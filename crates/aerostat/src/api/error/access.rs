//! Tokens and secrets.

use axum::http::StatusCode;

use super::fleet::of_directory;
use super::{Verdict, internal, verdict};
use crate::secrets;
use crate::tokens::Denied;

pub(super) fn unauthorized() -> Verdict {
    verdict(StatusCode::UNAUTHORIZED, "unauthorized")
}

pub(super) fn token_denied(denied: &Denied) -> Verdict {
    match denied {
        Denied::Expired { .. } => unauthorized()
            .hint("make another one with `aerostat token create`, or ask whoever made this one"),
        Denied::Missing { check, .. } => verdict(StatusCode::FORBIDDEN, "forbidden").hint(format!(
            "the token says `{check}`; another one is needed for this"
        )),
        Denied::Unusable { .. } => verdict(StatusCode::FORBIDDEN, "forbidden")
            .hint("restrict a token with `aerostat token attenuate`"),
    }
}

pub(super) fn of_secrets(error: &secrets::Error) -> Verdict {
    match error {
        secrets::Error::Invalid(_) => verdict(StatusCode::BAD_REQUEST, "invalid_argument"),
        secrets::Error::Late { .. } => {
            verdict(StatusCode::REQUEST_TIMEOUT, "deadline_exceeded").retryable()
        }
        secrets::Error::Directory(error) => of_directory(error),
        secrets::Error::Unreachable { .. } => {
            verdict(StatusCode::SERVICE_UNAVAILABLE, "directory_unreachable").retryable()
        }
        secrets::Error::Key(_) => verdict(StatusCode::CONFLICT, "failed_precondition"),
        secrets::Error::Open(_) | secrets::Error::Refused { .. } => internal(),
        secrets::Error::Elsewhere => verdict(StatusCode::FORBIDDEN, "forbidden"),
    }
}
