//! The ReplicaSet controller: as many pods as wanted.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::owner::{self, Claim, claim};
use super::{Workloads, is_active, victims};
use crate::api::{DeleteOptions, Deleted};
use crate::controllers::cache::key;
use crate::controllers::events::News;
use crate::controllers::queue::Outcome;
use crate::label_selector;
use crate::object;
use crate::resource::{PODS, REPLICA_SETS};
use crate::status::Status;
use crate::time;

/// Pods made or deleted before the set is looked at again; upstream's number.
const BURST: usize = 500;

/// What a set does with pods.
#[derive(Debug, Default, PartialEq)]
pub(in crate::controllers) struct Plan {
    pub(in crate::controllers) create: usize,
    pub(in crate::controllers) delete: Vec<Value>,
}

/// Decides by the set's own active pods.
pub(in crate::controllers) fn plan(set: &Value, pods: &[Value]) -> Plan {
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
pub(in crate::controllers) fn pod(set: &Value) -> Value {
    let template = &set["spec"]["template"];
    let mut meta = json!({
        "generateName": format!("{}-", object::name(set)),
        "namespace": set["metadata"]["namespace"],
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
pub(in crate::controllers) fn status(
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

pub(super) async fn sync(workloads: &mut Workloads, at: &str) -> Result<Outcome, Status> {
    let Some(set) = workloads.sets.get(at).cloned() else {
        return Ok(Outcome::Done);
    };
    claim_pods(workloads, &set).await?;
    let Plan { create, delete } = plan(&set, &own_pods(workloads, &set));
    let mut failure = None;
    if create > 0
        && let Err(status) = create_pods(workloads, &set, create).await
    {
        if status.is_namespace_terminating() {
            return Ok(Outcome::Done);
        }
        let news = News::warning("FailedCreate", format!("Error creating: {status}"));
        workloads.set_events.tell(&set, news).await;
        failure = Some(("FailedCreate", status.to_string()));
    }
    for pod in delete {
        if let Err(status) = delete_pod(workloads, &set, &pod).await {
            let news = News::warning("FailedDelete", format!("Error deleting: {status}"));
            workloads.set_events.tell(&set, news).await;
            failure = Some(("FailedDelete", status.to_string()));
        }
    }
    let told = failure
        .as_ref()
        .map(|(reason, message)| (*reason, message.as_str()));
    let pods = own_pods(workloads, &set);
    let (status, again) = status(&set, &pods, told, Timestamp::now());
    if status != set["status"] {
        let mut changed = set.clone();
        changed["status"] = status;
        let namespace = object::namespace(&set);
        let written = workloads
            .api
            .update_status(&REPLICA_SETS, namespace, changed)
            .await?;
        workloads.sets.wrote(written);
    }
    Ok(match (failure, again) {
        (Some(_), _) => Outcome::Failed,
        (None, Some(again)) => Outcome::After(again),
        (None, None) => Outcome::Done,
    })
}

fn own_pods(workloads: &Workloads, set: &Value) -> Vec<Value> {
    let within = workloads
        .pods
        .within(object::namespace(set).unwrap_or_default());
    within
        .filter(|pod| is_active(pod) && owner::is_controlled_by(pod, set))
        .cloned()
        .collect()
}

async fn claim_pods(workloads: &mut Workloads, set: &Value) -> Result<(), Status> {
    let namespace = object::namespace(set);
    let within = workloads.pods.within(namespace.unwrap_or_default());
    let changed: Vec<_> = within
        .filter(|pod| is_active(pod))
        .filter_map(|pod| match claim(set, pod) {
            Claim::Adopt => Some(owner::adopted(set, pod)),
            Claim::Release => Some(owner::released(set, pod)),
            Claim::Own | Claim::Leave => None,
        })
        .collect();
    for pod in changed {
        let written = workloads.api.update(&PODS, namespace, pod).await?;
        workloads.pods.wrote(written);
    }
    Ok(())
}

/// One, then two, then four at a time, so that what is refused is refused once and not five
/// hundred times.
async fn create_pods(workloads: &mut Workloads, set: &Value, count: usize) -> Result<(), Status> {
    let namespace = object::namespace(set);
    let (mut left, mut batch) = (count, 1);
    while left > 0 {
        let size = batch.min(left);
        let api = workloads.api.clone();
        let creations = (0..size).map(|_| api.create(&PODS, namespace, pod(set)));
        let mut refusal = None;
        for created in futures::future::join_all(creations).await {
            match created {
                Ok(pod) => {
                    let message = format!("Created pod: {}", object::name(&pod));
                    workloads.pods.wrote(pod);
                    let news = News::normal("SuccessfulCreate", message);
                    workloads.set_events.tell(set, news).await;
                }
                Err(status) => refusal = Some(status),
            }
        }
        if let Some(status) = refusal {
            return Err(status);
        }
        left -= size;
        batch *= 2;
    }
    Ok(())
}

async fn delete_pod(workloads: &mut Workloads, set: &Value, pod: &Value) -> Result<(), Status> {
    let options = DeleteOptions::default().with_uid(object::uid(pod));
    let (namespace, name) = (object::namespace(pod), object::name(pod));
    match workloads.api.delete(&PODS, namespace, name, &options).await {
        Ok(Deleted::Gone(gone)) => workloads.pods.removed(&gone),
        Ok(Deleted::Terminating(pod)) => workloads.pods.wrote(pod),
        // Somebody else deleted it, or made another of its name: the watch tells.
        Err(status) if status.is_not_found() || status.is_conflict() => {
            debug_assert_eq!(
                key(pod),
                format!("{}/{name}", namespace.unwrap_or_default())
            );
            return Ok(());
        }
        Err(status) => return Err(status),
    }
    let news = News::normal("SuccessfulDelete", format!("Deleted pod: {name}"));
    workloads.set_events.tell(set, news).await;
    Ok(())
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
