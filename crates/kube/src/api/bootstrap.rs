//! Objects that exist in every cluster.

use serde_json::json;

use super::Api;
use crate::resource::{NAMESPACES, PRIORITY_CLASSES};
use crate::status::Status;

/// Priorities above everything that users may define.
const SYSTEM_PRIORITIES: [(&str, i64, &str); 2] = [
    (
        "system-cluster-critical",
        2_000_000_000,
        "Used for system critical pods that must run in the cluster, but can be moved to another \
         node if necessary.",
    ),
    (
        "system-node-critical",
        2_000_001_000,
        "Used for system critical pods that must not be moved from their current node.",
    ),
];

impl Api {
    /// Creates the namespaces and priority classes that are always there, and finds out which
    /// custom resources are. May be repeated.
    pub async fn bootstrap(&self) -> Result<(), Status> {
        for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
            let namespace = json!({"metadata": {"name": name}});
            match Box::pin(self.create(&NAMESPACES, None, namespace)).await {
                Ok(_) => {}
                Err(status) if status.reason == "AlreadyExists" => {}
                Err(status) => return Err(status),
            }
        }
        for (name, value, description) in SYSTEM_PRIORITIES {
            let class = json!({"metadata": {"name": name}, "value": value,
                "description": description});
            match Box::pin(self.create(&PRIORITY_CLASSES, None, class)).await {
                Ok(_) => {}
                Err(status) if status.reason == "AlreadyExists" => {}
                Err(status) => return Err(status),
            }
        }
        Box::pin(crate::custom::keeper::load(self)).await
    }

    /// Removes events that are older than an hour; called every minute.
    pub async fn expire(&self, now_unix_s: u64) -> Result<usize, Status> {
        self.store
            .expire(now_unix_s)
            .await
            .map_err(|error| Status::unavailable(format!("events were not expired: {error}")))
    }
}
