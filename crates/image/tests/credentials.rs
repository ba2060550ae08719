//! Registries that let in only whom they know: Debian's, with passwords, and one with a token
//! service as the large public ones have it.

#[allow(dead_code, reason = "each test file uses its own part")]
#[path = "common/layout.rs"]
mod layout;
#[allow(dead_code, reason = "each test file uses its own part")]
#[path = "common/registry.rs"]
mod server;
#[allow(dead_code, reason = "each test file uses its own part")]
#[path = "common/tarball.rs"]
mod tarball;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use image::{Credentials, CredentialsFile, ImageStore, PullError, PullOptions, Shown};
use serde_json::{Value, json};
use server::Registry;
use tarball::Tarball;

/// A registry with one image that is for `user` with the password `secret`.
fn private(test: &str) -> Option<Registry> {
    let auth = "auth:\n  htpasswd:\n    realm: test\n    path: USERS\n";
    let registry = Registry::start(test, auth)?;
    let layer = Tarball::new().file("hello", 0o644, b"hello").finish();
    layout::layout(&registry.layout(), &[layer]);
    registry
        .push(&registry.layout(), "private:1")
        .then_some(registry)
}

fn with_file(registry: &Registry, document: &Value) -> PullOptions {
    let path = registry.root.path().join("config.json");
    fs::write(&path, document.to_string()).unwrap();
    PullOptions {
        credentials_file: Some(CredentialsFile::at(path)),
        ..registry.options()
    }
}

#[tokio::test]
async fn a_registry_that_wants_a_password_gets_one_or_says_no() {
    let Some(registry) = private("a_registry_that_wants_a_password") else {
        return;
    };
    let (store, reference) = (registry.store(), registry.reference("private:1"));
    let with = |password: Option<&str>| PullOptions {
        credentials: password.map(|password| Credentials::Password {
            username: "user".to_owned(),
            password: password.to_owned(),
        }),
        ..registry.options()
    };
    for options in [with(None), with(Some("wrong"))] {
        let error = store.pull(&reference, &options).await.unwrap_err();
        assert!(matches!(error, PullError::Unauthorized { .. }), "{error}");
    }
    registry.assert_nothing_stored();
    store.pull(&reference, &with(Some("secret"))).await.unwrap();
    assert!(!format!("{:?}", with(Some("secret"))).contains("secret"));
}

#[tokio::test]
async fn a_login_of_docker_opens_the_registry_it_is_for() {
    let Some(registry) = private("a_login_of_docker") else {
        return;
    };
    let reference = registry.reference("private:1");
    let options = |login: Value| {
        let auths = json!({ "auths": { registry.address.clone(): login } });
        with_file(&registry, &auths)
    };
    // `user:secret`, as `docker login` writes it.
    let login = json!({ "auth": "dXNlcjpzZWNyZXQ=" });
    registry
        .store()
        .pull(&reference, &options(login))
        .await
        .unwrap();
    registry.store().remove(&reference).unwrap();
    let login = json!({ "username": "user", "password": "secret" });
    registry
        .store()
        .pull(&reference, &options(login))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_refusal_says_which_registry_who_asked_and_what_to_do() {
    let Some(registry) = private("a_refusal_says") else {
        return;
    };
    let (reference, address) = (registry.reference("private:1"), &registry.address);
    let refusal = async |options: PullOptions| {
        let error = registry
            .store()
            .pull(&reference, &options)
            .await
            .unwrap_err();
        registry.assert_nothing_stored();
        let PullError::Unauthorized { shown, .. } = &error else {
            panic!("{error}")
        };
        (shown.clone(), error.to_string())
    };
    let file = Some(registry.root.path().join("config.json"));

    let login = json!({ "username": "user", "password": "wrong-one" });
    let options = with_file(&registry, &json!({ "auths": { address.clone(): login } }));
    let (shown, text) = refusal(options).await;
    let name = "user".to_owned();
    assert_eq!(
        shown,
        Shown::User {
            name,
            file: file.clone()
        }
    );
    assert!(
        text.contains(address) && text.contains("log in again"),
        "{text}"
    );
    assert!(
        text.contains("401 to the credentials of user `user`"),
        "{text}"
    );
    assert!(!text.contains("wrong-one"), "{text}");

    let other = json!({ "auths": { "other.example": { "auth": "dXNlcjpzZWNyZXQ=" } } });
    let (shown, text) = refusal(with_file(&registry, &other)).await;
    assert_eq!(shown, Shown::Nothing { file });
    assert!(text.contains("without credentials"), "{text}");
    assert!(
        text.contains("config.json has none for it; log in (`docker login`)"),
        "{text}"
    );

    let (_, text) = refusal(registry.options()).await;
    assert!(
        text.contains("401 to a request without credentials; log in"),
        "{text}"
    );
}

#[tokio::test]
async fn a_helper_that_is_missing_is_named_before_the_registry_is_asked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.json");
    fs::write(&path, r#"{"credsStore": "no-such-one"}"#).unwrap();
    let options = PullOptions {
        credentials_file: Some(CredentialsFile::at(path)),
        ..PullOptions::default()
    };
    let store = ImageStore::open(&folder.path().join("store")).unwrap();
    let reference = "registry.invalid/x:1".parse().unwrap();
    let error = store.pull(&reference, &options).await.unwrap_err();
    assert!(matches!(error, PullError::Credentials(_)), "{error}");
    assert!(
        error.to_string().contains("docker-credential-no-such-one"),
        "{error}"
    );
}

/// A registry whose token service gives a token to `user` with `secret`, and says 401 to others.
/// Its own requests are answered with 403: the token has no rights. What was asked for is kept.
fn with_token_service() -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (seen, here) = (Arc::new(Mutex::new(Vec::new())), address.clone());
    let requests = Arc::clone(&seen);
    std::thread::spawn(move || {
        for stream in listener.incoming().take(8) {
            let mut stream = stream.unwrap();
            let mut request = vec![0; 8192];
            let n = stream.read(&mut request).unwrap_or(0);
            let request = String::from_utf8_lossy(&request[..n]).to_lowercase();
            let body = r#"{"token":"a-token"}"#;
            let (status, header, body) = if request.starts_with("get /token") {
                match request.contains("authorization: basic dxnlcjpzzwnyzxq=") {
                    true => ("200 OK", String::new(), body),
                    false => ("401 Unauthorized", String::new(), "{}"),
                }
            } else if request.contains("authorization: bearer a-token") {
                ("403 Forbidden", String::new(), "{}")
            } else {
                let realm = format!(
                    "www-authenticate: Bearer realm=\"http://{here}/token\",service=\"x\"\r\n"
                );
                ("401 Unauthorized", realm, "{}")
            };
            requests.lock().unwrap().push(request);
            let length = body.len();
            let _ = write!(
                stream,
                "HTTP/1.1 {status}\r\n{header}content-type: application/json\r\n\
                 content-length: {length}\r\nconnection: close\r\n\r\n{body}"
            );
        }
    });
    (address, seen)
}

#[tokio::test]
async fn a_token_service_is_asked_as_the_user_and_its_no_is_told_as_the_registrys() {
    let (address, seen) = with_token_service();
    let root = tempfile::tempdir().unwrap();
    let store = ImageStore::open(root.path()).unwrap();
    let reference = format!("{address}/x:1").parse().unwrap();
    let with = |password: &str| PullOptions {
        plain_http_registries: vec![address.clone()],
        credentials: Some(Credentials::Password {
            username: "user".to_owned(),
            password: password.to_owned(),
        }),
        ..PullOptions::default()
    };
    let error = store.pull(&reference, &with("wrong")).await.unwrap_err();
    assert!(matches!(error, PullError::Unauthorized { .. }), "{error}");
    assert!(error.to_string().contains(&address), "{error}");
    let error = store.pull(&reference, &with("secret")).await.unwrap_err();
    assert!(
        error
            .to_string()
            .contains("answered 403 to the credentials of user"),
        "{error}"
    );
    let seen = seen.lock().unwrap();
    let asked = |what: &str| seen.iter().any(|request| request.contains(what));
    assert!(asked("get /token") && asked("bearer a-token"), "{seen:?}");
}
