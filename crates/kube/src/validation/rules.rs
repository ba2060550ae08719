//! The rules of the kinds, as one finds them: a good object passes, and each mistake is told where
//! it is in upstream's words.

use serde_json::{Value, json};

use super::{on_create, on_update};
use crate::api::Part;
use crate::defaults;
use crate::resource::{
    API_SERVICES, CLUSTER_ROLE_BINDINGS, CLUSTER_ROLES, CRON_JOBS, DAEMON_SETS,
    HORIZONTAL_POD_AUTOSCALERS, INGRESSES, JOBS, LEASES, MUTATING_WEBHOOK_CONFIGURATIONS,
    NETWORK_POLICIES, PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, POD_DISRUPTION_BUDGETS,
    PRIORITY_CLASSES, REPLICATION_CONTROLLERS, RESOURCE_QUOTAS, ROLE_BINDINGS, ROLES,
    RUNTIME_CLASSES, Resource, STATEFUL_SETS, STORAGE_CLASSES,
};
use crate::status::Cause;

fn told(causes: Vec<Cause>) -> Vec<String> {
    let told = causes.into_iter();
    told.map(|cause| format!("{}: {}", cause.field, cause.message))
        .collect()
}

fn completed(resource: &Resource, mut object: Value) -> Value {
    defaults::complete(resource, &mut object);
    object
}

/// Sets what a JSON pointer leads to; null takes it away.
fn set(object: &mut Value, at: &str, value: Value) {
    let (outer, field) = at.rsplit_once('/').expect("a pointer");
    let outer = object.pointer_mut(outer).expect("something there");
    match (outer, value) {
        (Value::Object(map), Value::Null) => drop(map.remove(field)),
        (outer, value) => outer[field] = value,
    }
}

/// A good object passes; each of the changes is told, beginning with these words.
fn tell(resource: &Resource, good: Value, mistakes: &[(&str, Value, &str)]) {
    assert_eq!(
        told(on_create(resource, &completed(resource, good.clone()))),
        [""; 0],
        "{}",
        resource.plural
    );
    for (at, value, expected) in mistakes {
        let mut object = good.clone();
        set(&mut object, at, value.clone());
        let found = told(on_create(resource, &completed(resource, object)));
        let first = found.first().map(String::as_str).unwrap_or_default();
        let plural = resource.plural;
        assert!(
            first.starts_with(expected),
            "{plural} {at} {value}: {found:?}"
        );
    }
}

/// What may not change is told, beginning with these words.
fn tell_changes(resource: &Resource, good: Value, changes: &[(&str, Value, &str)]) {
    let old = completed(resource, good);
    for (at, value, expected) in changes {
        let mut new = old.clone();
        set(&mut new, at, value.clone());
        let found = told(on_update(resource, Part::Object, &old, &new));
        let first = found.first().map(String::as_str).unwrap_or_default();
        let plural = resource.plural;
        let same = first.starts_with(expected) && expected.is_empty() == first.is_empty();
        assert!(same, "{plural} {at} {value}: {found:?}");
    }
}

#[test]
fn roles() {
    let role = json!({"metadata": {"name": "r"}, "rules": [
        {"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]});
    let mistakes = [
        (
            "/rules/0/verbs",
            json!([]),
            "rules[0].verbs: Required value: verbs must contain",
        ),
        (
            "/rules/0/apiGroups",
            json!([]),
            "rules[0].apiGroups: Required value: resource rules",
        ),
        (
            "/rules/0/resources",
            Value::Null,
            "rules[0].resources: Required value: resource rules",
        ),
        (
            "/rules/0/nonResourceURLs",
            json!(["/x"]),
            "rules[0].nonResourceURLs: Invalid value",
        ),
    ];
    tell(&ROLES, role.clone(), &mistakes);
    tell(&CLUSTER_ROLES, role, &mistakes);
    let urls = json!({"metadata": {"name": "r"}, "rules": [
        {"verbs": ["get"], "nonResourceURLs": ["/x"]}]});
    tell(&CLUSTER_ROLES, urls, &[]);
}

#[test]
fn bindings() {
    let binding = json!({"metadata": {"name": "b"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "r"},
        "subjects": [{"kind": "ServiceAccount", "name": "a", "namespace": "n"}]});
    let mistakes = [
        ("/roleRef/name", json!(""), "roleRef.name: Required value"),
        (
            "/roleRef/kind",
            json!("Rule"),
            "roleRef.kind: Unsupported value: \"Rule\"",
        ),
        (
            "/roleRef/apiGroup",
            json!("x"),
            "roleRef.apiGroup: Unsupported value: \"x\"",
        ),
        (
            "/subjects/0/name",
            json!(""),
            "subjects[0].name: Required value",
        ),
        (
            "/subjects/0/kind",
            json!("Robot"),
            "subjects[0].kind: Unsupported value: \"Robot\"",
        ),
        (
            "/subjects/0/apiGroup",
            json!("x"),
            "subjects[0].apiGroup: Unsupported value: \"x\"",
        ),
    ];
    tell(&ROLE_BINDINGS, binding.clone(), &mistakes);
    tell(&CLUSTER_ROLE_BINDINGS, binding.clone(), &mistakes);
    let mistakes = [
        (
            "/subjects/0/namespace",
            Value::Null,
            "subjects[0].namespace: Required value",
        ),
        (
            "/roleRef/kind",
            json!("Role"),
            "roleRef.kind: Unsupported value: \"Role\"",
        ),
    ];
    tell(&CLUSTER_ROLE_BINDINGS, binding.clone(), &mistakes);
    let change = [("/roleRef/name", json!("x"), "roleRef: Invalid value")];
    tell_changes(&ROLE_BINDINGS, binding, &change);
}

fn template() -> Value {
    json!({"metadata": {"labels": {"a": "b"}}, "spec": {"restartPolicy": "Never",
        "containers": [{"name": "c", "image": "i", "imagePullPolicy": "Always",
            "terminationMessagePolicy": "File"}]}})
}

#[test]
fn jobs() {
    let good = json!({"metadata": {"name": "j"}, "spec": {
        "selector": {"matchLabels": {"a": "b"}}, "template": template()}});
    let mistakes = [
        (
            "/spec/parallelism",
            json!(-1),
            "spec.parallelism: Invalid value: -1: must be greater",
        ),
        (
            "/spec/backoffLimit",
            json!(-1),
            "spec.backoffLimit: Invalid value: -1",
        ),
        (
            "/spec/completionMode",
            json!("Some"),
            "spec.completionMode: Unsupported value",
        ),
        (
            "/spec/completionMode",
            json!("Indexed"),
            "spec.completions: Required value: when",
        ),
        (
            "/spec/selector",
            Value::Null,
            "spec.selector: Required value",
        ),
        (
            "/spec/template/spec/restartPolicy",
            json!("Always"),
            "spec.template.spec.restartPolicy: Required value: valid values",
        ),
        (
            "/spec/template/spec/containers/0/name",
            json!(""),
            "spec.template.spec.containers[0].name: Required value",
        ),
    ];
    let mut indexed = good.clone();
    indexed["spec"]["completions"] = 1.into();
    indexed["spec"]["completionMode"] = "Indexed".into();
    tell(&JOBS, indexed, &[]);
    // Completions are filled in where nothing is said of them, so it is told only here.
    let mistakes: Vec<_> = mistakes
        .into_iter()
        .filter(|one| one.1 != "Indexed")
        .collect();
    tell(&JOBS, good.clone(), &mistakes);
    let fixed = "spec.template: Invalid value";
    tell_changes(
        &JOBS,
        good,
        &[
            (
                "/spec/selector",
                json!({"matchLabels": {"x": "y"}}),
                "spec.selector: Invalid value",
            ),
            ("/spec/template/metadata/labels", json!({"a": "c"}), fixed),
            ("/spec/parallelism", json!(7), ""),
        ],
    );
}

#[test]
fn cron_jobs() {
    let good = json!({"metadata": {"name": "c"}, "spec": {"schedule": "*/5 * * * *",
        "jobTemplate": {"spec": {"template": template()}}}});
    let schedule = "spec.schedule: Invalid value";
    tell(
        &CRON_JOBS,
        good,
        &[
            (
                "/metadata/name",
                json!("c".repeat(53)),
                "metadata.name: Invalid value",
            ),
            ("/spec/schedule", json!(""), "spec.schedule: Required value"),
            ("/spec/schedule", json!("* * *"), schedule),
            ("/spec/schedule", json!("@sometimes"), schedule),
            ("/spec/schedule", json!("TZ=UTC * * * * *"), schedule),
            (
                "/spec/concurrencyPolicy",
                json!("Some"),
                "spec.concurrencyPolicy: Unsupported",
            ),
            (
                "/spec/timeZone",
                json!(""),
                "spec.timeZone: Invalid value: \"\": timeZone must be",
            ),
            (
                "/spec/timeZone",
                json!("Local"),
                "spec.timeZone: Invalid value: \"Local\"",
            ),
            (
                "/spec/timeZone",
                json!("No/Where"),
                "spec.timeZone: Invalid value: \"No/Where\"",
            ),
            (
                "/spec/startingDeadlineSeconds",
                json!(-1),
                "spec.startingDeadlineSeconds: Invalid",
            ),
        ],
    );
}

#[test]
fn claims() {
    let claim = json!({"metadata": {"name": "c"}, "spec": {"accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}}, "storageClassName": "fast"}});
    tell(
        &PERSISTENT_VOLUME_CLAIMS,
        claim.clone(),
        &[
            (
                "/spec/accessModes",
                json!([]),
                "spec.accessModes: Required value: at least 1",
            ),
            (
                "/spec/accessModes",
                json!(["Some"]),
                "spec.accessModes: Unsupported value: \"Some\"",
            ),
            (
                "/spec/accessModes",
                json!(["ReadWriteOncePod", "ReadWriteOnce"]),
                "spec.accessModes: Forbidden: may not use ReadWriteOncePod with other",
            ),
            (
                "/spec/resources/requests",
                json!({}),
                "spec.resources[storage]: Required value",
            ),
            (
                "/spec/resources/requests/storage",
                json!("0"),
                "spec.resources[storage]: Invalid value: \"0\": must be greater than zero",
            ),
            (
                "/spec/storageClassName",
                json!("No_"),
                "spec.storageClassName: Invalid value",
            ),
        ],
    );
    let shrinks = "spec.resources.requests.storage: Forbidden: field can not be less";
    tell_changes(
        &PERSISTENT_VOLUME_CLAIMS,
        claim,
        &[
            (
                "/spec/storageClassName",
                json!("slow"),
                "spec: Forbidden: spec is immutable",
            ),
            ("/spec/resources/requests/storage", json!("1Mi"), shrinks),
            ("/spec/resources/requests/storage", json!("2Gi"), ""),
            ("/spec/volumeName", json!("v"), ""),
        ],
    );
}

#[test]
fn volumes() {
    let volume = json!({"metadata": {"name": "v"}, "spec": {"accessModes": ["ReadWriteOnce"],
        "capacity": {"storage": "1Gi"}, "csi": {"driver": "d", "volumeHandle": "h"}}});
    tell(
        &PERSISTENT_VOLUMES,
        volume.clone(),
        &[
            (
                "/spec/capacity",
                Value::Null,
                "spec.capacity: Required value",
            ),
            (
                "/spec/csi",
                Value::Null,
                "spec: Required value: must specify a volume type",
            ),
            (
                "/spec/nfs",
                json!({"server": "s", "path": "/"}),
                "spec.nfs: Forbidden: may not",
            ),
            (
                "/spec/persistentVolumeReclaimPolicy",
                json!("Some"),
                "spec.persistentVolumeReclaimPolicy: Unsupported value",
            ),
        ],
    );
    let source = "spec.persistentvolumesource: Forbidden";
    tell_changes(
        &PERSISTENT_VOLUMES,
        volume,
        &[
            ("/spec/csi/driver", json!("e"), source),
            (
                "/spec/volumeMode",
                json!("Block"),
                "spec.volumeMode: Invalid value",
            ),
        ],
    );
}

#[test]
fn storage_classes() {
    let class = json!({"metadata": {"name": "c"}, "provisioner": "example.com/p"});
    tell(
        &STORAGE_CLASSES,
        class.clone(),
        &[
            ("/provisioner", json!(""), "provisioner: Required value"),
            (
                "/reclaimPolicy",
                json!("Some"),
                "reclaimPolicy: Unsupported value",
            ),
            (
                "/volumeBindingMode",
                json!("Some"),
                "volumeBindingMode: Unsupported value",
            ),
        ],
    );
    tell_changes(
        &STORAGE_CLASSES,
        class,
        &[
            (
                "/parameters",
                json!({"a": "b"}),
                "parameters: Forbidden: updates to parameters",
            ),
            (
                "/provisioner",
                json!("x"),
                "provisioner: Forbidden: updates to provisioner",
            ),
            (
                "/reclaimPolicy",
                json!("Retain"),
                "reclaimPolicy: Forbidden",
            ),
            (
                "/volumeBindingMode",
                json!("WaitForFirstConsumer"),
                "volumeBindingMode: Invalid",
            ),
        ],
    );
}

#[test]
fn budgets() {
    tell(
        &POD_DISRUPTION_BUDGETS,
        json!({"metadata": {"name": "b"}, "spec": {"minAvailable": 1,
            "selector": {"matchLabels": {"a": "b"}}}}),
        &[
            ("/spec/maxUnavailable", json!(1), "spec: Invalid value"),
            (
                "/spec/minAvailable",
                json!(-1),
                "spec.minAvailable: Invalid value: -1",
            ),
            (
                "/spec/minAvailable",
                json!("1"),
                "spec.minAvailable: Invalid value: \"1\": a valid",
            ),
            (
                "/spec/minAvailable",
                json!("101%"),
                "spec.minAvailable: Invalid value: \"101%\"",
            ),
        ],
    );
}

#[test]
fn autoscalers() {
    tell(
        &HORIZONTAL_POD_AUTOSCALERS,
        json!({"metadata": {"name": "h"}, "spec": {"maxReplicas": 3,
            "scaleTargetRef": {"kind": "Deployment", "name": "d", "apiVersion": "apps/v1"}}}),
        &[
            (
                "/spec/scaleTargetRef/kind",
                json!(""),
                "spec.scaleTargetRef.kind: Required value",
            ),
            (
                "/spec/scaleTargetRef/name",
                json!("a/b"),
                "spec.scaleTargetRef.name: Invalid value",
            ),
            (
                "/spec/minReplicas",
                json!(0),
                "spec.minReplicas: Invalid value: 0",
            ),
            (
                "/spec/maxReplicas",
                json!(0),
                "spec.maxReplicas: Required value: must be set and greater than 0",
            ),
            (
                "/spec/minReplicas",
                json!(4),
                "spec.maxReplicas: Invalid value: 3: must be greater",
            ),
        ],
    );
}

#[test]
fn priority_classes() {
    let class = json!({"metadata": {"name": "p"}, "value": 10});
    tell(
        &PRIORITY_CLASSES,
        class.clone(),
        &[
            (
                "/metadata/name",
                json!("system-x"),
                "metadata.name: Forbidden: priority class names",
            ),
            (
                "/value",
                json!(1_000_000_001),
                "value: Forbidden: maximum allowed value",
            ),
            (
                "/preemptionPolicy",
                json!("Some"),
                "preemptionPolicy: Unsupported value",
            ),
        ],
    );
    tell_changes(
        &PRIORITY_CLASSES,
        class,
        &[
            (
                "/value",
                json!(11),
                "value: Forbidden: may not be changed in an update.",
            ),
            (
                "/preemptionPolicy",
                json!("Never"),
                "preemptionPolicy: Invalid value",
            ),
            ("/description", json!("d"), ""),
        ],
    );
}

#[test]
fn quotas_and_services_of_apis() {
    tell(
        &RESOURCE_QUOTAS,
        json!({"metadata": {"name": "q"}, "spec": {"hard": {"pods": "1"}}}),
        &[
            (
                "/spec/hard/pods",
                json!("-1"),
                "spec.hard[pods]: Invalid value: \"-1\"",
            ),
            (
                "/spec/hard/no way",
                json!("1"),
                "spec.hard[no way]: Invalid value: \"no way\"",
            ),
        ],
    );
    tell(
        &API_SERVICES,
        json!({"metadata": {"name": "v1.g"}, "spec": {"group": "g", "version": "v1",
            "groupPriorityMinimum": 1, "versionPriority": 1}}),
        &[
            (
                "/metadata/name",
                json!("v1"),
                "metadata.name: Invalid value: \"v1\": must be",
            ),
            (
                "/spec/versionPriority",
                json!(0),
                "spec.versionPriority: Invalid value: 0",
            ),
            (
                "/spec/groupPriorityMinimum",
                json!(20_001),
                "spec.groupPriorityMinimum: Invalid",
            ),
        ],
    );
    tell(
        &RUNTIME_CLASSES,
        json!({"metadata": {"name": "r"}, "handler": "h"}),
        &[("/handler", json!("H_"), "handler: Invalid value: \"H_\"")],
    );
    tell(
        &LEASES,
        json!({"metadata": {"name": "l"}, "spec": {"leaseDurationSeconds": 1}}),
        &[(
            "/spec/leaseDurationSeconds",
            json!(0),
            "spec.leaseDurationSeconds: Invalid value: 0",
        )],
    );
}

#[test]
fn networks() {
    let backend = || json!({"service": {"name": "s", "port": {"number": 80}}});
    let good = json!({"metadata": {"name": "i"}, "spec": {"rules": [{"host": "a.example.org",
        "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend()}]}}]}});
    let path = "spec.rules[0].http.paths[0]";
    let expected = [
        format!("{path}.pathType: Required value"),
        format!("{path}.pathType: Unsupported value: \"Some\""),
        format!("{path}.path: Invalid value: \"x\": must be an absolute path"),
        format!("{path}.backend: Required value: resource or service backend"),
        format!("{path}.backend.service.name: Required value"),
        format!("{path}.backend: Required value: port name or number"),
        format!("{path}.backend: Invalid value: \"\": cannot set both port name"),
    ];
    let at = |field: &str| format!("/spec/rules/0/http/paths/0/{field}");
    let changes = [
        (at("pathType"), Value::Null),
        (at("pathType"), json!("Some")),
        (at("path"), json!("x")),
        (at("backend"), json!({})),
        (at("backend/service/name"), json!("")),
        (at("backend/service/port"), json!({})),
        (at("backend/service/port/name"), json!("http")),
    ];
    let mistakes: Vec<_> = changes
        .iter()
        .zip(&expected)
        .map(|((at, value), expected)| (at.as_str(), value.clone(), expected.as_str()))
        .collect();
    tell(&INGRESSES, good.clone(), &mistakes);
    tell(
        &INGRESSES,
        good,
        &[
            ("/spec/rules", json!([]), "spec: Invalid value"),
            (
                "/spec/rules/0/host",
                json!("A_"),
                "spec.rules[0].host: Invalid value: \"A_\"",
            ),
        ],
    );
    tell(
        &NETWORK_POLICIES,
        json!({"metadata": {"name": "n"}, "spec": {"podSelector": {}}}),
        &[(
            "/spec/policyTypes",
            json!(["Some"]),
            "spec.policyTypes[0]: Unsupported value",
        )],
    );
}

#[test]
fn webhooks() {
    let good = json!({"metadata": {"name": "w"}, "webhooks": [{"name": "a.example.org",
        "clientConfig": {"url": "https://localhost/x"}, "sideEffects": "None",
        "admissionReviewVersions": ["v1"]}]});
    tell(
        &MUTATING_WEBHOOK_CONFIGURATIONS,
        good,
        &[
            (
                "/webhooks/0/name",
                json!("a"),
                "webhooks[0].name: Invalid value: \"a\": should be",
            ),
            (
                "/webhooks/0/admissionReviewVersions",
                json!([]),
                "webhooks[0].admissionReviewVersions: Required value: must specify one of",
            ),
            (
                "/webhooks/0/admissionReviewVersions",
                json!(["v2"]),
                "webhooks[0].admissionReviewVersions: Invalid value",
            ),
            (
                "/webhooks/0/sideEffects",
                json!(""),
                "webhooks[0].sideEffects: Required value",
            ),
            (
                "/webhooks/0/sideEffects",
                json!("Some"),
                "webhooks[0].sideEffects: Unsupported",
            ),
            (
                "/webhooks/0/timeoutSeconds",
                json!(31),
                "webhooks[0].timeoutSeconds: Invalid value",
            ),
            (
                "/webhooks/0/clientConfig",
                json!({}),
                "webhooks[0].clientConfig: Required value",
            ),
        ],
    );
}

#[test]
fn workloads() {
    let mut always = template();
    always["spec"]["restartPolicy"] = "Always".into();
    let good = |more: Value| {
        let mut object = json!({"metadata": {"name": "w"}, "spec": {"template": always,
            "selector": {"matchLabels": {"a": "b"}}}});
        for (field, value) in more.as_object().into_iter().flatten() {
            object["spec"][field] = value.clone();
        }
        object
    };
    let labels = "spec.template.metadata.labels: Invalid value";
    let common = [
        ("/spec/selector", json!({"matchLabels": {"x": "y"}}), labels),
        (
            "/spec/template/spec/restartPolicy",
            json!("Never"),
            "spec.template.spec.restartPolicy: Unsupported value: \"Never\"",
        ),
        (
            "/spec/revisionHistoryLimit",
            json!(-1),
            "spec.revisionHistoryLimit: Invalid value: -1",
        ),
        (
            "/spec/updateStrategy",
            json!({"type": "Some"}),
            "spec.updateStrategy.type: Unsupported value: \"Some\"",
        ),
    ];
    tell(&DAEMON_SETS, good(json!({})), &common);
    let stateful = good(json!({"serviceName": "s"}));
    tell(&STATEFUL_SETS, stateful.clone(), &common);
    tell(
        &STATEFUL_SETS,
        stateful.clone(),
        &[(
            "/spec/podManagementPolicy",
            json!("Some"),
            "spec.podManagementPolicy: Invalid value",
        )],
    );
    tell_changes(
        &STATEFUL_SETS,
        stateful,
        &[
            (
                "/spec/serviceName",
                json!("t"),
                "spec: Forbidden: updates to statefulset spec",
            ),
            ("/spec/replicas", json!(5), ""),
        ],
    );
    let controller = good(json!({"selector": {"a": "b"}}));
    tell(
        &REPLICATION_CONTROLLERS,
        controller,
        &[
            ("/spec/selector", json!({"x": "y"}), labels),
            (
                "/spec/replicas",
                json!(-1),
                "spec.replicas: Invalid value: -1",
            ),
        ],
    );
}
