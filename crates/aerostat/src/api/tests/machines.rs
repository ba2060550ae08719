//! Machines on the wire, and through their life.

use client::{MachineFilter, Restart, WaitFor, WaitQuery};
use serde_json::{Value, json};
use std::time::Duration;
use types::api::{Exec, StopMachine, UpdateMachine};
use types::machine::{Guest, MachineConfig, MachineState};

use super::fixture::{body, server};

#[tokio::test]
async fn a_machine_lives_through_the_client() {
    let server = server().await;
    let (client, app) = (&server.client, server.app("web").await);
    let machine = server.started(&app, "one").await;
    let id = &machine.id;
    let echo = Exec {
        command: vec!["cat".into()],
        stdin: Some("hello".into()),
        ..Exec::default()
    };
    let answer = client.exec(&app, id, &echo).await.unwrap();
    assert_eq!((answer.exit_code, answer.stdout.as_str()), (0, "hello"));
    let events = client.events(&app, id, 50).await.unwrap();
    assert_eq!(events.last().unwrap().kind, "launch");
    assert!(events.is_sorted_by(|newer, older| newer.id > older.id));

    let refused = client.destroy_machine(&app, id, false).await.unwrap_err();
    assert_eq!(refused.status(), Some(409));
    assert!(
        refused.to_string().contains("unable to destroy machine"),
        "{refused}"
    );
    client
        .stop_machine(&app, id, &StopMachine::default())
        .await
        .unwrap();
    client
        .wait_machine(&app, id, &WaitQuery::state(MachineState::Stopped))
        .await
        .unwrap();
    let started = client.start_machine(&app, id).await.unwrap();
    assert_eq!(started.previous_state, MachineState::Stopped);
    client
        .wait_machine(&app, id, &WaitQuery::state(MachineState::Started))
        .await
        .unwrap();
    client
        .restart_machine(&app, id, &Restart::default())
        .await
        .unwrap();

    client.destroy_machine(&app, id, true).await.unwrap();
    client
        .wait_machine(&app, id, &WaitQuery::state(MachineState::Destroyed))
        .await
        .unwrap();
    client.destroy_machine(&app, id, false).await.unwrap();
    let list = client
        .machines(&app, &MachineFilter::default())
        .await
        .unwrap();
    assert_eq!(list.machines, []);
    let all = MachineFilter {
        include_deleted: true,
        ..MachineFilter::default()
    };
    assert_eq!(client.machines(&app, &all).await.unwrap().machines.len(), 1);
}

#[tokio::test]
async fn answers_have_the_form_that_fly_s_clients_decode() {
    let server = server().await;
    server.app("web").await;
    let request = r#"{"name":"one","skip_secrets":false,"lease_ttl":0,"config":{
        "image":"localhost/hello:1","env":{"A":"b"},"init":{"exec":null},
        "guest":{"cpu_kind":"shared","cpus":1,"memory_mb":128},"metadata":{"k":"v"}}}"#;
    let (status, machine) = server.ask("POST", "/v1/apps/web/machines", request).await;
    assert_eq!(status, 200, "{machine}");
    let text = |field: &str| machine[field].as_str().unwrap().to_owned();
    let id = text("id");
    assert_eq!(id.len(), 14);
    assert_eq!(text("instance_id").len(), 26);
    assert!(text("private_ip").starts_with("fdaa:0:1:"), "{machine}");
    assert!(text("created_at").ends_with('Z'));
    assert_eq!(text("region"), "local");
    assert_eq!(text("host_status"), "ok");
    assert_eq!(machine["config"]["guest"]["memory_mb"], 128);
    let launch = &machine["events"].as_array().unwrap().last().unwrap();
    assert_eq!(
        (&launch["type"], &launch["source"]),
        (&json!("launch"), &json!("user"))
    );

    let at = |verb: &str| format!("/v1/apps/web/machines/{id}{verb}");
    let (status, waited) = server
        .ask("GET", &at("/wait?state=started&timeout=10"), "")
        .await;
    assert_eq!(
        (status, &waited["ok"], &waited["state"]),
        (200, &json!(true), &json!("started"))
    );
    let (_, list) = server
        .ask(
            "GET",
            "/v1/apps/web/machines?state=started&metadata.k=v&region=local",
            "",
        )
        .await;
    assert_eq!(list[0]["id"], json!(id));
    for query in ["metadata.k=w", "state=failed", "region=fra"] {
        let path = format!("/v1/apps/web/machines?{query}");
        assert_eq!(
            server.ask("GET", &path, "").await,
            (200, json!([])),
            "{query}"
        );
    }
    assert_eq!(
        server.ask("GET", &at("/metadata"), "").await,
        (200, json!({"k": "v"}))
    );
    let (status, lease) = server.ask("GET", &at("/lease"), "").await;
    assert_eq!((status, &lease["error"]), (404, &json!("lease not found")));
    assert_eq!(
        server.ask("POST", &at("/stop"), "{}").await,
        (200, json!({"ok": true}))
    );
    assert_eq!(
        server.ask("GET", &at("/wait?state=stopped"), "").await.0,
        200
    );
    let started = json!({"previous_state": "stopped", "migrated": false, "new_host": ""});
    assert_eq!(server.ask("POST", &at("/start"), "").await, (200, started));
    assert_eq!(
        server.ask("DELETE", &at("?kill=true"), "").await,
        (200, json!({"ok": true}))
    );
}

#[tokio::test]
async fn every_machine_shows_its_size() {
    let server = server().await;
    let app = server.app("web").await;
    let machine = server.machine(&app, "one").await;
    // `machine status` of Fly's command line reads it unasked.
    assert_eq!(machine.config.guest, Some(Guest::default()));
}

#[tokio::test]
async fn a_name_is_given_once_and_ensure_may_be_repeated() {
    let server = server().await;
    let app = server.app("web").await;
    let first = server.machine(&app, "one").await;
    let taken = server
        .client
        .create_machine(&app, &body("one"))
        .await
        .unwrap_err();
    assert_eq!(
        (taken.status(), taken.code()),
        (Some(409), Some("already_exists"))
    );
    assert!(taken.to_string().contains(first.id.as_str()), "{taken}");
    let again = server
        .client
        .ensure_machine(&app, &body("one"))
        .await
        .unwrap();
    assert_eq!(again.id, first.id);
    let named = server.machine(&app, "").await;
    assert!(named.name.contains('-'), "{}", named.name);
    let (status, _) = server
        .ask("POST", "/v1/apps/web/machines", r#"{"name":"a/b"}"#)
        .await;
    assert_eq!(status, 400);
}

#[tokio::test]
async fn what_cannot_be_placed_is_refused_with_a_reason() {
    let server = server().await;
    server.app("web").await;
    let create = async |extra: Value| {
        let mut request = json!({"config": {"image": "localhost/hello:1"}});
        let config = request["config"].as_object_mut().unwrap();
        config.extend(extra.as_object().unwrap().clone());
        server
            .ask("POST", "/v1/apps/web/machines", &request.to_string())
            .await
    };
    let guest = json!({"guest": {"cpu_kind": "shared", "cpus": 1, "memory_mb": 65536}});
    let (status, full) = create(guest).await;
    assert_eq!(
        (status, &full["status"]),
        (422, &json!("insufficient_capacity"))
    );
    assert_eq!(full["details"]["scope"], "host");
    assert_eq!(full["details"]["retryable"], true);
    let (status, refused) = create(json!({"isolation": "microvm"})).await;
    assert_eq!(
        (status, &refused["status"]),
        (422, &json!("isolation_not_offered"))
    );
    assert!(refused["error"].as_str().unwrap().contains("no /dev/kvm"));
    let (status, invalid) = create(json!({"services": [{"internal_port": 80}]})).await;
    assert_eq!(
        (status, &invalid["status"]),
        (400, &json!("invalid_argument"))
    );
    assert!(
        invalid["error"]
            .as_str()
            .unwrap()
            .contains("config.services"),
        "{invalid}"
    );
    let elsewhere = r#"{"region":"fra","config":{"image":"localhost/hello:1"}}"#;
    let (status, refused) = server.ask("POST", "/v1/apps/web/machines", elsewhere).await;
    assert_eq!(
        (status, &refused["details"]["scope"]),
        (422, &json!("region"))
    );
}

#[tokio::test]
async fn an_update_is_a_new_version_of_the_same_machine() {
    let server = server().await;
    let app = server.app("web").await;
    let machine = server.started(&app, "one").await;
    let mut update = UpdateMachine {
        config: MachineConfig {
            env: [("A".to_owned(), "b".to_owned())].into(),
            ..body("").config
        },
        current_version: Some(machine.version.to_string()),
        ..UpdateMachine::default()
    };
    let updated = server
        .client
        .update_machine(&app, &machine.id, &update)
        .await
        .unwrap();
    assert_ne!(updated.version, machine.version);
    update.current_version = Some(machine.version.to_string());
    let stale = server
        .client
        .update_machine(&app, &machine.id, &update)
        .await
        .unwrap_err();
    assert_eq!(
        (stale.status(), stale.code()),
        (Some(412), Some("version_mismatch"))
    );
    let old = WaitQuery {
        version: Some(machine.version.clone()),
        ..WaitQuery::state(MachineState::Started)
    };
    let replaced = server
        .client
        .wait_machine(&app, &machine.id, &old)
        .await
        .unwrap_err();
    assert!(
        replaced.to_string().contains("currently replaced"),
        "{replaced}"
    );
    let new = WaitQuery {
        version: Some(updated.version),
        ..old
    };
    server
        .client
        .wait_machine(&app, &machine.id, &new)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_wait_ends_with_what_it_knows() {
    let server = server().await;
    let app = server.app("web").await;
    let id = server.started(&app, "one").await.id;
    let stopped = WaitQuery {
        until: WaitFor::States(vec![MachineState::Stopped, MachineState::Failed]),
        timeout: Duration::from_secs(1),
        version: None,
        from_event_id: None,
    };
    let late = server
        .client
        .wait_machine(&app, &id, &stopped)
        .await
        .unwrap_err();
    assert_eq!(
        (late.status(), late.code()),
        (Some(408), Some("deadline_exceeded"))
    );
    assert!(
        late.to_string().contains("the machine is started"),
        "{late}"
    );
    let settled = WaitQuery {
        until: WaitFor::Settled,
        ..stopped
    };
    let answer = server
        .client
        .wait_machine(&app, &id, &settled)
        .await
        .unwrap();
    assert_eq!(answer.state, MachineState::Started);
    for query in [
        "timeout=0",
        "timeout=61",
        "timeout=x",
        "state=asleep",
        "version=1",
    ] {
        let path = format!("/v1/apps/web/machines/{id}/wait?{query}");
        let (status, body) = server.ask("GET", &path, "").await;
        assert_eq!(
            (status, &body["status"]),
            (400, &json!("invalid_argument")),
            "{query}"
        );
    }
    server
        .client
        .stop_machine(&app, &id, &StopMachine::default())
        .await
        .unwrap();
    server
        .client
        .wait_machine(&app, &id, &WaitQuery::state(MachineState::Stopped))
        .await
        .unwrap();
    let started = WaitQuery::state(MachineState::Started);
    let elsewhere = server
        .client
        .wait_machine(&app, &id, &started)
        .await
        .unwrap_err();
    let text = "machine failed to reach desired state, started, currently stopped";
    assert_eq!(elsewhere.to_string(), text);
}

#[tokio::test]
async fn a_machine_belongs_to_its_app() {
    let server = server().await;
    let (web, db) = (server.app("web").await, server.app("db").await);
    let machine = server.machine(&web, "one").await;
    let error = server.client.machine(&db, &machine.id).await.unwrap_err();
    assert!(error.is_not_found());
    assert!(
        error.to_string().starts_with("machine not found"),
        "{error}"
    );
    let (status, body) = server
        .ask("GET", "/v1/apps/web/machines/nonsense", "")
        .await;
    assert_eq!((status, &body["error"]), (404, &json!("machine not found")));
}

#[tokio::test]
async fn what_fly_s_clients_send_otherwise_than_documented_is_understood() {
    let server = server().await;
    let app = server.app("web").await;
    let one = server.started(&app, "one").await;
    let at = |rest: &str| format!("/v1/apps/web/machines{rest}");
    // A list's states without a name, alone or several.
    for (query, count) in [
        ("?started", 1),
        ("?stopped", 0),
        ("?created,started", 1),
        ("?odd", 1),
    ] {
        let (status, list) = server.ask("GET", &at(query), "").await;
        assert_eq!(
            (status, list.as_array().unwrap().len()),
            (200, count),
            "{query}"
        );
    }
    // A stop's timeout as text or nanoseconds; a lease's ttl in the query and no body.
    let verb = |verb: &str| at(&format!("/{}/{verb}", one.id));
    for body in [
        r#"{"timeout":"2s"}"#,
        r#"{"timeout":2000000000,"signal":"SIGINT"}"#,
    ] {
        assert_eq!(
            server.ask("POST", &verb("stop"), body).await.0,
            200,
            "{body}"
        );
    }
    let (status, lease) = server.ask("POST", &verb("lease?ttl=5"), "").await;
    assert_eq!((status, &lease["status"]), (201, &json!("success")));
    let nonce = lease["data"]["nonce"].as_str().unwrap();
    assert_eq!(
        server.ask_with(nonce, "DELETE", &verb("lease"), "").await.0,
        200
    );
    // An update with what nobody here needs.
    let update = json!({"lsvd": false, "name": "one", "region": "local", "skip_secrets": false,
        "min_secrets_version": null, "config": {"image": "localhost/hello:1"}});
    let (status, updated) = server
        .ask("POST", &at(&format!("/{}", one.id)), &update.to_string())
        .await;
    assert_eq!(status, 200, "{updated}");
    // A summary leaves out what the document says.
    let (_, list) = server.ask("GET", &at("?summary=true"), "").await;
    assert!(list[0]["id"].is_string() && list[0]["state"].is_string());
    for absent in ["config", "events", "checks", "host_status", "nonce"] {
        assert!(list[0].get(absent).is_none(), "{absent}");
    }
}
