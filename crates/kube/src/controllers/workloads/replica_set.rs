//! The ReplicaSet controller: as many pods as wanted.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::{is_active, owner, victims};
use crate::api::Api;
use crate::controllers::hands::Hands;
use crate::controllers::queue::Outcome;
use crate::controllers::reconcile::Controller;
use crate::controllers::watches::{Changed, Watches};
use crate::label_selector;
use crate::object;
use crate::resource::{PODS, REPLICA_SETS, Resource};
use crate::status::Status;
use crate::time;

/// Pods made or deleted before the set is looked at again; upstream's number.
const BURST: usize = 500;

/// What a set does with pods.
#[derive(Debug, Default, PartialEq)]
struct Plan {
    create: usize,
    delete: Vec<Value>,
}

/// Decides by the set's own active pods.
fn plan(set: &Value, pods: &[Value]) -> Plan {
    if object::is_terminating(set) {
        return Plan::default();
    }
    let wanted = object::at(set, &["spec", "replicas"]).and_then(Value::as_u64);
    let wanted = usize::try_from(wanted.unwrap_or(0)).unwrap_or(usize::MAX);
    let surplus = pods.len().saturating_sub(wanted).min(BURST);
    let pods: Vec<_> = pods.iter().collect();
    Plan {
        create: wanted.saturating_sub(pods.len()).min(BURST),
        delete: victims::choose(&pods, surplus)
            .into_iter()
            .cloned()
            .collect(),
    }
}

/// The pod that the set's template describes.
fn pod(set: &Value) -> Value {
    let template = &set["spec"]["template"];
    let mut meta = json!({
        "generateName": format!("{}-", object::name(set)),
        "namespace": object::namespace(set),
        "ownerReferences": [owner::reference(set)],
    });
    for field in ["labels", "annotations", "finalizers"] {
        if let Some(value) = object::at(template, &["metadata", field]) {
            meta[field] = value.clone();
        }
    }
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": template["spec"]})
}

/// The set's status, and when a pod that is ready becomes available.
fn status(
    set: &Value,
    pods: &[Value],
    failure: Option<(&str, &str)>,
    now: Timestamp,
) -> (Value, Option<Duration>) {
    let template_labels = &set["spec"]["template"]["metadata"]["labels"];
    let all_labels = json!({"matchLabels": template_labels});
    let min_ready = set["spec"]["minReadySeconds"].as_i64().unwrap_or(0);
    let (mut labeled, mut ready, mut available, mut again) = (0, 0, 0, None);
    for pod in pods {
        if label_selector::matches(&all_labels, &pod["metadata"]["labels"]) {
            labeled += 1;
        }
        if !victims::is_ready(pod) {
            continue;
        }
        ready += 1;
        let since = victims::ready_since(pod).unwrap_or(now);
        let left = (since + SignedDuration::from_secs(min_ready)).duration_since(now);
        match Duration::try_from(left) {
            Ok(left) if min_ready > 0 && !left.is_zero() => {
                again = Some(again.map_or(left, |soonest: Duration| soonest.min(left)));
            }
            Ok(_) | Err(_) => available += 1,
        }
    }
    let generation = set["metadata"]["generation"].clone();
    let mut status = json!({"replicas": pods.len(), "observedGeneration": generation});
    for (field, count) in [
        ("fullyLabeledReplicas", labeled),
        ("readyReplicas", ready),
        ("availableReplicas", available),
    ] {
        // Go leaves zeros out.
        if count > 0 {
            status[field] = count.into();
        }
    }
    if let Some((reason, message)) = failure {
        let present = object::items(set, &["status", "conditions"]).first();
        let since = present.filter(|one| one["reason"] == reason);
        let since = since.map_or(json!(time::seconds(now)), |one| {
            one["lastTransitionTime"].clone()
        });
        status["conditions"] = json!([{"type": "ReplicaFailure", "status": "True",
            "reason": reason, "message": message, "lastTransitionTime": since}]);
    }
    (status, again)
}

pub(in crate::controllers) struct ReplicaSets {
    hands: Hands,
}

impl ReplicaSets {
    pub(in crate::controllers) fn new(api: &Api, watches: &Watches) -> Self {
        let hands = Hands::new(api, watches, "replicaset-controller");
        Self { hands }
    }
}

impl Controller for ReplicaSets {
    const NAME: &'static str = "replicaset";
    const WATCHED: &'static [&'static Resource] = &[&REPLICA_SETS, &PODS];

    fn concerns(&self, changed: &Changed) -> Vec<String> {
        if changed.is(&REPLICA_SETS) {
            return vec![changed.key()];
        }
        if changed.has_controller() {
            return changed.controller_key("ReplicaSet").into_iter().collect();
        }
        let namespace = Some(changed.namespace());
        self.hands.known.keys(&REPLICA_SETS, namespace, |set| {
            changed.is_or_was_selected(&set["spec"]["selector"])
        })
    }

    async fn sync(&self, at: &str) -> Result<Outcome, Status> {
        match self.hands.known.get(&REPLICA_SETS, at) {
            Some(set) => {
                let selector = &set["spec"]["selector"];
                keep(&self.hands, &REPLICA_SETS, &set, selector).await
            }
            None => Ok(Outcome::Done),
        }
    }
}

/// Makes the pods as many as `set` wants: what a ReplicaSet and a ReplicationController have in
/// common.
pub(in crate::controllers) async fn keep(
    hands: &Hands,
    resource: &Resource,
    set: &Value,
    selector: &Value,
) -> Result<Outcome, Status> {
    let mut pods = hands.claim(&PODS, set, selector, is_active).await?;
    pods.retain(is_active);
    let Plan { create, delete } = plan(set, &pods);
    let new = vec![pod(set); create];
    let made = hands.create_pods(set, new.into_iter()).await;
    let mut failure = made.err().map(|error| ("FailedCreate", error));
    let gone = delete.iter().map(|pod| hands.delete_pod(set, pod));
    for gone in futures::future::join_all(gone).await {
        if let Err(error) = gone {
            failure = Some(("FailedDelete", error));
        }
    }
    if let Some((_, error)) = &failure
        && error.is_namespace_terminating()
    {
        return Ok(Outcome::Done);
    }
    let told = failure
        .as_ref()
        .map(|(why, error)| (*why, error.to_string()));
    let told = told.as_ref().map(|(why, message)| (*why, message.as_str()));
    let mut pods = hands.known.owned(&PODS, object::uid(set));
    pods.retain(is_active);
    let (status, again) = status(set, &pods, told, Timestamp::now());
    hands.update_status(resource, set, status).await?;
    Ok(match (failure, again) {
        (Some(_), _) => Outcome::Failed,
        (None, Some(again)) => Outcome::After(again),
        (None, None) => Outcome::Done,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn set(replicas: usize) -> Value {
        json!({"apiVersion": "apps/v1", "kind": "ReplicaSet",
            "metadata": {"name": "web-1", "uid": "u", "generation": 2},
            "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
                "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": []}}}})
    }

    fn pods(count: usize) -> Vec<Value> {
        let make = |index| {
            json!({"metadata": {"name": format!("p{index}"),
            "labels": {"app": "web"}}, "status": {"phase": "Running"}})
        };
        (0..count).map(make).collect()
    }

    proptest! {
        #[test]
        fn a_set_makes_up_the_difference_and_nothing_more(wanted in 0..700usize, are in 0..700usize) {
            let Plan { create, delete } = plan(&set(wanted), &pods(are));
            prop_assert!(create == 0 || delete.is_empty());
            prop_assert!(create.max(delete.len()) <= BURST);
            let then = are + create - delete.len();
            prop_assert!(then == wanted || wanted.abs_diff(are) > BURST);
        }
    }

    #[test]
    fn a_set_that_is_going_leaves_its_pods_alone() {
        let mut set = set(3);
        set["metadata"]["deletionTimestamp"] = "1970-01-01T00:00:00Z".into();
        assert_eq!(plan(&set, &pods(1)), Plan::default());
    }

    #[test]
    fn a_pod_is_available_when_it_has_been_ready_for_long_enough() {
        let mut set = set(2);
        set["spec"]["minReadySeconds"] = 10.into();
        let mut pods = pods(2);
        for (pod, ready) in pods
            .iter_mut()
            .zip(["1970-01-01T00:00:00Z", "1970-01-01T00:00:15Z"])
        {
            pod["status"]["conditions"] = json!([
                {"type": "Ready", "status": "True", "lastTransitionTime": ready}]);
        }
        let now = Timestamp::from_second(20).unwrap();
        let (status, again) = status(&set, &pods, None, now);
        let expected = json!({"replicas": 2, "fullyLabeledReplicas": 2, "readyReplicas": 2,
            "availableReplicas": 1, "observedGeneration": 2});
        assert_eq!(status, expected);
        assert_eq!(again, Some(Duration::from_secs(5)));
    }

    #[test]
    fn pods_are_named_labelled_and_owned_as_upstream_does() {
        let pod = pod(&set(1));
        assert_eq!(pod["metadata"]["generateName"], "web-1-");
        assert_eq!(pod["metadata"]["labels"], json!({"app": "web"}));
        assert!(owner::is_controlled_by(&pod, &set(1)));
    }
}
