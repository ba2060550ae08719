//! Images of the host.

use types::api::{ImportImage, PullEvent, PullImage};

use super::fixture::server;

#[tokio::test]
async fn an_image_that_is_not_there_is_told_in_words() {
    let server = server().await;
    assert_eq!(server.client.images().await.unwrap(), []);
    let missing = server
        .client
        .remove_image("localhost/hello:1")
        .await
        .unwrap_err();
    assert!(missing.is_not_found());
    assert!(
        missing.to_string().contains("localhost/hello:1"),
        "{missing}"
    );
    let bad = server
        .client
        .remove_image("Not An Image")
        .await
        .unwrap_err();
    assert_eq!(bad.status(), Some(400));
}

#[tokio::test]
async fn a_pull_that_fails_ends_with_the_reason() {
    let server = server().await;
    let body = PullImage {
        reference: "localhost/hello:1".into(),
        plain_http: false,
    };
    let mut pull = server.client.pull_image(&body).await.unwrap();
    let last = pull.next().await.unwrap().unwrap();
    let PullEvent::Failed { body } = last else {
        panic!("{last:?}")
    };
    assert_eq!(body.status, "image_not_found");
    assert!(body.error.contains("must be imported"), "{}", body.error);
    assert!(pull.next().await.is_none());
}

#[tokio::test]
async fn an_import_names_what_is_missing() {
    let server = server().await;
    let name = "localhost/hello:1".to_owned();
    let relative = ImportImage {
        path: "layout".into(),
        name: name.clone(),
    };
    let refused = server.client.import_image(&relative).await.unwrap_err();
    assert_eq!(refused.status(), Some(400));
    let path = server.files.path().join("nothing").display().to_string();
    let refused = server
        .client
        .import_image(&ImportImage { path, name })
        .await
        .unwrap_err();
    assert_eq!(
        (refused.status(), refused.code()),
        (Some(422), Some("image_not_found"))
    );
}
