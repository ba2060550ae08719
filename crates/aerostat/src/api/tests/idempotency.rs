//! Creations that are repeated: at once, later, after a restart, and at another host.

use std::time::{Duration, Instant};

use serde_json::json;
use types::api::CreateApp;
use types::machine::MachineState;

use super::fixture::{Fleet, body, server};

#[tokio::test]
async fn a_key_creates_one_machine_however_often_it_comes() {
    let server = server().await;
    let (client, app) = (&server.client, server.app("web").await);
    // Without a name: nothing else would notice a second machine.
    let body = body("");
    let calls = (0..8).map(|_| client.create_machine_once(&app, &body, "key-1"));
    let machines = futures::future::join_all(calls).await;
    let first = machines[0].as_ref().unwrap();
    for machine in &machines {
        assert_eq!(machine.as_ref().unwrap().id, first.id);
    }
    let list = client.machines(&app, &Default::default()).await.unwrap();
    assert_eq!(list.machines.len(), 1);
    let other = client.create_machine_once(&app, &body, "key-2").await;
    assert_ne!(other.unwrap().id, first.id);
    let mut changed = body.clone();
    changed.config.env.insert("A".into(), "b".into());
    let reused = client.create_machine_once(&app, &changed, "key-1").await;
    let reused = reused.unwrap_err();
    assert_eq!(
        (reused.status(), reused.code()),
        (Some(422), Some("idempotency_key_reused"))
    );
    assert!(
        reused.to_string().contains("came with another body before"),
        "{reused}"
    );
    // A destroyed machine was created all the same.
    client.destroy_machine(&app, &first.id, true).await.unwrap();
    let destroyed = client::WaitQuery::state(MachineState::Destroyed);
    client
        .wait_machine(&app, &first.id, &destroyed)
        .await
        .unwrap();
    let again = client
        .create_machine_once(&app, &body, "key-1")
        .await
        .unwrap();
    assert_eq!(
        (&again.id, again.state),
        (&first.id, MachineState::Destroyed)
    );
}

#[tokio::test]
async fn a_repeated_creation_tells_its_lease_again() {
    let server = server().await;
    let (client, app) = (&server.client, server.app("web").await);
    let mut body = body("one");
    body.lease_ttl = Some(60);
    let first = client
        .create_machine_once(&app, &body, "key")
        .await
        .unwrap();
    let again = client
        .create_machine_once(&app, &body, "key")
        .await
        .unwrap();
    assert!(first.nonce.is_some());
    assert_eq!(first.nonce, again.nonce);
}

#[tokio::test]
async fn a_key_is_known_after_a_restart_of_the_host() {
    let server = server().await;
    let app = server.app("web").await;
    let body = body("");
    let first = server.client.create_machine_once(&app, &body, "key").await;
    let server = server.again("local").await;
    let again = server.client.create_machine_once(&app, &body, "key").await;
    assert_eq!(again.unwrap().id, first.unwrap().id);
}

#[tokio::test]
async fn a_key_must_be_something() {
    let server = server().await;
    server.app("web").await;
    let long = "k".repeat(256);
    for key in ["", " ", &long] {
        let header = format!("Idempotency-Key: {key}\r\n");
        let body = r#"{"config":{"image":"localhost/hello:1"}}"#;
        let (status, refused) = server
            .send("POST", "/v1/apps/web/machines", &header, body)
            .await;
        assert_eq!(
            (status, &refused["status"]),
            (400, &json!("invalid_argument"))
        );
    }
}

#[tokio::test]
async fn another_host_of_the_fleet_knows_the_key_too() {
    let fleet = Fleet::default();
    let one = fleet.host(2, "fra").await;
    let two = fleet.host(3, "ams").await;
    fleet.tell(&one, &two);
    fleet.tell(&two, &one);
    let app = one.app("web").await;
    // Created through the first host on the second: the key goes with it.
    let mut body = body("");
    body.region = "ams".into();
    let first = one
        .client
        .create_machine_once(&app, &body, "key")
        .await
        .unwrap();
    assert_eq!(first.region, "ams");
    for server in [&one, &two] {
        let again = server.client.create_machine_once(&app, &body, "key").await;
        assert_eq!(again.unwrap().id, first.id);
    }
    let launch = first.events.last().unwrap();
    let placement = launch.request.as_ref().unwrap().placement.as_ref().unwrap();
    assert_eq!(placement.bids.len(), 1);
    let bid = &placement.bids[0];
    assert_eq!(
        (bid.host.as_str(), bid.region.as_str(), bid.won),
        ("0003", "ams", true)
    );
}

#[tokio::test]
async fn an_app_is_made_once() {
    let server = server().await;
    let body = CreateApp {
        name: "web".into(),
        app_role_id: "builder".into(),
        ..CreateApp::default()
    };
    let first = server.client.create_app_once(&body, "key").await.unwrap();
    let again = server.client.create_app_once(&body, "key").await.unwrap();
    assert_eq!(first.id, again.id);
    assert_eq!(first.app_role, "builder");
    let other = CreateApp {
        network: "other".into(),
        ..body.clone()
    };
    let reused = server.client.create_app_once(&other, "key").await;
    assert_eq!(reused.unwrap_err().code(), Some("idempotency_key_reused"));
    let taken = server.client.create_app(&body).await.unwrap_err();
    assert_eq!(taken.code(), Some("name_taken"));
    let roles = async |role: &str| {
        let path = format!("/v1/apps?app_role={role}");
        server.ask("GET", &path, "").await.1["total_apps"].clone()
    };
    assert_eq!(
        (roles("builder").await, roles("other").await),
        (json!(1), json!(0))
    );
}

#[tokio::test]
async fn a_key_creates_one_volume_on_whatever_host() {
    let fleet = Fleet::default();
    let (alpha, beta) = (fleet.host(2, "local").await, fleet.host(3, "local").await);
    fleet.tell(&alpha, &beta);
    fleet.tell(&beta, &alpha);
    let app = alpha.app("web").await;
    let body = types::volume::CreateVolume {
        name: "data".into(),
        ..Default::default()
    };
    let calls = (0..4).map(|_| alpha.client.create_volume_once(&app, &body, "key-1"));
    let volumes = futures::future::join_all(calls).await;
    let first = &volumes[0].as_ref().unwrap().id;
    for volume in &volumes {
        assert_eq!(volume.as_ref().unwrap().id, *first);
    }
    // Volumes of one name go to different hosts.
    let second = alpha.client.create_volume_once(&app, &body, "key-2").await;
    let second = second.unwrap().id;
    assert_ne!(second.host(), first.host());
    for client in [&alpha.client, &beta.client] {
        for (key, id) in [("key-1", first), ("key-2", &second)] {
            let again = client.create_volume_once(&app, &body, key).await;
            assert_eq!(again.unwrap().id, *id, "{key}");
        }
    }
    let larger = types::volume::CreateVolume {
        size_gb: Some(2),
        ..body
    };
    let reused = alpha
        .client
        .create_volume_once(&app, &larger, "key-1")
        .await;
    assert_eq!(reused.unwrap_err().code(), Some("idempotency_key_reused"));
    // What only hosts may say says nothing from others.
    let told = json!({"name": "data", "aerostat_creation_key": "x"}).to_string();
    let (status, made) = alpha.ask("POST", "/v1/apps/web/volumes", &told).await;
    assert_eq!((status, &made["creation_key"]), (200, &json!(null)));
    // Counted over all hosts that answer soon enough.
    let deadline = Instant::now() + Duration::from_secs(30);
    while beta.ask("GET", "/v1/apps", "").await.1["apps"][0]["volume_count"] != 3 {
        assert!(Instant::now() < deadline);
    }
}
