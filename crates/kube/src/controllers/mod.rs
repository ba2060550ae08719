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
//! - [`endpoint_slices`]: which pods stand behind a Service.
//! - [`garbage`]: what is owned goes when its owners go.
//! - [`bootstrap`]: a RuntimeClass per isolation class.
//!
//! `informer`, `queue` and `events` are what they, the scheduler and the provider are made of;
//! newer ones share `watches`, `reconcile` and `hands`.

mod bootstrap;
pub(crate) mod cache;
mod cron_job;
mod daemon_set;
mod endpoint_slices;
pub(crate) mod events;
mod garbage;
mod hands;
mod history;
pub(crate) mod informer;
mod job;
mod namespace;
mod namespace_defaults;
mod pods;
pub(crate) mod queue;
mod reconcile;
mod replication_controller;
mod stateful_set;
mod ttl;
mod watches;
mod workloads;

pub(crate) use endpoint_slices::SERVICE_LABEL;
pub(crate) use workloads::owner;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use types::IsolationClass;

use self::cron_job::CronJobs;
use self::daemon_set::DaemonSets;
use self::job::Jobs;
use self::reconcile::Controller;
use self::replication_controller::ReplicationControllers;
use self::stateful_set::StatefulSets;
use self::ttl::TtlAfterFinished;
use self::watches::Watches;
use crate::api::Api;
use crate::custom;

/// What the controllers are told.
#[derive(Debug, Clone)]
pub struct ControllersConfig {
    /// Certificate of the cluster's authority, in PEM: `ca.crt` of `kube-root-ca.crt`.
    pub ca_pem: String,
    /// Isolation classes that can be had.
    pub isolation: Vec<IsolationClass>,
}

/// Runs every controller until `shutdown`.
pub async fn run(api: Api, config: ControllersConfig, shutdown: CancellationToken) {
    let mut tasks = JoinSet::new();
    start(&api, config, &mut tasks);
    // Dropping the set ends them all.
    shutdown.cancelled().await;
}

/// Starts each controller as a task of its own, so that news for one wakes only that one.
fn start(api: &Api, config: ControllersConfig, tasks: &mut JoinSet<()>) {
    let ControllersConfig { ca_pem, isolation } = config;
    spawn(tasks, api, async move |api| {
        bootstrap::runtime_classes(&api, &isolation).await;
    });
    spawn(tasks, api, async |api| namespace::run(&api).await);
    spawn(tasks, api, async |api| custom::controller::run(&api).await);
    spawn(tasks, api, async move |api| {
        namespace_defaults::run(&api, &ca_pem).await;
    });
    spawn(tasks, api, async |api| garbage::run(&api).await);
    spawn(tasks, api, async |api| workloads::run(&api).await);
    spawn(tasks, api, async |api| endpoint_slices::run(&api).await);
    spawn(tasks, api, async |api| expire_events(&api).await);
    let mut watches = Watches::new(api);
    reconcile(tasks, &mut watches, |all| StatefulSets::new(api, all));
    reconcile(tasks, &mut watches, |all| DaemonSets::new(api, all));
    reconcile(tasks, &mut watches, |all| {
        ReplicationControllers::new(api, all)
    });
    reconcile(tasks, &mut watches, |all| Jobs::new(api, all));
    reconcile(tasks, &mut watches, |all| CronJobs::new(api, all));
    reconcile(tasks, &mut watches, |all| TtlAfterFinished::new(api, all));
    watches.start(tasks);
}

/// One that lives on the shared watches.
fn reconcile<C: Controller>(
    tasks: &mut JoinSet<()>,
    watches: &mut Watches,
    make: impl FnOnce(&Watches) -> C,
) {
    let news = watches.follow(C::WATCHED);
    tasks.spawn(reconcile::run(make(watches), news));
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
