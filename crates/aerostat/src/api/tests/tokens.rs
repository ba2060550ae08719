//! What tokens open, over TCP.

use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use types::token::{Scope, Verb};

use super::fixture::{Fleet, Server, server};

fn scope(apps: &[&str], verbs: &[Verb]) -> Scope {
    Scope {
        orgs: vec!["personal".parse().unwrap()],
        apps: apps.iter().map(|app| app.parse().unwrap()).collect(),
        verbs: verbs.to_vec(),
        ..Scope::default()
    }
}

async fn status(server: &Server, token: &str, method: &str, path: &str) -> u16 {
    server.ask_as(token, method, path, "").await.0
}

#[tokio::test]
async fn a_token_opens_what_its_scope_says_and_lists_show_no_more() {
    let server = server().await;
    let web = server.app("web").await;
    server.app("db").await;
    let machine = server.started(&web, "one").await;
    let reader = server.token(&scope(&["web"], &[Verb::Read]));
    let at = format!("/v1/apps/web/machines/{}", machine.id);
    for (method, path, expected) in [
        ("GET", "/v1/apps/web", 200),
        ("GET", "/v1/apps/web/machines", 200),
        ("GET", at.as_str(), 200),
        ("GET", "/v1/platform/regions", 200),
        ("GET", "/v1/apps/db", 403),
        ("GET", "/v1/apps/db/machines", 403),
        ("GET", "/v1/apps/nothing", 404),
        ("POST", &format!("{at}/stop"), 403),
        ("POST", &format!("{at}/exec"), 403),
        ("DELETE", "/v1/apps/web", 403),
        ("GET", "/v1/hosts", 403),
        ("GET", "/v1/images", 403),
        ("GET", "/v1/orgs/personal/wireguard/peers", 403),
        ("OPTIONS", "/v1/apps/web", 403),
    ] {
        assert_eq!(
            status(&server, &reader, method, path).await,
            expected,
            "{method} {path}"
        );
    }
    let (_, apps) = server.ask_as(&reader, "GET", "/v1/apps", "").await;
    assert_eq!(apps["total_apps"], 1, "{apps}");
    assert_eq!(apps["apps"][0]["name"], "web");
    let (code, body) = server
        .ask_as(&reader, "POST", "/v1/apps", r#"{"name":"new"}"#)
        .await;
    assert_eq!((code, body["status"].as_str().unwrap()), (403, "forbidden"));
    assert!(
        body["error"]
            .as_str()
            .unwrap()
            .contains("`write` on app `new`"),
        "{body}"
    );
    assert!(
        body["details"]["hint"]
            .as_str()
            .unwrap()
            .contains("check if"),
        "{body}"
    );
    // What one token lacks, another one sent with it may have.
    let writer = server.token(&scope(&["web"], &[Verb::Write]));
    let both = format!("{reader},{writer}");
    assert_eq!(
        status(&server, &both, "POST", &format!("{at}/stop")).await,
        200
    );
}

#[tokio::test]
async fn lists_of_an_organisation_show_the_apps_of_a_token_and_no_others() {
    let server = server().await;
    let (web, db) = (server.app("web").await, server.app("db").await);
    let mine = server.machine(&web, "one").await;
    let theirs = server.machine(&db, "two").await;
    for app in ["web", "db"] {
        let path = format!("/v1/apps/{app}/volumes");
        assert_eq!(server.ask("POST", &path, r#"{"name":"data"}"#).await.0, 200);
    }
    let reader = server.token(&scope(&["web"], &[Verb::Read]));
    let list = async |kind: &str| {
        let path = format!("/v1/orgs/personal/{kind}");
        let (code, list) = server.ask_as(&reader, "GET", &path, "").await;
        assert_eq!(code, 200, "{list}");
        list[kind].as_array().unwrap().clone()
    };
    let machines = list("machines").await;
    assert_eq!(machines.len(), 1);
    assert_eq!(machines[0]["id"], mine.id.as_str());
    let volumes = list("volumes").await;
    assert_eq!(volumes.len(), 1);
    assert_eq!(volumes[0]["app_name"], "web");
    // A token for nothing of it sees no list at all.
    let stranger = server.token(&scope(&["other"], &[Verb::Read]));
    let path = "/v1/orgs/personal/machines";
    assert_eq!(status(&server, &stranger, "GET", path).await, 403);
    let soon = Scope {
        expires_at: Some(Timestamp::now() + SignedDuration::from_secs(10)),
        ..scope(&["web"], &[Verb::Read])
    };
    // The watch ends with its token, and has told nothing of the other app.
    let soon = server.token(&soon);
    let watch = format!("{path}?watch=true");
    let read = server.ask_as(&soon, "GET", &watch, "");
    let limit = std::time::Duration::from_secs(60);
    let (code, told) = tokio::time::timeout(limit, read).await.unwrap();
    assert_eq!(code, 200);
    let told = told.as_str().unwrap();
    assert!(told.contains(mine.id.as_str()), "{told}");
    assert!(told.contains("bookmark"), "{told}");
    assert!(!told.contains(theirs.id.as_str()), "{told}");
}

#[tokio::test]
async fn streams_end_with_the_token_that_opened_them() {
    let server = server().await;
    let app = server.app("web").await;
    let id = server.started(&app, "one").await.id;
    let lifetime = SignedDuration::from_secs(10);
    let soon = Scope {
        expires_at: Some(Timestamp::now() + lifetime),
        ..scope(&["web"], &[Verb::Read, Verb::Exec])
    };
    let url = format!("http://{}", server.tcp);
    let client = client::Client::tcp(&url, server.token(&soon)).unwrap();
    let params = client::ExecParams {
        command: vec!["cat".into()],
        stdin: true,
        ..client::ExecParams::default()
    };
    let mut exec = client.exec_stream(&app, &id, &params).await.unwrap();
    let follow = types::api::LogQuery {
        follow: true,
        ..types::api::LogQuery::default()
    };
    let mut logs = client.logs(&app, &id, &follow).await.unwrap();
    let limit = std::time::Duration::from_secs(60);
    let last = tokio::time::timeout(limit, exec.output.recv())
        .await
        .unwrap();
    let Some(client::ExecOutput::End(types::api::ExecStatus::Failed { message })) = last else {
        panic!("{last:?}");
    };
    assert!(message.contains("expired"), "{message}");
    let ended = async { while let Some(Ok(_)) = logs.recv().await {} };
    tokio::time::timeout(limit, ended).await.unwrap();
    let refused = client.exec_stream(&app, &id, &params).await.unwrap_err();
    assert_eq!(refused.status(), Some(401));
}

#[tokio::test]
async fn health_needs_no_token_and_everything_else_does() {
    let server = server().await;
    for (path, expected) in [
        ("/v1/health", 200),
        ("/health", 200),
        ("/v1/apps", 401),
        ("/x", 401),
    ] {
        let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n");
        assert_eq!(server.ask_tcp(&head).await.0, expected, "{path}");
    }
    let options = "OPTIONS /v1/apps HTTP/1.1\r\nHost: localhost\r\n";
    assert_eq!(server.ask_tcp(options).await.0, 401);
}

#[tokio::test]
async fn an_expired_and_a_malformed_token_are_told_apart() {
    let server = server().await;
    let past = Scope {
        expires_at: Some(Timestamp::now() - SignedDuration::from_secs(10)),
        ..Scope::default()
    };
    let expired = server.token(&past);
    let (code, body) = server.ask_as(&expired, "GET", "/v1/apps", "").await;
    assert_eq!(code, 401);
    assert!(
        body["error"].as_str().unwrap().contains("expired at"),
        "{body}"
    );
    let (code, body) = server.ask_as("nonsense", "GET", "/v1/apps", "").await;
    assert_eq!(code, 401);
    assert!(
        body["error"].as_str().unwrap().contains("malformed"),
        "{body}"
    );
    let stranger = crate::tokens::RootKey::generate()
        .mint("1", "", &Scope::default())
        .unwrap();
    let (code, body) = server.ask_as(&stranger, "GET", "/v1/apps", "").await;
    assert_eq!(code, 401);
    assert!(
        body["error"].as_str().unwrap().contains("does not have"),
        "{body}"
    );
}

#[tokio::test]
async fn tokens_are_made_listed_and_revoked_over_the_api() {
    let server = server().await;
    server.app("web").await;
    let wanted = json!({"name": "ci", "apps": ["web"], "verbs": ["read"], "ttl_s": 3600});
    let (code, made) = server.ask("POST", "/v1/tokens", &wanted.to_string()).await;
    assert_eq!(code, 201, "{made}");
    let token = made["token"].as_str().unwrap();
    // An app's token is bound to the app's organisation.
    assert_eq!(made["orgs"], json!(["personal"]));
    assert_eq!(status(&server, token, "GET", "/v1/apps/web").await, 200);
    let (_, list) = server.ask("GET", "/v1/tokens", "").await;
    assert_eq!(list["tokens"][0]["name"], "ci");
    assert!(!list.to_string().contains(token), "a list shows no texts");
    // It may see itself, and nothing of other tokens.
    let (_, current) = server.ask_as(token, "GET", "/v1/tokens/current", "").await;
    assert_eq!(current["tokens"][0]["apps"], json!(["web"]), "{current}");
    let (_, none) = server.ask_as(token, "GET", "/v1/tokens", "").await;
    assert_eq!(none["tokens"], json!([]));
    let id = made["id"].as_str().unwrap();
    assert_eq!(
        status(&server, token, "DELETE", &format!("/v1/tokens/{id}")).await,
        403
    );
    assert_eq!(
        server
            .ask("DELETE", &format!("/v1/tokens/{id}"), "")
            .await
            .0,
        204
    );
    let (code, body) = server.ask_as(token, "GET", "/v1/apps/web", "").await;
    assert_eq!(
        (code, body["error"].as_str().unwrap()),
        (401, "the token has been revoked")
    );
    // What was made from it is void as well.
    let narrower = crate::tokens::attenuate(token, &scope(&[], &[Verb::Read])).unwrap();
    assert_eq!(status(&server, &narrower, "GET", "/v1/apps/web").await, 401);
    assert_eq!(server.ask("DELETE", "/v1/tokens/nobody", "").await.0, 404);
}

#[tokio::test]
async fn one_block_can_be_revoked_alone() {
    let server = server().await;
    let whole = server.token(&Scope::default());
    let narrow = crate::tokens::attenuate(&whole, &scope(&[], &[Verb::Read])).unwrap();
    let said = crate::tokens::inspect(&narrow).unwrap();
    let path = format!("/v1/tokens/{}", said.revocation_ids[1]);
    assert_eq!(server.ask("DELETE", &path, "").await.0, 204);
    assert_eq!(status(&server, &narrow, "GET", "/v1/apps").await, 401);
    assert_eq!(status(&server, &whole, "GET", "/v1/apps").await, 200);
}

#[tokio::test]
async fn nobody_makes_a_token_that_may_more_than_his_own_or_outlives_it() {
    let server = server().await;
    server.app("web").await;
    server.app("db").await;
    let soon = Timestamp::now() + SignedDuration::from_secs(600);
    let own = Scope {
        expires_at: Some(soon),
        ..scope(&["web"], &[Verb::Read, Verb::Admin])
    };
    let own = server.token(&own);
    let make = async |wanted: serde_json::Value| {
        server
            .ask_as(&own, "POST", "/v1/tokens", &wanted.to_string())
            .await
            .0
    };
    let fits = json!({"apps": ["web"], "verbs": ["read"], "ttl_s": 60});
    assert_eq!(make(fits).await, 201);
    for too_much in [
        json!({"apps": ["web"], "verbs": ["read", "write"], "ttl_s": 60}),
        json!({"apps": ["web"], "ttl_s": 60}),
        json!({"apps": ["db"], "verbs": ["read"], "ttl_s": 60}),
        json!({"verbs": ["read"], "ttl_s": 60}),
    ] {
        assert_eq!(make(too_much.clone()).await, 403, "{too_much}");
    }
    // 401, as it will be then.
    assert_eq!(
        make(json!({"apps": ["web"], "verbs": ["read"], "ttl_s": 3600})).await,
        401
    );
    let reader = server.token(&scope(&[], &[Verb::Read]));
    let refused = server.ask_as(
        &reader,
        "POST",
        "/v1/tokens",
        r#"{"verbs":["read"],"orgs":["personal"]}"#,
    );
    assert_eq!(refused.await.0, 403);
}

#[tokio::test]
async fn fly_s_clients_get_the_answers_they_ask_for() {
    let server = server().await;
    server.app("web").await;
    let (code, made) = server.ask("POST", "/v1/apps/web/deploy_token", "{}").await;
    assert_eq!(code, 200, "{made}");
    let header = format!("FlyV1 {}", made["token"].as_str().unwrap());
    let ask = json!({ "header": header }).to_string();
    let (code, good) = server.ask("POST", "/v1/tokens/authenticate", &ask).await;
    assert_eq!(code, 200, "{good}");
    assert!(
        good[0]["caveats"]["caveats"][0]["datalog"]
            .as_str()
            .unwrap()
            .contains("app(")
    );
    let bad = json!({ "header": "FlyV1 fm2_x" }).to_string();
    assert_eq!(
        server.ask("POST", "/v1/tokens/authenticate", &bad).await.0,
        401
    );
    for (access, expected) in [
        (json!({"action": "rw", "app_name": "web"}), 200),
        (json!({"action": 1, "org_slug": "personal"}), 403),
        (
            json!({"command": ["ls"], "app_name": "web", "machine_id": "0123456789abcd"}),
            200,
        ),
        (json!({"action": "r", "app_name": "db"}), 404),
        (json!({}), 400),
    ] {
        let ask = json!({ "header": header, "access": access }).to_string();
        let (code, body) = server.ask("POST", "/v1/tokens/authorize", &ask).await;
        assert_eq!(code, expected, "{access}: {body}");
    }
}

#[tokio::test]
async fn the_host_plane_is_for_machines_and_what_the_authority_does() {
    let fleet = Fleet::default();
    let alpha = fleet.host(2, "local").await;
    let beta = fleet.host(3, "local").await;
    alpha.app("web").await;
    for (path, expected) in [
        ("/v1/apps/web/machines", 200),
        ("/v1/apps", 403),
        ("/v1/images", 403),
        ("/v1/apps/web", 403),
    ] {
        let request = hyper::Request::get(path)
            .header("host", "aerostat")
            .body(http_body_util::Empty::<bytes::Bytes>::new())
            .unwrap();
        let rpc = fleet.loopback.rpc(beta.host);
        let asked = rpc.request(
            alpha.host,
            crate::rpc::API_PORT,
            request,
            std::time::Duration::from_secs(5),
        );
        assert_eq!(asked.await.unwrap().status().as_u16(), expected, "{path}");
    }
}
