//! Controllers: small loops that make what Kubernetes promises beside what was asked for.
//!
//! - [`namespace`]: a namespace that is deleted takes everything in it along.
//! - [`namespace_defaults`]: every namespace has a `default` service account and the cluster's
//!   certificate authority.
//! - [`workloads`]: Deployments and ReplicaSets.
//! - [`endpoint_slices`]: which pods stand behind a Service.
//! - [`garbage`]: what is owned goes when its owners go.
//! - [`bootstrap`]: a RuntimeClass per isolation class.
//!
//! `informer`, `queue` and `events` are what they, the scheduler and the provider are made of.

mod bootstrap;
pub(crate) mod cache;
mod endpoint_slices;
pub(crate) mod events;
mod garbage;
pub(crate) mod informer;
mod namespace;
mod namespace_defaults;
pub(crate) mod queue;
mod workloads;

pub(crate) use endpoint_slices::SERVICE_LABEL;
pub(crate) use workloads::owner;

use tokio_util::sync::CancellationToken;
use types::IsolationClass;

use crate::api::Api;

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
    let work = async {
        tokio::join!(
            bootstrap::runtime_classes(&api, &config.isolation),
            namespace::run(&api),
            namespace_defaults::run(&api, &config.ca_pem),
            garbage::run(&api),
            workloads::run(&api),
            endpoint_slices::run(&api),
            expire_events(&api),
        );
    };
    tokio::select! {
        () = work => {}
        () = shutdown.cancelled() => {}
    }
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
