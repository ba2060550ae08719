//! Server-side apply by real kubectl: owners, conflicts, and the way from client-side apply.

mod common;

use std::path::PathBuf;

use common::{TestServer, kubectls};
use serde_json::Value;

/// The oldest and the newest kubectl of this machine; says so when there are none.
fn programs(test: &str) -> Vec<PathBuf> {
    // Older than the others ask for: it is the oldest that has what is tested here.
    let oldest = PathBuf::from("/usr/lib/google-cloud-sdk/bin/kubectl.1.27");
    let newest = kubectls().into_iter().next_back();
    let programs: Vec<_> = Some(oldest)
        .filter(|program| program.exists())
        .into_iter()
        .chain(newest)
        .collect();
    if programs.is_empty() {
        eprintln!("SKIPPED: {test}: no kubectl (set KUBECTL_DIRS)");
    }
    programs
}

fn config_map(data: &str) -> String {
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: settings\n  namespace: default\n\
         data: {data}\n"
    )
}

/// A server, a kubectl, and what is typed.
struct Desk<'a> {
    server: &'a TestServer,
    kubectl: &'a PathBuf,
}

impl Desk<'_> {
    async fn ok(&self, args: &[&str]) -> String {
        self.server.ok(self.kubectl, args).await
    }

    /// Standard output and standard error of a command that reads `input`, and whether it succeeded.
    async fn type_in(&self, args: &[&str], input: &str) -> (bool, String) {
        let output = self.server.run_with_input(self.kubectl, args, input).await;
        let text = [output.stdout, output.stderr].concat();
        (
            output.status.success(),
            String::from_utf8_lossy(&text).into_owned(),
        )
    }

    async fn apply(&self, flags: &[&str], input: &str) -> String {
        let args = [&["apply", "-f", "-"], flags].concat();
        let (is_ok, text) = self.type_in(&args, input).await;
        assert!(is_ok, "{:?} {args:?}: {text}", self.kubectl);
        text
    }

    async fn refused(&self, flags: &[&str], input: &str) -> String {
        let args = [&["apply", "-f", "-"], flags].concat();
        let (is_ok, text) = self.type_in(&args, input).await;
        assert!(!is_ok, "{:?} {args:?}: {text}", self.kubectl);
        text
    }

    /// `manager/operation` of each owner, in their order.
    async fn owners(&self, what: &str) -> Vec<String> {
        let args = ["get", what, "-o", "json", "--show-managed-fields"];
        let object: Value = serde_json::from_str(&self.ok(&args).await).expect("JSON");
        let entries = object["metadata"]["managedFields"].as_array().cloned();
        let name = |entry: &Value, field: &str| entry[field].as_str().unwrap_or("?").to_owned();
        let owners = entries.unwrap_or_default();
        let owners = owners
            .iter()
            .map(|entry| format!("{}/{}", name(entry, "manager"), name(entry, "operation")));
        owners.collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fields_have_owners_and_taking_one_over_is_a_conflict() {
    for kubectl in &programs("fields_have_owners_and_taking_one_over_is_a_conflict") {
        let server = &TestServer::start().await;
        let desk = Desk { server, kubectl };
        let mine = config_map("{a: '1', b: '1'}");
        let told = desk.apply(&["--server-side"], &mine).await;
        assert_eq!(told, "configmap/settings serverside-applied\n");
        let (same, diff) = desk
            .type_in(&["diff", "--server-side", "-f", "-"], &mine)
            .await;
        assert!(same && diff.is_empty(), "{diff}");
        let changed = config_map("{a: '2', b: '1'}");
        let (same, diff) = desk
            .type_in(&["diff", "--server-side", "-f", "-"], &changed)
            .await;
        assert!(!same, "a difference is told by the exit code");
        assert!(
            diff.contains("-  a: \"1\"") && diff.contains("+  a: \"2\""),
            "{diff}"
        );
        let other = &["--server-side", "--field-manager=other"];
        let refusal = desk.refused(other, &changed).await;
        let expected = "Apply failed with 1 conflict: conflict with \"kubectl\": .data.a";
        assert!(refusal.contains(expected), "{refusal}");
        assert!(refusal.contains("--force-conflicts"), "{refusal}");
        desk.apply(&[other, &["--force-conflicts"][..]].concat(), &changed)
            .await;
        assert_eq!(
            desk.ok(&["get", "cm", "settings", "-o", "jsonpath={.data}"])
                .await,
            r#"{"a":"2","b":"1"}"#
        );
        desk.ok(&["label", "cm", "settings", "app=web"]).await;
        assert_eq!(
            desk.owners("cm/settings").await,
            ["kubectl/Apply", "other/Apply", "kubectl-label/Update"]
        );
        // What the first no longer wants stays for the other.
        desk.apply(&["--server-side"], &config_map("{c: '1'}"))
            .await;
        assert_eq!(
            desk.ok(&["get", "cm", "settings", "-o", "jsonpath={.data}"])
                .await,
            r#"{"a":"2","b":"1","c":"1"}"#
        );
    }
}

const DEPLOYMENT: &str = "apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: default}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: web
        image: web:1
        ports: [{containerPort: 80}, {containerPort: 80, protocol: UDP}]
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_client_side_apply_there_is_a_way_without_conflicts() {
    for kubectl in &programs("from_client_side_apply_there_is_a_way_without_conflicts") {
        let server = &TestServer::start().await;
        let desk = Desk { server, kubectl };
        desk.apply(&[], DEPLOYMENT).await;
        assert_eq!(
            desk.owners("deploy/web").await,
            ["kubectl-client-side-apply/Update"]
        );
        let next = DEPLOYMENT.replace("web:1", "web:2");
        let told = desk.apply(&["--server-side"], &next).await;
        assert_eq!(told, "deployment.apps/web serverside-applied\n");
        let owners = desk.owners("deploy/web").await;
        assert!(owners.contains(&"kubectl/Apply".to_owned()), "{owners:?}");
        assert!(
            !owners.contains(&"kubectl-client-side-apply/Update".to_owned()),
            "{owners:?}"
        );
        let image = "jsonpath={.spec.template.spec.containers[0].image}";
        assert_eq!(
            desk.ok(&["get", "deploy", "web", "-o", image]).await,
            "web:2"
        );
        // Somebody who scales owns the replicas, through the part that they were written by.
        desk.ok(&["scale", "deploy", "web", "--replicas=5"]).await;
        let refusal = desk.refused(&["--server-side"], &next).await;
        // The owner is named after the program, which may be kubectl.1.27.
        let expected = "\" with subresource \"scale\" using apps/v1: .spec.replicas";
        assert!(refusal.contains(expected), "{refusal}");
        desk.apply(&["--server-side"], &next.replace("  replicas: 2\n", ""))
            .await;
        let replicas = "jsonpath={.spec.replicas}";
        assert_eq!(
            desk.ok(&["get", "deploy", "web", "-o", replicas]).await,
            "5"
        );
        // And back: client-side apply finds what was applied last.
        let back = next
            .replace("web:2", "web:3")
            .replace("replicas: 2", "replicas: 5");
        desk.apply(&[], &back).await;
        assert_eq!(
            desk.ok(&["get", "deploy", "web", "-o", image]).await,
            "web:3"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn editing_owns_what_was_edited_and_applying_the_same_changes_nothing() {
    for kubectl in &programs("editing_owns_what_was_edited_and_applying_the_same_changes_nothing") {
        let server = &TestServer::start().await;
        let desk = Desk { server, kubectl };
        let mine = config_map("{a: '1'}");
        desk.apply(&["--server-side"], &mine).await;
        let version = "jsonpath={.metadata.resourceVersion}";
        let before = desk.ok(&["get", "cm", "settings", "-o", version]).await;
        desk.apply(&["--server-side"], &mine).await;
        desk.apply(
            &["--server-side", "--dry-run=server"],
            &config_map("{a: '3'}"),
        )
        .await;
        let after = desk.ok(&["get", "cm", "settings", "-o", version]).await;
        assert_eq!(before, after);
        let kubectl = kubectl.clone();
        let mut edit = server.kubectl(&kubectl);
        edit.args(["edit", "cm", "settings"])
            .env("KUBE_EDITOR", r#"sed -i 's/"1"/"2"/'"#);
        let edit = tokio::task::spawn_blocking(move || edit.output().expect("kubectl runs"));
        let edit = edit.await.expect("no panic");
        let told = String::from_utf8_lossy(&edit.stdout);
        assert!(told.contains("configmap/settings edited"), "{edit:?}");
        assert_eq!(
            desk.owners("cm/settings").await,
            ["kubectl-edit/Update"],
            "nothing is left to the other"
        );
        let refusal = desk.refused(&["--server-side"], &mine).await;
        assert!(
            refusal.contains("conflict with \"kubectl-edit\" using v1: .data.a"),
            "{refusal}"
        );
        let unknown = mine.replace("\ndata:", "\ndta:");
        let refusal = desk.refused(&["--server-side"], &unknown).await;
        assert!(
            refusal.contains(".dta: field not declared in schema"),
            "{refusal}"
        );
    }
}
