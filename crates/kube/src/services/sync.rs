//! Keeps the services of the app as the Services and EndpointSlices say.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use client::Error;
use futures::FutureExt as _;
use serde_json::Value;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use types::service::ServiceSpec;

use super::{Services, kubernetes, name, spec, split};
use crate::api::{Api, Selector};
use crate::controllers::SERVICE_LABEL;
use crate::controllers::cache::{Cache, key};
use crate::controllers::events::{News, Recorder};
use crate::controllers::informer::{self, Change};
use crate::controllers::queue::{Outcome, Queue};
use crate::object;
use crate::resource::{ENDPOINT_SLICES, SERVICES};

/// Services that are written at a time. Each is one request.
const SYNCS_MAX: usize = 8;
/// Time between two comparisons of both lists. They find what a crash between two writes left,
/// and what somebody else changed.
const COMPARE_EVERY: Duration = Duration::from_secs(300);
/// Time before a comparison that failed is tried again.
const COMPARE_RETRY: Duration = Duration::from_secs(5);

/// Runs until `shutdown`. The services stay as they are without it.
pub async fn run(api: Api, services: Arc<dyn Services>, shutdown: CancellationToken) {
    tokio::select! {
        () = drive(&api, &services) => {}
        () = shutdown.cancelled() => {}
    }
}

/// What there is to do with one name.
struct Subject {
    key: String,
    /// The Service and what its service is to be; `None`: there is no Service.
    wanted: Option<(Value, ServiceSpec)>,
}

/// What became of it.
struct Finished {
    key: String,
    /// The service as it is now known to be.
    known: Option<ServiceSpec>,
    outcome: Outcome,
}

struct State {
    services: Cache,
    slices: Cache,
    /// What the Machines API has, by the key of the Service; `None`: nobody knows.
    known: HashMap<String, Option<ServiceSpec>>,
    queue: Queue,
}

async fn drive(api: &Api, services: &Arc<dyn Services>) {
    let mut service_changes = informer::follow(api, &SERVICES, Selector::default());
    let mut slice_changes = informer::follow(api, &ENDPOINT_SLICES, Selector::default());
    let recorder = Recorder::new(api.clone(), "service-controller", "");
    let mut state = State {
        services: Cache::default(),
        slices: Cache::default(),
        known: HashMap::new(),
        queue: Queue::default(),
    };
    // Without the slices every service would lose its backends at the start.
    match (service_changes.recv().await, slice_changes.recv().await) {
        (Some(services), Some(slices)) => {
            state.take_service(services);
            state.take_slice(slices);
        }
        (_, None) | (None, _) => return,
    }
    let mut compare_at = Instant::now();
    let mut syncs: JoinSet<Finished> = JoinSet::new();
    loop {
        if compare_at <= Instant::now() {
            compare_at = Instant::now() + state.compare(services.as_ref()).await;
        }
        let due = state.queue.advance(Instant::now());
        while syncs.len() < SYNCS_MAX {
            let Some(subject) = state.next() else { break };
            let (api, services) = (api.clone(), Arc::clone(services));
            let recorder = recorder.clone();
            syncs.spawn(async move {
                let key = subject.key.clone();
                let sync = sync(&api, services.as_ref(), &recorder, subject);
                // A panic has been printed by the runtime. The name must not stay in use.
                let finished = AssertUnwindSafe(sync).catch_unwind().await;
                finished.unwrap_or(Finished {
                    key,
                    known: None,
                    outcome: Outcome::Failed,
                })
            });
        }
        let due = due.map_or(compare_at, |due| due.min(compare_at));
        tokio::select! {
            Some(change) = service_changes.recv() => state.take_service(change),
            Some(change) = slice_changes.recv() => state.take_slice(change),
            Some(finished) = syncs.join_next() => match finished {
                Ok(finished) => state.finish(finished),
                Err(error) => warn!(%error, "sync of a Service broke off"),
            },
            () = tokio::time::sleep_until(due.into()) => {}
        }
    }
}

impl State {
    fn take_service(&mut self, change: Change) {
        // Nothing is written here, so there are no own writes to look up.
        for service in self.services.apply(change, |_| None) {
            let key = key(&service);
            self.queue.add(&key);
            // It got its address when it was made, which was not done here.
            self.known.entry(key).or_insert(None);
        }
    }

    fn take_slice(&mut self, change: Change) {
        for slice in self.slices.apply(change, |_| None) {
            if let Some(service) = object::label(&slice, SERVICE_LABEL) {
                let namespace = object::namespace(&slice).unwrap_or_default();
                self.queue.add(&format!("{namespace}/{service}"));
            }
        }
    }

    /// The next name that there is something to do with.
    fn next(&mut self) -> Option<Subject> {
        loop {
            let key = self.queue.take()?;
            // A Service of type ExternalName is a name for somebody else's.
            let is_ours = |service: &&Value| service["spec"]["type"] != "ExternalName";
            let wanted = self.services.get(&key).filter(is_ours).map(|service| {
                let namespace = object::namespace(service).unwrap_or_default();
                let slices = self.slices.within(namespace);
                let own = |slice: &&Value| {
                    object::label(slice, SERVICE_LABEL) == Some(object::name(service))
                };
                let slices: Vec<_> = slices.filter(own).collect();
                (service.clone(), spec::spec(service, &slices))
            });
            let is_so = match (self.known.get(&key), &wanted) {
                (None, None) => true,
                (Some(Some(known)), Some((_, spec))) => known == spec,
                (Some(_), None) | (None | Some(None), Some(_)) => false,
            };
            if is_so {
                self.queue.finish(Instant::now(), &key, Outcome::Done);
                continue;
            }
            return Some(Subject { key, wanted });
        }
    }

    fn finish(&mut self, finished: Finished) {
        let Finished {
            key,
            known,
            outcome,
        } = finished;
        self.queue.finish(Instant::now(), &key, outcome);
        match known {
            Some(known) => drop(self.known.insert(key, Some(known))),
            None if outcome == Outcome::Failed => drop(self.known.insert(key, None)),
            None => {
                self.known.remove(&key);
                self.queue.forget(&key);
            }
        }
    }

    /// Lists what the Machines API has and puts every name of either side into the queue. Returns
    /// when to come again.
    async fn compare(&mut self, services: &dyn Services) -> Duration {
        let listed = match services.list().await {
            Ok(listed) => listed,
            Err(error) => {
                debug!(%error, "services not listed");
                return COMPARE_RETRY;
            }
        };
        self.known.clear();
        for service in listed {
            // Other names are somebody else's.
            if let Some((namespace, name)) = split(&service.name) {
                let key = format!("{namespace}/{name}");
                self.queue.add(&key);
                self.known.insert(key, Some(service.spec));
            }
        }
        for key in self.services.keys() {
            self.queue.add(key);
        }
        COMPARE_EVERY
    }
}

async fn sync(
    api: &Api,
    services: &dyn Services,
    recorder: &Recorder,
    subject: Subject,
) -> Finished {
    let Subject { key, wanted } = subject;
    let (namespace, service) = key.split_once('/').unwrap_or_default();
    let name = name(namespace, service);
    let (known, outcome) = match wanted {
        Some((object, spec)) => match services.put(&name, &spec).await {
            Ok(made) => {
                check(recorder, &object, made.vip).await;
                (Some(spec), Outcome::Done)
            }
            Err(error) => {
                tell_failure(recorder, &object, &error).await;
                (None, Outcome::Failed)
            }
        },
        None => match take_away(api, services, (namespace, service), &name).await {
            Ok(()) => (None, Outcome::Done),
            Err(error) => {
                warn!(service = name, error = %types::chain(&error), "service not deleted");
                (None, Outcome::Failed)
            }
        },
    };
    Finished {
        key,
        known,
        outcome,
    }
}

/// Deletes the service that no Service has. The name is held, so that none is made meanwhile.
async fn take_away(
    api: &Api,
    services: &dyn Services,
    (namespace, service): (&str, &str),
    name: &str,
) -> Result<(), Error> {
    if (namespace, service) == (kubernetes::NAMESPACE, kubernetes::NAME) {
        // Pods know its address, which it keeps until it is back.
        return Ok(());
    }
    let _held = api.hold_service(namespace, service).await;
    let present = api.read(&SERVICES, Some(namespace), service);
    if present.is_ok_and(|service| service["spec"]["type"] != "ExternalName") {
        // It has come back; the watch tells.
        return Ok(());
    }
    services.delete(name).await?;
    info!(service = name, "service of a deleted Service deleted");
    Ok(())
}

/// A Service keeps its address for life, so one that the Machines API gave anew does not lead
/// anywhere.
async fn check(recorder: &Recorder, service: &Value, vip: Option<std::net::Ipv6Addr>) {
    let has = object::text(service, &["spec", "clusterIP"]);
    let Some(vip) = vip else { return };
    if has.parse() == Ok(vip) {
        return;
    }
    let message = format!(
        "Cluster IP {has} is no longer this Service's, {vip} is; delete the Service and create it \
         again"
    );
    recorder
        .tell(service, News::warning("ClusterIPNotAllocated", message))
        .await;
}

async fn tell_failure(recorder: &Recorder, service: &Value, error: &Error) {
    warn!(
        namespace = object::namespace(service),
        service = object::name(service),
        error = %types::chain(error),
        "service not written"
    );
    let message = format!("The service was not written: {error}");
    let news = News::warning("FailedToSyncService", message);
    recorder.tell(service, news).await;
}
