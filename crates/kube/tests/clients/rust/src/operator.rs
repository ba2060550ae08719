//! An operator as people write them with kube-rs. It finds the API server by what every pod has,
//! defines its kind, and makes a ConfigMap of each object of it.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::controller::{Action, Controller};
use kube::runtime::wait::{await_condition, conditions};
use kube::runtime::watcher;
use kube::{Client, Config, CustomResourceExt, Resource, ResourceExt};
use serde_json::json;

use crate::{Gadget, Outcome};

const NAME: &str = "gadgets.rs.example.org";

/// Until it is told to stop.
pub async fn run() -> Outcome {
    let config = Config::incluster()?;
    println!("in namespace {}", config.default_namespace);
    let client = Client::try_from(config)?;
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    let definition = Patch::Apply(Gadget::crd());
    definitions.patch(NAME, &manager(), &definition).await?;
    let established = await_condition(definitions, NAME, conditions::is_crd_established());
    tokio::time::timeout(Duration::from_secs(30), established).await??;
    println!("watching");
    let everything = watcher::Config::default();
    Controller::new(Api::<Gadget>::all(client.clone()), everything.clone())
        .owns(Api::<ConfigMap>::all(client.clone()), everything)
        .shutdown_on_signal()
        .run(reconcile, on_error, Arc::new(client))
        .for_each(async |done| match done {
            Ok((gadget, _)) => println!("reconciled {}", gadget.name),
            Err(error) => println!("{error}"),
        })
        .await;
    Ok(())
}

fn manager() -> PatchParams {
    PatchParams::apply("gadgets").force()
}

async fn reconcile(gadget: Arc<Gadget>, client: Arc<Client>) -> Result<Action, kube::Error> {
    let (name, namespace) = (gadget.name_any(), gadget.namespace().unwrap_or_default());
    let client = client.as_ref().clone();
    let parts: Api<ConfigMap> = Api::namespaced(client.clone(), &namespace);
    let part = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "ownerReferences": [gadget.controller_owner_ref(&())]},
        "data": {"name": gadget.spec.name, "replicas": gadget.spec.replicas.to_string()},
    });
    parts.patch(&name, &manager(), &Patch::Apply(part)).await?;
    let status = json!({
        "apiVersion": Gadget::api_version(&()), "kind": Gadget::kind(&()),
        "status": {"replicas": gadget.spec.replicas},
    });
    let gadgets: Api<Gadget> = Api::namespaced(client, &namespace);
    gadgets
        .patch_status(&name, &manager(), &Patch::Apply(status))
        .await?;
    Ok(Action::await_change())
}

fn on_error(_: Arc<Gadget>, _: &kube::Error, _: Arc<Client>) -> Action {
    Action::requeue(Duration::from_secs(1))
}
