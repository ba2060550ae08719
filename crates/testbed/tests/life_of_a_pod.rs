//! The life of a pod, as kubectl sees it: run, found by address and name, looked into, outliving
//! the daemon, deleted. Each release of kubectl that this machine has takes its turn.

use std::path::Path;

use serde_json::Value;
use testbed::{Host, Snapshot, eventually, fail, kubectls, skip, succeed};

const IMAGE: &str = "localhost/hello:1";

#[test]
fn life_of_a_pod() {
    let kubectls = kubectls();
    let Some(newest) = kubectls.last() else {
        return skip(
            "life_of_a_pod",
            "no kubectl of 1.30 or newer; set KUBECTL_DIR",
        );
    };
    let before = Snapshot::take();
    let host = Host::new();
    host.up();
    for kubectl in &kubectls {
        one_pod(&host, kubectl);
    }
    let classes = succeed(&mut host.kubectl(newest, &["get", "runtimeclasses", "-o", "name"]));
    for class in ["container", "emulated"] {
        if classes.contains(class) {
            two_pods_of_a_class(&host, newest, class);
        } else {
            skip(
                &format!("pods of class {class}"),
                "this host does not offer it; see doctor",
            );
        }
    }
    values_from_elsewhere(&host, newest);
    restarts_and_ends(&host, newest);
    one_deployment(&host, newest);
    what_is_refused(&host, newest);
    host.down();
    let left = Snapshot::take().since(&before, &host);
    assert!(left.is_empty(), "left behind: {left:#?}");
}

/// What every kubectl has to be able to do.
fn one_pod(host: &Host, kubectl: &Path) {
    let k = |words: &[&str]| succeed(&mut host.kubectl(kubectl, words));
    k(&["create", "namespace", "one"]);
    k(&[
        "-n",
        "one",
        "create",
        "configmap",
        "settings",
        "--from-literal=a=b",
    ]);
    k(&["-n", "one", "run", "web", &format!("--image={IMAGE}")]);
    k(&[
        "-n",
        "one",
        "wait",
        "--for=condition=Ready",
        "pod/web",
        "--timeout=90s",
    ]);
    let wide = k(&["-n", "one", "get", "pods", "-o", "wide"]);
    let row = wide.lines().nth(1).expect("a row");
    assert!(
        row.contains("Running") && row.contains("1/1") && row.contains("fdaa:"),
        "{wide}"
    );
    let description = k(&["-n", "one", "describe", "pod", "web"]);
    assert!(
        description.contains("Scheduled") && description.contains("Started"),
        "{description}"
    );
    let said = k(&["-n", "one", "exec", "web", "--", "echo", "hello"]);
    assert_eq!(said, "hello\n");
    let (code, _) = fail(&mut host.kubectl(kubectl, &["-n", "one", "exec", "web", "--", "false"]));
    assert_eq!(code, 1);
    k(&[
        "-n",
        "one",
        "exec",
        "web",
        "--",
        "wget",
        "-qO-",
        "http://[::1]:8080/",
    ]);
    let log = eventually("a line in the log", || {
        let log = k(&["-n", "one", "logs", "web"]);
        if log.is_empty() {
            Err("nothing yet".to_owned())
        } else {
            Ok(log)
        }
    });
    assert!(log.contains("response"), "{log}");
    k(&["-n", "one", "delete", "pod", "web", "--grace-period=1"]);
    k(&["delete", "namespace", "one"]);
}

fn two_pods_of_a_class(host: &Host, kubectl: &Path, class: &str) {
    let k = |words: &[&str]| succeed(&mut host.kubectl(kubectl, words));
    let overrides = format!(r#"--overrides={{"spec":{{"runtimeClassName":"{class}"}}}}"#);
    for name in ["server", "visitor"] {
        k(&["run", name, &format!("--image={IMAGE}"), &overrides]);
    }
    for name in ["pod/server", "pod/visitor"] {
        k(&["wait", "--for=condition=Ready", name, "--timeout=120s"]);
    }
    let server: Value = serde_json::from_str(&k(&["get", "pod", "server", "-o", "json"])).unwrap();
    let address = server["status"]["podIP"].as_str().expect("an address");
    let container = server["status"]["containerStatuses"][0]["containerID"]
        .as_str()
        .unwrap();
    let id = container
        .trim_start_matches("aerostat://")
        .split('/')
        .next()
        .unwrap();
    for place in [
        format!("[{address}]"),
        format!("{id}.vm.kubernetes.internal"),
    ] {
        let url = format!("http://{place}:8080/");
        eventually("a page", || {
            let words = [
                "exec", "visitor", "--", "timeout", "3", "wget", "-qO-", &url,
            ];
            let output = host.kubectl(kubectl, &words).output().unwrap();
            let page = String::from_utf8_lossy(&output.stdout).into_owned();
            if page.contains("<html") {
                Ok(())
            } else {
                Err(format!("{output:?}"))
            }
        });
    }
    // The daemon dies; the pod does not.
    let started = &server["status"]["containerStatuses"][0]["state"]["running"]["startedAt"];
    host.kill_daemon();
    host.up();
    let after: Value = serde_json::from_str(&k(&["get", "pod", "server", "-o", "json"])).unwrap();
    assert_eq!(after["status"]["phase"], "Running");
    assert_eq!(
        &after["status"]["containerStatuses"][0]["state"]["running"]["startedAt"],
        started
    );
    assert_eq!(k(&["exec", "server", "--", "echo", "still"]), "still\n");
    k(&["delete", "pod", "server", "visitor", "--grace-period=1"]);
}

fn values_from_elsewhere(host: &Host, kubectl: &Path) {
    let k = |words: &[&str]| succeed(&mut host.kubectl(kubectl, words));
    k(&[
        "create",
        "configmap",
        "settings",
        "--from-literal=colour=blue",
    ]);
    k(&[
        "create",
        "secret",
        "generic",
        "door",
        "--from-literal=key=open sesame",
    ]);
    apply(
        host,
        kubectl,
        &serde_json::json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "values"},
            "spec": {"restartPolicy": "Never", "containers": [{
                "name": "c", "image": IMAGE,
                "command": ["sh", "-c", "echo $(COLOUR) $KEY $POD $IP"],
                "env": [
                    {"name": "COLOUR", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "colour"}}},
                    {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "door", "key": "key"}}},
                    {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                    {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                ],
            }]},
        }),
    );
    k(&[
        "wait",
        "--for=jsonpath={.status.phase}=Succeeded",
        "pod/values",
        "--timeout=90s",
    ]);
    let log = k(&["logs", "values"]);
    assert!(log.starts_with("blue open sesame values fdaa:"), "{log}");
    k(&["delete", "pod", "values"]);
}

fn apply(host: &Host, kubectl: &Path, object: &Value) {
    let file = host.folder().join("object.json");
    std::fs::write(&file, object.to_string()).unwrap();
    succeed(&mut host.kubectl(kubectl, &["create", "-f", file.to_str().unwrap()]));
}

fn restarts_and_ends(host: &Host, kubectl: &Path) {
    let pod = |name: &str, policy: &str, script: &str| {
        serde_json::json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
            "spec": {"restartPolicy": policy, "containers": [
                {"name": "c", "image": IMAGE, "command": ["sh", "-c", script]}
            ]},
        })
    };
    let get = |name: &str| -> Value {
        let words = ["get", "pod", name, "-o", "json"];
        serde_json::from_str(&succeed(&mut host.kubectl(kubectl, &words))).unwrap()
    };
    apply(host, kubectl, &pod("fails", "Never", "exit 3"));
    apply(host, kubectl, &pod("again", "Always", "exit 4"));
    eventually(
        "the pod that fails",
        || match get("fails")["status"]["phase"].as_str() {
            Some("Failed") => Ok(()),
            phase => Err(format!("{phase:?}")),
        },
    );
    let code = &get("fails")["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"];
    assert_eq!(code, 3);
    eventually("a restart", || {
        let status = get("again")["status"]["containerStatuses"][0].clone();
        if status["restartCount"].as_u64() >= Some(1) {
            Ok(())
        } else {
            Err(status.to_string())
        }
    });
    for name in ["fails", "again"] {
        succeed(&mut host.kubectl(kubectl, &["delete", "pod", name, "--grace-period=1"]));
    }
}

/// Three machines for one Deployment, then one, then none.
fn one_deployment(host: &Host, kubectl: &Path) {
    let k = |words: &str| {
        let words: Vec<_> = words.split(' ').collect();
        succeed(&mut host.kubectl(kubectl, &words))
    };
    k(&format!(
        "create deployment web --image={IMAGE} --replicas=3"
    ));
    k("rollout status deployment/web --timeout=120s");
    let pods = || k("get pods -l app=web -o name").lines().count();
    assert_eq!(pods(), 3);
    k("scale deployment web --replicas=1");
    let is = |count: usize| {
        let found = pods();
        let fits = found == count;
        if fits {
            Ok(())
        } else {
            Err(format!("{found} pods"))
        }
    };
    eventually("one pod", || is(1));
    k("delete deployment web");
    eventually("no pod", || is(0));
}

fn what_is_refused(host: &Host, kubectl: &Path) {
    let config = std::fs::read_to_string(host.kubeconfig()).unwrap();
    let server = config
        .lines()
        .find_map(|line| line.trim().strip_prefix("server: "))
        .unwrap();
    let bare = [
        "--kubeconfig=/dev/null",
        "--insecure-skip-tls-verify",
        "--server",
        server,
        "--username=x",
        "--password=y",
        "get",
        "pods",
    ];
    let (code, text) = fail(&mut host.kubectl(kubectl, &bare));
    assert_eq!(code, 1);
    assert!(
        text.contains("Forbidden") || text.contains("Unauthorized"),
        "{text}"
    );
    // An image that is nowhere: the pod waits and says why.
    let run = ["run", "nowhere", "--image=localhost/nowhere:1"];
    succeed(&mut host.kubectl(kubectl, &run));
    let reason = eventually("the reason", || {
        let words = ["get", "pod", "nowhere", "-o", "json"];
        let pod: Value =
            serde_json::from_str(&succeed(&mut host.kubectl(kubectl, &words))).unwrap();
        let waiting = &pod["status"]["containerStatuses"][0]["state"]["waiting"];
        let reason = waiting["reason"].as_str().unwrap_or_default().to_owned();
        if reason.contains("Image") {
            Ok(reason)
        } else {
            Err(pod["status"].to_string())
        }
    });
    assert!(
        reason == "ErrImagePull" || reason == "ImagePullBackOff",
        "{reason}"
    );
    succeed(&mut host.kubectl(
        kubectl,
        &["delete", "pod", "nowhere", "--grace-period=0", "--force"],
    ));
}
