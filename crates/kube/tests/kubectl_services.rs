//! Real kubectl and Services, with a kubelet on paper and addresses from a counter.

mod common;
mod kubelet;

use common::{TestServer, kubectls};

async fn start() -> TestServer {
    let server = TestServer::start().await;
    kubelet::start(&server.api);
    server
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_is_exposed_scaled_rolled_and_its_endpoints_stay_right() {
    if kubectls().is_empty() {
        eprintln!("SKIPPED: a_deployment_is_exposed_…: no kubectl 1.30 or newer");
    }
    for kubectl in kubectls() {
        let server = start().await;
        let ok = async |args: &str| {
            let args: Vec<_> = args.split(' ').collect();
            server.ok(&kubectl, &args).await
        };
        ok("create deployment web --image=web:1 --replicas=3").await;
        let exposed = ok("expose deployment web --port=80 --target-port=8080").await;
        assert_eq!(exposed, "service/web exposed\n");
        ok("rollout status deploy/web --timeout=60s").await;
        let endpoints = async |count: usize| {
            let wait = format!(
                "wait endpointslice -l kubernetes.io/service-name=web --timeout=60s \
                 --for=jsonpath={{.endpoints[{}].conditions.ready}}=true",
                count - 1
            );
            ok(&wait).await;
            let path = "{.items[*].endpoints[?(@.conditions.ready==true)].addresses[0]}";
            let get =
                format!("get endpointslices -l kubernetes.io/service-name=web -o jsonpath={path}");
            let mut listed = ok(&get).await;
            for _ in 0..200 {
                if listed.split(' ').count() == count {
                    break;
                }
                listed = ok(&get).await;
            }
            assert_eq!(listed.split(' ').count(), count, "{listed}");
            listed
        };
        let before = endpoints(3).await;
        check_table(&ok("get svc web -o wide").await);
        let slices = ok("get endpointslices").await;
        assert!(slices.starts_with("NAME"), "{slices}");
        assert!(
            slices.contains("IPv6") && slices.contains("8080"),
            "{slices}"
        );
        ok("set image deploy/web web=web:2").await;
        ok("rollout status deploy/web --timeout=60s").await;
        let after = endpoints(3).await;
        assert!(
            before.split(' ').all(|old| !after.contains(old)),
            "{before} {after}"
        );
        ok("scale deploy web --replicas=1").await;
        endpoints(1).await;
        check_description(&ok("describe svc web").await);
        let all = ok("get all").await;
        assert!(all.contains("service/web"), "{all}");
        assert_eq!(ok("delete svc web").await, "service \"web\" deleted\n");
        ok("wait endpointslice -l kubernetes.io/service-name=web --for=delete --timeout=60s").await;
        server.stop().await;
    }
}

fn check_table(table: &str) {
    let words = |line: usize| -> Vec<&str> {
        let line = table.lines().nth(line).expect("a line");
        line.split_whitespace().collect()
    };
    let columns = [
        "NAME",
        "TYPE",
        "CLUSTER-IP",
        "EXTERNAL-IP",
        "PORT(S)",
        "AGE",
        "SELECTOR",
    ];
    assert_eq!(words(0), columns);
    let row = words(1);
    assert_eq!(row[..2], ["web", "ClusterIP"]);
    assert!(row[2].starts_with("fdaa:0:7:0:1::"), "{table}");
    assert_eq!((row[3], row[4], row[6]), ("<none>", "80/TCP", "app=web"));
}

fn check_description(described: &str) {
    for text in [
        "Type:",
        "ClusterIP",
        "IP Family Policy:",
        "SingleStack",
        "TargetPort:",
        "8080/TCP",
    ] {
        assert!(described.contains(text), "{text} in {described}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_are_created_patched_replaced_and_refused() {
    for kubectl in kubectls() {
        let server = start().await;
        let ok = async |args: &str| {
            let args: Vec<_> = args.split(' ').collect();
            server.ok(&kubectl, &args).await
        };
        let fails = async |args: &str| {
            let args: Vec<_> = args.split(' ').collect();
            server.fails(&kubectl, &args).await
        };
        ok("create service clusterip web --tcp=80:8080 --tcp=81:http").await;
        ok("create service clusterip nobody --clusterip=None").await;
        let address = ok("get svc web -o jsonpath={.spec.clusterIP}").await;
        assert_eq!(
            ok("get svc nobody -o jsonpath={.spec.clusterIPs[0]}").await,
            "None"
        );
        let ports = ok("get svc web -o jsonpath={.spec.ports[*].name}").await;
        assert_eq!(ports, "80-8080 81-http");
        let patch = r#"{"spec":{"ports":[{"port":80,"targetPort":9090}]}}"#;
        ok(&format!("patch svc web -p {patch}")).await;
        let targets = ok("get svc web -o jsonpath={.spec.ports[*].targetPort}").await;
        assert_eq!(targets, "9090 http");
        let other = r#"{"spec":{"clusterIP":"fdaa::9","clusterIPs":["fdaa::9"]}}"#;
        let refused = fails(&format!("patch svc web -p {other}")).await;
        assert!(refused.contains("may not change once set"), "{refused}");
        assert_eq!(
            ok("get svc web -o jsonpath={.spec.clusterIP}").await,
            address
        );
        ok("label svc web team=a").await;
        ok("create service nodeport web2 --tcp=80").await;
        let port = ok("get svc web2 -o jsonpath={.spec.ports[0].nodePort}").await;
        let port: u16 = port.parse().expect("a port");
        assert!((30000..=32767).contains(&port), "{port}");
        ok("create service externalname web3 --external-name=a.b").await;
        ok("delete svc web2 web3").await;
        let again = fails("create service clusterip web --tcp=80").await;
        assert!(again.contains("already exists"), "{again}");
        let bad = fails("create service clusterip Web --tcp=80").await;
        assert!(bad.contains("RFC 1123"), "{bad}");
        let file = server.dir.path().join("svc.json");
        let text = r#"{"apiVersion":"v1","kind":"Service","metadata":{"name":"db"},
            "spec":{"selector":{"app":"db"},"ports":[{"port":5432}]}}"#;
        let apply = format!("apply -f {}", file.display());
        for (text, outcome) in [
            (text.to_owned(), "created"),
            (text.to_owned(), "unchanged"),
            (text.replace("5432", "5433"), "configured"),
        ] {
            std::fs::write(&file, text).expect("written");
            assert_eq!(ok(&apply).await, format!("service/db {outcome}\n"));
        }
        let slices = ok("get endpointslices -o wide").await;
        assert!(slices.contains("<unset>"), "{slices}");
        let explained = ok("explain service.spec.clusterIP").await;
        assert!(
            explained.contains("clusterIP is the IP address"),
            "{explained}"
        );
        ok("delete svc --all").await;
        server.stop().await;
    }
}
