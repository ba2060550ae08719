//! What the built-in plugins complete and refuse.

use kube::api::DeleteOptions;
use kube::resource::{
    CERTIFICATE_SIGNING_REQUESTS, DEPLOYMENTS, INGRESS_CLASSES, INGRESSES, LIMIT_RANGES,
    NAMESPACES, PERSISTENT_VOLUME_CLAIMS, PODS, PRIORITY_CLASSES, RUNTIME_CLASSES,
    SERVICE_ACCOUNTS, STORAGE_CLASSES,
};
use serde_json::json;

use super::world::{HERE, World, pod};

#[tokio::test]
async fn nothing_is_made_in_a_namespace_that_is_not_there_or_going_away() {
    let world = World::new().await;
    let api = &world.api;
    let refusal = api
        .create(&PODS, Some("nons"), pod("p", json!({})))
        .await
        .expect_err("404");
    assert_eq!(
        (refusal.code, refusal.message.as_str()),
        (404, "namespaces \"nons\" not found")
    );
    world.namespace("leaving", json!({})).await;
    let now = DeleteOptions::default();
    api.delete(&NAMESPACES, None, "leaving", &now)
        .await
        .expect("marked");
    let refusal = api
        .create(&PODS, Some("leaving"), pod("p", json!({})))
        .await
        .expect_err("403");
    assert_eq!(
        refusal.message,
        "pods \"p\" is forbidden: unable to create new content in namespace leaving because it is \
         being terminated"
    );
    for name in ["default", "kube-system", "kube-public"] {
        let refusal = api
            .delete(&NAMESPACES, None, name, &now)
            .await
            .expect_err("403");
        assert_eq!(
            refusal.message,
            format!("namespaces {name:?} is forbidden: this namespace may not be deleted")
        );
    }
}

#[tokio::test]
async fn a_limit_range_completes_containers_and_bounds_them() {
    let world = World::new().await;
    let range = json!({"metadata": {"name": "r"}, "spec": {"limits": [
        {"type": "Container", "default": {"cpu": "200m", "memory": "64Mi"},
            "defaultRequest": {"cpu": "100m"}, "max": {"cpu": "500m"}},
        {"type": "Pod", "max": {"cpu": "600m"}},
        {"type": "PersistentVolumeClaim", "min": {"storage": "2Gi"}, "max": {"storage": "4Gi"}}]}});
    world.made(&LIMIT_RANGES, range).await;
    let made = world.made(&PODS, pod("plain", json!({}))).await;
    assert_eq!(
        made["spec"]["containers"][0]["resources"],
        json!({"requests": {"cpu": "100m", "memory": "64Mi"},
            "limits": {"cpu": "200m", "memory": "64Mi"}})
    );
    assert_eq!(
        made["metadata"]["annotations"]["kubernetes.io/limit-ranger"],
        "LimitRanger plugin set: cpu, memory request for container c; cpu, memory limit for \
         container c"
    );
    assert_eq!(made["status"]["qosClass"], "Burstable");
    let greedy = pod("greedy", json!({"limits": {"cpu": "1"}}));
    assert_eq!(
        world.refused(&PODS, greedy).await,
        "pods \"greedy\" is forbidden: [maximum cpu usage per Container is 500m, but limit is 1, \
         maximum cpu usage per Pod is 600m, but limit is 1]"
    );
    let claim = |name: &str, size: &str| {
        json!({"metadata": {"name": name}, "spec": {"accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": size}}}})
    };
    assert_eq!(
        world
            .refused(&PERSISTENT_VOLUME_CLAIMS, claim("small", "1Gi"))
            .await,
        "persistentvolumeclaims \"small\" is forbidden: minimum storage usage per \
         PersistentVolumeClaim is 2Gi, but request is 1Gi"
    );
    world
        .made(&PERSISTENT_VOLUME_CLAIMS, claim("fits", "3Gi"))
        .await;
}

#[tokio::test]
async fn a_pod_needs_its_service_account_and_finds_its_token() {
    let world = World::with_accounts().await;
    assert_eq!(
        world.refused(&PODS, pod("p", json!({}))).await,
        "pods \"p\" is forbidden: error looking up service account default/default: serviceaccount \
         \"default\" not found"
    );
    let account = json!({"metadata": {"name": "default"}, "imagePullSecrets": [{"name": "s"}]});
    world.made(&SERVICE_ACCOUNTS, account).await;
    let made = world.made(&PODS, pod("p", json!({}))).await;
    let volume = &made["spec"]["volumes"][0];
    assert_eq!(
        volume["projected"]["sources"][0]["serviceAccountToken"]["expirationSeconds"],
        3607
    );
    let mount = &made["spec"]["containers"][0]["volumeMounts"][0];
    assert_eq!(
        (&mount["name"], &mount["readOnly"]),
        (&volume["name"], &json!(true))
    );
    assert_eq!(made["spec"]["imagePullSecrets"], json!([{"name": "s"}]));
    let mut without = pod("q", json!({}));
    without["spec"]["automountServiceAccountToken"] = json!(false);
    let made = world.made(&PODS, without).await;
    assert!(made["spec"].get("volumes").is_none());
}

#[tokio::test]
async fn pods_get_the_priority_of_their_class_or_of_the_default_one() {
    let world = World::new().await;
    let class = |name: &str, value: i64, default: bool| {
        json!({"metadata": {"name": name}, "value": value, "globalDefault": default,
            "preemptionPolicy": "Never"})
    };
    assert_eq!(
        world.made(&PODS, pod("a", json!({}))).await["spec"]["priority"],
        0
    );
    world.made(&PRIORITY_CLASSES, class("usual", 7, true)).await;
    assert_eq!(
        world
            .refused(&PRIORITY_CLASSES, class("other", 8, true))
            .await,
        "priorityclasses.scheduling.k8s.io \"other\" is forbidden: PriorityClass usual is already \
         marked as default. Only one default can exist"
    );
    let made = world.made(&PODS, pod("b", json!({}))).await;
    let spec = &made["spec"];
    assert_eq!(
        (
            &spec["priorityClassName"],
            &spec["priority"],
            &spec["preemptionPolicy"]
        ),
        (&json!("usual"), &json!(7), &json!("Never"))
    );
    let mut unknown = pod("c", json!({}));
    unknown["spec"]["priorityClassName"] = json!("nope");
    assert_eq!(
        world.refused(&PODS, unknown).await,
        "pods \"c\" is forbidden: no PriorityClass with name nope was found"
    );
    let mut given = pod("d", json!({}));
    given["spec"]["priority"] = json!(9);
    assert_eq!(
        world.refused(&PODS, given).await,
        "pods \"d\" is forbidden: the integer value of priority (9) must not be provided in pod \
         spec; priority admission controller computed 7 from the given PriorityClass name"
    );
}

#[tokio::test]
async fn a_restricted_namespace_refuses_pods_and_warns_of_templates() {
    let world = World::new().await;
    let labels = json!({"pod-security.kubernetes.io/enforce": "restricted",
        "pod-security.kubernetes.io/warn": "baseline"});
    world.namespace("strict", labels).await;
    let refusal = world
        .api
        .create(&PODS, Some("strict"), pod("p", json!({})))
        .await;
    let message = refusal.expect_err("refused").message;
    assert!(
        message.starts_with(
            "pods \"p\" is forbidden: violates PodSecurity \"restricted:latest\": \
             allowPrivilegeEscalation != false (container \"c\" must set \
             securityContext.allowPrivilegeEscalation=false), unrestricted capabilities"
        ),
        "{message}"
    );
    let mut deployment = json!({"metadata": {"name": "d"}, "spec": {
        "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": pod("x", json!({}))["spec"]}}});
    deployment["spec"]["template"]["spec"]["hostNetwork"] = json!(true);
    world
        .api
        .create(&DEPLOYMENTS, Some("strict"), deployment)
        .await
        .expect("only warned of");
    assert_eq!(
        world.notes.warnings(),
        ["would violate PodSecurity \"baseline:latest\": host namespaces (hostNetwork=true)"]
    );
}

#[tokio::test]
async fn whoever_raises_the_level_of_a_namespace_hears_of_its_pods() {
    let world = World::new().await;
    world.made(&PODS, pod("a", json!({}))).await;
    world.made(&PODS, pod("b", json!({}))).await;
    let label = "pod-security.kubernetes.io/enforce";
    let refusal = world
        .patch_labels(&NAMESPACES, "default", json!({label: "lax"}))
        .await;
    assert_eq!(
        refusal.expect_err("refused").message,
        "Namespace \"default\" is invalid: metadata.labels[pod-security.kubernetes.io/enforce]: \
         Invalid value: \"lax\": must be one of privileged, baseline, restricted"
    );
    let raised = world
        .patch_labels(&NAMESPACES, "default", json!({label: "restricted"}))
        .await;
    raised.expect("only warned of");
    let warnings = world.notes.warnings();
    assert_eq!(
        warnings[0],
        "existing pods in namespace \"default\" violate the new PodSecurity enforce level \
         \"restricted:latest\""
    );
    assert!(warnings[1].starts_with("a (and 1 other pod): allowPrivilegeEscalation != false, "));
}

#[tokio::test]
async fn claims_and_ingresses_get_the_default_class_and_claims_their_protection() {
    let world = World::new().await;
    let class = json!({"metadata": {"name": "fast",
        "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
        "provisioner": "example.com/disks"});
    world.made(&STORAGE_CLASSES, class).await;
    let claim = json!({"metadata": {"name": "c"}, "spec": {"accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}}}});
    let mut made = world.made(&PERSISTENT_VOLUME_CLAIMS, claim).await;
    assert_eq!(made["spec"]["storageClassName"], "fast");
    assert_eq!(
        made["metadata"]["finalizers"],
        json!(["kubernetes.io/pvc-protection"])
    );
    made["status"] = json!({"phase": "Bound"});
    let status = world
        .api
        .update_status(&PERSISTENT_VOLUME_CLAIMS, HERE, made)
        .await;
    let mut made = status.expect("bound");
    made["spec"]["resources"]["requests"]["storage"] = json!("2Gi");
    let refusal = world
        .api
        .update(&PERSISTENT_VOLUME_CLAIMS, HERE, made)
        .await;
    let message = refusal.expect_err("refused").message;
    assert!(
        message.contains("only dynamically provisioned pvc can be resized"),
        "{message}"
    );
    let class = json!({"metadata": {"name": "front",
        "annotations": {"ingressclass.kubernetes.io/is-default-class": "true"}},
        "spec": {"controller": "example.com/proxy"}});
    world.made(&INGRESS_CLASSES, class).await;
    let ingress = json!({"metadata": {"name": "i"}, "spec": {"defaultBackend":
        {"service": {"name": "s", "port": {"number": 80}}}}});
    let made = world.made(&INGRESSES, ingress).await;
    assert_eq!(made["spec"]["ingressClassName"], "front");
}

#[tokio::test]
async fn a_runtime_class_brings_its_overhead_and_its_rules() {
    let world = World::new().await;
    let mut unknown = pod("p", json!({}));
    unknown["spec"]["runtimeClassName"] = json!("vm");
    assert_eq!(
        world.refused(&PODS, unknown.clone()).await,
        "pods \"p\" is forbidden: pod rejected: RuntimeClass \"vm\" not found"
    );
    let class = json!({"metadata": {"name": "vm"}, "handler": "vm",
        "overhead": {"podFixed": {"memory": "8Mi"}},
        "scheduling": {"nodeSelector": {"kvm": "yes"},
            "tolerations": [{"key": "vm", "operator": "Exists"}]}});
    world.made(&RUNTIME_CLASSES, class).await;
    let made = world.made(&PODS, unknown).await;
    assert_eq!(made["spec"]["overhead"], json!({"memory": "8Mi"}));
    assert_eq!(made["spec"]["nodeSelector"], json!({"kvm": "yes"}));
    let tolerations = made["spec"]["tolerations"].as_array().expect("a list");
    assert!(tolerations.iter().any(|one| one["key"] == "vm"));
}

#[tokio::test]
async fn nobody_asks_for_a_certificate_of_the_masters() {
    use base64::Engine;
    let mut params = rcgen::CertificateParams::default();
    params
        .distinguished_name
        .push(rcgen::DnType::OrganizationName, "system:masters");
    let key = rcgen::KeyPair::generate().expect("a key");
    let request = params
        .serialize_request(&key)
        .expect("a request")
        .pem()
        .expect("PEM");
    let request = base64::prelude::BASE64_STANDARD.encode(request);
    let object = json!({"metadata": {"name": "r"}, "spec": {"request": request,
        "signerName": "kubernetes.io/kube-apiserver-client", "usages": ["client auth"]}});
    assert_eq!(
        world_refused(object).await,
        "certificatesigningrequests.certificates.k8s.io \"r\" is forbidden: use of \
         kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed"
    );
}

async fn world_refused(object: serde_json::Value) -> String {
    World::new()
        .await
        .refused(&CERTIFICATE_SIGNING_REQUESTS, object)
        .await
}
