//! Defaults of what makes pods.

use serde_json::{Map, Value, json};

use super::{pod, storage};
use crate::object::{self, default, inner, map_mut, maps};

/// Counts the changes of a DaemonSet's template, from a time before revisions.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

pub(super) fn deployment(object: &mut Value) {
    let spec = scaled(object);
    default(spec, "revisionHistoryLimit", 10);
    default(spec, "progressDeadlineSeconds", 600);
    if let Some(update) = rolling_update(spec, "strategy") {
        default(update, "maxUnavailable", "25%");
        default(update, "maxSurge", "25%");
    }
}

pub(super) fn replica_set(object: &mut Value) {
    scaled(object);
}

pub(super) fn daemon_set(object: &mut Value) {
    let spec = spec(object);
    default(spec, "revisionHistoryLimit", 10);
    if let Some(update) = rolling_update(spec, "updateStrategy") {
        default(update, "maxUnavailable", 1);
        default(update, "maxSurge", 0);
    }
}

/// What counts the changes of the template of a new or changed DaemonSet.
pub(super) fn template_generation(old: Option<&Value>, object: &mut Value) {
    let number = |object: &Value| {
        let text = object::text(object, &["metadata", "annotations", TEMPLATE_GENERATION]);
        text.parse::<u64>().unwrap_or(1)
    };
    let generation = match old {
        None => 1,
        Some(old) if old["spec"]["template"] == object["spec"]["template"] => number(old),
        Some(old) => number(old) + 1,
    };
    let meta = object::meta_mut(object);
    let annotations = meta.entry("annotations").or_insert_with(|| json!({}));
    annotations[TEMPLATE_GENERATION] = generation.to_string().into();
}

pub(super) fn stateful_set(object: &mut Value) {
    let spec = scaled(object);
    default(spec, "podManagementPolicy", "OrderedReady");
    default(spec, "revisionHistoryLimit", 10);
    if let Some(update) = rolling_update(spec, "updateStrategy") {
        default(update, "partition", 0);
    }
    let policy = spec.entry("persistentVolumeClaimRetentionPolicy");
    if let Some(policy) = policy.or_insert_with(|| json!({})).as_object_mut() {
        default(policy, "whenDeleted", "Retain");
        default(policy, "whenScaled", "Retain");
    }
    for claim in maps(spec.get_mut("volumeClaimTemplates")) {
        default(claim, "kind", "PersistentVolumeClaim");
        default(claim, "apiVersion", "v1");
        default(claim, "status", json!({"phase": "Pending"}));
        if let Some(spec) = inner(claim, &["spec"]) {
            storage::claim_spec(spec);
        }
    }
}

pub(super) fn replication_controller(object: &mut Value) {
    let labels = template_labels(object);
    let spec = scaled(object);
    if let Some(labels) = labels {
        if spec.get("selector").is_none_or(is_empty) {
            spec.insert("selector".into(), labels.clone());
        }
        take_labels(object, labels);
    }
}

pub(super) fn pod_template(object: &mut Value) {
    if let Some(template) = object.get_mut("template").filter(|one| one.is_object()) {
        pod::apply_template(template);
    }
}

pub(super) fn job(object: &mut Value) {
    let spec = job_spec(object);
    default(spec, "manualSelector", false);
    default(spec, "completionMode", "NonIndexed");
    default(spec, "suspend", false);
    if let Some(labels) = template_labels(object) {
        take_labels(object, labels);
    }
}

/// What both a Job and the template of one in a CronJob get.
fn job_spec(object: &mut Value) -> &mut Map<String, Value> {
    let spec = spec(object);
    if spec.get("parallelism").is_none() {
        default(spec, "completions", 1);
    }
    default(spec, "parallelism", 1);
    // A limit for each index makes the one for all of no account.
    let limit = match spec.get("backoffLimitPerIndex") {
        Some(_) => i32::MAX,
        None => 6,
    };
    default(spec, "backoffLimit", limit);
    let replacement = match spec.get("podFailurePolicy") {
        Some(_) => "Failed",
        None => "TerminatingOrFailed",
    };
    default(spec, "podReplacementPolicy", replacement);
    for rule in maps(
        spec.get_mut("podFailurePolicy")
            .and_then(|policy| policy.get_mut("rules")),
    ) {
        for condition in maps(rule.get_mut("onPodConditions")) {
            default(condition, "status", "True");
        }
    }
    spec
}

/// The labels by which a new Job knows its pods. Needs the object's name and uid.
pub(super) fn job_selector(object: &mut Value) {
    if object["spec"]["manualSelector"] == true {
        return;
    }
    let (uid, name) = (
        object::uid(object).to_owned(),
        object::name(object).to_owned(),
    );
    let own = [
        ("batch.kubernetes.io/controller-uid", uid.as_str()),
        ("batch.kubernetes.io/job-name", name.as_str()),
        ("controller-uid", uid.as_str()),
        ("job-name", name.as_str()),
    ];
    // Labels that were taken from the template are the template's, which upstream then adds to.
    let own_labels = &object["metadata"]["labels"];
    let is_shared =
        is_empty(own_labels) || template_labels(object).is_some_and(|one| one == *own_labels);
    let spec = map_mut(object, "spec");
    let template = spec.entry("template").or_insert_with(|| json!({}));
    let labels = map_mut(object::ensure_at(template, "metadata"), "labels");
    for (name, value) in own {
        labels.insert(name.into(), value.into());
    }
    let labels = Value::from(labels.clone());
    let selector = map_mut(
        object::ensure_at(&mut object["spec"], "selector"),
        "matchLabels",
    );
    selector.insert(own[0].0.into(), own[0].1.into());
    if is_shared {
        object::meta_mut(object).insert("labels".into(), labels);
    }
}

pub(super) fn cron_job(object: &mut Value) {
    let spec = map_mut(object, "spec");
    default(spec, "concurrencyPolicy", "Allow");
    default(spec, "suspend", false);
    default(spec, "successfulJobsHistoryLimit", 3);
    default(spec, "failedJobsHistoryLimit", 1);
    // The Jobs are completed when they are made; their pods already here.
    let template = object::at(object, &["spec", "jobTemplate", "spec", "template"]);
    let has_template = template.is_some_and(Value::is_object);
    if let Some(template) = inner(map_mut(object, "spec"), &["jobTemplate"]) {
        default(template, "metadata", json!({}));
    }
    if has_template {
        pod::apply_template(&mut object["spec"]["jobTemplate"]["spec"]["template"]);
    }
}

fn is_empty(map: &Value) -> bool {
    map.as_object().is_none_or(Map::is_empty)
}

fn template_labels(object: &Value) -> Option<Value> {
    let labels = object::at(object, &["spec", "template", "metadata", "labels"])?;
    Some(labels.clone()).filter(|labels| !is_empty(labels))
}

/// An object without labels gets those of its template.
fn take_labels(object: &mut Value, labels: Value) {
    let meta = object::meta_mut(object);
    if meta.get("labels").is_none_or(is_empty) {
        meta.insert("labels".into(), labels);
    }
}

/// The parameters of a rolling update, if the strategy is one.
fn rolling_update<'a>(
    spec: &'a mut Map<String, Value>,
    strategy: &str,
) -> Option<&'a mut Map<String, Value>> {
    let strategy = spec.entry(strategy).or_insert_with(|| json!({}));
    let strategy = strategy.as_object_mut()?;
    if strategy.get("type").is_some_and(|kind| kind == "") {
        strategy.remove("type");
    }
    default(strategy, "type", "RollingUpdate");
    if strategy.get("type")? != "RollingUpdate" {
        return None;
    }
    let update = strategy.entry("rollingUpdate").or_insert_with(|| json!({}));
    update.as_object_mut()
}

fn scaled(object: &mut Value) -> &mut Map<String, Value> {
    let spec = spec(object);
    default(spec, "replicas", 1);
    spec
}

fn spec(object: &mut Value) -> &mut Map<String, Value> {
    let spec = map_mut(object, "spec");
    if let Some(template) = spec.get_mut("template").filter(|one| one.is_object()) {
        pod::apply_template(template);
    }
    spec
}
