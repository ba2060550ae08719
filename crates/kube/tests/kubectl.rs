//! Real kubectl against the server: what people type, and what they read.

mod common;

use std::path::PathBuf;

use common::{TestServer, kubectls};

/// The kubectls to test with; says so when there are none.
fn programs(test: &str) -> Vec<PathBuf> {
    let programs = kubectls();
    if programs.is_empty() {
        eprintln!("SKIPPED: {test}: no kubectl 1.30 or newer (set KUBECTL_DIRS)");
    }
    programs
}

const POD: &str = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"web","labels":{"app":"web"}},
"spec":{"containers":[{"name":"web","image":"web:1","ports":[{"containerPort":80}]}]}}"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_live_their_lives() {
    for kubectl in programs("objects_live_their_lives") {
        let server = TestServer::start().await;
        let ok = async |args: &[&str]| server.ok(&kubectl, args).await;
        let resources = ok(&["api-resources"]).await;
        for line in [
            "pods                       po",
            "configmaps",
            "leases",
            "runtimeclasses",
        ] {
            assert!(
                resources.contains(line.split(' ').next().unwrap_or(line)),
                "{resources}"
            );
        }
        assert_eq!(ok(&["get", "--raw", "/readyz"]).await, "ok");
        assert!(ok(&["version"]).await.contains("Server Version: v1.36.0"));
        // Protobuf bodies from 1.32 on.
        assert_eq!(
            ok(&["create", "ns", "team"]).await,
            "namespace/team created\n"
        );
        ok(&[
            "-n",
            "team",
            "create",
            "cm",
            "settings",
            "--from-literal=a=b",
        ])
        .await;
        ok(&[
            "-n",
            "team",
            "create",
            "secret",
            "generic",
            "key",
            "--from-literal=k=v",
        ])
        .await;
        ok(&["-n", "team", "create", "sa", "robot"]).await;
        let data = ok(&[
            "-n",
            "team",
            "get",
            "secret",
            "key",
            "-o",
            "jsonpath={.data.k}{.type}",
        ])
        .await;
        assert_eq!(data, "dg==Opaque");
        let table = ok(&["-n", "team", "get", "cm,secret,sa"]).await;
        assert!(table.contains("configmap/settings   1"), "{table}");
        assert!(table.contains("secret/key   Opaque   1"), "{table}");
        assert!(
            ok(&["get", "ns"])
                .await
                .contains("kube-system       Active")
        );
        ok(&["-n", "team", "label", "cm", "settings", "tier=one"]).await;
        ok(&["-n", "team", "annotate", "cm", "settings", "note=x"]).await;
        ok(&[
            "-n",
            "team",
            "patch",
            "cm",
            "settings",
            "-p",
            r#"{"data":{"c":"d"}}"#,
        ])
        .await;
        let json_patch = r#"[{"op":"replace","path":"/data/a","value":"z"}]"#;
        ok(&[
            "-n",
            "team",
            "patch",
            "cm",
            "settings",
            "--type=json",
            "-p",
            json_patch,
        ])
        .await;
        let selected = ok(&[
            "-n",
            "team",
            "get",
            "cm",
            "-l",
            "tier in (one,two)",
            "-o",
            "jsonpath={.items[0].data}",
        ])
        .await;
        assert_eq!(selected, r#"{"a":"z","c":"d"}"#);
        assert!(
            ok(&["-n", "team", "describe", "cm", "settings"])
                .await
                .contains("Annotations:  note: x")
        );
        let live = ok(&["-n", "team", "get", "cm", "settings", "-o", "json"]).await;
        let output = server
            .run_with_input(
                &kubectl,
                &["replace", "-f", "-"],
                &live.replace("\"z\"", "\"y\""),
            )
            .await;
        assert!(output.status.success(), "{output:?}");
        ok(&["-n", "team", "delete", "cm", "settings"]).await;
        let gone = server
            .fails(&kubectl, &["-n", "team", "get", "cm", "settings"])
            .await;
        assert_eq!(
            gone,
            "Error from server (NotFound): configmaps \"settings\" not found\n"
        );
        assert!(
            ok(&["explain", "pod.spec.containers.image"])
                .await
                .contains("FIELD: image <string>")
        );
        assert!(ok(&["auth", "whoami"]).await.contains("kubernetes-admin"));
        assert_eq!(ok(&["auth", "can-i", "create", "pods"]).await, "yes\n");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_are_created_shown_changed_and_deleted() {
    for kubectl in programs("pods_are_created_shown_changed_and_deleted") {
        let server = TestServer::start().await;
        let ok = async |args: &[&str]| server.ok(&kubectl, args).await;
        ok(&["run", "bare", "--image=busybox"]).await;
        let wide = ok(&["get", "pods", "-o", "wide"]).await;
        assert!(wide.contains("READINESS GATES"), "{wide}");
        assert!(wide.contains("bare   0/1     Pending   0"), "{wide}");
        let file = server.dir.path().join("pod.json");
        std::fs::write(&file, POD).expect("written");
        let file = file.to_str().expect("a path");
        assert_eq!(ok(&["apply", "-f", file]).await, "pod/web created\n");
        assert_eq!(ok(&["apply", "-f", file]).await, "pod/web unchanged\n");
        std::fs::write(file, POD.replace("web:1", "web:2")).expect("written");
        assert_eq!(ok(&["apply", "-f", file]).await, "pod/web configured\n");
        assert_eq!(
            ok(&[
                "get",
                "pod",
                "web",
                "-o",
                "jsonpath={.spec.containers[0].image}"
            ])
            .await,
            "web:2"
        );
        ok(&["set", "image", "pod/web", "web=web:3"]).await;
        let described = ok(&["describe", "pod", "web"]).await;
        assert!(described.contains("Image:        web:3"), "{described}");
        assert!(described.contains("node.kubernetes.io/not-ready:NoExecute op=Exists for 300s"));
        ok(&["delete", "pod", "bare", "web"]).await;
        assert_eq!(ok(&["get", "pods", "-o", "name"]).await, "");
        // Deletion with grace: the pod stays until somebody confirms.
        ok(&["run", "bound", "--image=busybox"]).await;
        server
            .api
            .bind("default", "bound", "fra")
            .await
            .expect("binds");
        ok(&["delete", "pod", "bound", "--wait=false"]).await;
        assert!(ok(&["get", "pods"]).await.contains("Terminating"));
        ok(&["delete", "pod", "bound", "--force"]).await;
        ok(&["run", "evicted", "--image=busybox"]).await;
        let node = serde_json::json!({"metadata": {"name": "fra"}});
        server
            .api
            .create(&kube::resource::NODES, None, node)
            .await
            .expect("created");
        server
            .api
            .bind("default", "evicted", "fra")
            .await
            .expect("binds");
        let drained = server
            .run(&kubectl, &["drain", "fra", "--force", "--timeout=1s"])
            .await;
        let said = String::from_utf8_lossy(&drained.stdout).into_owned();
        assert!(said.contains("evicting pod default/evicted"), "{drained:?}");
        assert!(ok(&["get", "nodes"]).await.contains("SchedulingDisabled"));
        ok(&["delete", "pod", "evicted", "--force"]).await;
        assert_eq!(ok(&["get", "pods", "-o", "name"]).await, "");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mistakes_are_told_in_the_known_words() {
    for kubectl in programs("mistakes_are_told_in_the_known_words") {
        let server = TestServer::start().await;
        let fails = async |args: &[&str]| server.fails(&kubectl, args).await;
        let error = fails(&["create", "cm", "Bad_Name"]).await;
        assert!(
            error.contains("ConfigMap \"Bad_Name\" is invalid: metadata.name"),
            "{error}"
        );
        let error = fails(&["-n", "nowhere", "create", "cm", "a"]).await;
        assert!(
            error.contains("namespaces \"nowhere\" not found"),
            "{error}"
        );
        let error = fails(&["get", "gnomes"]).await;
        assert!(
            error.contains("the server doesn't have a resource type \"gnomes\""),
            "{error}"
        );
        let file = server.dir.path().join("pod.json");
        std::fs::write(&file, POD.replace("\"image\"", "\"imagee\"")).expect("written");
        let file = file.to_str().expect("a path");
        let error = fails(&["create", "-f", file]).await;
        assert!(
            error.contains("unknown field \"spec.containers[0].imagee\""),
            "{error}"
        );
        let mut pod: serde_json::Value = serde_json::from_str(POD).expect("JSON");
        pod["spec"]["containers"][0]["command"] = serde_json::json!(["a"]);
        server
            .api
            .create(&kube::resource::PODS, Some("default"), pod)
            .await
            .expect("created");
        let patch = r#"{"spec":{"containers":[{"name":"web","command":["b"]}]}}"#;
        let error = fails(&["patch", "pod", "web", "-p", patch]).await;
        assert!(
            error.contains("spec: Forbidden: pod updates may not change fields"),
            "{error}"
        );
        let alice = server.pki.client("alice", None).expect("made");
        server.write_kubeconfig("alice.conf", &alice);
        let config = server.dir.path().join("alice.conf");
        let config = config.to_str().expect("a path");
        let error = fails(&["--kubeconfig", config, "get", "pods"]).await;
        assert_eq!(
            error,
            "Error from server (Forbidden): pods is forbidden: User \"alice\" cannot list resource \
             \"pods\" in API group \"\" in the namespace \"default\"\n"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_and_exec_reach_the_container() {
    for kubectl in programs("logs_and_exec_reach_the_container") {
        let server = TestServer::start().await;
        let ok = async |args: &[&str]| server.ok(&kubectl, args).await;
        ok(&["run", "p", "--image=busybox"]).await;
        server.api.bind("default", "p", "fra").await.expect("binds");
        assert_eq!(ok(&["logs", "p"]).await, "one\ntwo\nthree\n");
        assert_eq!(ok(&["logs", "-f", "p", "--tail=1"]).await, "three\n");
        assert_eq!(ok(&["logs", "p", "--limit-bytes=5"]).await, "one\nt");
        let echoed = server
            .run_with_input(&kubectl, &["exec", "-i", "p", "--", "cat"], "hello\n")
            .await;
        assert_eq!(
            String::from_utf8_lossy(&echoed.stdout),
            "hello\n",
            "{echoed:?}"
        );
        let warned = server
            .run(&kubectl, &["exec", "p", "--", "warn", "careful"])
            .await;
        assert_eq!(String::from_utf8_lossy(&warned.stderr), "careful\n");
        let failed = server
            .run(&kubectl, &["exec", "p", "--", "exit", "7"])
            .await;
        assert_eq!(failed.status.code(), Some(7), "{failed:?}");
        let error = server.fails(&kubectl, &["exec", "p", "--", "refuse"]).await;
        assert!(error.contains("the machine is not running"), "{error}");
        ok(&["run", "pending", "--image=busybox"]).await;
        let error = server
            .fails(&kubectl, &["exec", "pending", "--", "cat"])
            .await;
        assert!(
            error.contains("pod pending does not have a host assigned"),
            "{error}"
        );
        let attached = server.run(&kubectl, &["attach", "p"]).await;
        assert_eq!(
            String::from_utf8_lossy(&attached.stdout),
            "attached\n",
            "{attached:?}"
        );
        let error = server
            .fails(&kubectl, &["exec", "p", "-c", "none", "--", "cat"])
            .await;
        assert!(
            error.contains("container none is not valid for pod p")
                || error.contains("container not found"),
            "{error}"
        );
        let error = server
            .fails(&kubectl, &["port-forward", "p", "1234:80"])
            .await;
        assert!(!error.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_and_waits_see_changes_at_once() {
    for kubectl in programs("watches_and_waits_see_changes_at_once") {
        let server = TestServer::start().await;
        let ok = async |args: &[&str]| server.ok(&kubectl, args).await;
        ok(&["run", "p", "--image=busybox"]).await;
        let mut watch = server.kubectl(&kubectl);
        watch
            .args(["get", "pods", "-w", "--no-headers"])
            .stdout(std::process::Stdio::piped());
        let mut watch = watch.spawn().expect("starts");
        let lines = watch.stdout.take().expect("piped");
        let seen = tokio::task::spawn_blocking(move || {
            use std::io::BufRead;
            let lines = std::io::BufReader::new(lines).lines();
            lines.map_while(Result::ok).take(2).collect::<Vec<_>>()
        });
        let waiting = ok(&[
            "wait",
            "pod/p",
            "--for=jsonpath={.status.phase}=Running",
            "--timeout=20s",
        ]);
        let change = async {
            tokio::time::sleep(std::time::Duration::from_millis(800)).await;
            let mut pod = server
                .api
                .get(&kube::resource::PODS, Some("default"), "p")
                .await
                .expect("there");
            pod["status"]["phase"] = "Running".into();
            server
                .api
                .update_status(&kube::resource::PODS, Some("default"), pod)
                .await
                .expect("written");
        };
        let (waited, ()) = tokio::join!(waiting, change);
        assert!(waited.contains("condition met"), "{waited}");
        let seen = seen.await.expect("no panic");
        watch.kill().expect("killed");
        watch.wait().expect("reaped");
        assert!(
            seen[0].contains("Pending") && seen[1].contains("Running"),
            "{seen:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stops_ends_its_watches() {
    let Some(kubectl) = programs("a_server_that_stops_ends_its_watches").pop() else {
        return;
    };
    let server = TestServer::start().await;
    let mut watch = server.kubectl(&kubectl);
    watch
        .args(["get", "ns", "-w", "-o", "name"])
        .stdout(std::process::Stdio::piped());
    let mut watch = watch.spawn().expect("starts");
    let lines = watch.stdout.take().expect("piped");
    tokio::task::spawn_blocking(move || {
        use std::io::BufRead;
        let lines = std::io::BufReader::new(lines).lines();
        assert_eq!(lines.map_while(Result::ok).take(4).count(), 4);
    })
    .await
    .expect("the namespaces are told");
    let begin = std::time::Instant::now();
    server.stop().await;
    assert!(
        begin.elapsed() < std::time::Duration::from_secs(4),
        "{:?}",
        begin.elapsed()
    );
    watch.kill().expect("killed");
    watch.wait().expect("reaped");
}
