//! A watch, from its beginning and again from where it ended.

use client::{Error, MachineFilter, Watch};
use types::api::{StopMachine, WatchEvent};
use types::machine::{Machine, MachineState};

use super::fixture::server;

/// The next machine; bookmarks before it are skipped.
async fn machine(watch: &mut Watch) -> Machine {
    loop {
        match watch.next().await.unwrap().unwrap() {
            WatchEvent::Machine { machine, .. } => return *machine,
            WatchEvent::Bookmark { .. } => {}
        }
    }
}

#[tokio::test]
async fn a_watch_shows_what_is_and_then_what_happens() {
    let server = server().await;
    let (web, db) = (server.app("web").await, server.app("db").await);
    let one = server.started(&web, "one").await;
    server.started(&db, "of-another-app").await;
    let mut watch = server.client.watch(&web, None).await.unwrap();
    let seen = machine(&mut watch).await;
    assert_eq!(
        (seen.id.clone(), seen.state),
        (one.id.clone(), MachineState::Started)
    );
    let caught_up = watch.next().await.unwrap().unwrap();
    assert!(matches!(caught_up, WatchEvent::Bookmark { revision } if revision >= seen.revision));
    server
        .client
        .stop_machine(&web, &one.id, &StopMachine::default())
        .await
        .unwrap();
    loop {
        let seen = machine(&mut watch).await;
        assert_eq!(seen.id, one.id);
        if seen.state == MachineState::Stopped {
            break;
        }
    }
}

#[tokio::test]
async fn a_watch_goes_on_from_a_list() {
    let server = server().await;
    let web = server.app("web").await;
    server.started(&web, "one").await;
    let list = server
        .client
        .machines(&web, &MachineFilter::default())
        .await
        .unwrap();
    assert_eq!(list.machines.len(), 1);
    let two = server.started(&web, "two").await;
    let mut watch = server
        .client
        .watch(&web, Some(list.revision))
        .await
        .unwrap();
    let mut seen = machine(&mut watch).await;
    // What was still going on with the first one when the list was made.
    while seen.id != two.id {
        seen = machine(&mut watch).await;
    }
    server
        .client
        .destroy_machine(&web, &two.id, true)
        .await
        .unwrap();
    while machine(&mut watch).await.state != MachineState::Destroyed {}
}

#[tokio::test]
async fn a_new_watch_begins_without_those_that_are_destroyed() {
    let server = server().await;
    let web = server.app("web").await;
    let gone = server.started(&web, "gone").await;
    server
        .client
        .destroy_machine(&web, &gone.id, true)
        .await
        .unwrap();
    let destroyed = client::WaitQuery::state(MachineState::Destroyed);
    server
        .client
        .wait_machine(&web, &gone.id, &destroyed)
        .await
        .unwrap();
    let one = server.started(&web, "one").await;
    let mut watch = server.client.watch(&web, None).await.unwrap();
    assert_eq!(machine(&mut watch).await.id, one.id);
}

#[tokio::test]
async fn a_revision_that_is_not_known_is_gone() {
    let server = server().await;
    let web = server.app("web").await;
    let gone = server.client.watch(&web, Some(u64::MAX)).await.unwrap_err();
    assert!(matches!(gone, Error::Gone { from: u64::MAX }), "{gone}");
    let (status, body) = server.ask("GET", "/v1/apps/web/watch?from=99", "").await;
    assert_eq!((status, body["status"].as_str().unwrap()), (410, "gone"));
    assert_eq!(
        server.ask("GET", "/v1/apps/web/watch?from=x", "").await.0,
        400
    );
}

#[tokio::test]
async fn a_browser_gets_events_and_goes_on_where_it_was() {
    let server = server().await;
    let web = server.app("web").await;
    let one = server.started(&web, "one").await;
    let list = server
        .client
        .machines(&web, &MachineFilter::default())
        .await;
    let revision = list.unwrap().revision;
    let stop = StopMachine::default();
    server
        .client
        .stop_machine(&web, &one.id, &stop)
        .await
        .unwrap();
    let stopped = client::WaitQuery::state(MachineState::Stopped);
    server
        .client
        .wait_machine(&web, &one.id, &stopped)
        .await
        .unwrap();
    let head = format!("Accept: text/event-stream\r\nLast-Event-ID: {revision}\r\n");
    let path = "/v1/apps/web/machines?watch=true";
    let text = server.read_until(path, &head, "event: bookmark").await;
    let (head, events) = text.split_once("\r\n\r\n").unwrap();
    assert!(
        head.to_lowercase()
            .contains("content-type: text/event-stream"),
        "{head}"
    );
    assert!(events.contains("event: machine\nid: "), "{events}");
    assert!(
        events.contains("\ndata: {\"type\":\"machine\",\"revision\":"),
        "{events}"
    );
    assert!(events.contains("\"state\":\"stopped\""), "{events}");
    assert!(!events.contains("\"state\":\"started\""), "{events}");

    let gone = "Accept: text/event-stream\r\nLast-Event-ID: 99999\r\n";
    assert_eq!(server.send("GET", path, gone, "").await.0, 410);
    let lines = server.read_until(path, "", "\"type\":\"bookmark\"").await;
    assert!(lines.contains("application/x-ndjson"), "{lines}");
    for filter in [
        "state=started",
        "region=local",
        "metadata.a=b",
        "summary=true",
    ] {
        let (status, refused) = server.ask("GET", &format!("{path}&{filter}"), "").await;
        assert_eq!(status, 400, "{filter}: {refused}");
    }
}
