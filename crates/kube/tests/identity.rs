//! Who may do what, as kubectl sees it; and what the disk sees of Secrets.

mod common;

use std::path::PathBuf;

use common::{TestServer, kubectls};
use kube::api::{Api, DeleteOptions, Part, Patch, Selector};
use kube::resource::{CONFIG_MAPS, SECRETS};
use kube::secrecy::{Keys, Secrecy, reseal};
use serde_json::{Value, json};

/// An old one too: it asks in JSON where later ones ask in protobuf.
fn programs() -> Vec<PathBuf> {
    let old = PathBuf::from("/usr/lib/google-cloud-sdk/bin/kubectl.1.27");
    let mut all = kubectls();
    let newest = all.pop();
    let programs: Vec<_> = Some(old)
        .filter(|old| old.exists())
        .into_iter()
        .chain(newest)
        .collect();
    if programs.is_empty() {
        eprintln!("SKIPPED: identity: there is no kubectl");
    }
    programs
}

impl TestServer {
    /// A kubeconfig whose only credential is a token.
    fn token_config(&self, name: &str, token: &str) -> String {
        let path = self.dir.path().join(name);
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {
                "server": format!("https://127.0.0.1:{}", self.port),
                "insecure-skip-tls-verify": true}}],
            "users": [{"name": "u", "user": {"token": token}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        });
        std::fs::write(&path, config.to_string()).expect("written");
        format!("--kubeconfig={}", path.display())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_decide_and_are_seen_by_the_next_request() {
    for kubectl in &programs() {
        let server = TestServer::start().await;
        let refused = server.fails(kubectl, &["get", "pods", "--as=alice"]).await;
        assert!(
            refused.contains(
                "pods is forbidden: User \"alice\" cannot list resource \"pods\" in API group \"\" \
                 in the namespace \"default\""
            ),
            "{refused}"
        );
        let role = [
            "create",
            "role",
            "reader",
            "--verb=get,list",
            "--resource=pods,pods/log",
        ];
        server.ok(kubectl, &role).await;
        let binding = [
            "create",
            "rolebinding",
            "alice",
            "--role=reader",
            "--user=alice",
        ];
        server.ok(kubectl, &binding).await;
        server.ok(kubectl, &["get", "pods", "--as=alice"]).await;
        let can = ["auth", "can-i", "list", "pods", "--as=alice"];
        assert_eq!(server.ok(kubectl, &can).await, "yes\n");
        let cannot = server
            .run(kubectl, &["auth", "can-i", "delete", "pods", "--as=alice"])
            .await;
        assert_eq!(String::from_utf8_lossy(&cannot.stdout), "no\n");
        let list = server
            .ok(kubectl, &["auth", "can-i", "--list", "--as=alice"])
            .await;
        assert!(
            list.contains("pods/log") && list.contains("selfsubjectaccessreviews"),
            "{list}"
        );
        assert!(list.contains("[/api/*]"), "{list}");
        server
            .ok(kubectl, &["delete", "rolebinding", "alice"])
            .await;
        server.fails(kubectl, &["get", "pods", "--as=alice"]).await;
        assert_eq!(
            server.ok(kubectl, &["auth", "can-i", "*", "*"]).await,
            "yes\n"
        );
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gives_away_what_they_do_not_have() {
    let Some(kubectl) = &programs().pop() else {
        return;
    };
    let server = TestServer::start().await;
    let run = async |args: &[&str]| server.ok(kubectl, args).await;
    run(&[
        "create",
        "clusterrolebinding",
        "admin-of-roles",
        "--clusterrole=admin",
        "--user=bob",
    ])
    .await;
    let mine = [
        "create",
        "role",
        "mine",
        "--verb=get",
        "--resource=pods",
        "--as=bob",
    ];
    run(&mine).await;
    let more = [
        "create",
        "role",
        "more",
        "--verb=get,list",
        "--resource=nodes",
        "--as=bob",
    ];
    let refused = server.fails(kubectl, &more).await;
    assert!(
        refused.contains(
            "roles.rbac.authorization.k8s.io \"more\" is forbidden: user \"bob\" \
             (groups=[\"system:authenticated\"]) is attempting to grant RBAC permissions not \
             currently held:\n{APIGroups:[\"\"], Resources:[\"nodes\"], Verbs:[\"get\" \"list\"]}"
        ),
        "{refused}"
    );
    let all = [
        "create",
        "rolebinding",
        "all",
        "--clusterrole=cluster-admin",
        "--user=bob",
        "--as=bob",
    ];
    assert!(
        server
            .fails(kubectl, &all)
            .await
            .contains("attempting to grant")
    );
    let none = [
        "create",
        "rolebinding",
        "none",
        "--role=nope",
        "--user=bob",
        "--as=bob",
    ];
    let missing = server.fails(kubectl, &none).await;
    assert!(missing.contains("\"nope\" not found"), "{missing}");
    let bind = [
        "create",
        "clusterrole",
        "binder",
        "--verb=bind",
        "--resource=clusterroles",
        "--resource-name=cluster-admin",
    ];
    run(&bind).await;
    run(&[
        "create",
        "clusterrolebinding",
        "binder",
        "--clusterrole=binder",
        "--user=bob",
    ])
    .await;
    run(&all).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_accounts_token_lives_with_what_it_is_bound_to() {
    for kubectl in &programs() {
        let server = TestServer::start().await;
        server
            .ok(kubectl, &["create", "serviceaccount", "bot"])
            .await;
        server
            .ok(kubectl, &["create", "secret", "generic", "anchor"])
            .await;
        let token = server.ok(kubectl, &["create", "token", "bot"]).await;
        let config = server.token_config("bot.conf", token.trim());
        let refused = server.fails(kubectl, &[&config, "get", "pods"]).await;
        let name = "system:serviceaccount:default:bot";
        assert!(
            refused.contains(&format!("User \"{name}\" cannot list")),
            "{refused}"
        );
        let bound = [
            "create",
            "token",
            "bot",
            "--bound-object-kind=Secret",
            "--bound-object-name=anchor",
            "--duration=20m",
        ];
        let bound = server.ok(kubectl, &bound).await;
        let bound = server.token_config("bound.conf", bound.trim());
        server.ok(kubectl, &[&bound, "get", "--raw=/api"]).await;
        server.ok(kubectl, &["delete", "secret", "anchor"]).await;
        let gone = server.fails(kubectl, &[&bound, "get", "--raw=/api"]).await;
        assert!(
            gone.contains("Unauthorized") || gone.contains("provide credentials"),
            "{gone}"
        );
        server.ok(kubectl, &[&config, "get", "--raw=/api"]).await;
        server
            .ok(kubectl, &["delete", "serviceaccount", "bot"])
            .await;
        server.fails(kubectl, &[&config, "get", "--raw=/api"]).await;
        let wrong = server.token_config("wrong.conf", "x.y.z");
        server
            .fails(kubectl, &[&wrong, "get", "--raw=/version"])
            .await;
        let short = ["create", "token", "default", "--duration=1m"];
        server
            .ok(kubectl, &["create", "serviceaccount", "default"])
            .await;
        let short = server.fails(kubectl, &short).await;
        assert!(
            short.contains("may not specify a duration less than 10 minutes"),
            "{short}"
        );
        server.stop().await;
    }
}

/// Conformance: "ServiceAccount, create and review token", "OIDC Discovery".
#[tokio::test(flavor = "multi_thread")]
async fn a_token_can_be_reviewed_and_its_issuer_discovered() {
    let Some(kubectl) = &programs().pop() else {
        return;
    };
    let server = TestServer::start().await;
    server
        .ok(kubectl, &["create", "serviceaccount", "bot"])
        .await;
    let token = server
        .ok(kubectl, &["create", "token", "bot", "--audience=shop"])
        .await;
    let review = |token: &str, audience: &str| {
        json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
            "spec": {"token": token, "audiences": [audience]}})
        .to_string()
    };
    let ask = async |text: String| -> Value {
        let args = ["create", "-f", "-", "-o", "json"];
        let output = server.run_with_input(kubectl, &args, &text).await;
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{errors}"))
    };
    let good = ask(review(token.trim(), "shop")).await;
    assert_eq!(good["status"]["authenticated"], true, "{good}");
    assert_eq!(good["status"]["audiences"], json!(["shop"]));
    let user = &good["status"]["user"];
    assert_eq!(user["username"], "system:serviceaccount:default:bot");
    assert!(
        user["extra"]["authentication.kubernetes.io/credential-id"][0].is_string(),
        "{user}"
    );
    let elsewhere = ask(review(token.trim(), "other")).await;
    assert_ne!(elsewhere["status"]["authenticated"], true, "{elsewhere}");
    assert!(elsewhere["status"]["error"].is_string(), "{elsewhere}");
    let raw = async |path: &str| -> Value {
        let text = server.ok(kubectl, &["get", &format!("--raw={path}")]).await;
        serde_json::from_str(&text).expect("JSON")
    };
    let issuer = raw("/.well-known/openid-configuration").await;
    assert_eq!(issuer["issuer"], kube::identity::ISSUER);
    let keys = raw("/openid/v1/jwks").await;
    assert_eq!(keys["keys"][0]["alg"], "ES256");
    let me = server.ok(kubectl, &["auth", "whoami", "-o", "json"]).await;
    let me: Value = serde_json::from_str(&me).expect("JSON");
    assert_eq!(me["status"]["userInfo"]["username"], "kubernetes-admin");
    let me = server.ok(
        kubectl,
        &[
            "auth",
            "whoami",
            "--as=alice",
            "--as-group=dev",
            "-o",
            "json",
        ],
    );
    let me: Value = serde_json::from_str(&me.await).expect("JSON");
    let groups = &me["status"]["userInfo"]["groups"];
    assert_eq!(*groups, json!(["dev", "system:authenticated"]));
    server.stop().await;
}

/// Conformance: "SubjectReview, API Operations".
#[tokio::test(flavor = "multi_thread")]
async fn access_of_others_can_be_reviewed() {
    let Some(kubectl) = &programs().pop() else {
        return;
    };
    let server = TestServer::start().await;
    let binding = [
        "create",
        "rolebinding",
        "view",
        "--clusterrole=view",
        "--group=readers",
    ];
    server.ok(kubectl, &binding).await;
    for (kind, namespaced) in [
        ("SubjectAccessReview", false),
        ("LocalSubjectAccessReview", true),
    ] {
        for (verb, allowed) in [("list", true), ("delete", false)] {
            let mut review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": kind,
                "spec": {"user": "carol", "groups": ["readers"],
                    "resourceAttributes": {"verb": verb, "resource": "pods",
                        "namespace": "default"}}});
            if namespaced {
                review["metadata"] = json!({"namespace": "default"});
            }
            let args = ["create", "-f", "-", "-o", "json"];
            let output = server
                .run_with_input(kubectl, &args, &review.to_string())
                .await;
            let answer: Value = serde_json::from_slice(&output.stdout).expect("JSON");
            assert_eq!(answer["status"]["allowed"], allowed, "{answer}");
            if allowed {
                let reason = "RBAC: allowed by RoleBinding \"view/default\" of ClusterRole \
                              \"view\" to Group \"readers\"";
                assert_eq!(answer["status"]["reason"], reason);
            }
        }
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_and_bootstrap_tokens_name_their_users() {
    let Some(kubectl) = &programs().pop() else {
        return;
    };
    let server = TestServer::start().await;
    let config = |name: &str| format!("--kubeconfig={}", server.dir.path().join(name).display());
    let carol = server.pki.client("carol", Some("dev")).expect("signed");
    server.write_kubeconfig("carol.conf", &carol);
    let me = [&config("carol.conf"), "auth", "whoami", "-o", "json"];
    let me: Value = serde_json::from_str(&server.ok(kubectl, &me).await).expect("JSON");
    let info = &me["status"]["userInfo"];
    assert_eq!(info["username"], "carol");
    assert_eq!(info["groups"], json!(["dev", "system:authenticated"]));
    let elsewhere = tempfile::tempdir().expect("temporary directory");
    let others = kube::pki::Pki::open(elsewhere.path()).expect("made");
    let mallory = others
        .client("mallory", Some("system:masters"))
        .expect("signed");
    server.write_kubeconfig("mallory.conf", &mallory);
    let refused = [&config("mallory.conf"), "get", "--raw=/api"];
    let refused = server.fails(kubectl, &refused).await;
    assert!(
        refused.contains("Unauthorized") || refused.contains("provide credentials"),
        "{refused}"
    );

    let token = json!({"apiVersion": "v1", "kind": "Secret",
        "type": "bootstrap.kubernetes.io/token",
        "metadata": {"name": "bootstrap-token-abcdef", "namespace": "kube-system"},
        "stringData": {"token-id": "abcdef", "token-secret": "0123456789abcdef",
            "usage-bootstrap-authentication": "true",
            "auth-extra-groups": "system:bootstrappers:workers,system:masters"}});
    let output = server
        .run_with_input(kubectl, &["create", "-f", "-"], &token.to_string())
        .await;
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let joining = server.token_config("join.conf", "abcdef.0123456789abcdef");
    let me = [&joining, "auth", "whoami", "-o", "json"];
    let me: Value = serde_json::from_str(&server.ok(kubectl, &me).await).expect("JSON");
    let expected = [
        "system:bootstrappers",
        "system:bootstrappers:workers",
        "system:authenticated",
    ];
    assert_eq!(me["status"]["userInfo"]["groups"], json!(expected));
    let wrong = server.token_config("wrong.conf", "abcdef.0123456789abcdee");
    server.fails(kubectl, &[&wrong, "get", "--raw=/api"]).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_log_tells_who_did_what_and_never_a_secret() {
    let Some(kubectl) = &programs().pop() else {
        return;
    };
    let server = TestServer::start().await;
    let secret = [
        "create",
        "secret",
        "generic",
        "a",
        "--from-literal=key=canary-in-the-log",
    ];
    server.ok(kubectl, &secret).await;
    server
        .fails(kubectl, &["delete", "pod", "web", "--as=alice"])
        .await;
    let path = server.dir.path().join("audit.log");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    let events = loop {
        let text = std::fs::read_to_string(&path).expect("read");
        assert!(
            !text.contains("canary") && !text.contains("Y2FuYXJ5"),
            "{text}"
        );
        let lines = text
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let events: Vec<_> = lines.collect();
        if events.iter().any(|event| event["verb"] == "delete") {
            break events;
        }
        assert!(std::time::Instant::now() < deadline, "{text}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    };
    let find = |verb: &str, resource: &str| {
        let matches =
            |event: &&Value| event["verb"] == verb && event["objectRef"]["resource"] == resource;
        events.iter().find(matches).expect("told").clone()
    };
    let created = find("create", "secrets");
    assert_eq!(created["user"]["username"], "kubernetes-admin");
    assert_eq!(
        (&created["level"], &created["stage"]),
        (&json!("Metadata"), &json!("ResponseComplete"))
    );
    assert_eq!(created["responseStatus"]["code"], 201);
    assert!(
        created["sourceIPs"][0].is_string() && created["auditID"].is_string(),
        "{created}"
    );
    let refused = find("delete", "pods");
    assert_eq!(refused["impersonatedUser"]["username"], "alice");
    assert_eq!(refused["responseStatus"]["code"], 403);
    assert_eq!(
        refused["annotations"]["authorization.k8s.io/decision"],
        "forbid"
    );
    server.stop().await;
}

#[tokio::test]
async fn the_disk_never_sees_a_secret_and_keys_can_be_changed() {
    const CANARY: &str = "Y2FuYXJ5LW9mLXRoZS1kaXNr";
    let dir = tempfile::tempdir().expect("temporary directory");
    let (database, keys) = (dir.path().join("kube.db"), dir.path().join("secrets.keys"));
    let on_disk = || {
        let files = std::fs::read_dir(dir.path()).expect("a directory");
        files.into_iter().any(|file| {
            let bytes = std::fs::read(file.expect("a file").path()).expect("read");
            bytes
                .windows(CANARY.len())
                .any(|window| window == CANARY.as_bytes())
        })
    };
    let store = store::Store::open(&store::Config::new(&database)).expect("opens");
    let plain = Api::new(store.clone());
    let secrecy = Secrecy::open(&keys).expect("made");
    let api = Api::new(store.clone()).with_secrecy(secrecy.clone());
    api.bootstrap().await.expect("namespaces");
    let here = Some("default");
    let object = |name: &str| json!({"metadata": {"name": name}, "data": {"key": CANARY}});
    api.create(&SECRETS, here, object("new"))
        .await
        .expect("created");
    let read = api.get(&SECRETS, here, "new").await.expect("read");
    assert_eq!(read["data"]["key"], CANARY);
    assert!(!on_disk());
    let (listed, _) = api
        .list(&SECRETS, None, &Selector::default())
        .await
        .expect("listed");
    assert_eq!(listed.len(), 1);
    let refused = plain.get(&SECRETS, here, "new").await.expect_err("sealed");
    assert!(
        refused.message.contains("restore the key file"),
        "{refused}"
    );

    plain
        .create(&SECRETS, here, object("old"))
        .await
        .expect("created");
    assert!(on_disk());
    let done = reseal(&store, &secrecy).await.expect("resealed");
    assert_eq!((done.resealed, done.failed), (1, 0));
    let old = std::fs::read_to_string(&keys).expect("read");
    Keys::rotate(&keys).expect("rotated");
    assert!(secrecy.reload().expect("read"));
    let patch = Patch::merge(json!({"metadata": {"labels": {"a": "b"}}}));
    api.patch(&SECRETS, Part::Object, here, "new", &patch)
        .await
        .expect("patched");
    let done = reseal(&store, &secrecy).await.expect("resealed");
    assert_eq!((done.resealed, done.failed), (1, 0));
    let both = std::fs::read_to_string(&keys).expect("read");
    std::fs::write(&keys, both.replace(&old, "")).expect("written");
    assert!(secrecy.reload().expect("read"));
    for name in ["new", "old"] {
        let read = api.get(&SECRETS, here, name).await.expect("read");
        assert_eq!(read["data"]["key"], CANARY, "{name}");
    }
    api.delete(&SECRETS, here, "old", &DeleteOptions::now())
        .await
        .expect("deleted");
    api.create(&CONFIG_MAPS, here, object("open"))
        .await
        .expect("created");
    store.close().await;
    assert!(on_disk(), "a config map is not secret");
}
