//! What tests of custom resources share: controllers that run, and a webhook that converts.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::convert::Infallible;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use kube::api::Api;
use kube::controllers::{self, ControllersConfig};
use kube::pki::Pki;
pub(crate) use kube::resource::CUSTOM_RESOURCE_DEFINITIONS as CRDS;
use kube::resource::Row;
use serde_json::{Value, json};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::{CancellationToken, DropGuard};

/// An API with its controllers and its catalog.
pub(crate) async fn start() -> (Api, tempfile::TempDir, DropGuard) {
    let dir = tempfile::tempdir().expect("temporary directory");
    let store = store::Store::open(&store::Config::new(dir.path().join("kube.db"))).expect("opens");
    let api = Api::new(store);
    Box::pin(api.bootstrap()).await.expect("namespaces");
    let stop = control(&api);
    (api, dir, stop)
}

/// Runs the controllers, and keeps the catalog as a server does.
pub(crate) fn control(api: &Api) -> DropGuard {
    let (keeper, stop) = (api.clone(), CancellationToken::new());
    let stopped = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            () = keeper.keep_catalog() => {}
            () = stopped.cancelled() => {}
        }
    });
    run_until(api, &stop);
    stop.drop_guard()
}

/// Runs the controllers beside a server, which keeps the catalog itself.
pub(crate) fn run_controllers(api: &Api) -> DropGuard {
    let stop = CancellationToken::new();
    run_until(api, &stop);
    stop.drop_guard()
}

fn run_until(api: &Api, stop: &CancellationToken) {
    let config = ControllersConfig::new("pem");
    tokio::spawn(Box::pin(controllers::run(
        api.clone(),
        config,
        stop.clone(),
    )));
}

pub(crate) async fn define(api: &Api, definition: Value) {
    api.create(&CRDS, None, definition).await.expect("defined");
}

/// Waits until a definition is established; its row must be there at once then.
pub(crate) async fn established(api: &Api, name: &str) -> Row {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let found = api.get(&CRDS, None, name).await.expect("there");
        let conditions = found["status"]["conditions"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let is_it = |one: &Value| one["type"] == "Established" && one["status"] == "True";
        if conditions.iter().any(is_it) {
            let spec = &found["spec"];
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let (group, plural) = (text(&spec["group"]), text(&spec["names"]["plural"]));
            let version = text(&spec["versions"][0]["name"]);
            let row = api.resources().find(&group, &version, &plural);
            return row.expect("served as soon as it is established");
        }
        assert!(Instant::now() < deadline, "not established: {found}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// A kind of which v1 has `host: h:1` and v2 `host: h, port: "1"`.
pub(crate) fn convertible(hook: Option<&Hook>) -> Value {
    let version = |name: &str, is_storage: bool, fields: &[&str]| {
        let fields = fields
            .iter()
            .map(|field| ((*field).to_owned(), json!({"type": "string"})));
        let properties: serde_json::Map<_, _> = fields.collect();
        json!({"name": name, "served": true, "storage": is_storage,
            "schema": {"openAPIV3Schema": {"type": "object", "properties": properties}}})
    };
    let conversion = match hook {
        None => json!({"strategy": "None"}),
        Some(hook) => json!({"strategy": "Webhook", "webhook": {
            "conversionReviewVersions": ["v1"],
            "clientConfig": {"url": hook.url, "caBundle": hook.bundle}}}),
    };
    json!({
        "metadata": {"name": "foos.ex.com"},
        "spec": {"group": "ex.com", "scope": "Namespaced", "conversion": conversion,
            "names": {"plural": "foos", "kind": "Foo"},
            "versions": [version("v1", true, &["host"]), version("v2", false, &["host", "port"])]},
    })
}

/// Where the webhook is, and who vouches for it.
pub(crate) struct Hook {
    pub(crate) url: String,
    pub(crate) bundle: String,
    _dir: tempfile::TempDir,
}

/// A webhook on a loopback port.
pub(crate) async fn webhook() -> Hook {
    let dir = tempfile::tempdir().expect("temporary directory");
    let pki = Pki::open(dir.path()).expect("certificates");
    let acceptor = TlsAcceptor::from(std::sync::Arc::new(pki.server_config(&[]).expect("TLS")));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let port = listener.local_addr().expect("bound").port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else {
                    return;
                };
                let service = service_fn(convert);
                let io = TokioIo::new(stream);
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(io, service)
                    .await;
            });
        }
    });
    Hook {
        url: format!("https://127.0.0.1:{port}/convert"),
        bundle: BASE64_STANDARD.encode(pki.ca_pem()),
        _dir: dir,
    }
}

async fn convert(request: Request<Incoming>) -> Result<Response<Full<bytes::Bytes>>, Infallible> {
    let body = request
        .into_body()
        .collect()
        .await
        .expect("a body")
        .to_bytes();
    let review: Value = serde_json::from_slice(&body).expect("JSON");
    let asked = &review["request"];
    let wanted = asked["desiredAPIVersion"].as_str().expect("wanted");
    let objects = asked["objects"].as_array().expect("objects").iter();
    let converted = objects.map(|object| {
        let mut object = object.clone();
        let host = object["host"].as_str().unwrap_or_default().to_owned();
        if wanted.ends_with("/v2") {
            let (name, port) = host.split_once(':').unwrap_or((&host, ""));
            (object["host"], object["port"]) = (json!(name), json!(port));
        } else {
            let port = object["port"].as_str().unwrap_or_default().to_owned();
            object["host"] = format!("{host}:{port}").into();
            object.as_object_mut().expect("an object").remove("port");
        }
        object["apiVersion"] = wanted.into();
        object
    });
    let answer = json!({
        "kind": "ConversionReview", "apiVersion": review["apiVersion"],
        "response": {"uid": asked["uid"], "result": {"status": "Success"},
            "convertedObjects": converted.collect::<Vec<_>>()},
    });
    Ok(Response::new(Full::new(answer.to_string().into())))
}
