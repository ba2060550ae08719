//! The provider: it makes machines of pods, as a kubelet makes containers of them.
//!
//! ```text
//!   pods (Api) ────────> mirror ──uid──> queue ──> sync ──> client ──> machines
//!   machines (client) ─>   │                        │
//!                          └── snapshot of both ────┘──> status, events (Api)
//! ```
//!
//! A pod's machine is named by the pod's uid, so that a pod is the key to its machine and the
//! other way round. `sync` looks at one uid: it writes the status (`status`, pure), decides the
//! next step (`life`, pure) and takes it. Everything is derived from the two lists: a provider
//! that is killed and started again goes on where the other stopped. Nothing is polled: a uid is
//! looked at when its pod or its machine has changed, and again after a failure, with back-off.
//!
//! The provider knows the Machines API through `client` and nothing below it.

mod budget;
mod env;
#[cfg(test)]
mod fake;
pub(crate) mod fuzz;
mod life;
mod mirror;
mod node;
mod pod;
mod quantity;
mod silence;
mod status;
mod streams;
mod sync;
mod tokens;
mod translate;
mod usage;

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use client::Client;
use futures::FutureExt as _;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use types::AppName;
use types::api::CreateApp;

use crate::api::Api;
use crate::controllers::events::Recorder;
use crate::controllers::queue::{Outcome, Queue};
use crate::identity::Identity;

pub use node::{InvalidTaint, NodeConfig, Taint};
pub(crate) use quantity::milli_of;
pub use streams::Streams;
pub use usage::MachineUsage;

use mirror::Mirror;
use sync::{Context, Memory};

/// Pods that are looked at at the same time. The longest step is one request to the Machines API.
const SYNCS_MAX: usize = 16;
/// Time before an app that could not be ensured is tried again.
const APP_RETRY: Duration = Duration::from_secs(2);

/// Annotations that tell which machine a pod is: `<id>.vm.<app>.internal` is its name.
pub const MACHINE_ID_ANNOTATION: &str = "machine.aerostat/id";
pub const MACHINE_APP_ANNOTATION: &str = "machine.aerostat/app";

/// What a provider is told.
#[derive(Debug, Clone)]
pub struct ProviderConfig {
    /// The region whose machines the pods become; also the node's name unless that says otherwise.
    pub region: String,
    /// The app that the machines belong to. Created when it is missing.
    pub app: AppName,
    /// Slug of the organisation that the app is created in.
    pub org_slug: String,
    /// Name of the private network that the app is created with; empty for the organisation's own.
    pub network: String,
    pub node: NodeConfig,
    /// Time after which pods of a host that has fallen silent are replaced.
    pub silent_after: Duration,
    /// Signs the tokens of service accounts that pods mount. Without it, such a pod is refused.
    pub identity: Option<Identity>,
}

/// Runs until `shutdown`: keeps the node alive and the pods that are bound to it running.
/// Machines go on without it.
pub async fn run(api: Api, client: Client, config: ProviderConfig, shutdown: CancellationToken) {
    let config = Arc::new(config);
    // To the API it is a kubelet, and owns what it writes like one.
    let api = api.acting_as(api.caller().user.clone(), "kubelet");
    let work = async {
        ensure_app(&client, &config).await;
        tokio::join!(
            node::keep(&api, &client, &config),
            drive(&api, &client, &config)
        );
    };
    tokio::select! {
        () = work => {}
        () = shutdown.cancelled() => {}
    }
    info!(region = config.region, "provider ended");
}

/// Waits until the app exists; without it there is nothing to do.
async fn ensure_app(client: &Client, config: &ProviderConfig) {
    let body = CreateApp {
        name: config.app.to_string(),
        org_slug: config.org_slug.clone(),
        network: config.network.clone(),
        ..CreateApp::default()
    };
    loop {
        match client.app(&config.app).await {
            Ok(_) => return,
            Err(error) if error.is_not_found() => match client.create_app(&body).await {
                Ok(app) => {
                    info!(app = %app.name, "app created");
                    return;
                }
                Err(error) => warn!(app = %config.app, %error, "app not created"),
            },
            Err(error) => debug!(app = %config.app, %error, "app not found out"),
        }
        tokio::time::sleep(APP_RETRY).await;
    }
}

/// What a sync leaves behind.
struct Finished {
    uid: String,
    memory: Memory,
    outcome: Outcome,
}

async fn drive(api: &Api, client: &Client, config: &Arc<ProviderConfig>) {
    let context = Arc::new(Context {
        api: api.clone(),
        client: client.clone(),
        config: Arc::clone(config),
        recorder: Recorder::new(api.clone(), "aerostat-provider", &config.node.name),
    });
    let mut mirror = Mirror::follow(api, client, config);
    let mut queue = Queue::default();
    let mut memories: HashMap<String, Memory> = HashMap::new();
    let mut syncs: JoinSet<Finished> = JoinSet::new();
    loop {
        let due = queue.advance(Instant::now());
        while mirror.is_complete() && syncs.len() < SYNCS_MAX {
            let Some(uid) = queue.take() else { break };
            let memory = memories.remove(&uid).unwrap_or_default();
            let subject = mirror.subject(&uid);
            let context = Arc::clone(&context);
            syncs.spawn(async move {
                let mut memory = memory;
                let sync = Box::pin(sync::sync(&context, &subject, &mut memory));
                // A panic has been printed by the runtime. The uid must not stay in use.
                let outcome = AssertUnwindSafe(sync).catch_unwind().await;
                let outcome = outcome.unwrap_or(Outcome::Failed);
                Finished {
                    uid,
                    memory,
                    outcome,
                }
            });
        }
        let timer = async {
            match due {
                Some(due) => tokio::time::sleep_until(due.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            uids = mirror.changed() => {
                for uid in uids {
                    queue.add(&uid);
                }
            }
            Some(finished) = syncs.join_next() => match finished {
                Ok(mut finished) => {
                    if let Some(machine) = finished.memory.seen.take() {
                        mirror.saw(machine);
                    }
                    queue.finish(Instant::now(), &finished.uid, finished.outcome);
                    if mirror.knows(&finished.uid) {
                        memories.insert(finished.uid, finished.memory);
                    } else {
                        queue.forget(&finished.uid);
                    }
                }
                Err(error) => warn!(%error, "sync of a pod broke off"),
            },
            () = timer => {}
        }
    }
}

#[cfg(test)]
mod tests;
