//! Questions that are answered and not stored: who am I, and what may I do.

use serde_json::{Value, json};

use crate::identity::User;

impl User {
    /// The answer to a SelfSubjectReview.
    pub(crate) fn self_review(&self) -> Value {
        json!({
            "kind": "SelfSubjectReview", "apiVersion": "authentication.k8s.io/v1",
            "metadata": {"creationTimestamp": null},
            "status": {"userInfo": self.to_json()},
        })
    }

    /// The answer to a SelfSubjectAccessReview: masters may do everything, others nothing.
    pub(crate) fn access_review(&self, review: &Value) -> Value {
        let mut answer = json!({
            "kind": "SelfSubjectAccessReview", "apiVersion": "authorization.k8s.io/v1",
            "metadata": {"creationTimestamp": null},
            "spec": review.get("spec").cloned().unwrap_or(json!({})),
            "status": {"allowed": self.is_master()},
        });
        if !self.is_master() {
            answer["status"]["reason"] = "only the group system:masters is authorized yet".into();
        }
        answer
    }
}
