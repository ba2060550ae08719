//! Apps on the wire.

use serde_json::json;

use super::fixture::server;

#[tokio::test]
async fn an_app_looks_as_fly_s_clients_expect() {
    let server = server().await;
    let request = r#"{"name":"web","org_slug":"personal","app_role_id":""}"#;
    let (status, mut app) = server.ask("POST", "/v1/apps?wait=true", request).await;
    assert_eq!(status, 201);
    let fields = app.as_object_mut().unwrap();
    assert_eq!(fields.remove("id").unwrap().as_str().unwrap().len(), 16);
    assert!(fields.remove("created_at").unwrap().is_string());
    let number = fields.remove("internal_numeric_id").unwrap();
    assert!(
        number
            .as_i64()
            .is_some_and(|number| i32::try_from(number).is_ok())
    );
    fields["organization"]
        .as_object_mut()
        .unwrap()
        .remove("internal_numeric_id")
        .unwrap();
    let expected = json!({
        "name": "web", "machine_count": 0, "volume_count": 0, "network": "default",
        "network_id": 1, "status": "pending",
        "organization": {"name": "Personal", "slug": "personal"},
    });
    assert_eq!(app, expected);
    let (status, list) = server.ask("GET", "/v1/apps?org_slug=personal", "").await;
    assert_eq!((status, &list["total_apps"]), (200, &json!(1)));
    assert_eq!(list["apps"][0]["name"], "web");
    let (_, list) = server.ask("GET", "/v1/apps?org_slug=other", "").await;
    assert_eq!(list, json!({"apps": [], "total_apps": 0}));
}

#[tokio::test]
async fn a_taken_or_unknown_name_is_told_in_fly_s_words() {
    let server = server().await;
    server.app("web").await;
    let (status, body) = server
        .ask("POST", "/v1/apps", r#"{"app_name":"web"}"#)
        .await;
    assert_eq!(status, 422);
    let expected = json!({
        "error": "Name has already been taken", "status": "name_taken",
        "details": {"retryable": false},
    });
    assert_eq!(body, expected);
    let (status, body) = server.ask("GET", "/v1/apps/other", "").await;
    assert_eq!(
        (status, &body["error"]),
        (404, &json!("Could not find App \"other\""))
    );
    let (status, _) = server
        .ask("POST", "/v1/apps", r#"{"name":"Not A Name"}"#)
        .await;
    assert_eq!(status, 400);
}

#[tokio::test]
async fn an_app_with_machines_is_deleted_only_by_force() {
    let server = server().await;
    let app = server.app("web").await;
    let machine = server.started(&app, "one").await;
    let refused = server.client.delete_app(&app, false).await.unwrap_err();
    assert_eq!(
        (refused.status(), refused.code()),
        (Some(409), Some("app_not_empty"))
    );
    server.client.delete_app(&app, true).await.unwrap();
    assert!(server.client.app(&app).await.unwrap_err().is_not_found());
    assert!(
        server
            .client
            .machine(&app, &machine.id)
            .await
            .unwrap_err()
            .is_not_found()
    );
    // The machine's end takes a moment.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while !server.vmm.alive().is_empty() {
        assert!(std::time::Instant::now() < deadline);
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn there_is_one_region() {
    let server = server().await;
    let regions = server.client.regions().await.unwrap();
    assert_eq!(regions.nearest, "local");
    assert_eq!(regions.regions.len(), 1);
}
