//! What an administrator can set and change of a cluster, as kubectl sees it on a real host: the
//! audit log, fixed tokens, another cluster's tokens by OIDC, new keys while it runs, metrics of
//! the server, of pods, and autoscaling by them.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use testbed::{Host, eventually, fail, kubectls, skip, succeed};

const IMAGE: &str = "localhost/hello:1";
const FIXED_TOKEN: &str = "a-fixed-token";

#[test]
fn what_is_set_and_changed_of_a_cluster_is_seen_by_kubectl() {
    let kubectls = kubectls();
    let Some(kubectl) = kubectls.last() else {
        return skip(
            "cluster_settings",
            "no kubectl of 1.30 or newer; set KUBECTL_DIR",
        );
    };
    let host = Host::new();
    configure(&host);
    host.up();
    the_configuration_counts(&host, kubectl);
    metrics_of_the_server(&host, kubectl);
    one_cluster_trusts_the_tokens_of_another(&host, kubectl);
    keys_change_while_it_runs(&host, kubectl);
    pods_are_measured_and_scaled(&host, kubectl);
    host.down();
}

fn configure(host: &Host) {
    let folder = host.folder().display();
    let tokens = format!("{FIXED_TOKEN},alice,7,\"dev,ops\"\n");
    std::fs::write(host.folder().join("tokens.csv"), tokens).unwrap();
    let policy = "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules:\n\
                  - level: None\n  users: [kubernetes-admin]\n  verbs: [get]\n- level: Metadata\n";
    std::fs::write(host.folder().join("policy.yaml"), policy).unwrap();
    host.configure(&format!(
        "[kubernetes_api]\n\
         names = [\"api.example\"]\n\
         token_auth_file = \"{folder}/tokens.csv\"\n\
         node_labels = {{ rack = \"seven\" }}\n\
         node_taints = [\"dedicated=tests:PreferNoSchedule\"]\n\
         [kubernetes_api.audit]\n\
         path = \"{folder}/audit.log\"\n\
         policy_file = \"{folder}/policy.yaml\""
    ));
}

/// A kubectl whose only credential is a token.
fn with_token(kubectl: &Path, server: &str, authority: &Path, token: &str) -> Command {
    let mut command = Command::new(kubectl);
    command
        .arg(format!("--server={server}"))
        .arg(format!("--certificate-authority={}", authority.display()))
        .arg(format!("--token={token}"))
        .arg("--kubeconfig=/dev/null")
        // It keeps a cache there.
        .env("HOME", authority.parent().unwrap());
    command
}

fn server_of(host: &Host, kubectl: &Path) -> String {
    let words = [
        "config",
        "view",
        "-o",
        "jsonpath={.clusters[0].cluster.server}",
    ];
    succeed(&mut host.kubectl(kubectl, &words))
}

fn authority(host: &Host) -> PathBuf {
    host.folder().join("data/kubernetes/pki/ca.crt")
}

fn the_configuration_counts(host: &Host, kubectl: &Path) {
    let k = |words: &[&str]| succeed(&mut host.kubectl(kubectl, words));
    let server = server_of(host, kubectl);
    let who = ["auth", "whoami", "-o", "json"];
    let fixed = || with_token(kubectl, &server, &authority(host), FIXED_TOKEN);
    let alice: Value = serde_json::from_str(&succeed(fixed().args(who))).unwrap();
    let alice = &alice["status"]["userInfo"];
    assert_eq!(
        (&alice["username"], &alice["uid"]),
        (&json!("alice"), &json!("7"))
    );
    assert_eq!(
        alice["groups"],
        json!(["dev", "ops", "system:authenticated"])
    );
    fail(fixed().args(["get", "secrets"]));
    fail(with_token(kubectl, &server, &authority(host), "another").args(who));
    // The certificate has the further name.
    let named = fixed()
        .arg("--tls-server-name=api.example")
        .args(who)
        .output();
    assert!(named.unwrap().status.success());

    let node: Value = serde_json::from_str(&k(&["get", "node", "local", "-o", "json"])).unwrap();
    assert_eq!(node["metadata"]["labels"]["rack"], "seven");
    let taint = json!({"key": "dedicated", "value": "tests", "effect": "PreferNoSchedule"});
    let taints = node["spec"]["taints"].as_array().expect("taints");
    assert!(taints.contains(&taint), "{taints:?}");

    k(&["create", "configmap", "settings", "--from-literal=a=b"]);
    eventually("a line in the audit log", || {
        let log = std::fs::read_to_string(host.folder().join("audit.log")).unwrap();
        let events: Vec<Value> = log
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect();
        let by = |user: &str, verb: &str| {
            let mut events = events.iter();
            events.any(|event| event["user"]["username"] == user && event["verb"] == verb)
        };
        // The policy leaves out what the administrator reads, and tells the rest.
        assert!(!by("kubernetes-admin", "get"), "{log}");
        if by("kubernetes-admin", "create") && by("alice", "list") {
            Ok(())
        } else {
            Err(log)
        }
    });
}

fn metrics_of_the_server(host: &Host, kubectl: &Path) {
    let k = |words: &[&str]| succeed(&mut host.kubectl(kubectl, words));
    let metrics = k(&["get", "--raw", "/metrics"]);
    for series in [
        "apiserver_request_total{code=\"201\",component=\"apiserver\",dry_run=\"\",group=\"\",\
         resource=\"configmaps\",scope=\"resource\",subresource=\"\",verb=\"POST\",version=\"v1\"} ",
        "apiserver_request_duration_seconds_bucket{",
        "apiserver_current_inflight_requests{request_kind=\"readOnly\"} 1",
        "apiserver_storage_objects{resource=\"configmaps\"} ",
        "aerostat_store_write_duration_seconds_count{operation=\"create\"} ",
        "workqueue_adds_total{name=\"deployment\"} ",
        "process_resident_memory_bytes ",
    ] {
        assert!(metrics.contains(series), "{series} in {metrics}");
    }
    // As upstream: nobody in particular may not, and system:monitoring may.
    let server = server_of(host, kubectl);
    let fixed = || with_token(kubectl, &server, &authority(host), FIXED_TOKEN);
    let (_, why) = fail(fixed().args(["get", "--raw", "/metrics"]));
    assert!(why.contains("cannot get path \"/metrics\""), "{why}");
    k(&[
        "create",
        "clusterrolebinding",
        "watchers",
        "--clusterrole=system:monitoring",
        "--user=alice",
    ]);
    succeed(fixed().args(["get", "--raw", "/metrics"]));
}

fn one_cluster_trusts_the_tokens_of_another(host: &Host, kubectl: &Path) {
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let settings = |name: &str, text: &str| {
        let path = host.folder().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let issuer = format!("https://{free}");
    let a = settings(
        "a.toml",
        &format!("service_account_issuer = \"{issuer}\"\n"),
    );
    let listen = free.to_string();
    succeed(&mut host.aerostat(&["k8s", "create", "a", "--listen", &listen, "--settings", &a]));
    let of = |cluster: &str| host.folder().join("data/kubernetes/clusters").join(cluster);
    let in_cluster = |cluster: &str, words: &[&str]| {
        let mut command = host.kubectl(kubectl, words);
        command.env("KUBECONFIG", of(cluster).join("kubeconfig"));
        succeed(&mut command)
    };
    // As upstream, whoever wants to be an issuer for outsiders says so.
    let public = [
        "create",
        "clusterrolebinding",
        "issuer",
        "--clusterrole=system:service-account-issuer-discovery",
        "--group=system:unauthenticated",
    ];
    in_cluster("a", &public);
    let b = settings(
        "b.toml",
        &format!(
            "[oidc]\nissuer_url = \"{issuer}\"\nclient_id = \"cluster-b\"\n\
             username_prefix = \"a:\"\nca_file = \"{}\"\n",
            of("a").join("pki/ca.crt").display()
        ),
    );
    succeed(&mut host.aerostat(&["k8s", "create", "b", "--settings", &b]));
    let server = [
        "config",
        "view",
        "-o",
        "jsonpath={.clusters[0].cluster.server}",
    ];
    let server = in_cluster("b", &server);
    let b_authority = of("b").join("pki/ca.crt");
    let token = |audience: &str| {
        let audience = format!("--audience={audience}");
        let words = ["create", "token", "default", &audience];
        // The account is made by a controller.
        eventually("a token", || {
            let mut command = host.kubectl(kubectl, &words);
            command.env("KUBECONFIG", of("a").join("kubeconfig"));
            let output = command.output().unwrap();
            if output.status.success() {
                Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
            } else {
                Err(String::from_utf8_lossy(&output.stderr).into_owned())
            }
        })
    };
    let good = token("cluster-b");
    let mut who = with_token(kubectl, &server, &b_authority, &good);
    let who = succeed(who.args([
        "auth",
        "whoami",
        "-o",
        "jsonpath={.status.userInfo.username}",
    ]));
    assert_eq!(who, "a:system:serviceaccount:default:default");
    let list = |token: &str| {
        let mut command = with_token(kubectl, &server, &b_authority, token);
        command.args(["get", "pods"]);
        command
    };
    let (_, why) = fail(&mut list(&good));
    assert!(why.contains("Forbidden"), "{why}");
    let user = "--user=a:system:serviceaccount:default:default";
    in_cluster(
        "b",
        &[
            "create",
            "clusterrolebinding",
            "from-a",
            "--clusterrole=view",
            user,
        ],
    );
    succeed(&mut list(&good));
    // A token that is meant for somebody else is nobody's here.
    let (_, why) = fail(&mut list(&token("cluster-c")));
    assert!(
        why.contains("Unauthorized") || why.contains("must be logged in"),
        "{why}"
    );
    // What was signed with a key that came later is found out by asking again.
    succeed(&mut host.aerostat(&["k8s", "rotate-keys", "tokens", "a"]));
    let later = token("cluster-b");
    eventually("the new key is known", || {
        let output = list(&later).output().unwrap();
        if output.status.success() {
            Ok(())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    });
    for name in ["a", "b"] {
        succeed(&mut host.aerostat(&["k8s", "delete", name, "--yes"]));
    }
}

fn keys_change_while_it_runs(host: &Host, kubectl: &Path) {
    let k = |words: &[&str]| succeed(&mut host.kubectl(kubectl, words));
    let rotate = |words: &[&str]| {
        host.json(&[&["k8s", "rotate-keys"], words].concat())
            .unwrap()
    };
    k(&[
        "create",
        "secret",
        "generic",
        "door",
        "--from-literal=key=sesame",
    ]);
    let secret = || k(&["get", "secret", "door", "-o", "jsonpath={.data.key}"]);
    let before = secret();
    let told = rotate(&["secrets"]);
    assert!(told["resealed"].as_u64() >= Some(1), "{told}");
    assert_eq!(told["ids"].as_array().map(Vec::len), Some(2), "{told}");
    assert_eq!(secret(), before);
    let told = rotate(&["secrets", "--drop-old", "--yes"]);
    assert_eq!(told["ids"].as_array().map(Vec::len), Some(1), "{told}");
    assert_eq!(secret(), before);

    let token = k(&["create", "token", "default"]);
    let who = |token: &str| {
        // A daemon that begins anew may listen on another port.
        let server = server_of(host, kubectl);
        let mut command = with_token(kubectl, &server, &authority(host), token.trim());
        command.args(["auth", "whoami"]);
        command
    };
    rotate(&["tokens"]);
    succeed(&mut who(&token));
    let new = k(&["create", "token", "default"]);
    rotate(&["tokens", "--drop-old", "--yes"]);
    succeed(&mut who(&new));
    fail(&mut who(&token));

    // Who trusted the old authority still does, and the old certificate is still known.
    let old = host.folder().join("old.kubeconfig");
    std::fs::copy(host.kubeconfig(), &old).unwrap();
    let told = rotate(&["certificates"]);
    assert_eq!(told["ids"].as_array().map(Vec::len), Some(3), "{told}");
    assert_ne!(
        std::fs::read(&old).unwrap(),
        std::fs::read(host.kubeconfig()).unwrap()
    );
    k(&["get", "nodes"]);
    let mut with_old = host.kubectl(kubectl, &["get", "nodes"]);
    succeed(with_old.env("KUBECONFIG", &old));
    // And so it is after the next start.
    host.kill_daemon();
    host.up();
    assert_eq!(secret(), before);
    succeed(&mut who(&new));
}

fn pods_are_measured_and_scaled(host: &Host, kubectl: &Path) {
    let k = |words: &[&str]| succeed(&mut host.kubectl(kubectl, words));
    let burn = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "burn"},
        "spec": {"selector": {"matchLabels": {"app": "burn"}}, "template": {
            "metadata": {"labels": {"app": "burn"}},
            "spec": {"runtimeClassName": "container", "terminationGracePeriodSeconds": 0,
                "containers": [{"name": "c", "image": IMAGE,
                    "command": ["sh", "-c", "while :; do :; done"],
                    "resources": {"requests": {"cpu": "50m"}}}]},
        }},
    });
    let file = host.folder().join("burn.json");
    std::fs::write(&file, burn.to_string()).unwrap();
    k(&["apply", "-f", &file.display().to_string()]);
    k(&["rollout", "status", "deployment/burn", "--timeout=90s"]);
    let milli = eventually("the pod's use of processors", || {
        let output = host
            .kubectl(kubectl, &["top", "pods", "--no-headers"])
            .output();
        let output = output.unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let cpu = text
            .split_whitespace()
            .nth(1)
            .and_then(|cpu| cpu.strip_suffix('m'));
        match cpu.and_then(|cpu| cpu.parse::<u64>().ok()) {
            Some(milli) if milli > 0 => Ok(milli),
            Some(_) | None => Err(format!("{output:?}")),
        }
    });
    assert!(milli >= 50, "{milli}");
    let top = k(&["top", "pods", "--containers"]);
    assert!(top.contains("CPU(cores)") && top.contains(" c "), "{top}");
    let node = k(&["top", "node"]);
    assert!(node.contains("local") && node.contains('%'), "{node}");
    assert!(k(&["api-resources"]).contains("metrics.k8s.io/v1beta1"));
    for made in [
        "apiservice/v1beta1.metrics.k8s.io",
        "clusterrole/system:aggregated-metrics-reader",
    ] {
        k(&["get", made]);
    }
    k(&[
        "autoscale",
        "deployment",
        "burn",
        "--cpu-percent=60",
        "--min=1",
        "--max=2",
    ]);
    eventually("a second pod", || {
        let autoscaler = k(&["get", "hpa", "burn", "-o", "json"]);
        let deployment = [
            "get",
            "deployment",
            "burn",
            "-o",
            "jsonpath={.spec.replicas}",
        ];
        match k(&deployment).as_str() {
            "2" => Ok(()),
            _ => Err(autoscaler),
        }
    });
    k(&["delete", "hpa,deployment", "burn"]);
}
