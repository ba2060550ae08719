//! What an organisation has over its apps, and where there would be room for more.

use std::collections::BTreeSet;

use client::{Error, MachineFilter, OrgMachineFilter};
use serde_json::json;
use types::OrgSlug;
use types::api::{AskPlacement, WatchEvent};
use types::machine::{Guest, MachineState};

use super::fixture::{Fleet, server};

fn personal() -> OrgSlug {
    "personal".parse().unwrap()
}

#[tokio::test]
async fn machines_of_every_app_come_page_by_page() {
    let server = server().await;
    let (web, db) = (server.app("web").await, server.app("db").await);
    for name in ["one", "two", "three"] {
        server.started(&web, name).await;
    }
    server.started(&db, "four").await;
    let mut filter = OrgMachineFilter {
        limit: Some(3),
        ..OrgMachineFilter::default()
    };
    let first = server
        .client
        .org_machines(&personal(), &filter)
        .await
        .unwrap();
    assert_eq!(first.machines.len(), 3);
    let last = first.machines.last().unwrap();
    assert_eq!(first.last_machine_id, last.id.to_string());
    assert_eq!(first.last_updated_at, Some(last.updated_at));
    assert!(
        first
            .machines
            .is_sorted_by_key(|machine| machine.updated_at)
    );
    filter.cursor = Some(first.next_cursor);
    let second = server
        .client
        .org_machines(&personal(), &filter)
        .await
        .unwrap();
    assert_eq!(
        (second.machines.len(), second.next_cursor.as_str()),
        (1, "")
    );
    let pages = first.machines.iter().chain(&second.machines);
    let names: BTreeSet<_> = pages
        .map(|m| (m.app_name.as_str(), m.name.as_str()))
        .collect();
    let all = [
        ("db", "four"),
        ("web", "one"),
        ("web", "three"),
        ("web", "two"),
    ];
    assert_eq!(names, all.into());
    let config = first.machines[0].config.as_ref().unwrap();
    assert_eq!(config.image, "localhost/hello:1");

    let later = OrgMachineFilter {
        updated_after: second.last_updated_at,
        ..OrgMachineFilter::default()
    };
    let none = server
        .client
        .org_machines(&personal(), &later)
        .await
        .unwrap();
    assert_eq!(none.machines, []);
    let stopped = OrgMachineFilter {
        states: vec![MachineState::Stopped],
        summary: true,
        ..OrgMachineFilter::default()
    };
    let none = server
        .client
        .org_machines(&personal(), &stopped)
        .await
        .unwrap();
    assert_eq!(none.machines, []);
    let nobody = server
        .client
        .org_machines(&"nobody".parse().unwrap(), &later)
        .await
        .unwrap_err();
    assert!(nobody.is_not_found(), "{nobody}");
    for wrong in [
        "limit=0",
        "limit=1001",
        "cursor=x",
        "updated_after=soon",
        "state=odd",
    ] {
        let path = format!("/v1/orgs/personal/machines?{wrong}");
        assert_eq!(server.ask("GET", &path, "").await.0, 400, "{wrong}");
    }
}

#[tokio::test]
async fn a_watch_of_an_organisation_tells_the_app_and_goes_on_from_a_revision() {
    let server = server().await;
    let (web, db) = (server.app("web").await, server.app("db").await);
    server.started(&web, "one").await;
    let list = server
        .client
        .machines(&web, &MachineFilter::default())
        .await;
    let from = list.unwrap().revision;
    server.started(&db, "two").await;
    let mut watch = server
        .client
        .watch_org(&personal(), Some(from))
        .await
        .unwrap();
    loop {
        match watch.next().await.unwrap().unwrap() {
            WatchEvent::Machine {
                machine, app_name, ..
            } if machine.name == "two" => {
                assert_eq!(app_name, Some(db));
                break;
            }
            WatchEvent::Machine { machine, .. } => assert_eq!(machine.name, "one"),
            WatchEvent::Bookmark { .. } => {}
        }
    }
    let gone = server.client.watch_org(&personal(), Some(u64::MAX)).await;
    assert!(matches!(gone, Err(Error::Gone { .. })));
}

#[tokio::test]
async fn a_dry_run_says_where_there_is_room() {
    let fleet = Fleet::default();
    let one = fleet.host(2, "fra").await;
    let _two = fleet.host(3, "ams").await;
    let ask = AskPlacement {
        org_slug: "personal".into(),
        compute: Some(Guest {
            memory_mb: 512,
            ..Guest::default()
        }),
        ..AskPlacement::default()
    };
    // A host that has said nothing of its room yet counts for the one machine that it has bid for.
    let found = one.client.placements(&ask).await.unwrap().regions;
    let found: Vec<_> = found
        .iter()
        .map(|r| (&*r.region, r.count, r.concurrency))
        .collect();
    assert_eq!(found, [("fra", 4, 1), ("ams", 1, 1)]);
    let some = AskPlacement {
        count: 3,
        region: "eu".into(),
        weights: [("region".to_owned(), 0), ("spread".to_owned(), 1)].into(),
        ..ask.clone()
    };
    let found = one.client.placements(&some).await.unwrap().regions;
    let found: Vec<_> = found.iter().map(|r| (&*r.region, r.count)).collect();
    assert_eq!(found, [("ams", 1), ("fra", 2)]);
    let large = AskPlacement {
        compute: Some(Guest {
            memory_mb: 65536,
            ..Guest::default()
        }),
        ..ask.clone()
    };
    assert_eq!(one.client.placements(&large).await.unwrap().regions, []);
    let mars = AskPlacement {
        region: "mars".into(),
        ..ask
    };
    let unknown = one.client.placements(&mars).await.unwrap_err();
    assert_eq!(unknown.code(), Some("region_unknown"));
    for (body, status) in [("{}", 400), (r#"{"org_slug":"nobody"}"#, 404)] {
        let answer = one.ask("POST", "/v1/platform/placements", body).await;
        assert_eq!(answer.0, status, "{}", answer.1);
    }
    let (_, regions) = one.ask("GET", "/v1/platform/regions", "").await;
    assert_eq!(regions["regions"][0]["geo_region"], json!("eu"));
}

#[tokio::test]
async fn a_region_may_be_a_list_and_a_refusal_tells_every_host() {
    let fleet = Fleet::default();
    let one = fleet.host(2, "fra").await;
    let two = fleet.host(3, "ams").await;
    fleet.tell(&two, &one);
    let app = one.app("web").await;
    let mut body = super::fixture::body("one");
    body.region = "lhr,ams,any".into();
    let machine = one.client.create_machine(&app, &body).await.unwrap();
    assert_eq!(machine.region, "ams");
    body.name = "two".into();
    body.config.guest = Some(Guest {
        memory_mb: 65536,
        ..Guest::default()
    });
    let Error::Api { status, body } = one.client.create_machine(&app, &body).await.unwrap_err()
    else {
        panic!("not refused by the API")
    };
    assert_eq!(
        (status, body.status.as_str()),
        (422, "insufficient_capacity")
    );
    assert_eq!(body.details.scope, "region");
    let hosts: BTreeSet<_> = body.details.bids.iter().map(|bid| &*bid.host).collect();
    assert_eq!(hosts, ["0002", "0003"].into());
    for bid in &body.details.bids {
        assert!(
            !bid.won && bid.refusal.contains("insufficient memory"),
            "{bid:?}"
        );
    }
}
