//! Leases on the wire, and what Fly's command line does with them.

use std::time::Duration;

use serde_json::{Value, json};
use types::api::{AcquireLease, StopMachine};
use types::machine::MachineState;

use super::fixture::{Server, server};

const HELLO: &str = r#"{"config":{"image":"localhost/hello:1"}}"#;

/// Creates a machine that runs, and returns the path to it.
async fn machine(server: &Server) -> (Value, String) {
    server.app("web").await;
    let (_, machine) = server.ask("POST", "/v1/apps/web/machines", HELLO).await;
    let path = format!("/v1/apps/web/machines/{}", machine["id"].as_str().unwrap());
    let started = server
        .ask("GET", &format!("{path}/wait?timeout=30"), "")
        .await;
    assert_eq!(started.0, 200);
    (machine, path)
}

#[tokio::test]
async fn a_lease_is_taken_refreshed_read_and_given_back() {
    let server = server().await;
    let (machine, path) = machine(&server).await;
    let lease = format!("{path}/lease");
    let (status, none) = server.ask("GET", &lease, "").await;
    assert_eq!((status, &none["error"]), (404, &json!("lease not found")));

    // As fly-go asks: the time in the query, no body.
    let (status, taken) = server.ask("POST", &format!("{lease}?ttl=120"), "").await;
    assert_eq!((status, &taken["status"]), (201, &json!("success")));
    let data = &taken["data"];
    let nonce = data["nonce"].as_str().unwrap();
    assert_eq!(nonce.len(), 12);
    assert_eq!(data["version"], machine["instance_id"]);
    assert_eq!(data["owner"], "personal");
    let left_s = data["expires_at"].as_i64().unwrap() - jiff::Timestamp::now().as_second();
    assert!((100..=120).contains(&left_s), "{taken}");
    assert_eq!(server.ask("GET", &lease, "").await, (200, taken.clone()));

    // As the documentation shows it: the time in the body.
    let body = r#"{"ttl":600,"description":"deploy"}"#;
    let (status, longer) = server.ask_with(nonce, "POST", &lease, body).await;
    assert_eq!((status, &longer["data"]["nonce"]), (201, &json!(nonce)));
    assert!(longer["data"]["expires_at"].as_i64() > data["expires_at"].as_i64());

    assert_eq!(server.ask("DELETE", &lease, "").await.0, 400);
    let released = json!({"status": "success", "data": {"ok": true}});
    let release = server.ask_with(nonce, "DELETE", &lease, "").await;
    assert_eq!(release, (200, released));
    let (status, gone) = server.ask_with(nonce, "DELETE", &lease, "").await;
    assert_eq!((status, &gone["error"]), (404, &json!("lease not found")));
    for query in ["ttl=0", "ttl=3601", "ttl=soon", "ttl=-1"] {
        let (status, _) = server.ask("POST", &format!("{lease}?{query}"), "").await;
        assert_eq!(status, 400, "{query}");
    }
}

#[tokio::test]
async fn whoever_has_no_lease_changes_nothing_and_is_told_who_has() {
    let server = server().await;
    let (_, path) = machine(&server).await;
    let (_, taken) = server
        .ask("POST", &format!("{path}/lease?ttl=60"), "")
        .await;
    let changes = [
        ("POST", "/lease", ""),
        ("POST", "", HELLO),
        ("POST", "/start", ""),
        ("POST", "/stop", "{}"),
        ("POST", "/restart", ""),
        ("DELETE", "?kill=true", ""),
    ];
    for (method, verb, body) in changes {
        let at = format!("{path}{verb}");
        for (status, held) in [
            server.ask(method, &at, body).await,
            server.ask_with("0123456789ab", method, &at, body).await,
        ] {
            assert_eq!((status, &held["status"]), (409, &json!("error")), "{verb}");
            assert_eq!(held["code"], "invalid");
            let message = held["message"].as_str().unwrap();
            let text = "lease currently held by personal, expires at";
            assert!(message.contains(text), "{message}");
            assert_eq!(held["details"]["retryable"], true);
        }
    }
    let nonce = taken["data"]["nonce"].as_str().unwrap();
    let restart = server
        .ask_with(nonce, "POST", &format!("{path}/restart"), "")
        .await;
    assert_eq!(restart, (200, json!({"ok": true})));
    // An app is deleted with its machines, whoever holds them.
    let (status, _) = server.ask("DELETE", "/v1/apps/web?force=true", "").await;
    assert_eq!(status, 202);
}

/// `machine stop`, `start` and `destroy --force`, request by request.
#[tokio::test]
async fn the_requests_of_fly_s_command_line_do_what_they_say() {
    let server = server().await;
    let (machine, path) = machine(&server).await;
    let take = async || {
        let (status, lease) = server
            .ask("POST", &format!("{path}/lease?ttl=120"), "")
            .await;
        assert_eq!(status, 201, "{lease}");
        lease["data"]["nonce"].as_str().unwrap().to_owned()
    };
    let give = async |nonce: &str| {
        let lease = format!("{path}/lease");
        server.ask_with(nonce, "DELETE", &lease, "").await.0
    };
    let run = format!("{path}/exec");
    let (status, exec) = server
        .ask("POST", &run, r#"{"cmd":"cat","stdin":"hi"}"#)
        .await;
    assert_eq!((status, &exec["stdout"]), (200, &json!("hi")));
    let outside = r#"{"cmd":"cat","machine":true}"#;
    assert_eq!(server.ask("POST", &run, outside).await.0, 501);

    let nonce = take().await;
    // Without --timeout Go writes a zero; it must not take the machine's grace away.
    let body = json!({"id": machine["id"], "timeout": "0s"}).to_string();
    let stop = server
        .ask_with(&nonce, "POST", &format!("{path}/stop"), &body)
        .await;
    assert_eq!(stop.0, 200);
    assert_eq!(give(&nonce).await, 200);
    let wait = format!("{path}/wait?state=stopped&timeout=60");
    assert_eq!(server.ask("GET", &wait, "").await.0, 200);
    let (_, _, signal, grace) = server.vmm.stops().remove(0);
    assert_eq!((signal, grace), (None, Duration::from_secs(5)));

    let nonce = take().await;
    let (status, start) = server
        .ask_with(&nonce, "POST", &format!("{path}/start"), "")
        .await;
    assert_eq!((status, &start["previous_state"]), (200, &json!("stopped")));
    assert_eq!(give(&nonce).await, 200);

    let nonce = take().await;
    let destroy = server
        .ask_with(&nonce, "DELETE", &format!("{path}?kill=true"), "")
        .await;
    assert_eq!(destroy, (200, json!({"ok": true})));
    // It is destroyed already, or on its way.
    assert!(matches!(give(&nonce).await, 200 | 404));
}

#[tokio::test]
async fn our_own_client_leases_too() {
    let server = server().await;
    let (client, app) = (&server.client, server.app("web").await);
    let id = server.started(&app, "one").await.id;
    let asked = AcquireLease {
        ttl: Some(60),
        description: "a test".into(),
    };
    let lease = client.acquire_lease(&app, &id, &asked, None).await.unwrap();
    assert_eq!(lease.description, "a test");
    let longer = client.acquire_lease(&app, &id, &asked, Some(&lease.nonce));
    assert_eq!(longer.await.unwrap().nonce, lease.nonce);
    let stop = StopMachine::default();
    let held = client.stop_machine(&app, &id, &stop).await.unwrap_err();
    assert_eq!(held.status(), Some(409));
    assert!(held.to_string().contains("lease currently held"), "{held}");
    client.release_lease(&app, &id, &lease.nonce).await.unwrap();
    let now = StopMachine {
        timeout: Some(types::machine::Duration(Duration::ZERO)),
        ..stop
    };
    client.stop_machine(&app, &id, &now).await.unwrap();
    let stopped = client::WaitQuery::state(MachineState::Stopped);
    client.wait_machine(&app, &id, &stopped).await.unwrap();
    let (_, _, _, grace) = server.vmm.stops().remove(0);
    assert!(grace < Duration::from_millis(10), "zero is meant");
}

#[tokio::test]
async fn a_machine_may_be_created_with_a_lease() {
    let server = server().await;
    server.app("web").await;
    let body = r#"{"config":{"image":"localhost/hello:1"},"lease_ttl":60}"#;
    let (status, machine) = server.ask("POST", "/v1/apps/web/machines", body).await;
    assert_eq!(status, 200, "{machine}");
    let path = format!("/v1/apps/web/machines/{}", machine["id"].as_str().unwrap());
    let (_, lease) = server.ask("GET", &format!("{path}/lease"), "").await;
    assert_eq!(lease["data"]["nonce"], machine["nonce"]);
    let (_, later) = server.ask("GET", &path, "").await;
    assert_eq!(later.get("nonce"), None, "it is told once");
}
