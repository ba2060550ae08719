//! EndpointSlices: which pods stand behind a Service.
//!
//! ```text
//!   services, pods, slices ──> caches ──> names of Services ──> queue ──> plan (pure) ──> writes
//! ```
//!
//! A Service without a selector is left alone: its slices are somebody else's.

mod endpoint;
mod plan;

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tracing::warn;

pub(super) use self::endpoint::{endpoint, ports};
pub(crate) use self::plan::SERVICE_LABEL;
use self::plan::{Plan, plan};
use super::cache::{Cache, key};
use super::events::{News, Recorder};
use super::informer::{self, Change};
use super::queue::{Outcome, Queue};
use crate::api::{Api, DeleteOptions, Selector};
use crate::label_selector;
use crate::object;
use crate::resource::{ENDPOINT_SLICES, PODS, Resource, SERVICES};
use crate::status::Status;

/// The watch brings what made a write fail sooner than this.
const CONFLICT_RETRY: Duration = Duration::from_millis(100);

struct Slices {
    api: Api,
    services: Cache,
    pods: Cache,
    slices: Cache,
    recorder: Recorder,
}

pub(super) async fn run(api: &Api) {
    let follow = |resource| informer::follow(api, resource, Selector::default());
    let mut services = follow(&SERVICES);
    let (mut pods, mut slices) = (follow(&PODS), follow(&ENDPOINT_SLICES));
    let mut state = Slices {
        api: api.clone(),
        services: Cache::default(),
        pods: Cache::default(),
        slices: Cache::default(),
        recorder: Recorder::new(api.clone(), "endpoint-slice-controller", ""),
    };
    let mut queue = Queue::default();
    // Nothing is decided before everything is known.
    for (resource, changes) in [
        (&SERVICES, &mut services),
        (&PODS, &mut pods),
        (&ENDPOINT_SLICES, &mut slices),
    ] {
        match changes.recv().await {
            Some(change) => state.take(resource, change, &mut queue),
            None => return,
        }
    }
    loop {
        if let Some(at) = queue.take() {
            let outcome = state.outcome(&at).await;
            queue.finish(Instant::now(), &at, outcome);
        }
        let mut due = queue.advance(Instant::now());
        if !queue.is_idle() {
            due = Some(Instant::now());
        }
        let timer = async {
            match due {
                Some(due) => tokio::time::sleep_until(due.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(change) = services.recv() => state.take(&SERVICES, change, &mut queue),
            Some(change) = pods.recv() => state.take(&PODS, change, &mut queue),
            Some(change) = slices.recv() => state.take(&ENDPOINT_SLICES, change, &mut queue),
            () = timer => {}
        }
    }
}

impl Slices {
    /// Takes in a change, and puts the Services that it concerns into the queue.
    fn take(&mut self, resource: &'static Resource, change: Change, queue: &mut Queue) {
        let api = self.api.clone();
        let now = |at: &str| {
            let (namespace, name) = at.split_once('/')?;
            api.read(resource, Some(namespace), name).ok()
        };
        if resource.is(&SERVICES) {
            for service in self.services.apply(change, now) {
                queue.add(&key(&service));
            }
        } else if resource.is(&PODS) {
            // Also what it was: a pod that changed its labels leaves a Service.
            for pod in self.pods.apply(change, now) {
                for service in self.selecting(&pod) {
                    queue.add(&service);
                }
            }
        } else {
            for slice in self.slices.apply(change, now) {
                if let Some(service) = object::label(&slice, SERVICE_LABEL) {
                    let namespace = object::namespace(&slice).unwrap_or_default();
                    queue.add(&format!("{namespace}/{service}"));
                }
            }
        }
    }

    fn selecting(&self, pod: &Value) -> Vec<String> {
        let namespace = object::namespace(pod).unwrap_or_default();
        let services = self.services.within(namespace);
        let selecting = services.filter(|service| selects(service, pod));
        selecting.map(key).collect()
    }

    async fn outcome(&mut self, at: &str) -> Outcome {
        let error = match self.sync(at).await {
            Ok(()) => return Outcome::Done,
            Err(error) if error.is_namespace_terminating() => return Outcome::Done,
            // Somebody else wrote in between: the watch brings what they wrote.
            Err(error) if error.is_conflict() || error.is_not_found() => {
                return Outcome::After(CONFLICT_RETRY);
            }
            Err(error) => error,
        };
        warn!(service = at, %error, "endpoint slices not brought up to date");
        if let Some(service) = self.services.get(at) {
            let message = format!("Error updating Endpoint Slices for Service {at}: {error}");
            let news = News::warning("FailedToUpdateEndpointSlices", message);
            self.recorder.tell(service, news).await;
        }
        Outcome::Failed
    }

    async fn sync(&mut self, at: &str) -> Result<(), Status> {
        let Some(service) = self.services.get(at) else {
            // The garbage collector takes the slices.
            return Ok(());
        };
        let has_selector = service["spec"]["selector"].as_object();
        let has_selector = has_selector.is_some_and(|selector| !selector.is_empty());
        if !has_selector || object::is_terminating(service) {
            return Ok(());
        }
        let namespace = object::namespace(service).unwrap_or_default().to_owned();
        let pods = self.pods.within(&namespace);
        let pods: Vec<_> = pods.filter(|pod| selects(service, pod)).collect();
        let slices = self.slices.within(&namespace);
        let slices: Vec<_> = slices
            .filter(|slice| plan::is_ours(slice, service))
            .collect();
        let plan = plan(service, &pods, &slices);
        self.perform(&namespace, plan).await
    }

    /// New slices first and old ones last, so that no endpoint is in none of them meanwhile.
    async fn perform(&mut self, namespace: &str, plan: Plan) -> Result<(), Status> {
        let here = Some(namespace);
        for slice in plan.create {
            let made = self.api.create(&ENDPOINT_SLICES, here, slice).await?;
            self.slices.wrote(made);
        }
        for slice in plan.update {
            let written = self.api.update(&ENDPOINT_SLICES, here, slice).await?;
            self.slices.wrote(written);
        }
        for slice in plan.delete {
            let options = DeleteOptions::now().with_uid(object::uid(&slice));
            let name = object::name(&slice);
            match self
                .api
                .delete(&ENDPOINT_SLICES, here, name, &options)
                .await
            {
                Ok(_) => self.slices.removed(&slice),
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn selects(service: &Value, pod: &Value) -> bool {
    let selector = &service["spec"]["selector"];
    let is_any = selector
        .as_object()
        .is_some_and(|labels| !labels.is_empty());
    let selector = json!({"matchLabels": selector});
    is_any && label_selector::matches(&selector, &pod["metadata"]["labels"])
}
