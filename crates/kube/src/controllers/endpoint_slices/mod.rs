//! EndpointSlices: which pods stand behind a Service.
//!
//! ```text
//!   services, pods, slices ──> caches ──> names of Services ──> queue ──> plan (pure) ──> writes
//! ```
//!
//! A Service without a selector is left alone: its slices are somebody else's.

mod endpoint;
mod plan;

use serde_json::{Value, json};

pub(super) use self::endpoint::{endpoint, ports};
pub(crate) use self::plan::SERVICE_LABEL;
use self::plan::{Plan, plan};
use super::events::News;
use super::hands::Hands;
use super::queue::Outcome;
use super::reconcile::Controller;
use super::watches::{Changed, Watches};
use crate::api::Api;
use crate::object;
use crate::resource::{ENDPOINT_SLICES, PODS, Resource, SERVICES};
use crate::status::Status;

pub(super) struct EndpointSlices {
    hands: Hands,
}

impl EndpointSlices {
    pub(super) fn new(api: &Api, watches: &Watches) -> Self {
        let hands = Hands::new(api, watches, "endpoint-slice-controller");
        Self { hands }
    }
}

impl Controller for EndpointSlices {
    const NAME: &'static str = "endpointslice";
    const WATCHED: &'static [&'static Resource] = &[&SERVICES, &PODS, &ENDPOINT_SLICES];

    fn concerns(&self, changed: &Changed) -> Vec<String> {
        if changed.is(&SERVICES) {
            return vec![changed.key()];
        }
        let namespace = changed.namespace();
        if changed.is(&ENDPOINT_SLICES) {
            let service = object::label(&changed.object, SERVICE_LABEL);
            let key = service.map(|service| format!("{namespace}/{service}"));
            return key.into_iter().collect();
        }
        // Also what it was: a pod that changed its labels leaves a Service.
        self.hands
            .known
            .keys(&SERVICES, Some(namespace), |service| {
                selector(service).is_some_and(|selector| changed.is_or_was_selected(&selector))
            })
    }

    async fn sync(&self, at: &str) -> Result<Outcome, Status> {
        let hands = &self.hands;
        // The slices of a Service that has gone the garbage collector takes.
        let Some(service) = hands.known.get(&SERVICES, at) else {
            return Ok(Outcome::Done);
        };
        let selector = selector(&service).filter(|_| !object::is_terminating(&service));
        let Some(selector) = selector else {
            return Ok(Outcome::Done);
        };
        let namespace = object::namespace(&service).unwrap_or_default();
        let pods = hands.known.selected(&PODS, namespace, &selector);
        let mut slices = hands.known.all(&ENDPOINT_SLICES, Some(namespace));
        slices.retain(|slice| plan::is_ours(slice, &service));
        let (pods, slices): (Vec<_>, Vec<_>) = (pods.iter().collect(), slices.iter().collect());
        let result = self.perform(plan(&service, &pods, &slices)).await;
        if let Err(error) = &result
            && !error.is_namespace_terminating()
            && !error.is_conflict()
            && !error.is_not_found()
        {
            let message = format!("Error updating Endpoint Slices for Service {at}: {error}");
            let news = News::warning("FailedToUpdateEndpointSlices", message);
            hands.tell(&service, news).await;
        }
        result.map(|()| Outcome::Done)
    }
}

impl EndpointSlices {
    /// New slices first and old ones last, so that no endpoint is in none of them meanwhile.
    async fn perform(&self, plan: Plan) -> Result<(), Status> {
        for slice in plan.create {
            self.hands.create(&ENDPOINT_SLICES, slice).await?;
        }
        for slice in plan.update {
            self.hands.update(&ENDPOINT_SLICES, slice).await?;
        }
        for slice in plan.delete {
            self.hands.delete(&ENDPOINT_SLICES, &slice).await?;
        }
        Ok(())
    }
}

/// What a Service selects; none if it leaves its slices to others.
pub(super) fn selector(service: &Value) -> Option<Value> {
    let selector = service["spec"]["selector"].as_object()?;
    (!selector.is_empty()).then(|| json!({"matchLabels": selector}))
}
