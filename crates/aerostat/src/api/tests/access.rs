//! Who may call, and what they are told when they may not.

use client::Client;

use types::token::Scope;

use super::fixture::server;

#[tokio::test]
async fn over_tcp_nobody_comes_in_without_the_token() {
    let server = server().await;
    let get = "GET /v1/apps HTTP/1.1\r\n";
    let host = format!("Host: {}\r\n", server.tcp);
    let token = server.token(&Scope::default());
    let token = format!("Authorization: Bearer {token}\r\n");
    let cases = [
        (format!("{get}{host}"), 401),
        (format!("{get}{host}Authorization: Bearer wrong\r\n"), 401),
        (format!("{get}Host: evil.example\r\n{token}"), 403),
        (
            format!("{get}{host}{token}Origin: http://localhost:4280\r\n"),
            403,
        ),
        (format!("{get}{host}{token}"), 200),
    ];
    for (request, expected) in cases {
        let (status, head, body) = server.ask_tcp(&request).await;
        assert_eq!(status, expected, "{request}");
        assert!(head.to_lowercase().contains("fly-request-id: "), "{head}");
        assert_eq!(status == 200, !body.contains("\"error\""), "{body}");
    }
}

#[tokio::test]
async fn a_client_with_a_token_works_over_tcp() {
    let server = server().await;
    let url = format!("http://{}", server.tcp);
    let client = Client::tcp(&url, server.token(&Scope::default())).unwrap();
    assert_eq!(client.apps(None).await.unwrap().total_apps, 0);
    let stranger = Client::tcp(&url, "wrong").unwrap();
    let error = stranger.apps(None).await.unwrap_err();
    assert_eq!(error.status(), Some(401));
    assert!(error.to_string().contains("`aerostat env`"), "{error}");
}

#[tokio::test]
async fn what_is_not_there_is_told_apart_from_what_is_not_built() {
    let server = server().await;
    let (status, body) = server.ask("GET", "/v1/apps/web/certificates", "").await;
    assert_eq!(
        (status, body["status"].as_str().unwrap()),
        (501, "not_built")
    );
    assert_eq!(body["error"], "certificates are not built yet");
    let (status, body) = server.ask("GET", "/v1/nothing", "").await;
    assert_eq!(
        (status, body["status"].as_str().unwrap()),
        (404, "no_such_path")
    );
    let (status, body) = server.ask("PATCH", "/v1/apps", "").await;
    assert_eq!(
        (status, body["status"].as_str().unwrap()),
        (405, "no_such_method")
    );
}

#[tokio::test]
async fn a_body_that_is_too_large_or_no_json_is_refused() {
    let server = server().await;
    let (status, body) = server.ask("POST", "/v1/apps", "{").await;
    assert_eq!(
        (status, body["status"].as_str().unwrap()),
        (400, "invalid_argument")
    );
    let name = "a".repeat(5 << 20);
    let (status, _) = server
        .ask("POST", "/v1/apps", &format!("{{\"name\":\"{name}\"}}"))
        .await;
    assert_eq!(status, 413);
    let body = types::api::CreateApp {
        name,
        ..types::api::CreateApp::default()
    };
    let refused = server.client.create_app(&body).await.unwrap_err();
    assert_eq!(refused.status(), Some(413), "{refused}");
}

#[tokio::test]
async fn the_server_ends_although_somebody_watches() {
    let server = server().await;
    let app = server.app("web").await;
    let mut watch = server.client.watch(&app, None).await.unwrap();
    watch.next().await.unwrap().unwrap();
    let ended = server
        .drain
        .finish(std::time::Duration::from_secs(10))
        .await;
    assert_eq!(ended, Ok(()));
    assert!(watch.next().await.is_none());
    assert!(!server.files.path().join("api.sock").exists());
    let error = server.client.apps(None).await.unwrap_err();
    assert!(error.to_string().contains("try `aerostat up`"), "{error}");
}
