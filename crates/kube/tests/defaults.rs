//! What the server adds to new objects, beside what a genuine 1.36 control plane added to the same.

use kube::api::Api;
use kube::object;
use kube::resource::BUILT_IN;
use serde_json::{Value, json};

/// Per case: its name, and lines `<path> = <JSON>` for each thing added.
const MEASURED: &str = include_str!("../testdata/api-defaults-1.36.txt");

/// Added by admission or by controllers of other parts, which have tests of their own, or as
/// different as the machines of this cluster are: paths of a pod or a Node.
const OF_OTHERS: [&str; 8] = [
    "spec.volumes",
    "spec.containers[].volumeMounts",
    "spec.serviceAccountName",
    "spec.serviceAccount",
    "spec.tolerations",
    "spec.priority",
    "spec.preemptionPolicy",
    "spec.taints",
];

async fn api() -> (Api, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("temporary directory");
    let store = store::Store::open(&store::Config::new(dir.path().join("kube.db"))).expect("opens");
    let api = Api::new(store);
    api.bootstrap().await.expect("namespaces");
    (api, dir)
}

fn template() -> Value {
    json!({"metadata": {"labels": {"a": "b"}},
        "spec": {"containers": [{"name": "c", "image": "i:1"}]}})
}

fn workload() -> Value {
    json!({"selector": {"matchLabels": {"a": "b"}}, "template": template()})
}

fn pod(image: &str, spec: Value) -> Value {
    let mut pod = json!({"spec": {"containers": [{"name": "c", "image": image}]}});
    merge(&mut pod["spec"], spec);
    pod
}

fn merge(into: &mut Value, from: Value) {
    for (key, value) in from.as_object().into_iter().flatten() {
        into[key] = value.clone();
    }
}

fn service(spec: Value) -> Value {
    let mut service = json!({"spec": {"ports": [{"port": 80}]}});
    merge(&mut service["spec"], spec);
    service
}

/// What was sent, without kind and name.
fn sent(case: &str) -> Value {
    match case {
        "Pod minimal" => pod("i", json!({})),
        "Pod image:tag" => pod("i:1", json!({})),
        "Pod hostNetwork" => {
            let container = json!({"name": "c", "image": "i:1", "ports": [{"containerPort": 80}]});
            json!({"spec": {"hostNetwork": true, "containers": [container]}})
        }
        "Service" => service(json!({})),
        "Service headless" => service(json!({"clusterIP": "None"})),
        "Service LB" => service(json!({"type": "LoadBalancer"})),
        "Service NodePort" => service(json!({"type": "NodePort"})),
        "Service ExternalName" => json!({"spec": {"type": "ExternalName", "externalName": "a.b"}}),
        "Deployment" | "ReplicaSet" | "DaemonSet" => json!({"spec": workload()}),
        "StatefulSet" => {
            let claim = json!({"metadata": {"name": "v"}, "spec": {
                "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
            let mut spec = workload();
            merge(
                &mut spec,
                json!({"serviceName": "s", "volumeClaimTemplates": [claim]}),
            );
            json!({"spec": spec})
        }
        "RC" => json!({"spec": {"template": template()}}),
        "Job" => {
            let mut template = template();
            template["spec"]["restartPolicy"] = "Never".into();
            json!({"spec": {"template": template}})
        }
        "PVC" => json!({"spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "",
            "resources": {"requests": {"storage": "1Gi"}}}}),
        "PV" => json!({"spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
            "hostPath": {"path": "/x"}}}),
        "SC" => json!({"provisioner": "a.b/c"}),
        "CSIDriver" => json!({"spec": {}}),
        "Ingress" => json!({"spec": {"defaultBackend": {"service": {"name": "s",
            "port": {"number": 80}}}}}),
        "NetworkPolicy" => json!({"spec": {"podSelector": {},
            "ingress": [{"ports": [{"port": 80}]}], "egress": [{}]}}),
        "PDB" => json!({"spec": {"minAvailable": 1, "selector": {"matchLabels": {"a": "b"}}}}),
        "RoleBinding" => json!({"roleRef": {"apiGroup": "rbac.authorization.k8s.io",
            "kind": "ClusterRole", "name": "view"}, "subjects": [{"kind": "User", "name": "u"}]}),
        "Namespace" | "SA" | "Node" => json!({}),
        "Secret" => json!({"stringData": {"a": "b"}}),
        "LimitRange" => json!({"spec": {"limits": [{"type": "Container", "max": {"cpu": "1"}}]}}),
        "PriorityClass" => json!({"value": 1}),
        "Endpoints" => json!({"subsets": [{"addresses": [{"ip": "10.0.0.9"}],
            "ports": [{"port": 80}]}]}),
        "ValidatingWebhookConfiguration" => json!({"webhooks": [{"name": "a.b.c",
            "clientConfig": {"service": {"namespace": "default", "name": "s"}},
            "admissionReviewVersions": ["v1"], "sideEffects": "None",
            "rules": [{"apiGroups": ["x.y"], "apiVersions": ["v1"], "operations": ["CREATE"],
                "resources": ["z"]}]}]}),
        "VAP" => json!({"spec": {"validations": [{"expression": "true"}], "matchConstraints": {
            "resourceRules": [{"apiGroups": ["x.y"], "apiVersions": ["v1"],
                "operations": ["CREATE"], "resources": ["z"]}]}}}),
        "APIService" => json!({"spec": {"group": "x.y", "version": "v1", "groupPriorityMinimum": 1,
            "versionPriority": 1, "insecureSkipTLSVerify": true,
            "service": {"namespace": "default", "name": "s"}}}),
        "RuntimeClass" => json!({"handler": "h"}),
        "ResourceQuota" => json!({"spec": {"hard": {"pods": "1"}}}),
        "Lease" => json!({"spec": {"holderIdentity": "h"}}),
        "CSR" => json!({"spec": {"request": "aGk=", "usages": ["client auth"],
            "signerName": "kubernetes.io/kube-apiserver-client"}}),
        other => panic!("no input for the case {other}"),
    }
}

fn kind(case: &str) -> &str {
    match case.split(' ').next().unwrap_or(case) {
        "RC" => "ReplicationController",
        "PVC" => "PersistentVolumeClaim",
        "PV" => "PersistentVolume",
        "SC" => "StorageClass",
        "PDB" => "PodDisruptionBudget",
        "SA" => "ServiceAccount",
        "VAP" => "ValidatingAdmissionPolicy",
        "CSR" => "CertificateSigningRequest",
        kind => kind,
    }
}

/// Writes `value` at a path such as `spec.ports[].protocol`: `[]` is every item. Labels have
/// dots in their names, so what follows `labels` is one word.
fn put(at: &mut Value, path: &str, value: &Value) {
    let (word, rest) = match path.strip_prefix("labels.") {
        Some(label) => {
            at["labels"][label] = value.clone();
            return;
        }
        None => path.split_once('.').unwrap_or((path, "")),
    };
    match (word.strip_suffix("[]"), rest) {
        (Some(list), rest) => {
            for item in at[list].as_array_mut().into_iter().flatten() {
                put(item, rest, value);
            }
        }
        (None, "") if at[word].is_object() => merge(&mut at[word], value.clone()),
        (None, "") => at[word] = value.clone(),
        (None, rest) => put(&mut at[word], rest, value),
    }
}

/// Brings both to what can be compared: what time, chance and the address family decide goes.
fn normal(case: &str, mut object: Value) -> Value {
    let uid = object::uid(&object).to_owned();
    let meta = object::meta_mut(&mut object);
    for field in [
        "uid",
        "creationTimestamp",
        "resourceVersion",
        "managedFields",
        "namespace",
    ] {
        meta.remove(field);
    }
    let mut text = object.to_string();
    for id in [uid.as_str(), "ee9fae85-c773-47e4-83b1-7c7ec934b8b2"] {
        if !id.is_empty() {
            text = text.replace(id, "UID");
        }
    }
    let mut object: Value = serde_json::from_str(&text).expect("still JSON");
    if object["status"].get("lastPhaseTransitionTime").is_some() {
        object["status"]["lastPhaseTransitionTime"] = "TIME".into();
    }
    if case.starts_with("Service") {
        let spec = &mut object["spec"];
        for (field, sample) in [("clusterIP", json!("IP")), ("clusterIPs", json!(["IP"]))] {
            if spec
                .get(field)
                .is_some_and(|value| !value.to_string().contains("None"))
            {
                spec[field] = sample;
            }
        }
        if spec.get("ipFamilies").is_some() {
            spec["ipFamilies"] = json!(["IPv?"]);
        }
        for port in spec["ports"].as_array_mut().into_iter().flatten() {
            if port.get("nodePort").is_some() {
                port["nodePort"] = "PORT".into();
            }
        }
    }
    for path in OF_OTHERS {
        let (parents, last) = path.rsplit_once('.').expect("a field of something");
        let pointer = format!("/{}", parents.replace("[]", "/0").replace('.', "/"));
        if let Some(map) = object.pointer_mut(&pointer).and_then(Value::as_object_mut) {
            map.remove(last);
        }
    }
    object
}

#[tokio::test]
async fn new_objects_get_what_a_genuine_server_gives_them() {
    let mut failures = Vec::new();
    let mut count = 0;
    for block in MEASURED.split("## ").filter(|block| !block.is_empty()) {
        let (header, added) = block.split_once('\n').unwrap_or((block, ""));
        let (case, result) = header
            .trim()
            .rsplit_once(" 201")
            .unwrap_or((header, header));
        let case = if result == header { "CSR" } else { case };
        // One store each: names and ports are not in each other's way.
        let (api, _dir) = api().await;
        let api = api.with_cluster_ips(std::sync::Arc::new(OneAddress));
        let mut rows = BUILT_IN.iter();
        let row = rows.find(|row| row.kind == kind(case)).expect(case);
        let mut object = sent(case);
        let name = if case == "APIService" { "v1.x.y" } else { "x1" };
        object["metadata"]["name"] = name.into();
        object["kind"] = row.kind.into();
        object["apiVersion"] = row.api_version().into();
        let namespace = row.is_namespaced().then_some("default");
        let created = api.create(row, namespace, object.clone()).await;
        count += 1;
        if case == "CSR" {
            let refusal = created.expect_err("no certificate request").message;
            let expected = header.split_once("422 ").expect("a message").1.trim();
            assert_eq!(refusal, expected);
            continue;
        }
        let created = match created {
            Ok(created) => created,
            Err(status) => {
                failures.push(format!("{case}: {}", status.message));
                continue;
            }
        };
        object.as_object_mut().expect("a map").remove("stringData");
        for line in added.lines().filter(|line| !line.trim().is_empty()) {
            let (path, value) = line.trim().split_once(" = ").expect("a line");
            let value = serde_json::from_str(value).expect("JSON");
            put(&mut object, path, &value);
        }
        let (created, expected) = (normal(case, created), normal(case, object));
        if created != expected {
            failures.push(format!("{case}:\n  is     {created}\n  should {expected}"));
        }
    }
    assert_eq!(count, 36);
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[derive(Debug)]
struct OneAddress;

impl kube::api::ClusterIps for OneAddress {
    fn allocate<'a>(
        &'a self,
        _: &'a Value,
    ) -> futures::future::BoxFuture<'a, Result<std::net::Ipv6Addr, kube::api::ClusterIpError>> {
        Box::pin(async { Ok(std::net::Ipv6Addr::new(0xfdaa, 0, 0, 0, 0, 0, 0, 1)) })
    }
}
