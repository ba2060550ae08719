//! Requests for certificates: who asks, who approves and who signs.

use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use kube::api::{Api, Part, Patch, User};
use kube::resource::{CERTIFICATE_SIGNING_REQUESTS, CLUSTER_ROLE_BINDINGS, CLUSTER_ROLES};
use kube::status::Status;
use serde_json::{Value, json};

use super::world::World;

const SIGNER: &str = "example.com/s";

fn request(name: &str) -> Value {
    let pem = "-----BEGIN CERTIFICATE REQUEST-----\nAA==\n-----END CERTIFICATE REQUEST-----\n";
    json!({"metadata": {"name": name}, "spec": {"request": BASE64_STANDARD.encode(pem),
        "signerName": SIGNER, "usages": ["client auth"],
        "username": "system:node:a", "groups": ["system:nodes"], "uid": "forged"}})
}

async fn write(api: &Api, part: Part, status: Value) -> Result<Value, Status> {
    let patch = Patch::merge(json!({ "status": status }));
    api.patch(&CERTIFICATE_SIGNING_REQUESTS, part, None, "r", &patch)
        .await
}

#[tokio::test]
async fn a_request_is_in_the_name_of_who_makes_it() {
    let world = World::new().await;
    let user = User::authenticated("jane".into(), vec!["team".into()]);
    let api = world.api.acting_as(Arc::new(user), "test");
    let made = api.create(&CERTIFICATE_SIGNING_REQUESTS, None, request("r"));
    let made = made.await.expect("created");
    assert_eq!(made["spec"]["username"], "jane");
    assert_eq!(
        made["spec"]["groups"],
        json!(["team", "system:authenticated"])
    );
    assert!(made["spec"].get("uid").is_none());
}

#[tokio::test]
async fn who_approves_may_approve_and_who_signs_may_sign() {
    let world = World::new().await;
    world
        .made(&CERTIFICATE_SIGNING_REQUESTS, request("r"))
        .await;
    let user = |name: &str| {
        let user = User::authenticated(name.into(), Vec::new());
        world.api.acting_as(Arc::new(user), "test")
    };
    for (verb, name) in [("approve", SIGNER), ("sign", "example.com/*")] {
        let role = json!({"metadata": {"name": verb}, "rules": [{
            "apiGroups": ["certificates.k8s.io"], "resources": ["signers"], "verbs": [verb],
            "resourceNames": [name]}]});
        world.made(&CLUSTER_ROLES, role).await;
        let binding = json!({"metadata": {"name": verb},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole",
                "name": verb},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User",
                "name": verb}]});
        world.made(&CLUSTER_ROLE_BINDINGS, binding).await;
    }
    let approved = || json!({"conditions": [{"type": "Approved", "status": "True"}]});
    let pem = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n";
    let signed = || json!({"certificate": BASE64_STANDARD.encode(pem)});
    let refused = write(&user("sign"), Part::Approval, approved()).await;
    assert_eq!(
        refused.expect_err("refused").message,
        "certificatesigningrequests.certificates.k8s.io \"r\" is forbidden: user not permitted to \
         approve requests with signerName \"example.com/s\""
    );
    let refused = write(&user("approve"), Part::Status, signed()).await;
    assert_eq!(
        refused.expect_err("refused").message,
        "certificatesigningrequests.certificates.k8s.io \"r\" is forbidden: user not permitted to \
         sign requests with signerName \"example.com/s\""
    );
    let refused = write(&world.api, Part::Status, approved()).await;
    assert_eq!(refused.expect_err("refused").code, 422);
    let written = write(&user("approve"), Part::Approval, approved()).await;
    let written = written.expect("approved");
    let condition = &written["status"]["conditions"][0];
    assert!(condition["lastUpdateTime"].is_string() && condition["lastTransitionTime"].is_string());
    // Approving carries no certificate along.
    let both = json!({"conditions": condition, "certificate": "AA=="});
    let both = json!({"conditions": [both["conditions"]], "certificate": both["certificate"]});
    let written = write(&world.api, Part::Approval, both)
        .await
        .expect("written");
    assert!(written["status"].get("certificate").is_none());
    let written = write(&user("sign"), Part::Status, signed()).await;
    assert!(written.expect("signed")["status"]["certificate"].is_string());
}
