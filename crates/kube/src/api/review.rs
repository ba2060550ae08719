//! Questions that are answered and not stored: who am I, and what may I do.

use serde_json::{Value, json};

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub name: String,
    pub groups: Vec<String>,
}

impl User {
    /// Nobody in particular: no credentials.
    pub fn anonymous() -> Self {
        Self {
            name: "system:anonymous".into(),
            groups: vec!["system:unauthenticated".into()],
        }
    }

    /// Someone known by certificate.
    pub fn authenticated(name: String, mut groups: Vec<String>) -> Self {
        groups.push("system:authenticated".into());
        Self { name, groups }
    }

    /// The API server itself.
    pub fn server() -> Self {
        Self::authenticated("system:apiserver".into(), vec!["system:masters".into()])
    }

    /// A controller of the control plane, by the service account that upstream's has.
    pub fn controller(name: &str) -> Self {
        let groups = [
            "system:serviceaccounts",
            "system:serviceaccounts:kube-system",
        ];
        Self::authenticated(
            format!("system:serviceaccount:kube-system:{name}"),
            groups.map(str::to_owned).into(),
        )
    }

    pub fn is_master(&self) -> bool {
        self.groups.iter().any(|group| group == "system:masters")
    }

    /// The answer to a SelfSubjectReview.
    pub(crate) fn self_review(&self) -> Value {
        json!({
            "kind": "SelfSubjectReview", "apiVersion": "authentication.k8s.io/v1",
            "metadata": {"creationTimestamp": null},
            "status": {"userInfo": {"username": self.name, "groups": self.groups}},
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
