//! Pods against the levels, with upstream's texts.

use serde_json::json;

use super::*;

fn told(level: Level, pod: &Value) -> String {
    let policy = Policy { level, minor: None };
    text(&violations(&policy, &Pod::new(pod)))
}

#[test]
fn a_plain_pod_is_fine_by_baseline_and_not_by_restricted() {
    let pod = json!({"spec": {"containers": [{"name": "c", "image": "i"}]}});
    assert_eq!(told(Level::Baseline, &pod), "");
    assert_eq!(
        told(Level::Restricted, &pod),
        "allowPrivilegeEscalation != false (container \"c\" must set \
         securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (container \
         \"c\" must set securityContext.capabilities.drop=[\"ALL\"]), runAsNonRoot != true (pod or \
         container \"c\" must set securityContext.runAsNonRoot=true), seccompProfile (pod or \
         container \"c\" must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \
         \"Localhost\")"
    );
}

#[test]
fn a_hardened_pod_is_fine_by_restricted() {
    let pod = json!({"spec": {
        "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
        "volumes": [{"name": "t", "projected": {}}, {"name": "e", "emptyDir": {}}],
        "containers": [{"name": "c", "securityContext": {"allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}}}]}});
    assert_eq!(told(Level::Restricted, &pod), "");
}

#[test]
fn every_way_out_of_a_pod_is_named() {
    let pod = json!({"spec": {
        "hostNetwork": true, "hostPID": true,
        "securityContext": {"sysctls": [{"name": "kernel.msgmax", "value": "1"}]},
        "volumes": [{"name": "v", "hostPath": {"path": "/"}}],
        "containers": [
            {"name": "a", "ports": [{"containerPort": 80, "hostPort": 80}],
                "securityContext": {"privileged": true, "capabilities": {"add": ["SYS_ADMIN"]}}},
            {"name": "b", "securityContext": {"procMount": "Unmasked",
                "seccompProfile": {"type": "Unconfined"}}}]}});
    assert_eq!(
        told(Level::Baseline, &pod),
        "non-default capabilities (container \"a\" must not include \"SYS_ADMIN\" in \
         securityContext.capabilities.add), host namespaces (hostNetwork=true, hostPID=true), \
         hostPath volumes (volume \"v\"), hostPort (container \"a\" uses hostPort 80), privileged \
         (container \"a\" must not set securityContext.privileged=true), procMount (container \
         \"b\" must not set securityContext.procMount to \"Unmasked\"), seccompProfile (container \
         \"b\" must not set securityContext.seccompProfile.type to \"Unconfined\"), forbidden \
         sysctls (kernel.msgmax)"
    );
}

#[test]
fn labels_say_level_and_version_and_a_wrong_one_is_told() {
    let config = PodSecurityConfig::default();
    let namespace = json!({"metadata": {"labels": {
        "pod-security.kubernetes.io/enforce": "baseline",
        "pod-security.kubernetes.io/enforce-version": "v1.24",
        "pod-security.kubernetes.io/warn": "lax"}}});
    let (policies, causes) = Policies::of(&namespace, &config);
    assert_eq!(policies.enforce.to_string(), "baseline:v1.24");
    assert_eq!(policies.audit.to_string(), "privileged:latest");
    assert_eq!(
        (causes[0].field.as_str(), causes[0].message.as_str()),
        (
            "metadata.labels[pod-security.kubernetes.io/warn]",
            "Invalid value: \"lax\": must be one of privileged, baseline, restricted"
        )
    );
}
