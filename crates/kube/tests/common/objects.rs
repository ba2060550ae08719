//! An API of its own, without HTTP, and what tests of controllers do with its objects.

use std::time::{Duration, Instant};

use kube::api::{Api, Part, Patch, Selector};
use kube::object;
use kube::resource::{EVENTS, Resource};
use serde_json::Value;

pub(crate) const HERE: Option<&str> = Some("default");
/// For what controllers do on a loaded machine.
const IN_TIME: Duration = Duration::from_secs(60);

/// An API on a store of its own, which lasts as long as the directory.
pub(crate) async fn open() -> (Api, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("temporary directory");
    let store = store::Store::open(&store::Config::new(dir.path().join("kube.db"))).expect("opens");
    let api = Api::new(store);
    api.bootstrap().await.expect("namespaces");
    (api, dir)
}

pub(crate) async fn all(api: &Api, resource: &Resource) -> Vec<Value> {
    let everything = Selector::default();
    let listed = api.list(resource, HERE, &everything).await;
    listed.expect("listed").0
}

/// Waits until it is so.
pub(crate) async fn until(what: &str, is_so: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + IN_TIME;
    while !is_so().await {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub(crate) async fn merge(api: &Api, resource: &Resource, name: &str, patch: Value) {
    let patch = Patch::merge(patch);
    let patched = api.patch(resource, Part::Object, HERE, name, &patch).await;
    patched.expect("patched");
}

/// Reasons of the events about objects of a kind.
pub(crate) async fn reasons(api: &Api, kind: &str) -> Vec<String> {
    let mut events = all(api, &EVENTS).await;
    events.retain(|one| one["involvedObject"]["kind"] == kind);
    let reasons = events.iter().map(|one| object::text(one, &["reason"]));
    reasons.map(str::to_owned).collect()
}
