//! Pods and the API server reach each other: operators made with client-go and with kube-rs run in
//! pods with what every pod has, and the API server asks one of them about objects and sends it
//! requests. Nobody else reaches that API server.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use testbed::{Host, Snapshot, archive, eventually, fail, kubectls, skip, succeed};

const IMAGE: &str = "localhost/hello:1";
const OPERATOR: &str = "localhost/operator:1";
const GADGETS: &str = "localhost/gadgets:1";
/// A pod's own view of the API server.
const ACCESS: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// A client program, or why it cannot be had.
fn program(client: &str, name: &str) -> Result<PathBuf, String> {
    let setup = Path::new(env!("CARGO_MANIFEST_DIR")).join("../kube/tests/clients/setup");
    let output = Command::new(setup).arg(client).output();
    let output = output.map_err(|error| error.to_string())?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let folder = String::from_utf8_lossy(&output.stdout);
    Ok(Path::new(folder.trim()).join(name))
}

struct World {
    host: Host,
    kubectl: PathBuf,
}

impl World {
    fn kubectl(&self, line: &str) -> Command {
        let words: Vec<_> = line.split(' ').collect();
        self.host.kubectl(&self.kubectl, &words)
    }

    fn k(&self, line: &str) -> String {
        succeed(&mut self.kubectl(line))
    }

    /// Runs a shell in a pod; what it printed, or what was wrong.
    fn shell(&self, pod: &str, script: &str) -> Result<String, String> {
        let words = ["exec", pod, "--", "sh", "-c", script];
        let output = self.host.kubectl(&self.kubectl, &words).output();
        let output = output.map_err(|error| error.to_string())?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
        }
        Err(format!("{output:?}"))
    }

    /// Whether an API server answers a pod. The pod's own client is too old for its TLS, and being
    /// told so by the other end is an answer.
    fn meets(&self, pod: &str, host: &str) -> Result<(), String> {
        let ask = format!("timeout 3 wget -qO- --no-check-certificate https://{host}/version 2>&1");
        let said = self.shell(pod, &format!("{ask}; true"))?;
        if said.contains("gitVersion") || said.contains("TLS error from peer") {
            return Ok(());
        }
        Err(said)
    }

    fn apply(&self, object: &Value) {
        let file = self.host.folder().join("object.json");
        std::fs::write(&file, object.to_string()).expect("written");
        self.k(&format!("apply -f {}", file.display()));
    }
}

#[test]
fn pods_and_the_api_server_reach_each_other() {
    let test = "pods_and_the_api_server_reach_each_other";
    let Some(kubectl) = kubectls().pop() else {
        return skip(test, "no kubectl of 1.30 or newer; set KUBECTL_DIR");
    };
    let before = Snapshot::take();
    let world = World {
        host: Host::new(),
        kubectl,
    };
    world.host.up();
    a_pod_finds_the_api_server(&world);
    tokens_are_written_anew(&world);
    another_tenants_api_server_is_out_of_reach(&world);
    match program("operator", "operator") {
        Ok(program) => an_operator_runs_in_a_pod(&world, &program),
        Err(why) => skip("an_operator_runs_in_a_pod", &why),
    }
    match program("rust", "clients") {
        Ok(program) => an_operator_with_kube_rs_runs_in_a_pod(&world, &program),
        Err(why) => skip("an_operator_with_kube_rs_runs_in_a_pod", &why),
    }
    world.host.down();
    let left = Snapshot::take().since(&before, &world.host);
    assert!(left.is_empty(), "left behind: {left:#?}");
}

fn a_pod_finds_the_api_server(world: &World) {
    world.k(&format!("run plain --image={IMAGE}"));
    world.k("wait --for=condition=Ready pod/plain --timeout=120s");
    let address = world.k("get service kubernetes -o jsonpath={.spec.clusterIP}");
    let variables = "echo $KUBERNETES_SERVICE_HOST $KUBERNETES_SERVICE_PORT";
    let expected = format!("{address} 443");
    assert_eq!(world.shell("plain", variables).as_ref(), Ok(&expected));
    let read = |file: &str| world.shell("plain", &format!("cat {ACCESS}/{file}"));
    assert_eq!(read("namespace").as_deref(), Ok("default"));
    assert!(read("ca.crt").expect("there").contains("BEGIN CERTIFICATE"));
    assert_eq!(read("token").expect("there").split('.').count(), 3);
    for name in [
        "kubernetes.default.svc.cluster.local".to_owned(),
        "kubernetes.default.svc".to_owned(),
        format!("[{address}]"),
    ] {
        eventually("the API server", || world.meets("plain", &name));
    }
    let slices = "get endpointslices -l kubernetes.io/service-name=kubernetes -o json";
    let slices: Value = serde_json::from_str(&world.k(slices)).expect("JSON");
    let endpoint = slices["items"][0]["endpoints"][0]["addresses"][0].as_str();
    assert!(
        endpoint.is_some_and(|one| one.starts_with("fdaa:")),
        "{slices}"
    );
    // It comes back, with the address that pods know.
    world.k("delete service kubernetes");
    eventually("the Service", || {
        let again = world.kubectl("get service kubernetes -o jsonpath={.spec.clusterIP}");
        let output = { again }.output().map_err(|error| error.to_string())?;
        let again = String::from_utf8_lossy(&output.stdout).into_owned();
        if again == address { Ok(()) } else { Err(again) }
    });
}

/// A daemon that begins does not know how old the tokens in machines are.
fn tokens_are_written_anew(world: &World) {
    let read = || world.shell("plain", &format!("cat {ACCESS}/token"));
    let before = read().expect("a token");
    world.host.kill_daemon();
    world.host.up();
    let after = eventually("another token", || match read()? {
        same if same == before => Err("the same".to_owned()),
        other => Ok(other),
    });
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
        "spec": {"token": after}});
    let file = world.host.folder().join("review.json");
    std::fs::write(&file, review.to_string()).expect("written");
    let review = world.k(&format!("create -o json -f {}", file.display()));
    let review: Value = serde_json::from_str(&review).expect("JSON");
    assert_eq!(
        review["status"]["user"]["username"],
        "system:serviceaccount:default:default"
    );
}

fn another_tenants_api_server_is_out_of_reach(world: &World) {
    succeed(&mut world.host.aerostat(&["k8s", "create", "team-b"]));
    let config = succeed(&mut world.host.aerostat(&["k8s", "kubeconfig", "team-b"]));
    let file = world.host.folder().join("team-b.conf");
    std::fs::write(&file, config).expect("written");
    let theirs = eventually("their API server's address", || {
        let jsonpath = "jsonpath={.spec.clusterIP} {.metadata.uid}";
        let words = ["get", "service", "kubernetes", "-o", jsonpath];
        let mut command = world.host.kubectl(&world.kubectl, &words);
        let output = command.env("KUBECONFIG", &file).output();
        let output = output.map_err(|error| error.to_string())?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let address = text.split(' ').next().unwrap_or_default().to_owned();
        if address.starts_with("fdaa:") {
            Ok(address)
        } else {
            Err(format!("{output:?}"))
        }
    });
    let ours = world.k("get service kubernetes -o jsonpath={.spec.clusterIP}");
    assert_ne!(ours, theirs);
    world
        .meets("plain", &format!("[{theirs}]"))
        .expect_err("no way there");
    // Nor does this API server lend its own way to whoever writes an EndpointSlice.
    world.apply(
        &json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "lent"},
        "spec": {"ports": [{"port": 443, "targetPort": 6443}]}}),
    );
    let slice = |name: &str, address: &str| {
        world.apply(
            &json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": name, "labels": {"kubernetes.io/service-name": "lent"}},
            "addressType": "IPv6", "endpoints": [{"addresses": [address]}],
            "ports": [{"port": 6443, "protocol": "TCP"}]}),
        );
    };
    slice("lent-theirs", &theirs);
    let (_, error) = fail(
        &mut world
            .kubectl("get --raw /api/v1/namespaces/default/services/https:lent:443/proxy/version"),
    );
    assert!(
        error.contains("not an address of the cluster's network"),
        "{error}"
    );
    succeed(&mut world.host.aerostat(&["k8s", "delete", "team-b", "--yes"]));
}

fn an_operator_runs_in_a_pod(world: &World, program: &Path) {
    let folder = world.host.folder().join("operator");
    std::fs::create_dir_all(&folder).expect("made");
    let image = archive(&folder, OPERATOR, program);
    let import = ["image", "import", image.to_str().expect("UTF-8")];
    succeed(&mut world.host.aerostat(&import));
    world.k("create serviceaccount operator");
    world.k(
        "create clusterrolebinding operator --clusterrole=cluster-admin \
         --serviceaccount=default:operator",
    );
    world.apply(
        &json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "operator"},
        "spec": {"selector": {"app": "operator"}, "ports": [{"port": 443, "targetPort": 8443}]}}),
    );
    world.apply(&json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "operator"},
        "spec": {"selector": {"matchLabels": {"app": "operator"}}, "template": {
            "metadata": {"labels": {"app": "operator"}},
            "spec": {"serviceAccountName": "operator", "containers": [
                {"name": "operator", "image": OPERATOR,
                    "ports": [{"containerPort": 8443}]}]}}}}));
    world.k("rollout status deployment/operator --timeout=120s");
    eventually("the operator watches", || {
        let log = world.k("logs deployment/operator");
        if log.contains("watching") {
            Ok(())
        } else {
            Err(log)
        }
    });
    // It sees a ConfigMap and makes a Secret of it, in its own name.
    world.k("create configmap settings --from-literal=a=b");
    world.k("label configmap settings copy=yes");
    let secret = "get secret settings -o jsonpath={.data.a}";
    eventually("a Secret", || {
        let output = world
            .kubectl(secret)
            .output()
            .map_err(|error| error.to_string())?;
        let found = String::from_utf8_lossy(&output.stdout).into_owned();
        if found == "Yg==" {
            Ok(())
        } else {
            Err(format!("{output:?}"))
        }
    });
    // It is asked about others.
    let refused = "create configmap another --from-literal=forbidden=yes";
    let (_, error) = fail(&mut world.kubectl(refused));
    assert!(error.contains("the operator will not have it"), "{error}");
    // It answers for a group of its own, and hears who asks.
    let path = "/apis/flowers.example.com/v1/namespaces/default/flowers/rose";
    let rose = eventually("a rose", || {
        let words = format!("get --raw {path}");
        let output = world
            .kubectl(&words)
            .output()
            .map_err(|error| error.to_string())?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if text.contains("rose") {
            Ok(text)
        } else {
            Err(format!("{output:?}"))
        }
    });
    assert!(rose.contains("kubernetes-admin"), "{rose}");
    let resources = world.k("api-resources");
    assert!(resources.contains("flowers.example.com/v1"), "{resources}");
    // Through the API server, by Service and by pod.
    let pod = world.k("get pods -l app=operator -o jsonpath={.items[0].metadata.name}");
    for way in [
        "services/https:operator:443".to_owned(),
        format!("pods/https:{pod}:8443"),
    ] {
        let path = format!("/api/v1/namespaces/default/{way}/proxy/where?a=b");
        assert_eq!(world.k(&format!("get --raw {path}")), "a=b\n", "{way}");
    }
    world.k("delete apiservice v1.flowers.example.com");
    world.k("delete validatingwebhookconfiguration operator");
    world.k("delete deployment operator");
}

fn an_operator_with_kube_rs_runs_in_a_pod(world: &World, program: &Path) {
    let folder = world.host.folder().join("gadgets");
    std::fs::create_dir_all(&folder).expect("made");
    let image = archive(&folder, GADGETS, program);
    let import = ["image", "import", image.to_str().expect("UTF-8")];
    succeed(&mut world.host.aerostat(&import));
    world.k("create serviceaccount gadgets");
    let may = ["get", "list", "watch", "create", "patch"];
    world.apply(
        &json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": {"name": "gadgets"}, "rules": [
            {"apiGroups": [""], "resources": ["configmaps"], "verbs": may},
            {"apiGroups": ["apiextensions.k8s.io"], "resources": ["customresourcedefinitions"],
                "verbs": may},
            {"apiGroups": ["rs.example.org"], "resources": ["gadgets", "gadgets/status"],
                "verbs": may}]}),
    );
    world.k(
        "create clusterrolebinding gadgets --clusterrole=gadgets --serviceaccount=default:gadgets",
    );
    world.apply(&json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "gadgets"},
        "spec": {"selector": {"matchLabels": {"app": "gadgets"}}, "template": {
            "metadata": {"labels": {"app": "gadgets"}},
            "spec": {"serviceAccountName": "gadgets", "containers": [
                {"name": "gadgets", "image": GADGETS, "args": ["operator"]}]}}}}));
    world.k("rollout status deployment/gadgets --timeout=120s");
    eventually("the operator watches", || {
        let log = world.k("logs deployment/gadgets");
        if log.contains("watching") {
            Ok(())
        } else {
            Err(log)
        }
    });
    let says = |line: &str, expected: &str| {
        eventually(line, || {
            let output = world.kubectl(line).output();
            let output = output.map_err(|error| error.to_string())?;
            let found = String::from_utf8_lossy(&output.stdout).into_owned();
            if found == expected {
                Ok(())
            } else {
                Err(format!("{output:?} {}", world.k("logs deployment/gadgets")))
            }
        });
    };
    world.apply(&json!({"apiVersion": "rs.example.org/v1", "kind": "Gadget",
        "metadata": {"name": "lamp"}, "spec": {"name": "of Psi", "replicas": 2}}));
    let replicas = "get configmap lamp -o jsonpath={.data.replicas}";
    says(replicas, "2");
    says("get gad lamp -o jsonpath={.status.replicas}", "2");
    world.k("scale gadget lamp --replicas=3");
    says(replicas, "3");
    // What it owns comes back, and goes with its owner.
    world.k("delete configmap lamp");
    says(replicas, "3");
    world.k("delete gadget lamp");
    says("get configmap lamp --ignore-not-found -o name", "");
    world.k("delete deployment gadgets");
    world.k("delete crd gadgets.rs.example.org --timeout=60s");
}
