//! Defaults of Deployments and ReplicaSets.

use serde_json::{Map, Value, json};

use super::pod;
use crate::object::{default, map_mut};

pub(super) fn deployment(object: &mut Value) {
    let spec = spec(object);
    default(spec, "revisionHistoryLimit", 10);
    default(spec, "progressDeadlineSeconds", 600);
    let strategy = spec.entry("strategy").or_insert_with(|| json!({}));
    let Some(strategy) = strategy.as_object_mut() else {
        return;
    };
    default(strategy, "type", "RollingUpdate");
    if strategy.get("type") == Some(&json!("RollingUpdate")) {
        let update = strategy.entry("rollingUpdate").or_insert_with(|| json!({}));
        if let Some(update) = update.as_object_mut() {
            default(update, "maxUnavailable", "25%");
            default(update, "maxSurge", "25%");
        }
    }
}

pub(super) fn replica_set(object: &mut Value) {
    spec(object);
}

fn spec(object: &mut Value) -> &mut Map<String, Value> {
    let spec = map_mut(object, "spec");
    default(spec, "replicas", 1);
    if let Some(template) = spec.get_mut("template").filter(|one| one.is_object()) {
        pod::apply_template(template);
    }
    spec
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minimal_deployment_gets_what_a_real_server_gives_it() {
        let mut deployment = json!({"spec": {"template": {"spec": {"containers": [
            {"name": "c", "image": "web:1", "resources": {"limits": {"cpu": "1"}}}]}}}});
        super::deployment(&mut deployment);
        let expected = json!({"spec": {
            "replicas": 1, "revisionHistoryLimit": 10, "progressDeadlineSeconds": 600,
            "strategy": {"type": "RollingUpdate",
                "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}},
            "template": {"spec": {
                "containers": [{
                    "name": "c", "image": "web:1", "imagePullPolicy": "IfNotPresent",
                    "resources": {"limits": {"cpu": "1"}},
                    "terminationMessagePath": "/dev/termination-log",
                    "terminationMessagePolicy": "File",
                }],
                "restartPolicy": "Always", "terminationGracePeriodSeconds": 30,
                "dnsPolicy": "ClusterFirst", "securityContext": {},
                "schedulerName": "default-scheduler",
            }},
        }});
        assert_eq!(deployment, expected);
        let mut recreate = json!({"spec": {"strategy": {"type": "Recreate"}}});
        super::deployment(&mut recreate);
        assert_eq!(recreate["spec"]["strategy"], json!({"type": "Recreate"}));
    }
}
