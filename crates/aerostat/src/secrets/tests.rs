//! Secrets over a real store and a directory with a copy.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;

use jiff::Timestamp;
use types::AppName;

use super::seal::{OpenError, Owner, open, seal};
use super::*;
use crate::directory::{self, NewApp};

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

struct World {
    files: tempfile::TempDir,
    directory: directory::Handle,
    secrets: Handle,
}

impl World {
    async fn new() -> Self {
        let files = tempfile::tempdir().unwrap();
        let store = store::Config::new(files.path().join("directory.db"));
        let store = store::Store::open(&store).unwrap();
        let directory = directory::Handle::open(store).await.unwrap();
        let source = KeySource::File(files.path().join("secrets").join("keys"));
        let keys = Keyring::load(&source).unwrap();
        let secrets = Handle::authority(directory.clone(), keys, source);
        Self {
            files,
            directory,
            secrets,
        }
    }

    async fn app(&self, name: &str) -> directory::App {
        let new = NewApp {
            name: name.parse().unwrap(),
            org: directory::PERSONAL.parse().unwrap(),
            network: String::new(),
            role: String::new(),
            creation_key: None,
        };
        self.directory.create_app(new, NOW).await.unwrap()
    }
}

fn changes(pairs: &[(&str, Option<&str>)]) -> BTreeMap<String, Option<Secret>> {
    let pairs = pairs.iter().map(|(name, value)| {
        let value = value.map(|value| Secret::new(value.to_owned()));
        ((*name).to_owned(), value)
    });
    pairs.collect()
}

fn web() -> AppName {
    "web".parse().unwrap()
}

#[tokio::test]
async fn what_is_set_is_had_and_each_change_is_a_version() {
    let world = World::new().await;
    let app = world.app("web").await;
    let set = changes(&[("DB_URL", Some("postgres://x")), ("KEY", Some("k"))]);
    assert_eq!(world.secrets.set(&app, set, NOW).await.unwrap().version, 1);
    let set = changes(&[("KEY", None), ("OTHER", Some("o"))]);
    assert_eq!(world.secrets.set(&app, set, NOW).await.unwrap().version, 2);
    let had = world.secrets.values(&web(), Some(2)).await.unwrap();
    assert_eq!(had.version, 2);
    let names: Vec<_> = had.values.keys().map(String::as_str).collect();
    assert_eq!(names, ["DB_URL", "OTHER"]);
    assert_eq!(had.values["DB_URL"].expose(), "postgres://x");
    // All of a change, or none of it.
    let missing = changes(&[("NEW", Some("n")), ("NOT_THERE", None)]);
    assert!(world.secrets.set(&app, missing, NOW).await.is_err());
    assert_eq!(world.secrets.values(&web(), None).await.unwrap(), had);
}

#[tokio::test]
async fn no_value_stands_on_disk_or_in_what_is_printed() {
    let world = World::new().await;
    let app = world.app("web").await;
    let canary = "canary-7f3a9b-value";
    let set = changes(&[("CANARY", Some(canary))]);
    assert!(!format!("{set:?}").contains(canary));
    world.secrets.set(&app, set, NOW).await.unwrap();
    let values = world.secrets.values(&web(), None).await.unwrap();
    assert!(!format!("{values:?}").contains(canary));
    let mut files = 0;
    let mut folders = vec![world.files.path().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            files += 1;
            let bytes = std::fs::read(&path).unwrap();
            let found = bytes.windows(canary.len()).any(|w| w == canary.as_bytes());
            assert!(!found, "{}", path.display());
        }
    }
    assert!(files >= 2, "the store and the keys");
    let keys = world.files.path().join("secrets").join("keys");
    let mode =
        |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&keys), mode(keys.parent().unwrap())), (0o600, 0o700));
}

#[tokio::test]
async fn a_version_that_does_not_come_is_waited_for_and_then_told() {
    let world = World::new().await;
    let app = world.app("web").await;
    let waits = {
        let secrets = world.secrets.clone();
        tokio::spawn(async move { secrets.values(&web(), Some(1)).await })
    };
    tokio::task::yield_now().await;
    let set = changes(&[("A", Some("1"))]);
    world.secrets.set(&app, set, NOW).await.unwrap();
    assert_eq!(waits.await.unwrap().unwrap().version, 1);
    let late = world.secrets.values(&web(), Some(9)).await.unwrap_err();
    assert!(
        matches!(
            late,
            Error::Late {
                wanted: 9,
                known: 1,
                ..
            }
        ),
        "{late}"
    );
}

#[tokio::test]
async fn a_new_app_of_an_old_name_has_none_of_its_secrets() {
    let world = World::new().await;
    let app = world.app("web").await;
    let set = changes(&[("A", Some("1"))]);
    world.secrets.set(&app, set, NOW).await.unwrap();
    world.directory.delete_app(&app.name).await.unwrap();
    let again = world.app("web").await;
    assert_eq!(
        world.secrets.values(&web(), None).await.unwrap(),
        AppSecrets::default()
    );
    // Nor could it be given them: the seal knows the app.
    let keys = Keyring::generate();
    let (old, new) = (app.id.as_str(), again.id.as_str());
    let owner = |app_id| Owner {
        app_id,
        app: &app.name,
    };
    let sealed = seal(&keys, owner(old), "A", &Secret::new("1".into()));
    assert!(open(&keys, owner(old), "A", &sealed).is_ok());
    for (owner, name) in [(owner(new), "A"), (owner(old), "B")] {
        let broken = open(&keys, owner, name, &sealed).unwrap_err();
        assert!(matches!(broken, OpenError::Broken { .. }), "{broken}");
    }
    let missing = open(&Keyring::generate(), owner(old), "A", &sealed).unwrap_err();
    assert!(matches!(missing, OpenError::KeyMissing { .. }), "{missing}");
}

#[tokio::test]
async fn a_rotation_changes_every_ciphertext_and_no_value_or_version() {
    let world = World::new().await;
    let path = world.files.path().join("secrets").join("keys");
    let before_file = std::fs::read_to_string(&path).unwrap();
    for name in ["web", "db"] {
        let app = world.app(name).await;
        let set = changes(&[("A", Some("1")), ("B", Some("2"))]);
        world.secrets.set(&app, set, NOW).await.unwrap();
    }
    let before = world.directory.sealed_secrets(&web());
    // Somebody sets while it goes on.
    let (secrets, app) = (
        world.secrets.clone(),
        world.directory.app(&web()).await.unwrap(),
    );
    let setting = tokio::spawn(async move {
        for number in 0..50 {
            let set = changes(&[("C", Some(&format!("c{number}")))]);
            secrets.set(&app, set, NOW).await.unwrap();
        }
    });
    let rotated = world.secrets.rotate_key().await.unwrap();
    setting.await.unwrap();
    assert!(rotated.resealed >= 4, "{rotated:?}");
    let after = world.directory.sealed_secrets(&web());
    assert!(
        after
            .secrets
            .values()
            .all(|secret| secret.sealed.key == rotated.key)
    );
    assert_ne!(
        after.secrets["A"].sealed.text,
        before.secrets["A"].sealed.text
    );
    let had = world.secrets.values(&web(), None).await.unwrap();
    let values: Vec<_> = had.values.values().map(Secret::expose).collect();
    assert_eq!(values, ["1", "2", "c49"]);
    let after_file = std::fs::read_to_string(&path).unwrap();
    assert_eq!(after_file.lines().count(), 1);
    assert_ne!(after_file, before_file);
    // What is on disk opens it after a restart.
    let source = KeySource::File(path);
    let again = Handle::authority(
        world.directory.clone(),
        Keyring::load(&source).unwrap(),
        source,
    );
    assert_eq!(again.values(&web(), None).await.unwrap(), had);
}

#[test]
fn keys_come_from_a_command_and_are_refused_when_they_are_none() {
    let hex = "00".repeat(32);
    let command = |script: &str| {
        let words = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
        Keyring::load(&KeySource::Command(words))
    };
    let keys = command(&format!("echo {hex}")).unwrap();
    assert!(
        !format!("{keys:?}").contains("0000000000000000000"),
        "{keys:?}"
    );
    for (script, wrong) in [
        ("echo short", "holds no keys"),
        ("true", "holds no keys"),
        ("echo very-secret; exit 3", "failed"),
    ] {
        let error = command(script).unwrap_err().to_string();
        assert!(
            error.contains(wrong) && !error.contains("very-secret"),
            "{error}"
        );
    }
}

#[test]
fn a_name_is_a_variable_s_and_a_value_fits_one() {
    for name in ["A", "_a1", "DATABASE_URL"] {
        assert_eq!(seal::check(name, Some("x")), Ok(()), "{name}");
    }
    for name in ["", "1A", "A-B", "A B", "A=B", "Ä", &"A".repeat(200)] {
        assert!(seal::check(name, Some("x")).is_err(), "{name}");
    }
    let long = "x".repeat(VALUE_BYTES_MAX + 1);
    for value in [long.as_str(), "a\0b"] {
        let error = seal::check("A", Some(value)).unwrap_err().to_string();
        assert!(!error.contains(value), "{error}");
    }
}

/// Another host: a copy of the directory, and a way to the first.
struct Elsewhere {
    loopback: crate::rpc::loopback::Loopback,
    secrets: Handle,
    directory: directory::Handle,
    _files: tempfile::TempDir,
    stop: tokio_util::sync::CancellationToken,
}

impl Elsewhere {
    async fn of(world: &World, placed: bool) -> Self {
        use types::HostId;
        let loopback = crate::rpc::loopback::Loopback::default();
        let (alpha, beta) = (HostId::new(2), HostId::new(3));
        let stop = tokio_util::sync::CancellationToken::new();
        let router = directory::router(world.directory.clone(), stop.clone()).merge(router(
            world.secrets.clone(),
            std::sync::Arc::new(move |host, app| placed && host == beta && app.as_str() == "web"),
        ));
        let listener = loopback
            .rpc(alpha)
            .listen(crate::rpc::RPC_PORT)
            .await
            .unwrap();
        tokio::spawn(crate::rpc::serve(listener, router, stop.clone()));
        let files = tempfile::tempdir().unwrap();
        let store = store::Config::new(files.path().join("directory.db"));
        let store = store::Store::open(&store).unwrap();
        let directory = directory::Handle::follow(store, loopback.rpc(beta), alpha);
        tokio::spawn(directory.clone().run(stop.clone()));
        let secrets = Handle::elsewhere(directory.clone(), loopback.rpc(beta));
        Self {
            loopback,
            secrets,
            directory,
            _files: files,
            stop,
        }
    }
}

#[tokio::test]
async fn another_host_has_ciphertexts_and_asks_for_values() {
    let world = World::new().await;
    let (web, db) = (world.app("web").await, world.app("db").await);
    for app in [&web, &db] {
        let set = changes(&[("A", Some("value-of-a"))]);
        world.secrets.set(app, set, NOW).await.unwrap();
    }
    world.app("empty").await;
    let beta = Elsewhere::of(&world, true).await;
    let had = beta.secrets.values(&web.name, Some(1)).await.unwrap();
    assert_eq!(had.values["A"].expose(), "value-of-a");
    let row = beta.directory.sealed_secrets(&web.name);
    assert!(!format!("{row:?}").contains("value-of-a"));
    // It has no machine of that one.
    let refused = beta.secrets.values(&db.name, Some(1)).await.unwrap_err();
    assert!(
        refused.to_string().contains("no machine of app `db`"),
        "{refused}"
    );
    let set = beta.secrets.set(&web, changes(&[("A", None)]), NOW).await;
    assert!(matches!(set, Err(Error::Elsewhere)));

    beta.loopback.silence(types::HostId::new(2));
    let away = beta.secrets.values(&web.name, None).await.unwrap_err();
    assert!(matches!(away, Error::Unreachable { .. }), "{away}");
    // An app without secrets needs nobody.
    let none = beta.secrets.values(&"empty".parse().unwrap(), None).await;
    assert_eq!(none.unwrap(), AppSecrets::default());
    beta.stop.cancel();
}
