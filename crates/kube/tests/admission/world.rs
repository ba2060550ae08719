//! An API on a store of its own, with pods to put into it.

use kube::api::{AdmissionConfig, Api, Notes, Part, ServiceAccounts};
use kube::resource::{NAMESPACES, RESOURCE_QUOTAS, Resource};
use kube::status::Status;
use serde_json::{Value, json};

pub(crate) const HERE: Option<&str> = Some("default");

pub(crate) struct World {
    pub(crate) api: Api,
    pub(crate) notes: Notes,
    _dir: tempfile::TempDir,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(AdmissionConfig::default()).await
    }

    /// Service accounts as upstream has them.
    pub(crate) async fn with_accounts() -> Self {
        Self::with(AdmissionConfig {
            service_accounts: ServiceAccounts::Mounted,
            ..AdmissionConfig::default()
        })
        .await
    }

    pub(crate) async fn with(config: AdmissionConfig) -> Self {
        let dir = tempfile::tempdir().expect("temporary directory");
        let config_of_store = store::Config::new(dir.path().join("kube.db"));
        let store = store::Store::open(&config_of_store).expect("opens");
        let notes = Notes::default();
        let api = Api::new(store)
            .with_admission(config)
            .with_notes(notes.clone());
        api.bootstrap().await.expect("namespaces");
        let _dir = dir;
        Self { api, notes, _dir }
    }

    pub(crate) async fn create(&self, resource: &Resource, object: Value) -> Result<Value, Status> {
        let namespace = resource.is_namespaced().then_some("default");
        self.api.create(resource, namespace, object).await
    }

    pub(crate) async fn made(&self, resource: &Resource, object: Value) -> Value {
        self.create(resource, object).await.expect("created")
    }

    /// Why it is not let in.
    pub(crate) async fn refused(&self, resource: &Resource, object: Value) -> String {
        self.create(resource, object)
            .await
            .expect_err("refused")
            .message
    }

    /// A namespace with labels.
    pub(crate) async fn namespace(&self, name: &str, labels: Value) -> Value {
        let namespace = json!({"metadata": {"name": name, "labels": labels}});
        self.made(&NAMESPACES, namespace).await
    }

    /// A quota whose status the quota controller has written.
    pub(crate) async fn quota(&self, name: &str, spec: Value) {
        let mut quota = self
            .made(
                &RESOURCE_QUOTAS,
                json!({"metadata": {"name": name}, "spec": spec}),
            )
            .await;
        let hard = quota["spec"]["hard"].clone();
        let names = hard.as_object().expect("a map").keys();
        let used: serde_json::Map<_, _> = names.map(|name| (name.clone(), "0".into())).collect();
        quota["status"] = json!({"hard": hard, "used": used});
        self.api
            .update_status(&RESOURCE_QUOTAS, HERE, quota)
            .await
            .expect("written");
    }

    pub(crate) async fn used(&self, quota: &str) -> Value {
        let quota = self
            .api
            .get(&RESOURCE_QUOTAS, HERE, quota)
            .await
            .expect("there");
        quota["status"]["used"].clone()
    }

    pub(crate) async fn patch_labels(
        &self,
        resource: &Resource,
        name: &str,
        labels: Value,
    ) -> Result<Value, Status> {
        let patch = kube::api::Patch::merge(json!({"metadata": {"labels": labels}}));
        let namespace = HERE.filter(|_| resource.is_namespaced());
        self.api
            .patch(resource, Part::Object, namespace, name, &patch)
            .await
    }
}

pub(crate) fn pod(name: &str, resources: Value) -> Value {
    json!({"metadata": {"name": name}, "spec": {"containers": [
        {"name": "c", "image": "i", "resources": resources}]}})
}
