//! Secrets over the API: who sees what.

use serde_json::json;
use types::machine::MachineState;
use types::token::{Scope, Verb};

use super::fixture::{body, server};

#[tokio::test]
async fn secrets_are_set_listed_and_removed_and_shown_only_to_whoever_may() {
    let server = server().await;
    server.app("web").await;
    let all = "/v1/apps/web/secrets";
    let set = json!({"values": {"DB_URL": "postgres://x", "KEY": "k"}}).to_string();
    let (code, answer) = server.ask("POST", all, &set).await;
    assert_eq!(
        (code, answer["version"].as_u64()),
        (200, Some(1)),
        "{answer}"
    );
    assert_eq!(answer["Version"], 1);
    let (code, one) = server
        .ask(
            "POST",
            &format!("{all}/OTHER"),
            r#"{"value":"postgres://x"}"#,
        )
        .await;
    assert_eq!((code, one["version"].as_u64()), (201, Some(2)));
    let (_, list) = server.ask("GET", all, "").await;
    let digest = |at: usize| list["secrets"][at]["digest"].clone();
    assert_eq!(digest(0), digest(2), "equal values, equal digests: {list}");
    assert_ne!(digest(0), digest(1));
    assert!(!list.to_string().contains("postgres"), "{list}");
    assert_eq!(list["version"], 2);

    let token = |verbs: &[Verb]| {
        server.token(&Scope {
            apps: vec!["web".parse().unwrap()],
            verbs: verbs.to_vec(),
            ..Scope::default()
        })
    };
    let (reader, seer) = (token(&[Verb::Read]), token(&[Verb::Read, Verb::Secrets]));
    let shown = format!("{all}?show_secrets=true");
    assert_eq!(server.ask_as(&reader, "GET", all, "").await.0, 200);
    assert_eq!(server.ask_as(&reader, "GET", &shown, "").await.0, 403);
    assert_eq!(server.ask_as(&reader, "POST", all, &set).await.0, 403);
    let (_, values) = server.ask_as(&seer, "GET", &shown, "").await;
    assert_eq!(values["secrets"][0]["value"], "postgres://x");

    let (code, gone) = server.ask("DELETE", &format!("{all}/KEY"), "").await;
    assert_eq!((code, gone["version"].as_u64()), (200, Some(3)));
    assert_eq!(server.ask("GET", &format!("{all}/KEY"), "").await.0, 404);
    assert_eq!(server.ask("DELETE", &format!("{all}/KEY"), "").await.0, 404);
    let (code, late) = server.ask("GET", &format!("{all}?min_version=9"), "").await;
    assert_eq!(
        (code, late["status"].as_str().unwrap()),
        (408, "deadline_exceeded")
    );
    let bad = json!({"values": {"NOT A NAME": "very-secret-value"}}).to_string();
    let (code, refused) = server.ask("POST", all, &bad).await;
    assert_eq!(code, 400);
    assert!(
        !refused.to_string().contains("very-secret-value"),
        "{refused}"
    );
    let (code, keys) = server.ask("GET", "/v1/apps/web/secretkeys", "").await;
    assert_eq!((code, keys["status"].as_str().unwrap()), (501, "not_built"));
}

#[tokio::test]
async fn a_machine_boots_with_the_secrets_that_were_set_before_it() {
    let server = server().await;
    let app = server.app("web").await;
    let set = json!({"values": {"DB_URL": "postgres://x"}}).to_string();
    server.ask("POST", "/v1/apps/web/secrets", &set).await;
    let machine = server.started(&app, "one").await;
    let env = |at: usize| server.vmm.specs()[at].spec.containers[0].env.clone();
    assert_eq!(env(0)["DB_URL"], "postgres://x");
    let (_, shown) = server
        .ask("GET", &format!("/v1/apps/web/machines/{}", machine.id), "")
        .await;
    assert!(!shown.to_string().contains("postgres://x"), "{shown}");
    let without = types::api::CreateMachine {
        skip_secrets: true,
        ..body("two")
    };
    let two = server.client.create_machine(&app, &without).await.unwrap();
    let started = client::WaitQuery::state(MachineState::Started);
    server
        .client
        .wait_machine(&app, &two.id, &started)
        .await
        .unwrap();
    assert!(!env(1).contains_key("DB_URL"));
    // A new key changes nothing for them.
    let (code, rotated) = server.ask("POST", "/v1/secrets/rotate_key", "").await;
    assert_eq!(
        (code, rotated["resealed"].as_u64()),
        (200, Some(1)),
        "{rotated}"
    );
    server.started(&app, "three").await;
    assert_eq!(env(2)["DB_URL"], "postgres://x");
}
