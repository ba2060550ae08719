//! Deployments and ReplicaSets: a number of pods, and the way from one template to the next.

pub(super) mod deployment;
pub(crate) mod owner;
pub(super) mod replica_set;
pub(super) mod victims;

use serde_json::Value;

use crate::object;

/// A pod that counts: it has not ended and is not about to.
pub(super) fn is_active(pod: &Value) -> bool {
    let phase = object::text(pod, &["status", "phase"]);
    !object::is_terminating(pod) && !matches!(phase, "Succeeded" | "Failed")
}
