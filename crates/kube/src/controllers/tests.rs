//! The controllers against a store of their own.

use std::time::{Duration, Instant};

use serde_json::json;

use super::*;
use crate::api::DeleteOptions;
use crate::resource::{CONFIG_MAPS, NAMESPACES, RUNTIME_CLASSES, Resource, SERVICE_ACCOUNTS};

async fn start() -> (Api, CancellationToken, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let store = store::Store::open(&store::Config::new(folder.path().join("k.db"))).unwrap();
    let api = Api::new(store);
    api.bootstrap().await.unwrap();
    let stop = CancellationToken::new();
    let config = ControllersConfig {
        isolation: vec![IsolationClass::Container],
        ..ControllersConfig::new("PEM")
    };
    tokio::spawn(run(api.clone(), config, stop.clone()));
    (api, stop, folder)
}

async fn wait_for(
    api: &Api,
    resource: &Resource,
    namespace: Option<&str>,
    name: &str,
    there: bool,
) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while api.get(resource, namespace, name).await.is_ok() != there {
        assert!(
            Instant::now() < deadline,
            "{} {name}: not {there}",
            resource.plural
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn every_namespace_gets_its_defaults_and_gets_them_back() {
    let (api, _stop, _folder) = start().await;
    let namespace = json!({"metadata": {"name": "shop"}});
    api.create(&NAMESPACES, None, namespace).await.unwrap();
    for within in [Some("default"), Some("shop")] {
        wait_for(&api, &SERVICE_ACCOUNTS, within, "default", true).await;
        wait_for(&api, &CONFIG_MAPS, within, "kube-root-ca.crt", true).await;
    }
    let root = api
        .get(&CONFIG_MAPS, Some("shop"), "kube-root-ca.crt")
        .await
        .unwrap();
    assert_eq!(root["data"]["ca.crt"], "PEM");
    let options = DeleteOptions::default();
    let gone = api
        .delete(&CONFIG_MAPS, Some("shop"), "kube-root-ca.crt", &options)
        .await;
    gone.unwrap();
    wait_for(&api, &CONFIG_MAPS, Some("shop"), "kube-root-ca.crt", true).await;
    wait_for(&api, &RUNTIME_CLASSES, None, "container", true).await;
}

#[tokio::test]
async fn a_namespace_takes_what_is_in_it_along() {
    let (api, _stop, _folder) = start().await;
    let namespace = json!({"metadata": {"name": "shop"}});
    api.create(&NAMESPACES, None, namespace).await.unwrap();
    let map = json!({"metadata": {"name": "settings"}, "data": {"a": "b"}});
    api.create(&CONFIG_MAPS, Some("shop"), map).await.unwrap();
    let options = DeleteOptions::default();
    api.delete(&NAMESPACES, None, "shop", &options)
        .await
        .unwrap();
    wait_for(&api, &NAMESPACES, None, "shop", false).await;
    assert!(
        api.get(&CONFIG_MAPS, Some("shop"), "settings")
            .await
            .is_err()
    );
}
