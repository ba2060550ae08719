//! Kubernetes clusters.

use axum::http::StatusCode;

use super::{Verdict, internal, verdict};
use crate::clusters::ClusterError;

pub(super) fn of_cluster(error: &ClusterError) -> Verdict {
    match error {
        ClusterError::NotFound(_) => verdict(StatusCode::NOT_FOUND, "not_found")
            .hint("`aerostat k8s list` shows the clusters that there are"),
        ClusterError::Exists(_) => verdict(StatusCode::CONFLICT, "already_exists")
            .hint("choose another name, or delete that one first"),
        ClusterError::IsDefault => verdict(StatusCode::CONFLICT, "failed_precondition"),
        ClusterError::TooMany => verdict(StatusCode::UNPROCESSABLE_ENTITY, "insufficient_capacity"),
        ClusterError::NotRunning(_) => verdict(StatusCode::CONFLICT, "failed_precondition")
            .hint("`aerostat k8s list -o wide` shows why"),
        ClusterError::Listen { .. } => verdict(StatusCode::CONFLICT, "failed_precondition")
            .hint("name another address, or none for a free port"),
        ClusterError::Settings { .. } => {
            verdict(StatusCode::UNPROCESSABLE_ENTITY, "invalid_argument")
        }
        ClusterError::KeysStay { .. } => verdict(StatusCode::CONFLICT, "failed_precondition"),
        ClusterError::Keys { .. } => internal(),
        ClusterError::NotStarted { .. } | ClusterError::Disk { .. } | ClusterError::Backup(_) => {
            internal()
        }
        ClusterError::Pods { .. } => {
            verdict(StatusCode::SERVICE_UNAVAILABLE, "pods_remain").retryable()
        }
    }
}
