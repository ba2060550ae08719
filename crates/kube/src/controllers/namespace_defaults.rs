//! What every namespace has: the service account `default`, and the configMap `kube-root-ca.crt`
//! with the certificate of the cluster's authority. Both come back when they are deleted, and the
//! certificate when it is changed.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::informer::{self, Change};
use super::queue::{self, Outcome, Queue, Worker};
use crate::api::{Api, Selector};
use crate::object;
use crate::resource::{CONFIG_MAPS, NAMESPACES, Resource, SERVICE_ACCOUNTS};
use crate::status::Status;

const SERVICE_ACCOUNT: &str = "default";
const ROOT_CA: &str = "kube-root-ca.crt";
/// A namespace that was made a moment ago may not be there for its own first objects yet.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

pub(super) async fn run(api: &Api, ca_pem: &str) {
    // Each names its namespace; the names of these selections hold nothing to escape.
    let named = |resource: &Resource, name: &str| {
        Selector::fields(resource, &format!("metadata.name={name}")).unwrap_or_default()
    };
    let accounts = named(&SERVICE_ACCOUNTS, SERVICE_ACCOUNT);
    let defaults = Defaults {
        api,
        ca_pem,
        namespaces: informer::follow(api, &NAMESPACES, Selector::default()),
        accounts: informer::follow(api, &SERVICE_ACCOUNTS, accounts),
        roots: informer::follow(api, &CONFIG_MAPS, named(&CONFIG_MAPS, ROOT_CA)),
    };
    queue::work(defaults).await;
}

struct Defaults<'a> {
    api: &'a Api,
    ca_pem: &'a str,
    namespaces: mpsc::Receiver<Change>,
    accounts: mpsc::Receiver<Change>,
    roots: mpsc::Receiver<Change>,
}

impl Worker for Defaults<'_> {
    const NAME: &'static str = "namespace-defaults";
    const CONFLICT_RETRY: Duration = LOOK_AGAIN;
    /// Names of namespaces.
    type News = Vec<String>;

    async fn next(&mut self) -> Vec<String> {
        tokio::select! {
            Some(change) = self.namespaces.recv() => names(change, |namespace| {
                Some(object::name(namespace).to_owned())
            }),
            Some(change) = self.accounts.recv() => names(change, namespace_of),
            Some(change) = self.roots.recv() => names(change, namespace_of),
            else => std::future::pending().await,
        }
    }

    async fn take(&mut self, names: Vec<String>, queue: &mut Queue) {
        names.iter().for_each(|name| queue.add(name));
    }

    async fn sync(&mut self, namespace: &str) -> Result<Outcome, Status> {
        let ensured = ensure(self.api, namespace, self.ca_pem).await;
        ensured.map(|()| Outcome::Done)
    }
}

fn namespace_of(object: &Value) -> Option<String> {
    object::namespace(object).map(str::to_owned)
}

fn names(change: Change, name: impl Fn(&Value) -> Option<String>) -> Vec<String> {
    match change {
        Change::Listed(all) => all.iter().filter_map(name).collect(),
        Change::Changed(object) | Change::Deleted(object) => name(&object).into_iter().collect(),
    }
}

async fn ensure(api: &Api, namespace: &str, ca_pem: &str) -> Result<(), Status> {
    match api.get(&NAMESPACES, None, namespace).await {
        Ok(found) if object::is_terminating(&found) => return Ok(()),
        Ok(_) => {}
        Err(status) if status.is_not_found() => return Ok(()),
        Err(status) => return Err(status),
    }
    let within = Some(namespace);
    let metadata = |name: &str| json!({"name": name, "namespace": namespace});
    match api.get(&SERVICE_ACCOUNTS, within, SERVICE_ACCOUNT).await {
        Ok(_) => {}
        Err(status) if status.is_not_found() => {
            let account = json!({"apiVersion": "v1", "kind": "ServiceAccount",
                "metadata": metadata(SERVICE_ACCOUNT)});
            api.create(&SERVICE_ACCOUNTS, within, account).await?;
        }
        Err(status) => return Err(status),
    }
    let data = json!({"ca.crt": ca_pem});
    match api.get(&CONFIG_MAPS, within, ROOT_CA).await {
        Ok(root) if root["data"] == data => Ok(()),
        Ok(mut root) => {
            root["data"] = data;
            api.update(&CONFIG_MAPS, within, root).await.map(drop)
        }
        Err(status) if status.is_not_found() => {
            let mut metadata = metadata(ROOT_CA);
            metadata["annotations"] = json!({"kubernetes.io/description":
                "Contains a CA bundle that can be used to verify the kube-apiserver when using \
                 internal endpoints such as the internal service IP or kubernetes.default.svc. No \
                 other usage is guaranteed across distributions of Kubernetes clusters."});
            let root = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata,
                "data": data});
            api.create(&CONFIG_MAPS, within, root).await.map(drop)
        }
        Err(status) => Err(status),
    }
}
