//! Volumes over HTTP, on one host and on two.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use types::api::CreateMachine;
use types::machine::{MachineConfig, MachineState, Mount};
use types::volume::{CreateVolume, VolumeState};
use types::{AppName, OrgSlug, VolumeId};

use super::fixture::{Fleet, Server, body, server};
use super::schema::Document;
use client::WaitQuery;

fn named(name: &str) -> CreateVolume {
    CreateVolume {
        name: name.into(),
        ..CreateVolume::default()
    }
}

fn mounting(name: &str, volume: &VolumeId) -> CreateMachine {
    let mount = Mount {
        volume: volume.to_string(),
        path: "/data".into(),
        ..Mount::default()
    };
    CreateMachine {
        config: MachineConfig {
            mounts: vec![mount],
            ..body(name).config
        },
        ..body(name)
    }
}

/// Whether an answer is as both documents say: Fly's and ours.
fn is_as_published(method: &str, path: &str, value: &Value) {
    let (official, ours) = (
        super::openapi::official(),
        Document(crate::api::openapi::document()),
    );
    let there = path
        .replace("{app}", "{app_name}")
        .replace("{id}", "{volume_id}");
    let there = there.replace("{org}", "{org_slug}");
    assert_eq!(
        official.problems(method, &there, 200, value),
        Vec::<String>::new()
    );
    let here = format!("/v1{path}");
    assert_eq!(
        ours.problems(method, &here, 200, value),
        Vec::<String>::new()
    );
}

#[tokio::test]
async fn a_volume_lives_over_http() {
    let server = server().await;
    let app = server.app("web").await;
    let path = "/v1/apps/web/volumes";
    let fly = r#"{"name":"data","region":"","size_gb":1,"encrypted":true,"snapshot_id":null,
        "require_unique_zone":true,"compute":{"cpu_kind":"shared"}}"#;
    let (status, volume) = server.ask("POST", path, fly).await;
    assert_eq!(
        (status, &volume["state"]),
        (200, &json!("created")),
        "{volume}"
    );
    is_as_published("POST", "/apps/{app}/volumes", &volume);
    assert_eq!(
        (&volume["encrypted"], &volume["zone"]),
        (&json!(false), &json!("0002"))
    );
    let id: VolumeId = serde_json::from_value(volume["id"].clone()).unwrap();
    let one = format!("{path}/{id}");
    assert_eq!(server.ask("GET", &one, "").await.1, volume);
    let (_, list) = server.ask("GET", path, "").await;
    assert_eq!(list, json!([volume]));

    let (status, extended) = server
        .ask("PUT", &format!("{one}/extend"), r#"{"size_gb":2}"#)
        .await;
    assert_eq!(
        (status, &extended["needs_restart"]),
        (200, &json!(false)),
        "{extended}"
    );
    assert_eq!(extended["volume"]["size_gb"], 2);
    is_as_published("PUT", "/apps/{app}/volumes/{id}/extend", &extended);
    for method in ["PUT", "POST"] {
        let (status, updated) = server
            .ask(method, &one, r#"{"snapshot_retention":9}"#)
            .await;
        assert_eq!(
            (status, &updated["snapshot_retention"]),
            (200, &json!(9)),
            "{updated}"
        );
    }
    let (status, snapshot) = server.ask("POST", &format!("{one}/snapshots"), "").await;
    assert_eq!(status, 200, "{snapshot}");

    let (_, snapshots) = server.ask("GET", &format!("{one}/snapshots"), "").await;
    assert_eq!(snapshots.as_array().unwrap().len(), 1);
    is_as_published("GET", "/apps/{app}/volumes/{id}/snapshots", &snapshots);

    let (status, gone) = server.ask("DELETE", &one, "").await;
    assert_eq!(
        (status, &gone["state"]),
        (200, &json!("destroyed")),
        "{gone}"
    );
    assert_eq!(server.ask("GET", path, "").await.1, json!([]));
    let restored = CreateVolume {
        snapshot_id: serde_json::from_value(snapshot["id"].clone()).unwrap(),
        ..named("again")
    };
    let restored = server.client.create_volume(&app, &restored).await.unwrap();
    assert_eq!(
        (restored.size_gb, restored.state),
        (2, VolumeState::Created)
    );
}

#[tokio::test]
async fn a_volume_that_a_machine_has_is_kept() {
    let server = server().await;
    let app = server.app("web").await;
    let id = server
        .client
        .create_volume(&app, &named("data"))
        .await
        .unwrap()
        .id;
    let one = format!("/v1/apps/web/volumes/{id}");
    let machine = server
        .client
        .create_machine(&app, &mounting("db", &id))
        .await
        .unwrap();
    let (status, refused) = server.ask("DELETE", &one, "").await;
    assert_eq!(
        (status, &refused["status"]),
        (409, &json!("volume_attached"))
    );
    let text = format!("volume {id} is attached to machine {}", machine.id);
    assert_eq!(refused["error"], text);
    assert_eq!(refused["details"]["scope"], "volume");
    let taken = server
        .client
        .create_machine(&app, &mounting("two", &id))
        .await
        .unwrap_err();
    assert_eq!(taken.status(), Some(409), "{taken}");

    server
        .client
        .destroy_machine(&app, &machine.id, true)
        .await
        .unwrap();
    let destroyed = WaitQuery::state(MachineState::Destroyed);
    server
        .client
        .wait_machine(&app, &machine.id, &destroyed)
        .await
        .unwrap();
    assert_eq!(server.ask("DELETE", &one, "").await.0, 200);
}

#[tokio::test]
async fn what_cannot_be_is_told_in_fly_s_words() {
    let server = server().await;
    server.app("web").await;
    server.app("other").await;
    let path = "/v1/apps/web/volumes";
    let (status, full) = server
        .ask("POST", path, r#"{"name":"a","size_gb":5000}"#)
        .await;
    assert_eq!(
        (status, &full["error"]),
        (400, &json!("no capacity")),
        "{full}"
    );
    assert_eq!(
        full["details"]["hint"],
        "ask for at most 97 GB, or delete volumes"
    );
    let (status, bad) = server.ask("POST", path, r#"{"name":"A b"}"#).await;
    assert_eq!(
        (status, &bad["status"]),
        (400, &json!("invalid_argument")),
        "{bad}"
    );
    let (status, region) = server
        .ask("POST", path, r#"{"name":"a","region":"mars"}"#)
        .await;
    assert_eq!(
        (status, &region["status"]),
        (422, &json!("region_unknown")),
        "{region}"
    );
    let none = format!("{path}/vol_0002000000000000");
    for (method, path) in [
        ("GET", none.clone()),
        ("DELETE", none.clone()),
        ("GET", format!("{none}/snapshots")),
    ] {
        let (status, missing) = server.ask(method, &path, "").await;
        assert_eq!(
            (status, &missing["status"]),
            (404, &json!("volume_not_found"))
        );
    }
    assert_eq!(server.ask("GET", "/v1/apps/web/volumes/x", "").await.0, 400);
    // Of another app.
    let id = server
        .client
        .create_volume(&"web".parse().unwrap(), &named("a"))
        .await
        .unwrap()
        .id;
    assert_eq!(
        server
            .ask("GET", &format!("/v1/apps/other/volumes/{id}"), "")
            .await
            .0,
        404
    );
    let other: AppName = "other".parse().unwrap();
    let foreign = server
        .client
        .create_machine(&other, &mounting("m", &id))
        .await
        .unwrap_err();
    assert_eq!(foreign.status(), Some(400), "{foreign}");
}

struct Two {
    fleet: Fleet,
    here: Server,
    there: Server,
    app: AppName,
}

async fn two() -> Two {
    let fleet = Fleet::default();
    let here = fleet.host(2, "local").await;
    let there = fleet.host(3, "local").await;
    fleet.tell(&here, &there);
    fleet.tell(&there, &here);
    let app = here.app("web").await;
    Two {
        fleet,
        here,
        there,
        app,
    }
}

#[tokio::test]
async fn namesakes_are_on_different_hosts_and_every_host_knows_both() {
    let two = two().await;
    let (here, app) = (&two.here.client, &two.app);
    let mut ids = Vec::new();
    for _ in 0..2 {
        ids.push(here.create_volume(app, &named("data")).await.unwrap().id);
    }
    let hosts: BTreeSet<u16> = ids.iter().map(|id| id.host().number()).collect();
    assert_eq!(hosts, BTreeSet::from([2, 3]));
    for client in [here, &two.there.client] {
        let list = client.volumes(app).await.unwrap();
        assert_eq!((list.volumes.len(), list.hosts_missing.len()), (2, 0));
        for id in &ids {
            assert_eq!(client.volume(app, id).await.unwrap().id, *id);
            assert!(client.snapshots(app, id).await.unwrap().is_empty());
        }
        assert_eq!(client.app(app).await.unwrap().volume_count, 2);
    }
    let id = ids.iter().find(|id| id.host().number() == 3).unwrap();
    assert_eq!(
        here.extend_volume(app, id, 2).await.unwrap().volume.size_gb,
        2
    );
    // A fork and a restore go where the original is.
    let fork = CreateVolume {
        source_volume_id: Some(id.clone()),
        ..named("fork")
    };
    let fork = here.create_volume(app, &fork).await.unwrap();
    assert_eq!(fork.zone, "0003");

    two.fleet.loopback.silence(two.there.host);
    let list = here.volumes(app).await.unwrap();
    assert_eq!(list.volumes.len(), 1);
    assert_eq!(list.hosts_missing, ["0003"]);
    let org: OrgSlug = "personal".parse().unwrap();
    let page = here.org_volumes(&org, None).await.unwrap();
    assert_eq!(
        (page.volumes.len(), page.hosts_missing),
        (1, vec!["0003".to_owned()])
    );
    let silent = here.volume(app, id).await.unwrap_err();
    assert_eq!(silent.status(), Some(504), "{silent}");
}

#[tokio::test]
async fn a_machine_goes_to_its_volume_or_nowhere() {
    let two = two().await;
    let (here, app) = (&two.here.client, &two.app);
    let mut ids: Vec<VolumeId> = Vec::new();
    for _ in 0..2 {
        ids.push(here.create_volume(app, &named("data")).await.unwrap().id);
    }
    for id in &ids {
        let name = format!("m{}", id.host().number());
        let machine = here
            .create_machine(app, &mounting(&name, id))
            .await
            .unwrap();
        let field = format!(":a7b:{}:", id.host().number());
        assert!(
            machine.private_ip.contains(&field),
            "{}",
            machine.private_ip
        );
    }
    let apart = here.create_volume(app, &named("more")).await.unwrap().id;
    let other = ids.iter().find(|id| id.host() != apart.host()).unwrap();
    let mut both = mounting("both", &apart);
    both.config.mounts.push(Mount {
        volume: other.to_string(),
        path: "/other".into(),
        ..Mount::default()
    });
    let refused = here.create_machine(app, &both).await.unwrap_err();
    assert_eq!(refused.status(), Some(400), "{refused}");

    let mut large = mounting("large", &apart);
    large.config.guest = Some(types::machine::Guest {
        memory_mb: 2000,
        ..Default::default()
    });
    let refused = here.create_machine(app, &large).await.unwrap_err();
    assert_eq!(refused.status(), Some(412), "{refused}");
    let client::Error::Api { body, .. } = refused else {
        panic!("{refused}");
    };
    assert_eq!(body.status, "volume_placement_capacity");
    assert_eq!(body.details.scope, "volume");
}

#[tokio::test]
async fn an_organisation_s_volumes_come_in_pages() {
    let server = server().await;
    let web = server.app("web").await;
    let other = server.app("other").await;
    let mut ids = BTreeSet::new();
    for app in [&web, &web, &other, &other, &other] {
        ids.insert(
            server
                .client
                .create_volume(app, &named("data"))
                .await
                .unwrap()
                .id,
        );
    }
    let (mut seen, mut cursor, mut pages) = (BTreeSet::new(), String::new(), 0);
    loop {
        let path = format!("/v1/orgs/personal/volumes?limit=2&cursor={cursor}");
        let (status, page) = server.ask("GET", &path, "").await;
        assert_eq!(status, 200, "{page}");
        is_as_published("GET", "/orgs/{org}/volumes", &page);
        for volume in page["volumes"].as_array().unwrap() {
            let id: VolumeId = serde_json::from_value(volume["id"].clone()).unwrap();
            assert!(seen.insert(id), "{volume} is there twice");
        }
        pages += 1;
        cursor = page["next_cursor"].as_str().unwrap().to_owned();
        if cursor.is_empty() {
            break;
        }
    }
    assert_eq!((seen, pages), (ids, 3));
    let (_, none) = server
        .ask("GET", "/v1/orgs/personal/volumes?state=hydrating", "")
        .await;
    assert_eq!(none["volumes"], json!([]));
    assert_eq!(
        server.ask("GET", "/v1/orgs/nobody/volumes", "").await.0,
        404
    );
    assert_eq!(
        server
            .ask("GET", "/v1/orgs/personal/volumes?cursor=x", "")
            .await
            .0,
        400
    );
}

#[tokio::test]
async fn an_app_is_deleted_with_its_volumes_by_force_only() {
    let two = two().await;
    let (here, app) = (&two.here.client, &two.app);
    for _ in 0..2 {
        let id = here.create_volume(app, &named("data")).await.unwrap().id;
        let name = format!("m{}", id.host().number());
        here.create_machine(app, &mounting(&name, &id))
            .await
            .unwrap();
        here.create_snapshot(app, &id).await.ok();
    }
    here.create_volume(app, &named("alone")).await.unwrap();
    assert_eq!(
        here.delete_app(app, false).await.unwrap_err().status(),
        Some(409)
    );
    here.delete_app(app, true).await.unwrap();
    for server in [&two.here, &two.there] {
        let left: Vec<_> = std::fs::read_dir(server.files.path().join("volumes"))
            .unwrap()
            .collect();
        assert!(left.is_empty(), "{left:?}");
    }
}
