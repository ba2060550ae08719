//! The verbs beside a machine's usual life, and what goes on in one, through our own client.

use std::time::Duration;

use bytes::Bytes;
use client::{Error, Restart, WaitQuery};
use futures::stream;
use serde_json::json;
use types::api::{StopMachine, UpdateMachine, UpdateMetadata};
use types::machine::{Machine, MachineState};
use types::{AppName, IsolationClass};

use super::fixture::{Server, body, server};

async fn wait(server: &Server, app: &AppName, machine: &Machine, state: MachineState) {
    let query = WaitQuery::state(state);
    let waited = server.client.wait_machine(app, &machine.id, &query).await;
    assert_eq!(waited.unwrap().state, state);
}

/// A machine of a class that can be suspended, running.
async fn emulated(server: &Server, app: &AppName) -> Machine {
    let mut body = body("one");
    body.config.isolation = Some(IsolationClass::Emulated);
    let machine = server.client.create_machine(app, &body).await.unwrap();
    wait(server, app, &machine, MachineState::Started).await;
    machine
}

#[tokio::test]
async fn a_machine_is_suspended_and_goes_on() {
    let server = server().await;
    let (client, app) = (&server.client, server.app("web").await);
    let machine = emulated(&server, &app).await;
    client.suspend_machine(&app, &machine.id).await.unwrap();
    wait(&server, &app, &machine, MachineState::Suspended).await;
    let started = client.start_machine(&app, &machine.id).await.unwrap();
    assert_eq!(started.previous_state, MachineState::Suspended);
    wait(&server, &app, &machine, MachineState::Started).await;
    // Who waits for what will not come is told so.
    let stop = StopMachine::default();
    client.stop_machine(&app, &machine.id, &stop).await.unwrap();
    wait(&server, &app, &machine, MachineState::Stopped).await;
    let query = WaitQuery::state(MachineState::Suspended);
    let elsewhere = client.wait_machine(&app, &machine.id, &query).await;
    let text = elsewhere.unwrap_err().to_string();
    assert!(
        text.contains("machine failed to reach desired state, suspended, currently stopped"),
        "{text}"
    );
}

#[tokio::test]
async fn a_restart_may_say_how_and_a_signal_is_a_word_or_a_number() {
    let server = server().await;
    let (client, app) = (&server.client, server.app("web").await);
    let machine = server.started(&app, "one").await;
    let how = Restart {
        signal: Some("SIGTERM".into()),
        timeout: Some(Duration::from_millis(2500)),
        force: false,
    };
    client
        .restart_machine(&app, &machine.id, &how)
        .await
        .unwrap();
    let (_, _, signal, grace) = server.vmm.stops().remove(0);
    assert_eq!(
        (signal.as_deref(), grace),
        (Some("SIGTERM"), Duration::from_millis(2500))
    );
    wait(&server, &app, &machine, MachineState::Started).await;
    client
        .signal_machine(&app, &machine.id, "SIGHUP", None)
        .await
        .unwrap();
    let path = format!("/v1/apps/web/machines/{}/signal", machine.id);
    let number = server.ask("POST", &path, r#"{"signal":9}"#).await;
    assert_eq!(number, (200, json!({"ok": true})));
    let signals: Vec<_> = server
        .vmm
        .signals()
        .into_iter()
        .map(|sent| sent.2)
        .collect();
    assert_eq!(signals, ["SIGHUP", "9"]);
    for wrong in [
        r#"{"signal":"SIGNAL"}"#,
        r#"{"signal":99}"#,
        r#"{"signal":null}"#,
    ] {
        let (status, refused) = server.ask("POST", &path, wrong).await;
        assert_eq!(
            (status, &refused["status"]),
            (400, &json!("invalid_argument")),
            "{wrong}"
        );
    }
    let how = |query: &str| format!("/v1/apps/web/machines/{}/restart?{query}", machine.id);
    let (status, _) = server.ask("POST", &how("timeout=soon"), "").await;
    assert_eq!(status, 400);
    let forced = server
        .ask("POST", &how("force_stop=true&timeout=5"), "")
        .await;
    assert_eq!(forced.0, 200, "{}", forced.1);
}

#[tokio::test]
async fn a_machine_is_cordoned_and_uncordoned_without_a_new_version() {
    let server = server().await;
    let (client, app) = (&server.client, server.app("web").await);
    let machine = server.started(&app, "one").await;
    client.cordon_machine(&app, &machine.id).await.unwrap();
    let cordoned = client.machine(&app, &machine.id).await.unwrap();
    assert_eq!(
        (cordoned.cordoned, &cordoned.version),
        (true, &machine.version)
    );
    client.uncordon_machine(&app, &machine.id).await.unwrap();
    assert!(!client.machine(&app, &machine.id).await.unwrap().cordoned);
    let mut body = body("two");
    body.skip_service_registration = true;
    assert!(client.create_machine(&app, &body).await.unwrap().cordoned);
}

#[tokio::test]
async fn metadata_changes_key_by_key_and_only_of_the_version_that_was_read() {
    let server = server().await;
    let (client, app) = (&server.client, server.app("web").await);
    let machine = server.started(&app, "one").await;
    let id = &machine.id;
    client.set_metadata(&app, id, "a/b c", "1").await.unwrap();
    assert_eq!(client.metadata_value(&app, id, "a/b c").await.unwrap(), "1");
    let body = UpdateMetadata {
        metadata: [("x", Some("2")), ("a/b c", None), ("empty", Some(""))]
            .map(|(key, value)| (key.to_owned(), value.map(str::to_owned)))
            .into(),
        machine_version: Some(machine.version.to_string()),
        updated_at: None,
    };
    client.update_metadata(&app, id, &body).await.unwrap();
    let metadata = client.metadata(&app, id).await.unwrap();
    assert_eq!(metadata, [("x".to_owned(), "2".to_owned())].into());
    let version = client.machine(&app, id).await.unwrap().version;
    assert_eq!(version, machine.version, "metadata make no version");
    let stale = UpdateMetadata {
        machine_version: Some("01ARZ3NDEKTSV4RRFFQ69G5FAV".into()),
        ..body
    };
    let refused = client.update_metadata(&app, id, &stale).await.unwrap_err();
    assert_eq!(
        (refused.status(), refused.code()),
        (Some(412), Some("version_mismatch"))
    );
    client.delete_metadata(&app, id, "x").await.unwrap();
    client.delete_metadata(&app, id, "x").await.unwrap();
    let missing = client.metadata_value(&app, id, "x").await.unwrap_err();
    assert!(missing.is_not_found(), "{missing}");
    let path = format!("/v1/apps/web/machines/{id}/metadata");
    let put = server.ask("PUT", &path, r#"{"metadata":{"y":"3"}}"#).await;
    assert_eq!(put.0, 204);
}

#[tokio::test]
async fn versions_are_told_newest_first() {
    let server = server().await;
    let (client, app) = (&server.client, server.app("web").await);
    let machine = server.started(&app, "one").await;
    let mut config = machine.config.clone();
    config.env.insert("A".into(), "b".into());
    let update = UpdateMachine {
        config,
        current_version: Some(machine.version.to_string()),
        lease_ttl: Some(60),
        ..UpdateMachine::default()
    };
    let updated = client.update_machine(&app, &machine.id, &update).await;
    let updated = updated.unwrap();
    assert!(updated.nonce.is_some(), "the update began a lease");
    let versions = client.versions(&app, &machine.id).await.unwrap();
    assert_eq!(versions.len(), 2);
    assert_eq!(versions[0].version, updated.version.to_string());
    assert_eq!(versions[0].user_config.env["A"], "b");
    assert_eq!(versions[1].version, machine.version.to_string());
    let refused = client.update_machine(&app, &machine.id, &update).await;
    assert_eq!(
        refused.unwrap_err().status(),
        Some(409),
        "somebody has the lease"
    );
}

#[tokio::test]
async fn processes_statistics_and_memory_are_told() {
    let server = server().await;
    let (client, app) = (&server.client, server.app("web").await);
    let machine = server.started(&app, "one").await;
    let id = &machine.id;
    let processes = client.processes(&app, id).await.unwrap();
    assert_eq!((processes.len(), processes[0].pid), (1, 2));
    let statistics = client.statistics(&app, id).await.unwrap();
    assert_eq!(statistics.memory_limit_bytes, 256 << 20);
    let memory = client.memory(&app, id).await.unwrap();
    assert_eq!((memory.available_mb, memory.limit_mb), (255, 256));
    let at = |verb: &str| format!("/v1/apps/web/machines/{id}/{verb}");
    assert_eq!(
        server
            .ask("GET", &at("ps?sort_by=rss&order=desc"), "")
            .await
            .0,
        200
    );
    assert_eq!(server.ask("GET", &at("ps?sort_by=name"), "").await.0, 400);
    assert_eq!(server.ask("GET", &at("ps?order=up"), "").await.0, 400);
    for (method, path) in [("PUT", "memory"), ("POST", "memory/reclaim")] {
        let (status, body) = server.ask(method, &at(path), "{}").await;
        assert_eq!((status, &body["status"]), (501, &json!("not_built")));
        assert_eq!(body["error"], "memory balloons are not built yet");
    }
    client.destroy_machine(&app, id, true).await.unwrap();
    assert_eq!(
        client.processes(&app, id).await.unwrap_err().status(),
        Some(409)
    );
}

#[tokio::test]
async fn files_go_in_and_come_out() {
    let server = server().await;
    let (client, app) = (&server.client, server.app("web").await);
    let machine = server.started(&app, "one").await;
    let id = &machine.id;
    let piece = Bytes::from(vec![7_u8; 700_000]);
    let pieces = [piece.clone(), Bytes::from_static(b"end")].map(Ok);
    client
        .put_files(&app, id, None, "/srv", stream::iter(pieces))
        .await
        .unwrap();
    let mut archive = client.get_files(&app, id, None, "/srv").await.unwrap();
    let mut got = Vec::new();
    while let Some(piece) = archive.next().await {
        got.extend_from_slice(&piece.unwrap());
    }
    assert_eq!(got.len(), 700_003);
    assert_eq!(&got[700_000..], b"end");

    let missing = client.get_files(&app, id, None, "/none").await.unwrap_err();
    assert_eq!(missing.code(), Some("copy_failed"));
    assert!(
        missing.to_string().contains("cannot read /none"),
        "{missing}"
    );
    let relative = client.get_files(&app, id, None, "none").await.unwrap_err();
    assert_eq!(relative.status(), Some(400));
    let nowhere = client
        .get_files(&app, id, Some("db"), "/")
        .await
        .unwrap_err();
    assert_eq!(nowhere.code(), Some("no_container"));
}

#[tokio::test]
async fn half_an_archive_is_not_taken_for_the_whole() {
    let server = server().await;
    let (client, app) = (&server.client, server.app("web").await);
    let machine = server.started(&app, "one").await;
    let id = &machine.id;
    let broken = [
        Ok(Bytes::from_static(b"half")),
        Err(std::io::ErrorKind::BrokenPipe.into()),
    ];
    let refused = client
        .put_files(&app, id, None, "/srv", stream::iter(broken))
        .await
        .unwrap_err();
    assert!(
        matches!(refused, Error::Broken { .. } | Error::Api { .. }),
        "{refused}"
    );
    let missing = client.get_files(&app, id, None, "/srv").await.unwrap_err();
    assert_eq!(missing.code(), Some("copy_failed"));
}
