//! What the provider reads of a Pod.
//!
//! A Pod stays a `serde_json::Value`; these views take out of it what a machine can be made of.
//! Everything else of a spec lands in `other`, where `translate` finds it: a field that nobody
//! knows is refused, never dropped.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

/// `metadata` of any object.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Metadata {
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) uid: String,
    pub(crate) resource_version: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) creation_timestamp: Option<jiff::Timestamp>,
    pub(crate) deletion_timestamp: Option<jiff::Timestamp>,
    pub(crate) deletion_grace_period_seconds: Option<u64>,
    pub(crate) finalizers: Vec<String>,
    pub(crate) owner_references: Vec<OwnerReference>,
}

/// What a pod belongs to.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct OwnerReference {
    pub(crate) uid: String,
    pub(crate) controller: bool,
}

impl Metadata {
    /// Uid of the object that makes and replaces this one.
    pub(crate) fn controller(&self) -> Option<&str> {
        let owner = self.owner_references.iter().find(|owner| owner.controller);
        owner.map(|owner| owner.uid.as_str())
    }
}

/// The parts of a pod that become a machine.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Pod {
    pub(crate) metadata: Metadata,
    pub(crate) spec: Spec,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Spec {
    pub(crate) containers: Vec<Container>,
    pub(crate) init_containers: Vec<Container>,
    pub(crate) restart_policy: PodRestart,
    pub(crate) termination_grace_period_seconds: Option<u64>,
    pub(crate) node_name: String,
    pub(crate) service_account_name: String,
    pub(crate) runtime_class_name: Option<String>,
    pub(crate) hostname: String,
    pub(crate) security_context: SecurityContext,
    pub(crate) volumes: Vec<Volume>,
    pub(crate) readiness_gates: Vec<ReadinessGate>,
    #[serde(flatten)]
    pub(crate) other: Map<String, Value>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub(crate) enum PodRestart {
    #[default]
    Always,
    OnFailure,
    Never,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ReadinessGate {
    pub(crate) condition_type: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Container {
    pub(crate) name: String,
    pub(crate) image: String,
    pub(crate) command: Vec<String>,
    pub(crate) args: Vec<String>,
    pub(crate) working_dir: String,
    pub(crate) env: Vec<EnvVar>,
    pub(crate) env_from: Vec<EnvFromSource>,
    pub(crate) resources: Resources,
    pub(crate) volume_mounts: Vec<VolumeMount>,
    pub(crate) security_context: SecurityContext,
    pub(crate) stdin: bool,
    pub(crate) stdin_once: bool,
    pub(crate) tty: bool,
    /// Only init containers may have one; `Always` makes a sidecar.
    pub(crate) restart_policy: Option<String>,
    #[serde(flatten)]
    pub(crate) other: Map<String, Value>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct EnvVar {
    pub(crate) name: String,
    pub(crate) value: Option<String>,
    pub(crate) value_from: Option<EnvVarSource>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(clippy::enum_variant_names, reason = "Kubernetes' own names")]
pub(crate) enum EnvVarSource {
    ConfigMapKeyRef(KeyRef),
    SecretKeyRef(KeyRef),
    #[serde(rename_all = "camelCase")]
    FieldRef {
        field_path: String,
    },
    #[serde(rename_all = "camelCase")]
    ResourceFieldRef {
        #[serde(default)]
        container_name: String,
        resource: String,
        #[serde(default)]
        divisor: Value,
    },
    FileKeyRef {},
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct KeyRef {
    pub(crate) name: String,
    pub(crate) key: String,
    pub(crate) optional: bool,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct EnvFromSource {
    pub(crate) prefix: String,
    pub(crate) config_map_ref: Option<SourceRef>,
    pub(crate) secret_ref: Option<SourceRef>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct SourceRef {
    pub(crate) name: String,
    pub(crate) optional: bool,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Resources {
    pub(crate) limits: BTreeMap<String, Value>,
    pub(crate) requests: BTreeMap<String, Value>,
    pub(crate) claims: Vec<Value>,
}

/// Of a pod or of a container.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct SecurityContext {
    pub(crate) run_as_user: Option<u32>,
    pub(crate) run_as_group: Option<u32>,
    pub(crate) run_as_non_root: Option<bool>,
    #[serde(flatten)]
    pub(crate) other: Map<String, Value>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct VolumeMount {
    pub(crate) name: String,
    pub(crate) mount_path: String,
    pub(crate) sub_path: String,
    #[serde(flatten)]
    pub(crate) other: Map<String, Value>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Volume {
    pub(crate) name: String,
    pub(crate) config_map: Option<FileSource>,
    pub(crate) secret: Option<FileSource>,
    #[serde(rename = "downwardAPI")]
    pub(crate) downward_api: Option<FileSource>,
    pub(crate) projected: Option<Projected>,
    /// Any other source.
    #[serde(flatten)]
    pub(crate) other: Map<String, Value>,
}

/// Several sources under one mount.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Projected {
    pub(crate) sources: Vec<Source>,
    pub(crate) default_mode: Option<u32>,
}

/// One of them: exactly one member is there.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Source {
    pub(crate) config_map: Option<FileSource>,
    pub(crate) secret: Option<FileSource>,
    #[serde(rename = "downwardAPI")]
    pub(crate) downward_api: Option<FileSource>,
    pub(crate) service_account_token: Option<TokenSource>,
    #[serde(flatten)]
    pub(crate) other: Map<String, Value>,
}

/// A token of the pod's service account.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct TokenSource {
    /// Empty: the API server itself.
    pub(crate) audience: String,
    pub(crate) expiration_seconds: Option<u32>,
    pub(crate) path: String,
}

/// A configMap, secret or parts of the pod as a volume; the first two name their object
/// differently.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct FileSource {
    #[serde(alias = "secretName")]
    pub(crate) name: String,
    pub(crate) items: Vec<KeyToPath>,
    pub(crate) default_mode: Option<u32>,
    pub(crate) optional: bool,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct KeyToPath {
    pub(crate) key: String,
    pub(crate) path: String,
    pub(crate) mode: Option<u32>,
    /// Of the downward API, instead of a key.
    pub(crate) field_ref: Option<FieldPath>,
    pub(crate) resource_field_ref: Option<Value>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct FieldPath {
    pub(crate) field_path: String,
}

/// Kubernetes' default of `terminationGracePeriodSeconds`.
pub(crate) const GRACE_S_DEFAULT: u64 = 30;

impl Pod {
    /// Reads the views out of a Pod.
    ///
    /// # Errors
    /// If a field that the provider reads has another type than Kubernetes gives it. The API
    /// server's schema check lets no such Pod in.
    pub(crate) fn read(pod: &Value) -> Result<Self, serde_json::Error> {
        Self::deserialize(pod)
    }

    /// Time between the signal and the kill, as asked for by who deleted the pod, else by the pod.
    pub(crate) fn grace_s(&self) -> u64 {
        self.metadata
            .deletion_grace_period_seconds
            .or(self.spec.termination_grace_period_seconds)
            .unwrap_or(GRACE_S_DEFAULT)
    }
}
