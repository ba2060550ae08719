//! The directory: what the fleet agrees on.

use axum::http::StatusCode;

use super::{Verdict, app_not_found, internal, verdict};
use crate::directory;

pub(super) fn of_directory(error: &directory::Error) -> Verdict {
    match error {
        directory::Error::Refused(refused) => directory_refused(refused),
        directory::Error::Write { .. } => internal(),
        directory::Error::Unreachable { .. } => {
            verdict(StatusCode::SERVICE_UNAVAILABLE, "directory_unreachable")
                .retryable()
                .hint("try again when its host is back")
        }
        directory::Error::Failed { .. } => verdict(StatusCode::BAD_GATEWAY, "directory_failed"),
        directory::Error::Busy { .. } => {
            verdict(StatusCode::SERVICE_UNAVAILABLE, "busy").retryable()
        }
    }
}

fn directory_refused(refused: &directory::Refused) -> Verdict {
    use directory::Refused;
    match refused {
        Refused::AppNameTaken { .. } => verdict(StatusCode::UNPROCESSABLE_ENTITY, "name_taken"),
        Refused::AppNotFound { .. } => app_not_found(),
        Refused::OrgNotFound { .. } => verdict(StatusCode::NOT_FOUND, "not_found")
            .hint("the organisation that is always there is `personal`"),
        Refused::NetworkName { .. } => verdict(StatusCode::BAD_REQUEST, "invalid_argument")
            .hint("use up to 63 letters, digits, dashes, dots and underscores"),
        Refused::NetworkNotFound { .. } => verdict(StatusCode::NOT_FOUND, "not_found")
            .hint("a network is made with its first app: `aerostat app create --network`"),
        Refused::ServiceNotFound { .. } => verdict(StatusCode::NOT_FOUND, "not_found")
            .hint("`aerostat service list` shows the services that there are"),
        Refused::HostNotFound { .. } => verdict(StatusCode::NOT_FOUND, "not_found")
            .hint("`aerostat host list` shows the hosts that there are"),
        Refused::PeerNotFound { .. } => verdict(StatusCode::NOT_FOUND, "not_found")
            .hint("`aerostat wireguard list` shows the peers that there are"),
        Refused::TokenNotFound => verdict(StatusCode::NOT_FOUND, "not_found"),
        Refused::PublicKey | Refused::HostNumber { .. } => {
            verdict(StatusCode::BAD_REQUEST, "invalid_argument")
        }
        Refused::PeerNameTaken { .. } => verdict(StatusCode::CONFLICT, "already_exists")
            .hint("choose another name, or delete that peer first"),
        Refused::PublicKeyTaken => verdict(StatusCode::CONFLICT, "already_exists")
            .hint("each peer needs a key of its own: `wg genkey | wg pubkey`"),
        Refused::HostTaken { .. } => verdict(StatusCode::CONFLICT, "already_exists"),
        Refused::TokenUsed | Refused::TokenExpired { .. } => {
            verdict(StatusCode::CONFLICT, "failed_precondition")
        }
        Refused::NoGateway { .. } => verdict(StatusCode::CONFLICT, "failed_precondition")
            .hint("name a host that has a gateway; `aerostat host list` shows them"),
        Refused::VipsExhausted { .. } | Refused::PeersExhausted { .. } => {
            verdict(StatusCode::UNPROCESSABLE_ENTITY, "insufficient_capacity")
        }
        Refused::TooManyTokens { .. } => {
            verdict(StatusCode::UNPROCESSABLE_ENTITY, "insufficient_capacity")
                .hint("use some of them, or wait until they expire")
        }
        Refused::ApiTokenNotFound { .. } => verdict(StatusCode::NOT_FOUND, "not_found")
            .hint("`aerostat token list` shows the tokens that there are"),
        Refused::SecretNotFound { .. } => verdict(StatusCode::NOT_FOUND, "not_found")
            .hint("`aerostat secret list` shows the secrets that there are"),
        Refused::TooManyApiTokens { .. } => {
            verdict(StatusCode::UNPROCESSABLE_ENTITY, "insufficient_capacity")
                .hint("wait until some have expired")
        }
        Refused::TooManySecrets { .. } => {
            verdict(StatusCode::UNPROCESSABLE_ENTITY, "insufficient_capacity")
                .hint("at most 300 secrets, of about 190 KiB together")
        }
        Refused::NetworksExhausted | Refused::HostNumbersExhausted => internal(),
        Refused::AuthorityOnly | Refused::NotYours { .. } => {
            verdict(StatusCode::FORBIDDEN, "forbidden")
        }
    }
}
