//! Controllers: small loops that make what Kubernetes promises beside what was asked for.
//!
//! - [`namespace`]: a namespace that is deleted takes everything in it along.
//! - [`namespace_defaults`]: every namespace has a `default` service account and the cluster's
//!   certificate authority.
//! - [`workloads`]: Deployments and ReplicaSets.
//! - [`stateful_set`]: pods with a number, a name and claims of their own, one after the other.
//! - [`daemon_set`]: one pod on each node that matches.
//! - [`replication_controller`]: ReplicaSets of the first days.
//! - [`job`]: pods that run to their end; [`cron_job`]: such Jobs by the clock; [`ttl`]: their end.
//! - [`endpoint_slices`], [`endpoints`], [`endpoint_slice_mirroring`]: which pods stand behind a
//!   Service, for new clients and old ones.
//! - [`horizontal`]: as many pods as a metric asks for. [`disruption`]: how many may be taken away.
//! - [`resource_quota`]: what a namespace uses. [`volumes`]: claims and volumes.
//! - [`node_lifecycle`], [`pod_gc`]: silent nodes, and pods that nobody looks after.
//! - [`certificates`], [`cluster_role_aggregation`]: what is signed; roles that are sums.
//! - [`garbage`]: what is owned goes when its owners go.
//! - [`leader`]: who runs all this, and what else only one may do, when several API servers share
//!   one state.
//! - [`bootstrap`]: a RuntimeClass per isolation class.
//!
//! `informer`, `queue` and `events` are what the scheduler and the provider are made of too;
//! controllers share `watches`, `reconcile` and `hands`.

mod bootstrap;
pub(crate) mod cache;
mod certificates;
mod cluster_role_aggregation;
mod cron_job;
mod daemon_set;
mod disruption;
mod endpoint_slice_mirroring;
mod endpoint_slices;
mod endpoints;
pub(crate) mod events;
mod garbage;
mod hands;
mod history;
mod horizontal;
pub(crate) mod informer;
mod job;
mod leader;
mod namespace;
mod namespace_defaults;
mod node_lifecycle;
mod pod_gc;
mod pods;
pub(crate) mod queue;
mod reconcile;
mod replication_controller;
mod resource_quota;
mod stateful_set;
mod ttl;
mod volumes;
mod watches;
mod workloads;

pub(crate) use endpoint_slices::SERVICE_LABEL;
pub use horizontal::metrics;
pub use leader::{Leadership, lead};
pub(crate) use workloads::owner;

use std::sync::Arc;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use types::IsolationClass;

use self::certificates::Certificates;
use self::cluster_role_aggregation::ClusterRoleAggregation;
use self::cron_job::CronJobs;
use self::daemon_set::DaemonSets;
use self::disruption::Disruption;
use self::endpoint_slice_mirroring::Mirroring;
use self::endpoint_slices::EndpointSlices;
use self::endpoints::EndpointsOfServices;
use self::horizontal::Horizontal;
use self::job::Jobs;
use self::node_lifecycle::NodeLifecycle;
use self::pod_gc::PodGc;
use self::reconcile::Controller;
use self::replication_controller::ReplicationControllers;
use self::resource_quota::ResourceQuotas;
use self::stateful_set::StatefulSets;
use self::ttl::TtlAfterFinished;
use self::volumes::Volumes;
use self::watches::Watches;
use self::workloads::deployment::Deployments;
use self::workloads::replica_set::ReplicaSets;
use crate::api::Api;
use crate::custom;
use crate::identity::{self, Identity};
use crate::pki::Pki;

/// What the controllers are told.
#[derive(Debug, Clone)]
pub struct ControllersConfig {
    /// Certificate of the cluster's authority, in PEM: `ca.crt` of `kube-root-ca.crt`.
    pub ca_pem: String,
    /// Isolation classes that can be had.
    pub isolation: Vec<IsolationClass>,
    /// Who runs the controllers, if several API servers share one state.
    pub leadership: Leadership,
    /// Signs certificate requests; without it they wait.
    pub pki: Option<Arc<Pki>>,
    /// Makes the tokens of Secrets that ask for one; without it they stay as they are.
    pub identity: Option<Identity>,
    /// Where autoscalers have their numbers from; without it they say that there are none.
    pub metrics: Option<Arc<dyn metrics::Metrics>>,
}

impl ControllersConfig {
    /// Of a process that has its store to itself, with nothing beside.
    pub fn new(ca_pem: impl Into<String>) -> Self {
        Self {
            ca_pem: ca_pem.into(),
            isolation: Vec::new(),
            leadership: Leadership::Alone,
            pki: None,
            identity: None,
            metrics: None,
        }
    }
}

/// Runs every controller until `shutdown`, while this process is the one that does.
pub async fn run(api: Api, config: ControllersConfig, shutdown: CancellationToken) {
    let leadership = config.leadership.clone();
    let lease = leader::CONTROLLERS.to_owned();
    let work = || async {
        let mut tasks = JoinSet::new();
        start(&api, &config, &mut tasks);
        // Dropping the set ends them all.
        std::future::pending::<()>().await;
    };
    lead(api.clone(), leadership, lease, shutdown, work).await;
}

/// Starts each controller as a task of its own, so that news for one wakes only that one.
fn start(api: &Api, config: &ControllersConfig, tasks: &mut JoinSet<()>) {
    let (ca_pem, isolation) = (config.ca_pem.clone(), config.isolation.clone());
    if let Some(identity) = config.identity.clone() {
        let ca_pem = ca_pem.clone();
        spawn(tasks, api, async move |api| {
            // Its end is that of the set of tasks.
            identity::fill_token_secrets(api, identity, ca_pem, CancellationToken::new()).await;
        });
    }
    spawn(tasks, api, async move |api| {
        bootstrap::runtime_classes(&api, &isolation).await;
    });
    spawn(tasks, api, async |api| namespace::run(&api).await);
    spawn(tasks, api, async |api| custom::controller::run(&api).await);
    spawn(tasks, api, async move |api| {
        namespace_defaults::run(&api, &ca_pem).await;
    });
    spawn(tasks, api, async |api| garbage::run(&api).await);
    spawn(tasks, api, async |api| expire_events(&api).await);
    let mut watches = Watches::new(api);
    let all = &mut watches;
    reconcile(tasks, all, |all| Deployments::new(api, all));
    reconcile(tasks, all, |all| ReplicaSets::new(api, all));
    reconcile(tasks, all, |all| StatefulSets::new(api, all));
    reconcile(tasks, all, |all| DaemonSets::new(api, all));
    reconcile(tasks, all, |all| ReplicationControllers::new(api, all));
    reconcile(tasks, all, |all| Jobs::new(api, all));
    reconcile(tasks, all, |all| CronJobs::new(api, all));
    reconcile(tasks, all, |all| TtlAfterFinished::new(api, all));
    reconcile(tasks, all, |all| ClusterRoleAggregation::new(api, all));
    reconcile(tasks, all, |all| ResourceQuotas::new(api, all));
    reconcile(tasks, all, |all| Disruption::new(api, all));
    reconcile(tasks, all, |all| EndpointSlices::new(api, all));
    reconcile(tasks, all, |all| EndpointsOfServices::new(api, all));
    reconcile(tasks, all, |all| Mirroring::new(api, all));
    reconcile(tasks, all, |all| Volumes::new(api, all));
    reconcile(tasks, all, |all| PodGc::new(api, all));
    reconcile(tasks, all, |all| NodeLifecycle::new(api, all));
    let metrics = config.metrics.clone();
    reconcile(tasks, all, |all| Horizontal::new(api, all, metrics));
    if let Some(pki) = config.pki.clone() {
        reconcile(tasks, all, |all| Certificates::new(api, all, pki));
    }
    watches.start(tasks);
}

/// One that lives on the shared watches.
fn reconcile<C: Controller>(
    tasks: &mut JoinSet<()>,
    watches: &mut Watches,
    make: impl FnOnce(&Watches) -> C,
) {
    let news = watches.follow(C::WATCHED);
    let meter = watches.meter(C::NAME);
    tasks.spawn(reconcile::run(make(watches), news, meter));
}

fn spawn<F: Future<Output = ()> + Send + 'static>(
    tasks: &mut JoinSet<()>,
    api: &Api,
    run: impl FnOnce(Api) -> F,
) {
    tasks.spawn(run(api.clone()));
}

/// Removes events that have become old, every minute.
async fn expire_events(api: &Api) {
    let mut interval = tokio::time::interval(std::time::Duration::from_secs(60));
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        let now = u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or_default();
        if let Err(error) = api.expire(now).await {
            tracing::warn!(%error, "events not expired");
        }
    }
}

#[cfg(test)]
mod tests;
