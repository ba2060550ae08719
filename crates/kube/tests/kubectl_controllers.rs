//! Real kubectl with StatefulSets, DaemonSets, Jobs and CronJobs, and a kubelet on paper.

mod common;
mod kubelet;

use common::{TestServer, kubectls};
use kube::resource::NODES;
use serde_json::json;

async fn start() -> TestServer {
    let server = TestServer::start().await;
    // The node to which the kubelet on paper binds.
    let node = json!({"metadata": {"name": "fra"}, "status": {"conditions": [
        {"type": "Ready", "status": "True"}]}});
    let made = server.api.create(&NODES, None, node).await;
    made.expect("a node");
    kubelet::start(&server.api);
    server
}

fn workload(kind: &str, more: &str) -> String {
    format!(
        r#"{{"apiVersion":"apps/v1","kind":"{kind}","metadata":{{"name":"db"}},"spec":{{{more}
"selector":{{"matchLabels":{{"app":"db"}}}},"template":{{"metadata":{{"labels":{{"app":"db"}}}},
"spec":{{"containers":[{{"name":"c","image":"a:1"}}]}}}}}}}}"#
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stateful_and_daemon_sets_roll_out_have_a_history_and_are_undone() {
    if kubectls().is_empty() {
        eprintln!("SKIPPED: stateful_and_daemon_sets_roll_out: no kubectl");
    }
    for kubectl in kubectls() {
        let server = start().await;
        let ok = async |args: &str| {
            let args: Vec<_> = args.split(' ').collect();
            server.ok(&kubectl, &args).await
        };
        let file = server.dir.path().join("set.json");
        for (kind, more) in [
            ("StatefulSet", r#""serviceName":"db","replicas":2,"#),
            ("DaemonSet", ""),
        ] {
            std::fs::write(&file, workload(kind, more)).expect("written");
            ok(&format!("apply -f {}", file.display())).await;
            let name = format!("{}/db", kind.to_lowercase());
            let status = format!("rollout status {name} --timeout=60s");
            ok(&status).await;
            ok(&format!("set image {name} c=a:2")).await;
            ok(&status).await;
            let history = ok(&format!("rollout history {name}")).await;
            assert!(
                history.contains("1         <none>\n2         <none>"),
                "{history}"
            );
            let first = ok(&format!("rollout history {name} --revision=1")).await;
            assert!(first.contains("a:1"), "{first}");
            ok(&format!("rollout undo {name}")).await;
            ok(&status).await;
            let image = "-o jsonpath={.spec.template.spec.containers[0].image}";
            assert_eq!(ok(&format!("get {name} {image}")).await, "a:1");
            ok(&format!("rollout restart {name}")).await;
            ok(&status).await;
            let described = ok(&format!("describe {name}")).await;
            assert!(described.contains("SuccessfulCreate"), "{described}");
            ok(&format!("delete {name} --cascade=foreground --timeout=60s")).await;
        }
        assert_eq!(ok("get pods,sts,ds,controllerrevisions -o name").await, "");
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_are_made_by_hand_and_by_cron_jobs_and_described() {
    for kubectl in kubectls() {
        let server = start().await;
        let ok = async |args: &str| {
            let args: Vec<_> = args.split(' ').collect();
            server.ok(&kubectl, &args).await
        };
        ok("create job once --image=work:1").await;
        ok("wait job/once --for=jsonpath={.status.ready}=1 --timeout=60s").await;
        let pods = ok("get pods -l job-name=once -o name").await;
        assert_eq!(pods.lines().count(), 1, "{pods}");
        let described = ok("describe job once").await;
        assert!(described.contains("SuccessfulCreate"), "{described}");
        let args = [
            "create",
            "cronjob",
            "tick",
            "--image=work:1",
            "--schedule=*/5 * * * *",
        ];
        server.ok(&kubectl, &args).await;
        ok("create job now --from=cronjob/tick").await;
        ok("wait job/now --for=jsonpath={.status.ready}=1 --timeout=60s").await;
        ok("delete job once now --timeout=60s").await;
        ok("delete cronjob tick --timeout=60s").await;
        ok("wait pods --all --for=delete --timeout=60s").await;
        assert_eq!(ok("get pods,jobs,cronjobs -o name").await, "");
        server.stop().await;
    }
}
