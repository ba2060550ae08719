//! What is found in files of every habit, and what never shows.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use super::*;

fn file(text: &str) -> (tempfile::TempDir, CredentialsFile) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.json");
    fs::write(&path, text).unwrap();
    (folder, CredentialsFile::at(path))
}

fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().unwrap()
}

fn found(document: &Value, image: &str) -> Result<Option<Credentials>, CredentialsError> {
    let (_folder, file) = file(&document.to_string());
    runtime().block_on(file.find(&image.parse().unwrap()))
}

fn user(name: &str) -> Option<Credentials> {
    Some(Credentials::Password {
        username: name.to_owned(),
        password: "pa:ss".to_owned(),
    })
}

fn auth(name: &str) -> Value {
    json!({ "auth": LENIENT.encode(format!("{name}:pa:ss")) })
}

#[test]
fn a_login_is_found_by_the_registry_of_the_image() {
    let document = json!({ "auths": {
        "ghcr.example": auth("a"),
        "127.0.0.1:5000": { "username": "b", "password": "pa:ss" },
        "https://index.docker.io/v1/": auth("hub"),
        "empty.example": {},
    }});
    for (image, expected) in [
        ("ghcr.example/x/y:1", user("a")),
        ("127.0.0.1:5000/x", user("b")),
        ("127.0.0.1:5001/x", None),
        ("alpine", user("hub")),
        ("team/app:3", user("hub")),
        ("empty.example/x", None),
        ("evil-ghcr.example/x", None),
    ] {
        assert_eq!(found(&document, image).unwrap(), expected, "{image}");
    }
}

#[test]
fn of_several_logins_the_one_for_the_repository_is_taken() {
    let document = json!({ "auths": {
        "r.example": auth("all"), "r.example/team": auth("team"), "r.example/team/app": auth("app"),
    }});
    for (image, expected) in [
        ("r.example/x", "all"),
        ("r.example/teams/x", "all"),
        ("r.example/team/x", "team"),
        ("r.example/team/app:2", "app"),
    ] {
        assert_eq!(found(&document, image).unwrap(), user(expected), "{image}");
    }
}

#[test]
fn a_bearer_token_is_taken_and_an_identity_token_is_declined_in_words() {
    let document = json!({ "auths": { "r.example": { "registrytoken": "t" } } });
    let token = found(&document, "r.example/x").unwrap();
    assert_eq!(token, Some(Credentials::Token("t".to_owned())));
    let document = json!({ "auths": { "r.example": { "identitytoken": "hush" } } });
    let error = found(&document, "r.example/x").unwrap_err();
    assert!(error.to_string().contains("identity token"), "{error}");
    assert!(!format!("{error:?}").contains("hush"));
}

#[test]
fn no_error_repeats_a_secret() {
    let secret = "aHVzaDpodXNo";
    for text in [
        format!(r#"{{"auths": "{secret}"}}"#),
        format!(r#"{{"auths": {{"r.example": "{secret}"}}}}"#),
        format!(r#"{{"auths": {{"r.example": {{"auth": "{secret}"#),
        format!(r#"{{"auths": {{"r.example": {{"auth": "{secret}!"}}}}}}"#),
        r#"{"auths": {"r.example": {"auth": "aHVzaA=="}}}"#.to_owned(),
    ] {
        let (_folder, file) = file(&text);
        let find = async { file.find(&"r.example/x".parse().unwrap()).await };
        let error = runtime().block_on(find).unwrap_err();
        for shown in [error.to_string(), format!("{error:?}")] {
            assert!(
                !shown.contains("aHVzaD") && !shown.contains("hush"),
                "{shown}"
            );
            assert!(shown.contains("config.json"), "{shown}");
        }
    }
}

#[test]
fn a_file_that_somebody_named_must_be_there_and_bounded() {
    let runtime = runtime();
    let (folder, file) = file("{}");
    let image = "r.example/x".parse().unwrap();
    assert_eq!(runtime.block_on(file.find(&image)).unwrap(), None);
    let absent = folder.path().join("absent.json");
    let error = runtime.block_on(CredentialsFile::at(&absent).find(&image));
    assert!(matches!(error, Err(CredentialsError::Read { .. })));
    let may_be_absent = CredentialsFile {
        path: absent,
        absent: Absent::IsFine,
    };
    assert_eq!(runtime.block_on(may_be_absent.find(&image)).unwrap(), None);
    let long = vec![b' '; usize::try_from(FILE_BYTES_MAX).unwrap() + 1];
    fs::write(file.path(), long).unwrap();
    let error = runtime.block_on(file.find(&image));
    assert!(matches!(error, Err(CredentialsError::Read { .. })));
}

/// What a helper that is this script leads to.
fn helped(script: &str, registry: &str) -> Result<Option<Credentials>, String> {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("docker-credential-test");
    fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    runtime().block_on(helper::consult(program.to_str().unwrap(), registry))
}

#[test]
fn a_helper_is_asked_with_the_registry_and_its_answer_is_taken() {
    let script = r#"read key
        [ "$1" = get ] || exit 2
        printf '{"ServerURL":"x","Username":"a-%s","Secret":"pa:ss"}' "$key""#;
    assert_eq!(
        helped(script, "r.example:5000"),
        Ok(user("a-r.example:5000"))
    );
    let hub = helped(script, "docker.io");
    assert_eq!(hub, Ok(user("a-https://index.docker.io/v1/")));
}

#[test]
fn a_helper_without_a_login_is_no_error_and_one_that_fails_is() {
    let nothing = "echo credentials not found in native keychain; exit 1";
    assert_eq!(helped(nothing, "r.example"), Ok(None));
    for script in [
        "echo hush; exit 1",
        "echo hush",
        "head -c 1000000 /dev/zero",
        r#"echo '{"Username":"<token>","Secret":"hush"}'"#,
    ] {
        let why = helped(script, "r.example").unwrap_err();
        assert!(!why.contains("hush"), "{why}");
    }
}

#[test]
fn a_helper_that_is_not_there_is_named() {
    for document in [
        json!({ "credsStore": "no-such-one" }),
        json!({ "credHelpers": { "r.example": "no-such-one" }, "credsStore": "other" }),
    ] {
        let error = found(&document, "r.example/x").unwrap_err().to_string();
        let named = error.contains("`docker-credential-no-such-one`");
        assert!(named && error.contains("is not installed"), "{error}");
    }
    let document = json!({ "credHelpers": { "r.example": "../../bin/sh" } });
    let error = found(&document, "r.example/x").unwrap_err().to_string();
    assert!(error.contains("is no name of a program"), "{error}");
    // Helpers of other registries are not this one's.
    assert_eq!(found(&document, "other.example/x").unwrap(), None);
}
