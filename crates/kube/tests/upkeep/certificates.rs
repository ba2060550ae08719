//! A certificate is asked for, approved by kubectl, and opens the door.

use std::process::Command;
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use kube::controllers::ControllersConfig;
use kube::pki::{Credentials, Pki};
use serde_json::json;

use super::world::World;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_approved_request_becomes_a_certificate_that_works_and_a_denied_one_does_not() {
    let test = "an_approved_request_becomes_a_certificate_that_works_and_a_denied_one_does_not";
    if Command::new("openssl").arg("version").output().is_err() {
        eprintln!("SKIPPED: {test}: no openssl is installed");
        return;
    }
    let with_pki = |server: &crate::common::TestServer| ControllersConfig {
        pki: Some(Arc::new(Pki::open(server.dir.path()).expect("keys"))),
        ..ControllersConfig::new("PEM")
    };
    let Some(world) = World::start_with(test, with_pki).await else {
        return;
    };
    let dir = world.server.dir.path();
    let made = Command::new("openssl")
        .args([
            "req",
            "-new",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
        ])
        .args([
            "-keyout",
            "alice.key",
            "-out",
            "alice.csr",
            "-subj",
            "/O=team/CN=alice",
        ])
        .current_dir(dir)
        .output()
        .expect("openssl runs");
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
    let request = std::fs::read(dir.join("alice.csr")).expect("written");
    for name in ["alice", "refused"] {
        world
            .apply(&json!({"apiVersion": "certificates.k8s.io/v1",
            "kind": "CertificateSigningRequest", "metadata": {"name": name}, "spec": {
                "request": BASE64_STANDARD.encode(&request), "expirationSeconds": 3600,
                "signerName": "kubernetes.io/kube-apiserver-client",
                "usages": ["client auth"]}}))
            .await;
    }
    world.until_says("get csr alice", &["Pending"]).await;
    world.ok("certificate deny refused").await;
    world.ok("certificate approve alice").await;
    let certificate = "get csr alice -o jsonpath={.status.certificate}";
    let certificate = world.until(certificate, |text| !text.is_empty()).await;
    world
        .until_says("get csr", &["Approved,Issued", "Denied"])
        .await;
    let denied = world
        .ok("get csr refused -o jsonpath={.status.certificate}")
        .await;
    assert_eq!(denied, "");
    let certificate = BASE64_STANDARD.decode(certificate).expect("base64");
    let credentials = Credentials {
        certificate_pem: String::from_utf8(certificate).expect("PEM"),
        key_pem: std::fs::read_to_string(dir.join("alice.key")).expect("written"),
    };
    world.server.write_kubeconfig("alice.conf", &credentials);
    let alice = format!("--kubeconfig={}", dir.join("alice.conf").display());
    let who = world.ok(&format!("auth whoami {alice}")).await;
    assert!(who.contains("alice") && who.contains("team"), "{who}");
    let refused = world.run(&format!("get configmaps {alice}")).await;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        said.contains("User \"alice\" cannot list resource"),
        "{said}"
    );
    world
        .ok("create rolebinding readers --clusterrole=view --group=team")
        .await;
    world
        .until_says(&format!("get configmaps {alice}"), &["kube-root-ca.crt"])
        .await;
    world.server.stop().await;
}
