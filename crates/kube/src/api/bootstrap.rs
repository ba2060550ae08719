//! Objects that exist in every cluster.

use serde_json::json;

use super::Api;
use crate::resource::NAMESPACES;
use crate::status::Status;

impl Api {
    /// Creates the namespaces, roles and limits that are always there, adds what is missing of
    /// them, and finds out which custom resources there are. May be repeated.
    pub async fn bootstrap(&self) -> Result<(), Status> {
        for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
            let namespace = json!({"metadata": {"name": name}});
            match Box::pin(self.create(&NAMESPACES, None, namespace)).await {
                Ok(_) => {}
                Err(status) if status.reason == "AlreadyExists" => {}
                Err(status) => return Err(status),
            }
        }
        Box::pin(crate::rbac::reconcile(self)).await?;
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
