//! `kubernetes.default`: the Service by which pods reach this API server.
//!
//! ```text
//!   service `kubernetes.default` (Machines API) ── its VIP ──> Service `kubernetes`: its clusterIP
//!        Door ── listens in the network of the pods ──> Endpoints, EndpointSlice `kubernetes`
//! ```
//!
//! Every pod has the address in its environment, so it stays as long as the cluster lives: the
//! service is not taken away with the Service, which comes back at once with the same address.
//! Only a state that was brought to another fleet has an address that is not its own; the Service
//! is made anew then.

use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{Services, name};
use crate::api::{Api, DeleteOptions, Selector};
use crate::controllers::SERVICE_LABEL;
use crate::controllers::informer;
use crate::object;
use crate::resource::{CONFIG_MAPS, ENDPOINT_SLICES, ENDPOINTS, Resource, SERVICES};
use crate::status::Status;

/// Where the Service is, and what it is called.
pub(crate) const NAMESPACE: &str = "default";
pub(crate) const NAME: &str = "kubernetes";
/// As whom this server asks aggregated API servers.
pub const FRONT_PROXY: &str = "front-proxy-client";
/// On the cluster IP.
const PORT: u16 = 443;
/// The app of the pods is made a moment after the first start.
const RETRY: Duration = Duration::from_millis(500);

/// The way from the network of the pods into this API server.
pub trait Door: std::fmt::Debug + Send + Sync {
    /// Answers in that network what the proxies bring there for `cluster_ip`, and says where. The
    /// certificate is for the cluster IP too. May be repeated.
    fn open(&self, cluster_ip: Ipv6Addr) -> BoxFuture<'_, io::Result<SocketAddr>>;
}

/// Whether several API servers stand behind the Service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Among {
    Alone,
    /// Each adds itself. One that is gone for good stays until it is removed by hand; proxies try
    /// another one.
    Others,
}

/// What is told of this API server.
#[derive(Debug)]
pub struct Kubernetes {
    /// Certificate of the cluster's authority, in PEM.
    pub ca_pem: String,
    /// Without it there is the Service, and nobody behind it.
    pub door: Option<Arc<dyn Door>>,
    pub among: Among,
}

/// Why the Service is not as it should be.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Api(#[from] Status),
    #[error(transparent)]
    Machines(#[from] client::Error),
    #[error("cannot listen in the network of the pods")]
    Door(#[from] io::Error),
    #[error("the Service has no cluster IP")]
    NoAddress,
}

/// Keeps the Service, and who stands behind it, until `shutdown`.
pub async fn keep(
    api: Api,
    services: Arc<dyn Services>,
    config: Kubernetes,
    shutdown: CancellationToken,
) {
    tokio::select! {
        () = work(&api, services.as_ref(), &config) => {}
        () = shutdown.cancelled() => {}
    }
}

async fn work(api: &Api, services: &dyn Services, config: &Kubernetes) {
    // The names of these selections hold nothing to escape.
    let named = |resource: &'static Resource| {
        let fields = format!("metadata.name={NAME},metadata.namespace={NAMESPACE}");
        let selector = Selector::fields(resource, &fields).unwrap_or_default();
        informer::follow(api, resource, selector)
    };
    let mut service_changes = named(&SERVICES);
    let mut slice_changes = named(&ENDPOINT_SLICES);
    let mut endpoint_changes = named(&ENDPOINTS);
    let mut is_said = false;
    loop {
        let wait = match ensure(api, services, config).await {
            Ok(address) => {
                if !std::mem::replace(&mut is_said, true) {
                    info!(%address, has_door = config.door.is_some(), "pods have an API server");
                }
                None
            }
            // The app is not there yet, or somebody else was faster.
            Err(Failure::Machines(error)) if error.is_not_found() => Some(RETRY),
            Err(Failure::Api(status)) if status.is_conflict() || status.code == 503 => {
                debug!(%status, "kubernetes.default is not there yet");
                Some(RETRY)
            }
            Err(error) => {
                let error = types::chain(&error);
                warn!(error, "pods cannot reach the API server");
                Some(RETRY * 10)
            }
        };
        let timer = async {
            match wait {
                Some(wait) => tokio::time::sleep(wait).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(_) = service_changes.recv() => {}
            Some(_) = slice_changes.recv() => {}
            Some(_) = endpoint_changes.recv() => {}
            () = timer => {}
        }
    }
}

/// One look; returns the cluster IP.
async fn ensure(
    api: &Api,
    services: &dyn Services,
    config: &Kubernetes,
) -> Result<Ipv6Addr, Failure> {
    authentication(api, &config.ca_pem).await?;
    let within = Some(NAMESPACE);
    let found = match api.get(&SERVICES, within, NAME).await {
        Ok(found) => Some(found),
        Err(status) if status.is_not_found() => None,
        Err(status) => return Err(status.into()),
    };
    let service = match found {
        Some(service) if is_own(&service, services).await? => service,
        Some(service) => {
            let options = DeleteOptions::now().with_uid(object::uid(&service));
            api.delete(&SERVICES, within, NAME, &options).await?;
            warn!("kubernetes.default had another fleet's address and is made anew");
            api.create(&SERVICES, within, template()).await?
        }
        None => api.create(&SERVICES, within, template()).await?,
    };
    let address = object::text(&service, &["spec", "clusterIP"]).parse();
    let address: Ipv6Addr = address.map_err(|_| Failure::NoAddress)?;
    if let Some(door) = &config.door {
        let at = door.open(address).await?;
        stand_behind(api, at, config.among).await?;
    }
    Ok(address)
}

/// Whether the address of the Service is that of its service.
async fn is_own(service: &Value, services: &dyn Services) -> Result<bool, Failure> {
    let all = services.list().await?;
    let own = name(NAMESPACE, NAME);
    let vip = all.iter().find(|one| one.name == own).and_then(|s| s.vip);
    let has = object::text(service, &["spec", "clusterIP"]).parse().ok();
    Ok(vip.is_some() && vip == has)
}

fn template() -> Value {
    json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": NAME, "namespace": NAMESPACE,
            "labels": {"component": "apiserver", "provider": "kubernetes"}},
        "spec": {"ports": [{"name": "https", "protocol": "TCP", "port": PORT,
            "targetPort": 6443}]}})
}

/// By what aggregated API servers know this one, and whom it speaks for; they read it in
/// `kube-system`.
async fn authentication(api: &Api, ca_pem: &str) -> Result<(), Status> {
    let names = |names: &[&str]| json!(names).to_string();
    let data = json!({
        "client-ca-file": ca_pem,
        "requestheader-allowed-names": names(&[FRONT_PROXY]),
        "requestheader-client-ca-file": ca_pem,
        "requestheader-extra-headers-prefix": names(&["X-Remote-Extra-"]),
        "requestheader-group-headers": names(&["X-Remote-Group"]),
        "requestheader-uid-headers": names(&["X-Remote-Uid"]),
        "requestheader-username-headers": names(&["X-Remote-User"]),
    });
    let (namespace, name) = ("kube-system", "extension-apiserver-authentication");
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace}, "data": data});
    put(api, &CONFIG_MAPS, (namespace, name), |_| object.clone()).await
}

/// Writes this server's address into Endpoints and EndpointSlice.
async fn stand_behind(api: &Api, at: SocketAddr, among: Among) -> Result<(), Status> {
    let port = json!([{"name": "https", "port": at.port(), "protocol": "TCP"}]);
    let metadata = |labels: Value| json!({"name": NAME, "namespace": NAMESPACE, "labels": labels});
    let own = at.ip().to_string();
    let with_own = |others: Vec<String>| {
        let mut all = match among {
            Among::Alone => Vec::new(),
            Among::Others => others,
        };
        all.push(own.clone());
        all.sort();
        all.dedup();
        all
    };
    put(api, &ENDPOINTS, (NAMESPACE, NAME), |had| {
        let had = object::items(had, &["subsets"]).iter();
        let had = had.flat_map(|subset| object::items(subset, &["addresses"]));
        let others = had.map(|one| object::text(one, &["ip"]).to_owned());
        let all = with_own(others.collect()).into_iter();
        let addresses: Vec<_> = all.map(|ip| json!({"ip": ip})).collect();
        json!({"apiVersion": "v1", "kind": "Endpoints",
            "metadata": metadata(json!({"endpointslice.kubernetes.io/skip-mirror": "true"})),
            "subsets": [{"addresses": addresses, "ports": port}]})
    })
    .await?;
    put(api, &ENDPOINT_SLICES, (NAMESPACE, NAME), |had| {
        let had = object::items(had, &["endpoints"]).iter();
        let had = had.flat_map(|one| object::items(one, &["addresses"]));
        let others = had.filter_map(Value::as_str).map(str::to_owned);
        let all = with_own(others.collect()).into_iter();
        let ready = json!({"ready": true});
        let endpoints: Vec<_> = all
            .map(|ip| json!({"addresses": [ip], "conditions": ready}))
            .collect();
        json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": metadata(json!({SERVICE_LABEL: NAME})),
            "addressType": "IPv6", "endpoints": endpoints, "ports": port})
    })
    .await
}

/// Makes an object as `wanted` says of what it was; nothing is written if it is so.
async fn put(
    api: &Api,
    resource: &Resource,
    (namespace, name): (&str, &str),
    wanted: impl Fn(&Value) -> Value,
) -> Result<(), Status> {
    let within = Some(namespace);
    let found = match api.get(resource, within, name).await {
        Ok(found) => found,
        Err(status) if status.is_not_found() => {
            let new = wanted(&Value::Null);
            return api.create(resource, within, new).await.map(drop);
        }
        Err(status) => return Err(status),
    };
    let wanted = wanted(&found);
    let mut object = found.clone();
    for (field, value) in wanted.as_object().into_iter().flatten() {
        if field == "metadata" {
            if let Some(labels) = value.get("labels") {
                object["metadata"]["labels"] = labels.clone();
            }
        } else {
            object[field] = value.clone();
        }
    }
    if object == found {
        return Ok(());
    }
    api.update(resource, within, object).await.map(drop)
}
