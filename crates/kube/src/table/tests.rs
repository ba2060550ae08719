//! Rows of every group, beside what upstream prints for the same objects.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::row;
use crate::resource::BUILT_IN;

/// The cells of an object that was made a minute ago.
fn cells(api_version: &str, kind: &str, mut object: Value) -> Value {
    object["metadata"]["name"] = "x".into();
    object["metadata"]["creationTimestamp"] = "1970-01-01T00:00:00Z".into();
    let mut rows = BUILT_IN.iter();
    let resource = rows.find(|row| row.kind == kind && row.api_version() == api_version);
    let now = Timestamp::from_second(60).expect("a time");
    row(resource.expect("served"), &object, now).into()
}

fn template() -> Value {
    json!({"metadata": {"labels": {"a": "b"}},
        "spec": {"containers": [{"name": "c", "image": "i:1"}, {"name": "d", "image": "j"}]}})
}

#[test]
fn workloads() {
    let selector = json!({"matchLabels": {"a": "b"}});
    let spec = json!({"replicas": 3, "selector": selector, "template": template()});
    let set = json!({"spec": spec, "status": {"readyReplicas": 1}});
    assert_eq!(
        cells("apps/v1", "StatefulSet", set),
        json!(["x", "1/3", "60s", "c,d", "i:1,j"])
    );
    let daemons = json!({"spec": spec, "status": {"desiredNumberScheduled": 2,
        "currentNumberScheduled": 1, "numberReady": 1, "updatedNumberScheduled": 2}});
    assert_eq!(
        cells("apps/v1", "DaemonSet", daemons),
        json!(["x", 2, 1, 1, 2, 0, "<none>", "60s", "c,d", "i:1,j", "a=b"])
    );
    let mut job = json!({"spec": {"completions": 2, "selector": selector, "template": template()},
        "status": {"succeeded": 1, "startTime": "1970-01-01T00:00:20Z"}});
    let row =
        |status: &str, took: &str| json!(["x", status, "1/2", took, "60s", "c,d", "i:1,j", "a=b"]);
    assert_eq!(cells("batch/v1", "Job", job.clone()), row("Running", "40s"));
    job["status"]["completionTime"] = "1970-01-01T00:00:30Z".into();
    job["status"]["conditions"] = json!([{"type": "Complete", "status": "True"}]);
    assert_eq!(cells("batch/v1", "Job", job), row("Complete", "10s"));
    let cron = json!({"spec": {"schedule": "* * * * *", "suspend": false,
        "jobTemplate": {"spec": {"template": template()}}}, "status": {"active": [{}]}});
    assert_eq!(
        cells("batch/v1", "CronJob", cron),
        json!([
            "x",
            "* * * * *",
            "<none>",
            "False",
            1,
            "<none>",
            "60s",
            "c,d",
            "i:1,j",
            "<none>"
        ])
    );
    let controller =
        json!({"spec": {"replicas": 1, "selector": {"a": "b"}, "template": template()}});
    assert_eq!(
        cells("v1", "ReplicationController", controller),
        json!(["x", 1, 0, 0, "60s", "c,d", "i:1,j", "a=b"])
    );
    let owner =
        json!({"controller": true, "apiVersion": "apps/v1", "kind": "DaemonSet", "name": "d"});
    let revision = json!({"metadata": {"ownerReferences": [owner]}, "revision": 2});
    assert_eq!(
        cells("apps/v1", "ControllerRevision", revision),
        json!(["x", "daemonset.apps/d", 2, "60s"])
    );
}

#[test]
fn autoscalers_of_both_versions() {
    let target = json!({"kind": "Deployment", "name": "web"});
    let v1 = json!({"spec": {"scaleTargetRef": target, "minReplicas": 1, "maxReplicas": 5,
        "targetCPUUtilizationPercentage": 80}, "status": {"currentReplicas": 2,
        "currentCPUUtilizationPercentage": 40}});
    assert_eq!(
        cells("autoscaling/v1", "HorizontalPodAutoscaler", v1),
        json!(["x", "Deployment/web", "cpu: 40%/80%", "1", 5, 2, "60s"])
    );
    let metric =
        |kind: &str, part: &str, target: Value| json!({"type": kind, part: {"target": target}});
    let v2 = json!({"spec": {"scaleTargetRef": target, "maxReplicas": 5, "metrics": [
        metric("Pods", "pods", json!({"averageValue": "10"})),
        metric("External", "external", json!({"averageValue": "3"})),
        metric("Object", "object", json!({"value": "3"}))]}});
    assert_eq!(
        cells("autoscaling/v2", "HorizontalPodAutoscaler", v2)[2],
        "<unknown>/10, <unknown>/3 (avg) + 1 more..."
    );
}

#[test]
fn storage() {
    let volume = json!({"spec": {"capacity": {"storage": "1Gi"}, "storageClassName": "s",
        "accessModes": ["ReadWriteMany", "ReadWriteOnce"], "volumeMode": "Filesystem",
        "persistentVolumeReclaimPolicy": "Retain", "claimRef": {"namespace": "n", "name": "c"}},
        "status": {"phase": "Bound"}});
    assert_eq!(
        cells("v1", "PersistentVolume", volume),
        json!([
            "x",
            "1Gi",
            "RWO,RWX",
            "Retain",
            "Bound",
            "n/c",
            "s",
            "<unset>",
            "",
            "60s",
            "Filesystem"
        ])
    );
    let claim = json!({"spec": {"volumeName": "v", "storageClassName": "s"},
        "status": {"phase": "Bound", "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteOnce"]}});
    assert_eq!(
        cells("v1", "PersistentVolumeClaim", claim),
        json!([
            "x", "Bound", "v", "1Gi", "RWO", "s", "<unset>", "60s", "<unset>"
        ])
    );
    let annotation = json!({"storageclass.kubernetes.io/is-default-class": "true"});
    let class = json!({"metadata": {"annotations": annotation}, "provisioner": "p",
        "reclaimPolicy": "Delete", "volumeBindingMode": "WaitForFirstConsumer"});
    assert_eq!(
        cells("storage.k8s.io/v1", "StorageClass", class),
        json!([
            "x (default)",
            "p",
            "Delete",
            "WaitForFirstConsumer",
            false,
            "60s"
        ])
    );
    let driver = json!({"spec": {"volumeLifecycleModes": ["Persistent"], "tokenRequests": [
        {"audience": "a"}]}});
    assert_eq!(
        cells("storage.k8s.io/v1", "CSIDriver", driver),
        json!(["x", true, false, false, "a", false, "Persistent", "60s"])
    );
}

#[test]
fn networks() {
    let rules = json!([{"host": "a"}, {"host": "b"}, {"host": "c"}, {"host": "d"}]);
    let ingress = json!({"spec": {"ingressClassName": "nginx", "rules": rules, "tls": [{}]},
        "status": {"loadBalancer": {"ingress": [{"ip": "fd::1"}]}}});
    assert_eq!(
        cells("networking.k8s.io/v1", "Ingress", ingress),
        json!(["x", "nginx", "a,b,c + 1 more...", "fd::1", "80, 443", "60s"])
    );
    let class = json!({"spec": {"controller": "c", "parameters": {"apiGroup": "g", "kind": "K",
        "name": "n"}}});
    assert_eq!(
        cells("networking.k8s.io/v1", "IngressClass", class),
        json!(["x", "c", "K.g/n", "60s"])
    );
    let policy = json!({"spec": {"podSelector": {}}});
    assert_eq!(
        cells("networking.k8s.io/v1", "NetworkPolicy", policy),
        json!(["x", "<none>", "60s"])
    );
    let endpoints = json!({"subsets": [{"addresses": [{"ip": "fd::1"}, {"ip": "10.0.0.1"}],
        "ports": [{"port": 80}, {"port": 81}]}]});
    assert_eq!(
        cells("v1", "Endpoints", endpoints),
        json!(["x", "[fd::1]:80,10.0.0.1:80,[fd::1]:81 + 1 more...", "60s"])
    );
    let service = json!({"spec": {"type": "LoadBalancer", "clusterIPs": ["fd::2"],
        "ports": [{"port": 80, "nodePort": 30001, "protocol": "TCP"}]}});
    assert_eq!(
        cells("v1", "Service", service),
        json!([
            "x",
            "LoadBalancer",
            "fd::2",
            "<pending>",
            "80:30001/TCP",
            "60s",
            "<none>"
        ])
    );
    let named = json!({"spec": {"type": "ExternalName", "externalName": "a.b"}});
    assert_eq!(
        cells("v1", "Service", named),
        json!([
            "x",
            "ExternalName",
            "<none>",
            "a.b",
            "<none>",
            "60s",
            "<none>"
        ])
    );
}

#[test]
fn rules_about_the_cluster() {
    let binding = json!({"roleRef": {"kind": "ClusterRole", "name": "view"}, "subjects": [
        {"kind": "User", "name": "u"}, {"kind": "Group", "name": "g"},
        {"kind": "ServiceAccount", "namespace": "n", "name": "s"}]});
    assert_eq!(
        cells("rbac.authorization.k8s.io/v1", "RoleBinding", binding),
        json!(["x", "ClusterRole/view", "60s", "u", "g", "n/s"])
    );
    assert_eq!(
        cells("rbac.authorization.k8s.io/v1", "Role", json!({})),
        json!(["x", "1970-01-01T00:00:00Z"])
    );
    let request = json!({"spec": {"signerName": "s/n", "username": "u", "expirationSeconds": 3600},
        "status": {"certificate": "Y2VydA==", "conditions": [{"type": "Approved"}]}});
    assert_eq!(
        cells(
            "certificates.k8s.io/v1",
            "CertificateSigningRequest",
            request
        ),
        json!(["x", "60s", "s/n", "u", "60m", "Approved,Issued"])
    );
    let quota = json!({"status": {"hard": {"pods": "5", "limits.cpu": "1", "cpu": "2"},
        "used": {"pods": "1"}}});
    assert_eq!(
        cells("v1", "ResourceQuota", quota),
        json!(["x", "cpu: 0/2, pods: 1/5", "limits.cpu: 0/1", "60s"])
    );
    let budget = json!({"spec": {"maxUnavailable": "50%"}, "status": {"disruptionsAllowed": 1}});
    assert_eq!(
        cells("policy/v1", "PodDisruptionBudget", budget),
        json!(["x", "N/A", "50%", 1, "60s"])
    );
    let class = json!({"value": 10, "preemptionPolicy": "Never"});
    assert_eq!(
        cells("scheduling.k8s.io/v1", "PriorityClass", class),
        json!(["x", 10, false, "60s", "Never"])
    );
    let service = json!({"spec": {"service": {"namespace": "n", "name": "s"}}, "status": {
        "conditions": [{"type": "Available", "status": "False", "reason": "MissingEndpoints"}]}});
    assert_eq!(
        cells("apiregistration.k8s.io/v1", "APIService", service),
        json!(["x", "n/s", "False (MissingEndpoints)", "60s"])
    );
    let policy = json!({"spec": {"policyName": "p", "paramRef": {"name": "q"}}});
    assert_eq!(
        cells(
            "admissionregistration.k8s.io/v1",
            "ValidatingAdmissionPolicyBinding",
            policy
        ),
        json!(["x", "p", "*/q", "60s"])
    );
}
