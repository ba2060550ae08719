//! What admission keeps between requests: its settings and what it has parsed.

use std::sync::Arc;

use super::index::{Index, Objects};
use super::policies::{Binding, Policy};
use super::quota::Reserving;
use super::webhooks::Configuration;
use crate::resource::{
    API_SERVICES, INGRESS_CLASSES, LIMIT_RANGES, MUTATING_ADMISSION_POLICIES,
    MUTATING_ADMISSION_POLICY_BINDINGS, MUTATING_WEBHOOK_CONFIGURATIONS, NAMESPACES,
    PRIORITY_CLASSES, RUNTIME_CLASSES, SERVICE_ACCOUNTS, STORAGE_CLASSES,
    VALIDATING_ADMISSION_POLICIES, VALIDATING_ADMISSION_POLICY_BINDINGS,
    VALIDATING_WEBHOOK_CONFIGURATIONS,
};
use crate::server::aggregate::{Remote, Remotes};

/// What an operator decides about admission.
#[derive(Debug, Clone, Default)]
pub struct AdmissionConfig {
    /// Whether a pod's service account has to exist, and its token is mounted into the pod.
    pub service_accounts: ServiceAccounts,
    /// Whether new nodes get the taint `node.kubernetes.io/not-ready`, which the node lifecycle
    /// controller takes away.
    pub node_taints: NodeTaints,
    pub pod_security: PodSecurityConfig,
}

/// See [`AdmissionConfig::service_accounts`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ServiceAccounts {
    /// Pods name their account and that is all: for stores without controllers.
    #[default]
    Named,
    /// As upstream.
    Mounted,
}

/// See [`AdmissionConfig::node_taints`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum NodeTaints {
    #[default]
    No,
    Yes,
}

/// Who the Pod Security Standards do not concern, and what holds in namespaces without labels.
#[derive(Debug, Clone)]
pub struct PodSecurityConfig {
    /// `privileged`, `baseline` or `restricted`.
    pub enforce: String,
    pub audit: String,
    pub warn: String,
    pub exempt_users: Vec<String>,
    pub exempt_namespaces: Vec<String>,
    pub exempt_runtime_classes: Vec<String>,
}

impl Default for PodSecurityConfig {
    /// Upstream's: nothing is enforced until a namespace asks for it.
    fn default() -> Self {
        let privileged = || "privileged".to_owned();
        Self {
            enforce: privileged(),
            audit: privileged(),
            warn: privileged(),
            exempt_users: Vec::new(),
            exempt_namespaces: Vec::new(),
            exempt_runtime_classes: Vec::new(),
        }
    }
}

/// Shared by all handles of one API.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) config: AdmissionConfig,
    pub(crate) namespaces: Objects,
    pub(crate) limit_ranges: Objects,
    pub(crate) priority_classes: Objects,
    pub(crate) storage_classes: Objects,
    pub(crate) ingress_classes: Objects,
    pub(crate) runtime_classes: Objects,
    pub(crate) service_accounts: Objects,
    pub(crate) reserving: Reserving,
    pub(crate) mutating: Index<Configuration>,
    pub(crate) validating: Index<Configuration>,
    pub(crate) api_services: Remotes,
    pub(crate) policies: Index<Policy>,
    pub(crate) bindings: Index<Binding>,
    pub(crate) mutating_policies: Index<Policy>,
    pub(crate) mutating_bindings: Index<Binding>,
}

impl State {
    pub(crate) fn new(config: AdmissionConfig) -> Arc<Self> {
        Arc::new(Self {
            config,
            namespaces: Objects::objects(&NAMESPACES),
            limit_ranges: Objects::objects(&LIMIT_RANGES),
            priority_classes: Objects::objects(&PRIORITY_CLASSES),
            storage_classes: Objects::objects(&STORAGE_CLASSES),
            ingress_classes: Objects::objects(&INGRESS_CLASSES),
            runtime_classes: Objects::objects(&RUNTIME_CLASSES),
            service_accounts: Objects::objects(&SERVICE_ACCOUNTS),
            reserving: Reserving::default(),
            mutating: Index::new(&MUTATING_WEBHOOK_CONFIGURATIONS, Configuration::parse),
            validating: Index::new(&VALIDATING_WEBHOOK_CONFIGURATIONS, Configuration::parse),
            api_services: Index::new(&API_SERVICES, Remote::parse),
            policies: Index::new(&VALIDATING_ADMISSION_POLICIES, Policy::parse),
            bindings: Index::new(&VALIDATING_ADMISSION_POLICY_BINDINGS, Binding::parse),
            mutating_policies: Index::new(&MUTATING_ADMISSION_POLICIES, Policy::parse),
            mutating_bindings: Index::new(&MUTATING_ADMISSION_POLICY_BINDINGS, Binding::parse),
        })
    }
}
