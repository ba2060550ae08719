//! What programs written with kube-rs do: `clients <flow>`.
//!
//! It prints one line per thing that went as it should; the first that did not ends it. The flow
//! `operator` is for a pod and goes on until it is told to stop.

mod operator;

use std::time::Duration;

use futures::TryStreamExt;
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, ServiceAccount};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{
    Api, AttachParams, DeleteParams, DynamicObject, ListParams, LogParams, Patch, PatchParams,
    PostParams,
};
use kube::core::GroupVersionKind;
use kube::runtime::wait::{await_condition, conditions};
use kube::runtime::{WatchStreamExt, reflector, watcher};
use kube::{Client, CustomResource, CustomResourceExt, Discovery, ResourceExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

type Outcome = Result<(), Box<dyn std::error::Error>>;

#[derive(CustomResource, Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[kube(group = "rs.example.org", version = "v1", kind = "Gadget", namespaced)]
#[kube(status = "GadgetStatus", shortname = "gad")]
#[kube(scale(
    spec_replicas_path = ".spec.replicas",
    status_replicas_path = ".status.replicas"
))]
struct GadgetSpec {
    name: String,
    replicas: i32,
}

#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
struct GadgetStatus {
    replicas: i32,
}

fn check(holds: bool, what: &str) {
    if !holds {
        println!("FAILED: {what}");
        std::process::exit(1);
    }
    println!("ok: {what}");
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Outcome {
    let flow = std::env::args().nth(1).unwrap_or_default();
    if flow == "operator" {
        return operator::run().await;
    }
    let client = Client::try_default().await?;
    let run = async {
        match flow.as_str() {
            "discovery" => discovery(client).await,
            "dynamic" => dynamic(client).await,
            "crd" => crd(client).await,
            "token" => token(client).await,
            "watch" => watch(client).await,
            "pods" => pods(client).await,
            other => Err(format!("no flow {other:?}").into()),
        }
    };
    tokio::time::timeout(Duration::from_secs(60), run).await??;
    println!("done {flow}");
    Ok(())
}

async fn discovery(client: Client) -> Outcome {
    let version = client.apiserver_version().await?;
    check(version.major == "1", "the server has a version");
    for discovery in [
        Discovery::new(client.clone()).run().await?,
        Discovery::new(client.clone()).run_aggregated().await?,
    ] {
        let groups: Vec<_> = discovery
            .groups()
            .map(|group| group.name().to_owned())
            .collect();
        check(
            groups.iter().any(|name| name == "apps"),
            "apps is discovered",
        );
        let gvk = GroupVersionKind::gvk("apps", "v1", "Deployment");
        let (resource, _) = discovery.resolve_gvk(&gvk).ok_or("no Deployment")?;
        check(resource.plural == "deployments", "kinds are resolved");
    }
    Ok(())
}

async fn dynamic(client: Client) -> Outcome {
    let discovery = Discovery::new(client.clone()).run().await?;
    let gvk = GroupVersionKind::gvk("", "v1", "ConfigMap");
    let (resource, _) = discovery.resolve_gvk(&gvk).ok_or("no ConfigMap")?;
    let api: Api<DynamicObject> = Api::default_namespaced_with(client, &resource);
    let object = DynamicObject::new("dynamic", &resource).data(json!({"data": {"a": "b"}}));
    let made = api.create(&PostParams::default(), &object).await?;
    check(made.uid().is_some(), "an object of any kind is created");
    let patch = json!({"data": {"c": "d"}});
    let patched = api
        .patch("dynamic", &PatchParams::default(), &Patch::Merge(&patch))
        .await?;
    check(patched.data["data"]["c"] == "d", "and patched");
    let meta = api.get_metadata("dynamic").await?;
    check(
        meta.metadata.name.as_deref() == Some("dynamic"),
        "its metadata is had alone",
    );
    api.delete("dynamic", &DeleteParams::default()).await?;
    check(api.get_opt("dynamic").await?.is_none(), "and it goes");
    Ok(())
}

async fn crd(client: Client) -> Outcome {
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    let apply = PatchParams::apply("kube-rs").force();
    crds.patch(
        "gadgets.rs.example.org",
        &apply,
        &Patch::Apply(Gadget::crd()),
    )
    .await?;
    let established = await_condition(
        crds.clone(),
        "gadgets.rs.example.org",
        conditions::is_crd_established(),
    );
    established.await?;
    check(true, "a derived definition is established");
    let api: Api<Gadget> = Api::default_namespaced(client);
    let spec = GadgetSpec {
        name: "one".into(),
        replicas: 1,
    };
    let made = api
        .create(&PostParams::default(), &Gadget::new("one", spec))
        .await?;
    check(made.spec.replicas == 1, "a gadget is created");
    let wanted = json!({"apiVersion": "rs.example.org/v1", "kind": "Gadget",
        "metadata": {"name": "one"}, "spec": {"name": "applied", "replicas": 2}});
    let applied = api.patch("one", &apply, &Patch::Apply(&wanted)).await?;
    check(applied.spec.name == "applied", "and applied");
    let status = json!({"status": {"replicas": 2}});
    api.patch_status("one", &PatchParams::default(), &Patch::Merge(&status))
        .await?;
    let scale = api.get_scale("one").await?;
    check(
        scale.spec.and_then(|spec| spec.replicas) == Some(2),
        "its scale is read",
    );
    let replicas = json!({"spec": {"replicas": 3}});
    api.patch_scale("one", &PatchParams::default(), &Patch::Merge(&replicas))
        .await?;
    check(api.get("one").await?.spec.replicas == 3, "and changed");
    let bad = json!({"spec": {"replicas": "three"}});
    let refused = api
        .patch("one", &PatchParams::default(), &Patch::Merge(&bad))
        .await;
    check(refused.is_err(), "what does not fit the schema is refused");
    api.delete("one", &DeleteParams::default()).await?;
    crds.delete("gadgets.rs.example.org", &DeleteParams::default())
        .await?;
    Ok(())
}

async fn token(client: Client) -> Outcome {
    let accounts: Api<ServiceAccount> = Api::default_namespaced(client);
    let account = serde_json::from_value(json!({"metadata": {"name": "robot"}}))?;
    accounts.create(&PostParams::default(), &account).await?;
    let request: TokenRequest = serde_json::from_value(json!({"spec": {"audiences": []}}))?;
    let made = accounts
        .create_token_request("robot", &PostParams::default(), &request)
        .await?;
    check(
        serde_json::to_value(&made)?["status"]["token"].is_string(),
        "a token is had",
    );
    Ok(())
}

async fn watch(client: Client) -> Outcome {
    let api: Api<ConfigMap> = Api::default_namespaced(client.clone());
    for config in [
        watcher::Config::default(),
        watcher::Config::default().streaming_lists(),
    ] {
        let (reader, writer) = reflector::store();
        let stream = watcher(api.clone(), config)
            .default_backoff()
            .reflect(writer);
        let mut stream = Box::pin(stream);
        let name = format!("watched-{}", reader.len());
        let object = serde_json::from_value(json!({"metadata": {"name": name}}))?;
        let seen = async {
            let has_it = || reader.state().iter().any(|it| it.name_any() == name);
            // Of a list it has nothing before its end.
            while !has_it() && stream.try_next().await?.is_some() {}
            Ok::<_, watcher::Error>(())
        };
        let make = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            api.create(&PostParams::default(), &object).await
        };
        let (seen, made) = tokio::join!(seen, make);
        seen?;
        made?;
        check(
            reader.state().iter().any(|it| it.name_any() == name),
            "a reflector has what came",
        );
        drop(stream);
        api.delete(&name, &DeleteParams::default()).await?;
    }
    let listed = api.list(&ListParams::default().limit(1)).await?;
    check(listed.items.len() == 1, "a page has its size");
    Ok(())
}

async fn pods(client: Client) -> Outcome {
    let api: Api<Pod> = Api::default_namespaced(client);
    let pod = serde_json::from_value(json!({"metadata": {"name": "rs"},
        "spec": {"containers": [{"name": "c", "image": "a:1"}]}}))?;
    api.create(&PostParams::default(), &pod).await?;
    await_condition(api.clone(), "rs", conditions::is_pod_running()).await?;
    check(
        api.logs("rs", &LogParams::default())
            .await?
            .contains("three"),
        "its log is read",
    );
    let params = AttachParams::default()
        .stdin(false)
        .stdout(true)
        .stderr(true);
    let mut process = api.exec("rs", ["warn", "careful"], &params).await?;
    let errors = process.stderr().ok_or("no stderr")?;
    let said: Vec<_> = tokio_bytes(errors).await?;
    process.join().await?;
    check(said == b"careful\n", "a command is run in it");
    Ok(())
}

async fn tokio_bytes(
    mut from: impl tokio::io::AsyncRead + Unpin,
) -> Result<Vec<u8>, std::io::Error> {
    let mut all = Vec::new();
    tokio::io::AsyncReadExt::read_to_end(&mut from, &mut all).await?;
    Ok(all)
}
