//! Real kubectl and Deployments, with a kubelet on paper.

mod common;
mod kubelet;

use common::{TestServer, kubectls};

async fn start() -> TestServer {
    let server = TestServer::start().await;
    kubelet::start(&server.api);
    server
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deployments_roll_out_are_undone_and_go() {
    if kubectls().is_empty() {
        eprintln!("SKIPPED: deployments_roll_out_are_undone_and_go: no kubectl 1.30 or newer");
    }
    for kubectl in kubectls() {
        let server = start().await;
        let ok = async |args: &str| {
            let args: Vec<_> = args.split(' ').collect();
            server.ok(&kubectl, &args).await
        };
        let created = ok("create deployment web --image=web:1 --replicas=3").await;
        assert_eq!(created, "deployment.apps/web created\n");
        let waited = ok("rollout status deploy/web --timeout=60s").await;
        assert!(waited.contains("successfully rolled out"), "{waited}");
        let wide = ok("get deploy,rs -o wide").await;
        assert!(
            wide.contains("deployment.apps/web   3/3     3            3"),
            "{wide}"
        );
        assert!(wide.contains("web          web:1    app=web"), "{wide}");
        ok("set image deploy/web web=web:2").await;
        ok("rollout status deploy/web --timeout=60s").await;
        let history = ok("rollout history deploy/web").await;
        assert!(
            history.contains("1         <none>\n2         <none>"),
            "{history}"
        );
        ok("rollout undo deploy/web").await;
        ok("rollout status deploy/web --timeout=60s").await;
        let image = "get deploy web -o jsonpath={.spec.template.spec.containers[0].image}";
        assert_eq!(ok(image).await, "web:1");
        ok("rollout restart deploy/web").await;
        ok("rollout status deploy/web --timeout=60s").await;
        ok("scale deploy web --replicas=1").await;
        ok("wait deploy/web --for=jsonpath={.status.replicas}=1 --timeout=60s").await;
        ok("wait deploy/web --for=condition=Available --timeout=60s").await;
        ok("rollout pause deploy/web").await;
        ok("rollout resume deploy/web").await;
        check_description(&ok("describe deployment web").await);
        let all = ok("get all").await;
        assert!(
            all.contains("pod/web-") && all.contains("replicaset.apps/web-"),
            "{all}"
        );
        ok("scale rs -l app=web --replicas=0").await;
        let refused = server
            .fails(
                &kubectl,
                &[
                    "scale",
                    "deploy",
                    "web",
                    "--replicas=1",
                    "--current-replicas=9",
                ],
            )
            .await;
        assert!(refused.contains("Expected replicas to be 9"), "{refused}");
        ok("delete deployment web --cascade=foreground --timeout=60s").await;
        assert_eq!(ok("get pods,rs,deploy -o name").await, "");
        server.stop().await;
    }
}

const MANIFEST: &str = r#"{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"shop",
"namespace":"team"},"spec":{"replicas":2,"selector":{"matchLabels":{"app":"shop"}},
"template":{"metadata":{"labels":{"app":"shop"}},"spec":{"containers":[{"name":"c","image":"a:1",
"ports":[{"containerPort":80}]}]}}}}"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manifest_is_applied_changed_refused_and_goes_with_its_namespace() {
    for kubectl in kubectls() {
        let server = start().await;
        let ok = async |args: &str| {
            let args: Vec<_> = args.split(' ').collect();
            server.ok(&kubectl, &args).await
        };
        ok("create ns team").await;
        let file = server.dir.path().join("shop.json");
        let apply = format!("apply -f {}", file.display());
        for (text, outcome) in [
            (MANIFEST.to_owned(), "created"),
            (MANIFEST.to_owned(), "unchanged"),
            (MANIFEST.replace("a:1", "a:2"), "configured"),
        ] {
            std::fs::write(&file, text).expect("written");
            let said = ok(&apply).await;
            assert_eq!(said, format!("deployment.apps/shop {outcome}\n"));
            ok("-n team rollout status deploy/shop --timeout=60s").await;
        }
        let other = MANIFEST.replace(r#"labels":{"app":"shop"}"#, r#"labels":{"app":"x"}"#);
        std::fs::write(&file, other).expect("written");
        let args: Vec<_> = apply.split(' ').collect();
        let refused = server.fails(&kubectl, &args).await;
        assert!(
            refused.contains("`selector` does not match template `labels`"),
            "{refused}"
        );
        ok("delete ns team --timeout=60s").await;
        assert_eq!(ok("get deploy,rs,pods -A -o name").await, "");
    }
}

fn check_description(described: &str) {
    for text in [
        "Replicas:               1 desired",
        "StrategyType:           RollingUpdate",
        "25% max unavailable, 25% max surge",
        "NewReplicaSetAvailable",
        "ScalingReplicaSet",
    ] {
        assert!(described.contains(text), "{text} in {described}");
    }
}
