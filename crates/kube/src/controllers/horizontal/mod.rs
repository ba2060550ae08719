//! HorizontalPodAutoscalers: as many pods as a metric asks for.

mod arithmetic;
pub mod metrics;
mod source;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::{Value, json};

use self::arithmetic::{Limited, PERIOD, Past};
use self::metrics::{MetricQuery, Metrics, NoMetrics};
use self::source::{Fault, Source};
use super::events::News;
use super::hands::Hands;
use super::pods::is_finished;
use super::queue::Outcome;
use super::reconcile::Controller;
use super::watches::{Changed, Watches};
use crate::api::{Api, WriteOptions};
use crate::object;
use crate::resource::{HORIZONTAL_POD_AUTOSCALERS, PODS, Resource, Row};
use crate::status::Status;
use crate::time;

pub(super) struct Horizontal {
    hands: Hands,
    metrics: Option<Arc<dyn Metrics>>,
    /// By uid of the autoscaler.
    past: Mutex<HashMap<String, Past>>,
    /// By name.
    looks: Mutex<HashMap<String, Look>>,
}

/// The latest look at an autoscaler.
struct Look {
    uid: String,
    /// What it asked for then.
    spec: Value,
    at: Instant,
}

impl Horizontal {
    pub(super) fn new(api: &Api, watches: &Watches, metrics: Option<Arc<dyn Metrics>>) -> Self {
        Self {
            hands: Hands::new(api, watches, "horizontal-pod-autoscaler"),
            metrics,
            past: Mutex::default(),
            looks: Mutex::default(),
        }
    }

    /// How long to wait: a metric is looked at once in a while, and at once when something else is
    /// asked for. What we write into the status ourselves is no reason to look.
    fn wait(&self, at: &str, autoscaler: &Value) -> Option<Duration> {
        let looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
        let look = looks.get(at)?;
        let is_same = look.uid == object::uid(autoscaler) && look.spec == autoscaler["spec"];
        let left = PERIOD.saturating_sub(look.at.elapsed());
        (is_same && !left.is_zero()).then_some(left)
    }

    fn looked(&self, at: &str, autoscaler: &Value) {
        let look = Look {
            uid: object::uid(autoscaler).to_owned(),
            spec: autoscaler["spec"].clone(),
            at: Instant::now(),
        };
        let mut looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
        looks.insert(at.to_owned(), look);
    }

    fn forget(&self, at: &str) {
        let mut looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(look) = looks.remove(at) {
            let mut all = self.past.lock().unwrap_or_else(PoisonError::into_inner);
            all.remove(&look.uid);
        }
    }
}

/// A condition of an autoscaler: type, status, reason, message.
type Condition = (&'static str, &'static str, &'static str, String);

/// What one metric asks for.
struct Proposal {
    pods: i64,
    /// As the status tells it.
    current: Value,
}

impl Controller for Horizontal {
    const NAME: &'static str = "horizontal-pod-autoscaler";
    const WATCHED: &'static [&'static Resource] = &[&HORIZONTAL_POD_AUTOSCALERS, &PODS];

    fn concerns(&self, changed: &Changed) -> Vec<String> {
        let is_ours = changed.is(&HORIZONTAL_POD_AUTOSCALERS);
        is_ours.then(|| changed.key()).into_iter().collect()
    }

    async fn sync(&self, at: &str) -> Result<Outcome, Status> {
        let hands = &self.hands;
        let Some(autoscaler) = hands.known.get(&HORIZONTAL_POD_AUTOSCALERS, at) else {
            self.forget(at);
            return Ok(Outcome::Done);
        };
        if let Some(left) = self.wait(at, &autoscaler) {
            return Ok(Outcome::After(left));
        }
        let mut conditions = Vec::new();
        let numbers = self.scale(&autoscaler, &mut conditions).await?;
        let status = status(&autoscaler, numbers, conditions, Timestamp::now());
        hands
            .update_status(&HORIZONTAL_POD_AUTOSCALERS, &autoscaler, status)
            .await?;
        self.looked(at, &autoscaler);
        Ok(Outcome::After(PERIOD))
    }
}

/// Current and desired pods, what the metrics are, and whether something was done.
#[derive(Default)]
struct Numbers {
    current: i64,
    desired: i64,
    metrics: Vec<Value>,
    /// Why it scales, if it does.
    reason: String,
    has_scaled: bool,
}

/// What the metrics ask for together.
struct Most {
    pods: i64,
    /// The metric that asks for so many.
    title: String,
}

impl Horizontal {
    async fn scale(
        &self,
        autoscaler: &Value,
        conditions: &mut Vec<Condition>,
    ) -> Result<Numbers, Status> {
        let hands = &self.hands;
        let target = &autoscaler["spec"]["scaleTargetRef"];
        let text = |field: &str| object::text(target, &[field]);
        let namespace = object::namespace(autoscaler).unwrap_or_default();
        let row = hands
            .api
            .resources()
            .find_kind(text("apiVersion"), text("kind"));
        let key = format!("{namespace}/{}", text("name"));
        let found = row
            .as_ref()
            .and_then(|row| Some((hands.known.get(row, &key)?, row)));
        let Some((workload, row)) = found else {
            let message = no_scale(row.as_deref(), target);
            let news = News::warning("FailedGetScale", message.clone());
            hands.tell(autoscaler, news).await;
            let message = format!(
                "the HPA controller was unable to get the target's current scale: {message}"
            );
            conditions.push(("AbleToScale", "False", "FailedGetScale", message));
            return Ok(Numbers::default());
        };
        let current = workload["spec"]["replicas"].as_i64().unwrap_or(1);
        let mut numbers = Numbers {
            current,
            desired: current,
            ..Numbers::default()
        };
        let desired = self
            .desire(autoscaler, &workload, &mut numbers, conditions)
            .await;
        numbers.desired = desired;
        if desired == current {
            let message = "recommended size matches current size";
            conditions.push(("AbleToScale", "True", "ReadyForNewScale", message.into()));
            return Ok(numbers);
        }
        self.rescale(autoscaler, row, &numbers).await?;
        let message =
            format!("the HPA controller was able to update the target scale to {desired}");
        conditions.push(("AbleToScale", "True", "SucceededRescale", message));
        numbers.has_scaled = true;
        Ok(numbers)
    }

    /// Writes the number of pods and tells why.
    async fn rescale(
        &self,
        autoscaler: &Value,
        row: &Row,
        numbers: &Numbers,
    ) -> Result<(), Status> {
        let hands = &self.hands;
        let Numbers {
            desired, reason, ..
        } = numbers;
        let change = |scale: &Value| {
            let mut scale = scale.clone();
            object::map_mut(&mut scale, "spec").insert("replicas".into(), (*desired).into());
            Ok(scale)
        };
        let name = object::text(autoscaler, &["spec", "scaleTargetRef", "name"]);
        let (here, options) = (object::namespace(autoscaler), WriteOptions::default());
        let scaled = hands.api.scale_with(row, here, name, change, options).await;
        if let Err(status) = scaled {
            let message = format!("New size: {desired}; reason: {reason}; error: {status}");
            let news = News::warning("FailedRescale", message);
            hands.tell(autoscaler, news).await;
            return Err(status);
        }
        self.remember(autoscaler, |past, now| {
            past.changes.push((now, desired - numbers.current));
        });
        let message = format!("New size: {desired}; reason: {reason}");
        let news = News::normal("SuccessfulRescale", message);
        hands.tell(autoscaler, news).await;
        Ok(())
    }

    /// How many pods are wanted, and what has to be said about it.
    async fn desire(
        &self,
        autoscaler: &Value,
        workload: &Value,
        numbers: &mut Numbers,
        conditions: &mut Vec<Condition>,
    ) -> i64 {
        let current = numbers.current;
        let (min, max) = bounds(autoscaler);
        let bounded = current.clamp(min, max);
        if current == 0 && min != 0 {
            let message = "scaling is disabled since the replica count of the target is zero";
            conditions.push(("ScalingActive", "False", "ScalingDisabled", message.into()));
            0
        } else if bounded != current {
            numbers.reason = match bounded < current {
                true => "Current number of replicas above Spec.MaxReplicas".into(),
                false => "Current number of replicas below Spec.MinReplicas".into(),
            };
            bounded
        } else {
            match self
                .by_metrics(autoscaler, workload, current, numbers)
                .await
            {
                Ok(most) => {
                    let message = format!(
                        "the HPA was able to successfully calculate a replica count from {}",
                        most.title
                    );
                    conditions.push(("ScalingActive", "True", "ValidMetricFound", message));
                    let (pods, limited) = self.follow(autoscaler, current, most.pods);
                    conditions.push(limit_condition(limited));
                    numbers.reason = match pods > current {
                        true => format!("{} above target", most.title),
                        false => "All metrics below target".into(),
                    };
                    pods
                }
                Err(fault) => {
                    let message = format!(
                        "the HPA was unable to compute the replica count: {}",
                        fault.message
                    );
                    conditions.push(("ScalingActive", "False", fault.reason, message));
                    current
                }
            }
        }
    }

    fn remember(&self, autoscaler: &Value, change: impl FnOnce(&mut Past, Timestamp)) -> Past {
        let now = Timestamp::now();
        let mut all = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        let past = all.entry(object::uid(autoscaler).to_owned()).or_default();
        change(past, now);
        past.trim(now);
        past.clone()
    }

    fn follow(&self, autoscaler: &Value, current: i64, wanted: i64) -> (i64, Option<Limited>) {
        let past = self.remember(autoscaler, |past, now| {
            past.recommended.push((now, wanted));
        });
        arithmetic::follow(autoscaler, current, wanted, &past, Timestamp::now())
    }

    /// The most that any metric asks for. One that cannot be read stops a fall, not a rise. What is
    /// wrong is told here; the first of it is returned.
    async fn by_metrics(
        &self,
        autoscaler: &Value,
        workload: &Value,
        current: i64,
        numbers: &mut Numbers,
    ) -> Result<Most, Fault> {
        let mut selector = workload["spec"]["selector"].clone();
        if selector.get("matchLabels").is_none() && selector.get("matchExpressions").is_none() {
            selector = json!({"matchLabels": selector});
        }
        let namespace = object::namespace(autoscaler).unwrap_or_default();
        let mut pods = self.hands.known.selected(&PODS, namespace, &selector);
        pods.retain(|pod| !is_finished(pod) && !object::is_terminating(pod));
        let metrics = object::items(autoscaler, &["spec", "metrics"]);
        let mut most: Option<Most> = None;
        let mut faults = Vec::new();
        for metric in metrics {
            match self
                .propose(autoscaler, metric, &selector, &pods, current)
                .await
            {
                Ok(proposal) => {
                    if most.as_ref().is_none_or(|most| proposal.pods > most.pods) {
                        let title = Source::of(metric).title();
                        let pods = proposal.pods;
                        most = Some(Most { pods, title });
                    }
                    numbers.metrics.push(proposal.current);
                }
                Err(fault) => {
                    let news = News::warning(fault.reason, fault.message.clone());
                    self.hands.tell(autoscaler, news).await;
                    faults.push((Source::of(metric).failed(&fault), fault));
                }
            }
        }
        let invalid = faults.len();
        match (most, faults.into_iter().next()) {
            (Some(most), None) => Ok(most),
            (Some(most), Some(_)) if most.pods >= current => Ok(most),
            (_, Some((failed, fault))) => {
                let message = format!(
                    "invalid metrics ({invalid} invalid out of {}), first error is: {failed}",
                    metrics.len()
                );
                let news = News::warning("FailedComputeMetricsReplicas", message);
                self.hands.tell(autoscaler, news).await;
                Err(fault)
            }
            (None, None) => Err(Fault {
                reason: "InvalidMetricSourceType",
                message: "no metrics are specified".into(),
            }),
        }
    }

    async fn ask(
        &self,
        query: MetricQuery<'_>,
    ) -> Result<std::collections::BTreeMap<String, f64>, NoMetrics> {
        let api = query.api();
        match &self.metrics {
            Some(metrics) => metrics.get(query).await,
            None => Err(NoMetrics { api }),
        }
    }

    async fn propose(
        &self,
        autoscaler: &Value,
        metric: &Value,
        selector: &Value,
        pods: &[Value],
        current: i64,
    ) -> Result<Proposal, Fault> {
        let namespace = object::namespace(autoscaler).unwrap_or_default();
        let source = Source::of(metric);
        let values = self.ask(source.query(namespace, selector)).await;
        let values = values.map_err(|error| source.unanswered(&error))?;
        let (pods, told) = if source.is_by_pod() {
            source.by_pods(autoscaler, pods, current, &values)?
        } else {
            source.by_sum(autoscaler, pods, current, values.values().sum())?
        };
        let mut status = json!({"current": told});
        for key in ["name", "container", "metric", "describedObject"] {
            if let Some(value) = source.spec.get(key) {
                status[key] = value.clone();
            }
        }
        let field = source.field();
        Ok(Proposal {
            pods,
            current: json!({"type": source.kind, field: status}),
        })
    }
}

/// Why a target has no scale: it is not there, or there is no such kind.
fn no_scale(kind: Option<&Resource>, target: &Value) -> String {
    let text = |field: &str| object::text(target, &[field]);
    match kind {
        Some(kind) => {
            let dot = if kind.group.is_empty() { "" } else { "." };
            let resource = format!("{}/scale{dot}{}", kind.plural, kind.group);
            format!("{resource} {:?} not found", text("name"))
        }
        None => {
            let group = text("apiVersion").split_once('/');
            let group = group.map_or("", |(group, _)| group);
            format!("no matches for kind {:?} in group {group:?}", text("kind"))
        }
    }
}

fn bounds(autoscaler: &Value) -> (i64, i64) {
    let bound = |field: &str| autoscaler["spec"][field].as_i64();
    let min = bound("minReplicas").unwrap_or(1);
    (min, bound("maxReplicas").unwrap_or(min).max(min))
}

fn limit_condition(limited: Option<Limited>) -> Condition {
    match limited {
        Some(limited) => ("ScalingLimited", "True", limited.reason, limited.message),
        None => (
            "ScalingLimited",
            "False",
            "DesiredWithinRange",
            "the desired count is within the acceptable range".into(),
        ),
    }
}

fn status(
    autoscaler: &Value,
    numbers: Numbers,
    conditions: Vec<Condition>,
    now: Timestamp,
) -> Value {
    let at = time::seconds(now);
    let mut all = object::items(autoscaler, &["status", "conditions"]).to_vec();
    for (kind, is_so, reason, message) in conditions {
        let present = all.iter().find(|one| one["type"] == kind);
        let same = present.filter(|one| one["status"] == is_so);
        let since = same.map_or(json!(at), |one| one["lastTransitionTime"].clone());
        let made = json!({"type": kind, "status": is_so, "reason": reason, "message": message,
            "lastTransitionTime": since});
        match all.iter_mut().find(|one| one["type"] == kind) {
            Some(present) => *present = made,
            None => all.push(made),
        }
    }
    let mut status = json!({"conditions": all, "desiredReplicas": numbers.desired});
    if numbers.current > 0 {
        status["currentReplicas"] = numbers.current.into();
    }
    if !numbers.metrics.is_empty() {
        status["currentMetrics"] = numbers.metrics.into();
    }
    let before = autoscaler["status"]["lastScaleTime"].clone();
    let scaled = if numbers.has_scaled {
        json!(at)
    } else {
        before
    };
    if scaled.is_string() {
        status["lastScaleTime"] = scaled;
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_keep_their_time_until_they_turn() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let condition = |is_so: &'static str| vec![("ScalingActive", is_so, "x", String::new())];
        let mut autoscaler = json!({"spec": {}});
        autoscaler["status"] = status(&autoscaler, Numbers::default(), condition("False"), at(0));
        let same = status(&autoscaler, Numbers::default(), condition("False"), at(60));
        assert_eq!(same, autoscaler["status"]);
        let turned = status(&autoscaler, Numbers::default(), condition("True"), at(60));
        assert_eq!(
            turned["conditions"][0]["lastTransitionTime"],
            "1970-01-01T00:01:00Z"
        );
    }

    #[test]
    fn bounds_and_quantities_are_read_and_written_as_upstream_does() {
        assert_eq!(bounds(&json!({"spec": {"maxReplicas": 5}})), (1, 5));
        let limited = limit_condition(None);
        assert_eq!((limited.1, limited.2), ("False", "DesiredWithinRange"));
    }
}
