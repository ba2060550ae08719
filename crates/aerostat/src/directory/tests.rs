//! The directory on a real store.

mod copies;
mod rows;

use super::*;

fn store(directory: &tempfile::TempDir) -> Store {
    Store::open(&store::Config::new(directory.path().join("directory.db"))).unwrap()
}

fn new_app(name: &str, network: &str) -> NewApp {
    NewApp {
        name: name.parse().unwrap(),
        org: PERSONAL.parse().unwrap(),
        network: network.to_owned(),
        role: String::new(),
        creation_key: None,
    }
}

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

#[tokio::test]
async fn apps_without_a_network_share_the_organisation_s_own() {
    let files = tempfile::tempdir().unwrap();
    let directory = Handle::open(store(&files)).await.unwrap();
    let web = directory.create_app(new_app("web", ""), NOW).await.unwrap();
    let db = directory.create_app(new_app("db", ""), NOW).await.unwrap();
    let other = directory
        .create_app(new_app("other", "apart"), NOW)
        .await
        .unwrap();
    assert_eq!(web.network, DEFAULT_NETWORK);
    assert_eq!(u32::from(web.network_id), 1);
    assert_eq!(db.network_id, web.network_id);
    assert_eq!(u32::from(other.network_id), 2);
    assert_ne!(web.id, db.id);
    let names: Vec<_> = directory
        .apps()
        .into_iter()
        .map(|app| app.name.to_string())
        .collect();
    assert_eq!(names, ["db", "other", "web"]);
}

#[tokio::test]
async fn a_name_is_taken_until_its_app_is_deleted() {
    let files = tempfile::tempdir().unwrap();
    let directory = Handle::open(store(&files)).await.unwrap();
    let name: AppName = "web".parse().unwrap();
    directory.create_app(new_app("web", ""), NOW).await.unwrap();
    let again = directory
        .create_app(new_app("web", ""), NOW)
        .await
        .unwrap_err();
    assert!(matches!(
        again,
        Error::Refused(Refused::AppNameTaken { .. })
    ));
    directory.delete_app(&name).await.unwrap();
    for missing in [
        directory.app(&name).await.map(drop),
        directory.delete_app(&name).await,
    ] {
        assert!(matches!(
            missing,
            Err(Error::Refused(Refused::AppNotFound { .. }))
        ));
    }
    directory.create_app(new_app("web", ""), NOW).await.unwrap();
}

#[tokio::test]
async fn network_ids_are_not_reused_after_a_restart() {
    let files = tempfile::tempdir().unwrap();
    let directory = Handle::open(store(&files)).await.unwrap();
    let first = directory
        .create_app(new_app("a", "one"), NOW)
        .await
        .unwrap();
    directory.delete_app(&first.name).await.unwrap();
    directory.inner.rows.0.clone().close().await;
    let directory = Handle::open(store(&files)).await.unwrap();
    assert_eq!(directory.orgs().len(), 1);
    let second = directory
        .create_app(new_app("b", "two"), NOW)
        .await
        .unwrap();
    let third = directory
        .create_app(new_app("a", "one"), NOW)
        .await
        .unwrap();
    assert_eq!(u32::from(second.network_id), 2);
    // The name still means the same network.
    assert_eq!(third.network_id, first.network_id);
    assert_eq!(directory.networks().len(), 2);
}

#[tokio::test]
async fn an_app_needs_an_organisation_and_a_sensible_network_name() {
    let files = tempfile::tempdir().unwrap();
    let directory = Handle::open(store(&files)).await.unwrap();
    let stranger = NewApp {
        org: "nobody".parse().unwrap(),
        ..new_app("web", "")
    };
    let refused = directory.create_app(stranger, NOW).await.unwrap_err();
    assert!(matches!(
        refused,
        Error::Refused(Refused::OrgNotFound { .. })
    ));
    for name in ["a/b", "a b", &"n".repeat(64)] {
        let refused = directory
            .create_app(new_app("web", name), NOW)
            .await
            .unwrap_err();
        assert!(
            matches!(refused, Error::Refused(Refused::NetworkName { .. })),
            "{name}"
        );
    }
    assert_eq!(directory.networks(), []);
}
