//! The API without HTTP: the one path on which objects are read and written.
//!
//! ```text
//!   HTTP server ─┐                 decode ─ identity ─ defaults ─ admission ─ validation
//!   scheduler   ─┼─> Api ── write ──────────────────────────────────────────────────> store
//!   controllers ─┤      └── read, watch <───────────────────────────────────────────── store
//!   provider    ─┘
//! ```
//!
//! Objects are JSON values and resources are rows of [`crate::resource`]; there is no struct per
//! kind. Who may call is decided before this line: in-process callers are trusted, the HTTP server
//! authorizes first.
//!
//! ```no_run
//! # async fn example(api: kube::api::Api) -> Result<(), kube::status::Status> {
//! use kube::api::Selector;
//! use kube::resource::PODS;
//! let mine = Selector::fields(&PODS, "spec.nodeName=region")?;
//! let (pods, rev) = api.list(&PODS, None, &mine).await?;
//! let mut watch = api.watch(&PODS, None, rev, mine)?;
//! loop {
//!     let event = watch.next().await?; // 410 Expired: list again
//!     println!("{:?} {}", event.kind, kube::object::name(&event.object));
//! }
//! # }
//! ```

mod admit;
mod apply;
mod bootstrap;
mod cluster_ip;
mod create;
mod delete;
mod eviction;
pub(crate) mod fuzz;
mod given;
#[cfg(test)]
mod golden;
mod notes;
mod pod;
mod prepare;
mod read;
pub(crate) mod scale;
mod stored;
mod update;
mod verbatim;
mod watch;

use std::sync::Arc;

use serde_json::Value;
use store::{Store, WriteError};

use crate::egress;
use crate::metrics::Metrics;
use crate::rbac::{self, Authorizer};
use crate::resource::{Catalog, Resource};
use crate::secrecy::{Secrecy, Vault};
use crate::status::Status;

pub use crate::admission::{AdmissionConfig, NodeTaints, PodSecurityConfig, ServiceAccounts};
pub use crate::identity::User;
pub use crate::patch::Patch;
pub use crate::selectors::Selector;
pub(crate) use admit::Swap;
pub use cluster_ip::{ClusterIpError, ClusterIps};
pub use delete::{DeleteOptions, Deleted, FOREGROUND, ORPHAN, Preconditions, Propagation};
pub(crate) use given::{Given, GivenPatch};
pub use notes::Notes;
pub use pod::set_condition;
pub use read::{List, ListOptions};
pub(crate) use verbatim::{StoredList, Verbatim};
pub(crate) use watch::Shown;
pub use watch::{Event, EventKind, Watch};

/// Attempts of a read-modify-write before the conflict is given to the caller.
const CONFLICT_RETRIES: usize = 8;

/// A handle to the API, of one [`Caller`]; clones share the store.
#[derive(Debug, Clone)]
pub struct Api {
    store: Vault,
    metrics: Arc<Metrics>,
    caller: Arc<Caller>,
    resources: Catalog,
    authorizer: Authorizer,
    cluster_ips: Option<Arc<dyn ClusterIps>>,
    holds: cluster_ip::Holds,
    notes: Option<Notes>,
    admission: Arc<crate::admission::State>,
    egress: egress::Client,
}

/// In whose name a handle reads and writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    pub user: Arc<User>,
    /// Who owns the fields it writes, in `metadata.managedFields`.
    pub manager: String,
}

/// Which part of an object a write is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Everything but the status, where the resource has a status part.
    Object,
    Status,
    /// The conditions of a CertificateSigningRequest.
    Approval,
    /// `spec.finalizers` of a namespace.
    Finalize,
    /// The replicas of a workload.
    Scale,
    /// `spec.ephemeralContainers` of a pod.
    EphemeralContainers,
    /// The resources of a pod's containers.
    Resize,
}

impl Part {
    /// The subresource whose request writes it.
    pub(crate) fn subresource(self) -> Option<&'static str> {
        match self {
            Part::Object => None,
            Part::Status => Some("status"),
            Part::Approval => Some("approval"),
            Part::Finalize => Some("finalize"),
            Part::Scale => Some("scale"),
            Part::EphemeralContainers => Some("ephemeralcontainers"),
            Part::Resize => Some("resize"),
        }
    }
}

/// What to do with fields that the schema does not know. They are never stored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum FieldValidation {
    Strict,
    #[default]
    Warn,
    Ignore,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DryRun {
    #[default]
    No,
    /// Everything but the store.
    All,
}

#[derive(Debug, Clone, Copy, Default)]
pub struct WriteOptions {
    pub dry_run: DryRun,
    pub validation: FieldValidation,
    /// Server-side apply takes fields over that other managers own, instead of a conflict.
    pub force: bool,
}

/// The outcome of a write.
#[derive(Debug, Clone)]
pub struct Written {
    pub object: Value,
    /// For `Warning` headers.
    pub warnings: Vec<String>,
    /// There was no such object before.
    pub is_new: bool,
}

impl Api {
    pub fn new(store: Store) -> Self {
        let metrics = Arc::<Metrics>::default();
        let caller = Caller {
            user: Arc::new(User::server()),
            manager: "kube-apiserver".to_owned(),
        };
        Self {
            authorizer: Authorizer::new(store.clone()),
            store: Vault::new(store, metrics.writes.clone()),
            metrics,
            caller: Arc::new(caller),
            resources: Catalog::default(),
            cluster_ips: None,
            holds: cluster_ip::Holds::default(),
            notes: None,
            admission: crate::admission::State::new(AdmissionConfig::default()),
            egress: egress::Client::default(),
        }
    }

    /// The same API in the name of somebody else. Whether they may is asked before; admission and
    /// the owners of fields go by it.
    pub fn acting_as(&self, user: Arc<User>, manager: &str) -> Self {
        let manager = manager.to_owned();
        Self {
            caller: Arc::new(Caller { user, manager }),
            ..self.clone()
        }
    }

    /// The same API in the name of one of our controllers: the service account of that name in
    /// `kube-system`, which upstream's controllers use.
    pub fn as_controller(&self, name: &str) -> Self {
        // All of upstream's controllers are one program, and that owns what they write.
        self.acting_as(Arc::new(User::controller(name)), "kube-controller-manager")
    }

    pub(crate) fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// The same API, which encrypts Secrets in the store.
    pub fn with_secrecy(mut self, secrecy: Secrecy) -> Self {
        self.store = self.store.with(secrecy);
        self
    }

    /// The keys of Secrets, where they are encrypted.
    pub fn secrecy(&self) -> Option<&Secrecy> {
        self.store.secrecy()
    }

    /// The store below, where Secrets are sealed.
    pub(crate) fn store(&self) -> &Store {
        self.store.store()
    }

    /// The same API for one request, which hears what admission has to say beside yes and no.
    pub fn with_notes(mut self, notes: Notes) -> Self {
        self.notes = Some(notes);
        self
    }

    /// Tells the caller something that does not stop the request.
    pub(crate) fn warn(&self, text: impl Into<String>) {
        if let Some(notes) = &self.notes {
            notes.warn(text.into());
        }
    }

    /// Puts something into the audit event of the request.
    pub(crate) fn annotate(&self, key: &str, value: &str) {
        if let Some(notes) = &self.notes {
            notes.annotate(key, value);
        }
    }

    /// In whose name this handle reads and writes.
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// Who may do what.
    pub fn authorizer(&self) -> &Authorizer {
        &self.authorizer
    }

    /// Whether `user` may do this, as the roles and bindings say now.
    pub fn may(&self, user: &User, request: &rbac::Request) -> bool {
        self.authorizer.allowed(user, request).is_allowed()
    }

    /// What is served.
    pub fn resources(&self) -> &Catalog {
        &self.resources
    }

    /// Creates an object. `namespace` is `None` for cluster resources.
    pub async fn create(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        object: Value,
    ) -> Result<Value, Status> {
        let options = WriteOptions::default();
        Ok(self
            .create_with(resource, namespace, object, options)
            .await?
            .object)
    }

    /// Replaces an object except its status. If `object` carries a `resourceVersion`, it must be
    /// the current one, else 409.
    pub async fn update(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        object: Value,
    ) -> Result<Value, Status> {
        self.update_part(resource, Part::Object, namespace, object)
            .await
    }

    /// Replaces the status of an object; the rest of `object` is ignored, its `resourceVersion`
    /// counts as in [`Api::update`].
    pub async fn update_status(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        object: Value,
    ) -> Result<Value, Status> {
        self.update_part(resource, Part::Status, namespace, object)
            .await
    }

    /// Replaces the conditions of a CertificateSigningRequest, by which it is approved or denied.
    pub(crate) async fn update_approval(&self, request: Value) -> Result<Value, Status> {
        let resource = &crate::resource::CERTIFICATE_SIGNING_REQUESTS;
        self.update_part(resource, Part::Approval, None, request)
            .await
    }

    /// Replaces `spec.finalizers` of a namespace; the last one gone removes a namespace that is
    /// being deleted.
    pub async fn finalize(&self, namespace: Value) -> Result<Value, Status> {
        self.update_part(
            &crate::resource::NAMESPACES,
            Part::Finalize,
            None,
            namespace,
        )
        .await
    }

    async fn update_part(
        &self,
        resource: &Resource,
        part: Part,
        namespace: Option<&str>,
        object: Value,
    ) -> Result<Value, Status> {
        let name = crate::object::name(&object).to_owned();
        let options = WriteOptions::default();
        Ok(self
            .update_with(resource, part, namespace, &name, object, options)
            .await?
            .object)
    }

    /// Changes an object, tried again on conflicts unless the patch names a `resourceVersion`.
    pub async fn patch(
        &self,
        resource: &Resource,
        part: Part,
        namespace: Option<&str>,
        name: &str,
        patch: &Patch,
    ) -> Result<Value, Status> {
        let options = WriteOptions::default();
        Ok(self
            .patch_with(resource, part, namespace, name, patch, options)
            .await?
            .object)
    }

    /// Whether writes can be expected to succeed; else what is wrong.
    pub fn check(&self) -> Result<(), &'static str> {
        match self.store.health() {
            store::Health::Ok => Ok(()),
            store::Health::Refusing => Err("the disk refused the latest write"),
            store::Health::Closed => Err("the store is closed"),
        }
    }

    /// Returns when reads show all that anybody was told is stored, `rev` included. With a store
    /// of our own that is always so.
    pub(crate) async fn catch_up(&self, rev: Option<u64>) -> Result<(), Status> {
        if rev.is_some_and(|rev| rev <= self.store.current_rev()) {
            return Ok(());
        }
        let synced = self.store.sync().await;
        synced.map(drop).map_err(|error| {
            Status::unavailable(format!("the latest state cannot be read: {error}"))
        })
    }

    /// Returns `rev` when reads show it.
    pub(crate) async fn caught_up_with(&self, rev: u64) -> Result<u64, Status> {
        self.catch_up(Some(rev)).await.map(|()| rev)
    }

    /// The revision of the store.
    pub fn current_rev(&self) -> u64 {
        self.store.current_rev()
    }
}

/// A refusal of the store in the words of the API.
fn refused(resource: &Resource, name: &str, error: WriteError) -> Status {
    match error {
        WriteError::Exists { .. } => Status::already_exists(resource, name),
        WriteError::NotFound { .. } => Status::not_found(resource, name),
        WriteError::Conflict { .. } => Status::modified(resource, name),
        WriteError::Disk { source } => {
            Status::unavailable(format!("the object was not stored: {source}"))
        }
        WriteError::Unknown { source } => Status::unavailable(format!(
            "it is not known whether the object was stored: {source}"
        )),
        error @ WriteError::TooMany { .. } => Status::internal(error.to_string()),
        WriteError::Closed => Status::unavailable("the API server is shutting down"),
    }
}
