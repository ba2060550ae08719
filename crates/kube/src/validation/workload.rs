//! The rules of Deployments and ReplicaSets.

use serde_json::{Value, json};

use super::pod;
use crate::label_selector;
use crate::object;
use crate::rollout::Bound;
use crate::status::Cause;

const NOT_NEGATIVE: &str = "must be greater than or equal to 0";

pub(super) fn deployment(object: &Value) -> Vec<Cause> {
    let mut causes = common(object, "deployment");
    let spec = &object["spec"];
    causes.extend(strategy(&spec["strategy"]));
    let deadline = spec["progressDeadlineSeconds"].as_i64();
    if deadline.is_some_and(|deadline| deadline <= spec["minReadySeconds"].as_i64().unwrap_or(0)) {
        let (field, why) = (
            "spec.progressDeadlineSeconds",
            "must be greater than minReadySeconds",
        );
        causes.push(Cause::invalid(field, &spec["progressDeadlineSeconds"], why));
    }
    causes
}

pub(super) fn replica_set(object: &Value) -> Vec<Cause> {
    common(object, "replicaset")
}

pub(super) fn daemon_set(object: &Value) -> Vec<Cause> {
    let mut causes = common(object, "daemonset");
    let kinds = ["OnDelete", "RollingUpdate"];
    causes.extend(update_type(&object["spec"], &kinds));
    causes
}

pub(super) fn stateful_set(object: &Value) -> Vec<Cause> {
    let mut causes = common(object, "statefulset");
    let spec = &object["spec"];
    causes.extend(update_type(spec, &["OnDelete", "RollingUpdate"]));
    let policies = ["OrderedReady", "Parallel"];
    let policy = object::text(spec, &["podManagementPolicy"]);
    if !policies.contains(&policy) {
        let (field, why) = (
            "spec.podManagementPolicy",
            "must be 'OrderedReady' or 'Parallel'",
        );
        causes.push(Cause::invalid(field, &json!(policy), why));
    }
    causes
}

/// What a StatefulSet may change, as upstream lists it.
const CHANGEABLE: [&str; 7] = [
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
];

pub(super) fn stateful_set_change(old: &Value, new: &Value) -> Option<Cause> {
    let fixed = |set: &Value| {
        let mut spec = set["spec"].clone();
        if let Some(map) = spec.as_object_mut() {
            map.retain(|field, _| !CHANGEABLE.contains(&field.as_str()));
        }
        spec
    };
    let why = "updates to statefulset spec for fields other than 'replicas', 'ordinals', \
               'template', 'updateStrategy', 'revisionHistoryLimit', \
               'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";
    (fixed(old) != fixed(new)).then(|| Cause::forbidden("spec", why))
}

fn update_type(spec: &Value, kinds: &[&str]) -> Option<Cause> {
    let kind = object::text(spec, &["updateStrategy", "type"]);
    let field = "spec.updateStrategy.type";
    (!kinds.contains(&kind)).then(|| Cause::not_supported(field, &json!(kind), kinds))
}

/// A ReplicationController's selector is labels only, and its template may be missing.
pub(super) fn replication_controller(object: &Value) -> Vec<Cause> {
    let mut object = object.clone();
    let selector = object["spec"]["selector"].take();
    let mut causes = Vec::new();
    if selector.as_object().is_none_or(serde_json::Map::is_empty) {
        causes.push(Cause::required("spec.selector", ""));
        if object["spec"]["template"].is_null() {
            causes.push(Cause::required("spec.template", ""));
        }
        return causes;
    }
    object["spec"]["selector"] = json!({ "matchLabels": selector });
    if object["spec"]["template"].is_null() {
        causes.push(Cause::required("spec.template", ""));
        return causes;
    }
    causes.extend(common(&object, "replicationcontroller"));
    causes
}

/// What both have: a number, a selector, and a template that the selector selects.
fn common(object: &Value, kind: &str) -> Vec<Cause> {
    let spec = &object["spec"];
    let mut causes = Vec::new();
    for field in ["replicas", "minReadySeconds", "revisionHistoryLimit"] {
        if let Some(number) = spec.get(field).filter(|one| one.as_i64() < Some(0)) {
            causes.push(Cause::invalid(
                format!("spec.{field}"),
                number,
                NOT_NEGATIVE,
            ));
        }
    }
    let selector = &spec["selector"];
    if selector.is_null() {
        // Upstream tells of a DaemonSet only that nothing is selected.
        if kind != "daemonset" {
            causes.push(Cause::required("spec.selector", ""));
        }
    } else if label_selector::is_empty(selector) {
        let why = format!("empty selector is invalid for {kind}");
        causes.push(Cause::invalid("spec.selector", selector, &why));
    }
    let faults = label_selector::faults(selector, "spec.selector");
    let is_sound = faults.is_empty();
    causes.extend(faults);
    let template = &spec["template"];
    let labels = &template["metadata"]["labels"];
    if is_sound && (selector.is_null() || !label_selector::matches(selector, labels)) {
        let why = "`selector` does not match template `labels`";
        causes.push(Cause::invalid("spec.template.metadata.labels", labels, why));
    }
    let inner = super::metadata(template)
        .into_iter()
        .chain(pod::spec(template));
    causes.extend(inner.map(|mut cause| {
        cause.field = format!("spec.template.{}", cause.field);
        cause
    }));
    let policy = object::text(template, &["spec", "restartPolicy"]);
    if matches!(policy, "OnFailure" | "Never") {
        let field = "spec.template.spec.restartPolicy";
        causes.push(Cause::not_supported(field, &json!(policy), &["Always"]));
    }
    causes
}

/// A template that is nobody's yet.
pub(super) fn pod_template(object: &Value) -> Vec<Cause> {
    let template = &object["template"];
    let inner = super::metadata(template)
        .into_iter()
        .chain(pod::spec(template));
    let told = inner.map(|mut cause| {
        cause.field = format!("template.{}", cause.field);
        cause
    });
    told.collect()
}

fn strategy(strategy: &Value) -> Vec<Cause> {
    let update = &strategy["rollingUpdate"];
    match object::text(strategy, &["type"]) {
        "RollingUpdate" => rolling_update(update),
        "Recreate" if update.is_null() => Vec::new(),
        "Recreate" => {
            let why = "may not be specified when strategy `type` is 'Recreate'";
            vec![Cause::forbidden("spec.strategy.rollingUpdate", why)]
        }
        other => {
            let supported = ["Recreate", "RollingUpdate"];
            let field = "spec.strategy.type";
            vec![Cause::not_supported(field, &json!(other), &supported)]
        }
    }
}

fn rolling_update(update: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    for field in ["maxUnavailable", "maxSurge"] {
        let path = format!("spec.strategy.rollingUpdate.{field}");
        match Bound::parse(&update[field]) {
            Some(Bound::Percent(percent)) if field == "maxUnavailable" && percent > 100 => {
                let why = "must not be greater than 100%";
                causes.push(Cause::invalid(path, &update[field], why));
            }
            Some(_) => {}
            None if update[field].is_i64() => {
                causes.push(Cause::invalid(path, &update[field], NOT_NEGATIVE));
            }
            None => {
                let why = "a valid percent string must be a numeric string followed by an ending \
                           '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')";
                causes.push(Cause::invalid(path, &update[field], why));
            }
        }
    }
    let is_zero = |field: &str| Bound::parse(&update[field]).is_some_and(Bound::is_zero);
    if is_zero("maxUnavailable") && is_zero("maxSurge") {
        let path = "spec.strategy.rollingUpdate.maxUnavailable";
        let why = "may not be 0 when `maxSurge` is 0";
        causes.push(Cause::invalid(path, &update["maxUnavailable"], why));
    }
    causes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Value {
        json!({"metadata": {"name": "web"}, "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"app": "web"}},
            "strategy": {"type": "RollingUpdate",
                "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 0}},
            "template": {"metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "c", "image": "i"}]}},
        }})
    }

    fn fields(object: &Value) -> Vec<String> {
        let causes = deployment(object).into_iter();
        causes.map(|cause| cause.field).collect()
    }

    #[test]
    fn a_good_deployment_passes_and_each_mistake_is_told_where_it_is() {
        assert_eq!(fields(&sample()), [""; 0]);
        let mut wrong = sample();
        wrong["spec"]["replicas"] = json!(-1);
        assert_eq!(fields(&wrong), ["spec.replicas"]);
        let mut wrong = sample();
        wrong["spec"]["template"]["metadata"]["labels"] = json!({"app": "other"});
        assert_eq!(fields(&wrong), ["spec.template.metadata.labels"]);
        let mut wrong = sample();
        wrong["spec"]["template"]["spec"] =
            json!({"restartPolicy": "Never", "containers": [{"name": "c"}]});
        let expected = [
            "spec.template.spec.containers[0].image",
            "spec.template.spec.restartPolicy",
        ];
        assert_eq!(fields(&wrong), expected);
        let mut wrong = sample();
        wrong["spec"]["strategy"]["rollingUpdate"]["maxSurge"] = json!("0%");
        let expected = ["spec.strategy.rollingUpdate.maxUnavailable"];
        assert_eq!(fields(&wrong), expected);
        let mut wrong = sample();
        wrong["spec"]["selector"] = json!({});
        assert_eq!(fields(&wrong), ["spec.selector"]);
        let expected = [
            "spec.selector",
            "spec.template.metadata.labels",
            "spec.template.spec.containers",
        ];
        let empty = json!({"spec": {"strategy": sample()["spec"]["strategy"]}});
        assert_eq!(fields(&empty), expected);
    }
}
