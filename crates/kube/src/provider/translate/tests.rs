//! Pods as the API server stores them, and the machines they become.

use serde_json::json;
use types::machine::FieldRef;

use super::*;

/// A pod as `kubectl run` makes it, after the server's defaults, with `changes` merged into spec.
fn pod(changes: &Value) -> Pod {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "web", "namespace": "shop", "uid": "u-1",
            "creationTimestamp": "2026-11-21T08:15:13Z", "labels": {"run": "web"},
            "annotations": {"team": "blue"}},
        "spec": {
            "volumes": [{"name": "kube-api-access-vzpjj", "projected": {"defaultMode": 420,
                "sources": [{"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}}]}}],
            "containers": [{"name": "web", "image": "localhost/hello:1", "resources": {},
                "volumeMounts": [{"name": "kube-api-access-vzpjj", "readOnly": true,
                    "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}],
                "terminationMessagePath": "/dev/termination-log",
                "terminationMessagePolicy": "File", "imagePullPolicy": "IfNotPresent"}],
            "restartPolicy": "Always", "terminationGracePeriodSeconds": 30,
            "dnsPolicy": "ClusterFirst", "serviceAccountName": "default",
            "serviceAccount": "default", "securityContext": {}, "nodeName": "local",
            "schedulerName": "default-scheduler", "priority": 0, "enableServiceLinks": true,
            "preemptionPolicy": "PreemptLowerPriority",
            "tolerations": [{"key": "node.kubernetes.io/not-ready", "operator": "Exists",
                "effect": "NoExecute", "tolerationSeconds": 300}]},
        "status": {"phase": "Pending", "qosClass": "BestEffort"}
    });
    for (key, value) in changes.as_object().unwrap() {
        pod["spec"][key] = value.clone();
    }
    Pod::read(&pod).unwrap()
}

/// The same with `changes` merged into its only container.
fn with_container(changes: &Value) -> Pod {
    let mut container = json!({"name": "web", "image": "localhost/hello:1"});
    for (key, value) in changes.as_object().unwrap() {
        container[key] = value.clone();
    }
    pod(&json!({"containers": [container]}))
}

fn sources() -> Sources {
    Sources {
        config_maps: BTreeMap::from([(
            "cm".into(),
            json!({"data": {"a": "1", "b": "two"}, "binaryData": {"raw": "AAE="}}),
        )]),
        secrets: BTreeMap::from([("s".into(), json!({"data": {"password": "aHVudGVyMg=="}}))]),
        runtime_handler: None,
        host_ip: "fdaa::1".into(),
        services: Vec::new(),
        tokens: vec![(
            TokenSource {
                expiration_seconds: Some(3607),
                path: "token".into(),
                ..TokenSource::default()
            },
            "signed".into(),
        )],
    }
}

fn machine(pod: &Pod) -> MachineConfig {
    translate(pod, &sources()).unwrap()
}

fn refused_field(pod: &Pod) -> String {
    match translate(pod, &sources()) {
        Err(Untranslatable::Unsupported(refused)) => refused.field,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn a_pod_of_kubectl_run_becomes_a_machine_of_one_container() {
    let expected = json!({
        "guest": {"cpu_kind": "shared", "cpus": 1, "memory_mb": 256},
        "metadata": {"kubernetes.io/pod-name": "web", "kubernetes.io/pod-namespace": "shop",
            "kubernetes.io/pod-uid": "u-1", "fly_process_group": "u-1"},
        "restart": {"policy": "no"},
        "stop_config": {"signal": "SIGTERM", "timeout": "30000ms"},
        "dns": {"hostname": "web",
            "searches": ["shop.svc.cluster.local", "svc.cluster.local", "cluster.local"]},
        "containers": [{"name": "web", "image": "localhost/hello:1",
            "restart": {"policy": "always"},
            "files": [{"guest_path": "/var/run/secrets/kubernetes.io/serviceaccount/token",
                "raw_value": "c2lnbmVk", "mode": 420}],
            "stop": {"signal": "SIGTERM", "timeout": "30000ms"}}],
    });
    let config = serde_json::to_value(machine(&pod(&json!({})))).unwrap();
    assert_eq!(config, expected);
}

#[test]
fn a_command_replaces_the_images_arguments_and_arguments_alone_do_not_replace_its_entry_point() {
    let both = machine(&with_container(
        &json!({"command": ["sh", "-c"], "args": ["echo hi"]}),
    ));
    assert_eq!(both.containers[0].exec, ["sh", "-c", "echo hi"]);
    assert!(both.containers[0].cmd.is_empty());
    let args = machine(&with_container(&json!({"args": ["-p", "80"]})));
    assert!(args.containers[0].exec.is_empty());
    assert_eq!(args.containers[0].cmd, ["-p", "80"]);
}

#[test]
fn variables_come_from_where_the_pod_says() {
    let config = machine(&with_container(&json!({
        "envFrom": [{"prefix": "CM_", "configMapRef": {"name": "cm"}},
            {"secretRef": {"name": "missing", "optional": true}}],
        "env": [
            {"name": "PLAIN", "value": "x"},
            {"name": "REF", "value": "$(CM_a)-$(PLAIN)-$$(PLAIN)-$(NONE)"},
            {"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "s", "key": "password"}}},
            {"name": "GONE", "valueFrom": {"configMapKeyRef":
                {"name": "cm", "key": "zz", "optional": true}}},
            {"name": "NAME", "valueFrom": {"fieldRef":
                {"apiVersion": "v1", "fieldPath": "metadata.name"}}},
            {"name": "LABEL", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['run']"}}},
            {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
            {"name": "HOST", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}},
            {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "MIB", "valueFrom": {"resourceFieldRef":
                {"resource": "limits.memory", "divisor": "1Mi"}}},
        ],
        "resources": {"limits": {"memory": "100M"}},
        "args": ["--name=$(NAME)"],
    })));
    let container = &config.containers[0];
    let expected = [
        ("CM_a", "1"),
        ("CM_b", "two"),
        ("HOST", "fdaa::1"),
        ("LABEL", "web"),
        ("MIB", "96"),
        ("NAME", "web"),
        ("NODE", "local"),
        ("PASSWORD", "hunter2"),
        ("PLAIN", "x"),
        ("REF", "1-x-$(PLAIN)-$(NONE)"),
    ];
    // `raw` of the configMap holds a zero byte, which no variable can.
    let found = container.env.iter().map(|(k, v)| (k.as_str(), v.as_str()));
    let found: Vec<_> = found.collect();
    assert_eq!(found, expected);
    assert_eq!(container.env_from.len(), 1);
    assert_eq!(container.env_from[0].field_ref, FieldRef::PrivateIp);
    assert_eq!(container.cmd, ["--name=web"]);
}

#[test]
fn what_is_missing_makes_the_pod_wait() {
    for source in [
        json!({"configMapKeyRef": {"name": "nope", "key": "a"}}),
        json!({"configMapKeyRef": {"name": "cm", "key": "nope"}}),
        json!({"secretKeyRef": {"name": "nope", "key": "a"}}),
    ] {
        let pod = with_container(&json!({"env": [{"name": "X", "valueFrom": source}]}));
        let result = translate(&pod, &sources());
        assert!(
            matches!(result, Err(Untranslatable::NotReady(_))),
            "{result:?}"
        );
    }
}

#[test]
fn everything_a_pod_refers_to_is_named_once() {
    let pod = pod(&json!({
        "containers": [{"name": "a", "image": "i", "envFrom": [{"configMapRef": {"name": "cm"}}],
            "env": [{"name": "X", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "a"}}}]}],
        "initContainers": [{"name": "b", "image": "i", "envFrom": [{"secretRef": {"name": "s"}}]}],
        "volumes": [{"name": "v", "secret": {"secretName": "t"}},
            {"name": "w", "configMap": {"name": "c2"}}],
    }));
    let expected = References {
        config_maps: vec!["c2".into(), "cm".into()],
        secrets: vec!["s".into(), "t".into()],
    };
    assert_eq!(references(&pod), expected);
}

#[test]
fn init_containers_run_one_after_the_other_before_the_rest() {
    let config = machine(&pod(&json!({
        "restartPolicy": "OnFailure",
        "initContainers": [{"name": "one", "image": "i"}, {"name": "two", "image": "i"}],
        "containers": [{"name": "main", "image": "i"}, {"name": "side", "image": "i"}],
    })));
    let after = |name: &str| {
        let mut containers = config.containers.iter();
        let container = containers.find(|c| c.name == name).unwrap();
        container
            .depends_on
            .iter()
            .map(|d| d.name.clone())
            .collect::<Vec<_>>()
    };
    assert!(after("one").is_empty());
    assert_eq!(after("two"), ["one"]);
    assert_eq!(after("main"), ["two"]);
    assert_eq!(after("side"), ["two"]);
    for container in &config.containers {
        let restart = container.restart.as_ref().unwrap();
        assert_eq!(restart.policy, RestartPolicy::OnFailure);
        assert_eq!(restart.max_retries, Some(u32::MAX));
    }
}

#[test]
fn a_machine_is_as_large_as_its_containers_together() {
    let size = |changes: &Value| {
        let guest = machine(&pod(changes)).guest.unwrap();
        (guest.cpus, guest.memory_mb)
    };
    let container =
        |limits: Value| json!({"name": "c", "image": "i", "resources": {"limits": limits}});
    let two = json!([
        container(json!({"cpu": "700m", "memory": "512Mi"})),
        container(json!({"cpu": "800m", "memory": "1Gi"}))
    ]);
    assert_eq!(size(&json!({"containers": two})), (2, 1536));
    let init = json!([container(json!({"cpu": 4, "memory": "100Mi"}))]);
    assert_eq!(
        size(&json!({"containers": two, "initContainers": init})),
        (4, 1536)
    );
    let small = json!([container(json!({"memory": "10Mi"}))]);
    assert_eq!(size(&json!({"containers": small})), (1, 256));
    let mixed = json!([container(json!({"memory": "512Mi"})), {"name": "d", "image": "i"}]);
    assert_eq!(size(&json!({"containers": mixed})), (1, 768));
}

#[test]
fn config_maps_and_secrets_are_mounted_as_files() {
    let config = machine(&pod(&json!({
        "volumes": [
            {"name": "c", "configMap": {"name": "cm", "defaultMode": 256,
                "items": [{"key": "a", "path": "sub/a.txt"}]}},
            {"name": "s", "secret": {"secretName": "s"}}],
        "containers": [{"name": "web", "image": "i", "volumeMounts": [
            {"name": "c", "mountPath": "/etc/c/"},
            {"name": "s", "mountPath": "/run/password", "subPath": "password", "readOnly": true}]}],
    })));
    let files: Vec<_> = config.containers[0].files.iter().collect();
    assert_eq!(files.len(), 2);
    assert_eq!(files[0].guest_path, "/etc/c/sub/a.txt");
    assert_eq!(files[0].mode, Some(256));
    assert_eq!(files[0].raw_value.as_deref(), Some("MQ=="));
    assert_eq!(files[1].guest_path, "/run/password");
    assert_eq!(files[1].raw_value.as_deref(), Some("aHVudGVyMg=="));
}

#[test]
fn a_runtime_class_chooses_the_isolation_class() {
    let mut sources = sources();
    let pod = pod(&json!({"runtimeClassName": "emulated"}));
    for (handler, class) in [
        ("emulated", IsolationClass::Emulated),
        ("container", IsolationClass::Container),
    ] {
        sources.runtime_handler = Some(handler.into());
        assert_eq!(translate(&pod, &sources).unwrap().isolation, Some(class));
    }
    sources.runtime_handler = Some("runc".into());
    assert!(translate(&pod, &sources).is_err());
}

#[test]
fn users_are_numbers_of_the_container_or_the_pod() {
    let user = |pod_context: Value, context: Value| {
        let container = json!({"name": "c", "image": "i", "securityContext": context});
        let changes = json!({"securityContext": pod_context, "containers": [container]});
        translate(&pod(&changes), &sources()).map(|config| config.containers[0].user.clone())
    };
    assert_eq!(user(json!({}), json!({})).unwrap(), None);
    let pods = json!({"runAsUser": 1000, "runAsGroup": 2000, "runAsNonRoot": true});
    assert_eq!(user(pods.clone(), json!({})).unwrap().unwrap(), "1000:2000");
    assert_eq!(
        user(pods.clone(), json!({"runAsUser": 5}))
            .unwrap()
            .unwrap(),
        "5:2000"
    );
    assert!(user(pods, json!({"runAsUser": 0})).is_err());
    assert!(user(json!({}), json!({"runAsNonRoot": true})).is_err());
    assert!(user(json!({}), json!({"runAsGroup": 1})).is_err());
}

#[test]
fn what_machines_cannot_do_is_refused_by_name() {
    for (changes, field) in [
        (json!({"hostNetwork": true}), "spec.hostNetwork"),
        (
            json!({"volumes": [{"name": "d", "emptyDir": {}}]}),
            "spec.volumes[d].emptyDir",
        ),
        (
            json!({"volumes": [{"name": "d", "hostPath": {"path": "/"}}]}),
            "spec.volumes[d].hostPath",
        ),
        (json!({"os": {"name": "windows"}}), "spec.os"),
        (json!({"neverHeardOf": 1}), "spec.neverHeardOf"),
        (
            json!({"securityContext": {"supplementalGroups": [1]}}),
            "spec.securityContext.supplementalGroups",
        ),
        (
            json!({"initContainers": [{"name": "s", "image": "i", "restartPolicy": "Always"}]}),
            "spec.initContainers[0].restartPolicy",
        ),
        (
            json!({"dnsConfig": {"neverHeardOf": ["x"]}}),
            "spec.dnsConfig.neverHeardOf",
        ),
    ] {
        assert_eq!(refused_field(&pod(&changes)), field);
    }
    for (changes, field) in [
        (
            json!({"readinessProbe": {"httpGet": {"port": 80}}}),
            "readinessProbe",
        ),
        (json!({"lifecycle": {"preStop": {"exec": {}}}}), "lifecycle"),
        (
            json!({"securityContext": {"privileged": true}}),
            "securityContext.privileged",
        ),
        (
            json!({"securityContext": {"allowPrivilegeEscalation": false}}),
            "securityContext.allowPrivilegeEscalation",
        ),
        (
            json!({"ports": [{"containerPort": 80, "hostPort": 80}]}),
            "ports[].hostPort",
        ),
        (
            json!({"env": [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "U", "value": "$(IP)"}]}),
            "env[1]",
        ),
    ] {
        let expected = format!("spec.containers[0].{field}");
        assert_eq!(refused_field(&with_container(&changes)), expected);
    }
}

#[test]
fn what_a_pod_says_of_names_is_its_machines() {
    let own = json!({"nameservers": ["fdaa::9"], "searches": ["x.example"],
        "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}]});
    let dns = |policy: &str| {
        let changes = json!({"dnsPolicy": policy, "dnsConfig": own, "hostname": "web-0",
            "subdomain": "web"});
        serde_json::to_value(machine(&pod(&changes)).dns).unwrap()
    };
    let cluster = dns("ClusterFirst");
    // The cluster's resolver stays the first.
    assert_eq!(cluster["nameservers"], json!(["fdaa::3", "fdaa::9"]));
    let searches = [
        "shop.svc.cluster.local",
        "svc.cluster.local",
        "cluster.local",
        "x.example",
    ];
    assert_eq!(cluster["searches"], json!(searches));
    let options = json!([{"name": "ndots", "value": "2"}, {"name": "edns0"}]);
    assert_eq!(cluster["options"], options);
    assert_eq!(cluster["hostname"], "web-0");
    let none = dns("None");
    assert_eq!(none["nameservers"], json!(["fdaa::9"]));
    assert_eq!(none["searches"], json!(["x.example"]));
}

#[test]
fn what_says_nothing_is_not_refused() {
    machine(&pod(
        &json!({"hostNetwork": false, "imagePullSecrets": [], "os": {"name": "linux"},
        "hostUsers": false, "securityContext": {"seccompProfile": {"type": "Unconfined"}}}),
    ));
    machine(&with_container(
        &json!({"ports": [{"containerPort": 80, "protocol": "TCP"}],
        "securityContext": {"privileged": false, "allowPrivilegeEscalation": true}}),
    ));
}

#[test]
fn a_projected_volume_shows_tokens_settings_and_the_pod_itself_under_one_mount() {
    let pod = pod(&json!({
        "volumes": [{"name": "all", "projected": {"defaultMode": 256, "sources": [
            {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
            {"configMap": {"name": "cm", "items": [{"key": "a", "path": "cm/a", "mode": 420}]}},
            {"secret": {"name": "s"}},
            {"downwardAPI": {"items": [
                {"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}},
                {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
                {"path": "cpus", "resourceFieldRef":
                    {"containerName": "web", "resource": "limits.cpu"}}]}}]}}],
        "containers": [{"name": "web", "image": "localhost/hello:1",
            "resources": {"limits": {"cpu": "2"}},
            "volumeMounts": [{"name": "all", "mountPath": "/all/"}]}],
    }));
    let files = machine(&pod).containers.remove(0).files.into_iter();
    let files: Vec<_> = files
        .map(|file| {
            let bytes =
                base64::Engine::decode(&base64::prelude::BASE64_STANDARD, file.raw_value.unwrap());
            let text = String::from_utf8(bytes.unwrap()).unwrap();
            (file.guest_path, text, file.mode.unwrap())
        })
        .collect();
    let expected = [
        ("/all/token", "signed", 256),
        ("/all/cm/a", "1", 420),
        ("/all/password", "hunter2", 256),
        ("/all/namespace", "shop", 256),
        ("/all/labels", "run=\"web\"", 256),
        ("/all/cpus", "2", 256),
    ];
    let expected = expected.map(|(path, text, mode)| (path.to_owned(), text.to_owned(), mode));
    assert_eq!(files, expected);
    let needed = references(&pod);
    assert_eq!(
        (needed.config_maps, needed.secrets),
        (vec!["cm".into()], vec!["s".into()])
    );
}

#[test]
fn a_token_that_nobody_signs_is_refused() {
    let nobody = Sources {
        tokens: Vec::new(),
        ..sources()
    };
    let refused = translate(&pod(&json!({})), &nobody).unwrap_err();
    assert!(refused.to_string().contains("no tokens"), "{refused}");
}
