//! What there is: versions, groups, resources, health. It changes
//! with the definitions of custom resources only, so answers carry a strong `ETag`.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hyper::body::Incoming;
use hyper::header::{ACCEPT, CONTENT_TYPE, ETAG, HeaderValue, IF_NONE_MATCH, VARY};
use hyper::{Method, Request, Response, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::body::Body;
use super::codec::header;
use super::query::Query;
use super::{Server, metrics, openapi, openapi_v2, respond, router};
use crate::resource::{Resource, Row, Scope, Snapshot, Subresource};
use crate::status::Status;

pub(super) const AGGREGATED: &str =
    "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

pub(super) fn handle(
    server: &Server,
    path: &str,
    query: &Query,
    request: &Request<Incoming>,
) -> Result<Response<Body>, Status> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return Err(Status::method_not_allowed());
    }
    let parts: Vec<_> = path.trim_matches('/').split('/').collect();
    let served = &*server.api.resources().snapshot();
    match parts[..] {
        ["livez" | "readyz" | "healthz", ..] => Ok(router::health(server, path, query)),
        ["metrics"] => Ok(metrics::answer(server)),
        ["version"] => Ok(respond::json(StatusCode::OK, &version())),
        ["api"] if is_aggregated(request) => {
            Ok(aggregated(served, request, |group| group.is_empty()))
        }
        ["apis"] if is_aggregated(request) => {
            Ok(aggregated(served, request, |group| !group.is_empty()))
        }
        ["api"] => Ok(cached(request, "application/json", &core_versions())),
        ["apis"] => {
            let list = group_list(served);
            Ok(cached(request, "application/json", &list))
        }
        ["apis", name] => {
            let all = groups(served);
            let Some((_, versions)) = all.iter().find(|(group, _)| *group == name) else {
                return Ok(no_page());
            };
            let mut group = group(name, versions);
            group["kind"] = "APIGroup".into();
            group["apiVersion"] = "v1".into();
            Ok(cached(request, "application/json", &group))
        }
        ["api", version] => resources(served, request, "", version),
        ["apis", group, version] => resources(served, request, group, version),
        ["openapi", "v2"] => {
            let document = openapi_v2::document(&server.api, served);
            if header(request, ACCEPT).contains(openapi_v2::PROTOBUF) {
                let bytes = openapi_v2::protobuf(&document);
                return Ok(cached_bytes(request, "application/octet-stream", bytes));
            }
            Ok(cached(request, "application/json", &document))
        }
        ["openapi", "v3"] => Ok(cached(request, "application/json", &openapi::index(served))),
        ["openapi", "v3", ref rest @ ..] => {
            openapi::document(&server.api, served, &rest.join("/"), query)
        }
        [".well-known", "openid-configuration"] => {
            let document = server.identity.openid_configuration();
            Ok(respond::json(StatusCode::OK, &document))
        }
        ["openid", "v1", "jwks"] => {
            let keys = server.identity.jwks().to_string();
            Ok(respond::bytes(
                StatusCode::OK,
                "application/jwk-set+json",
                keys,
            ))
        }
        [""] => Ok(respond::json(
            StatusCode::OK,
            &json!({"paths": paths(served)}),
        )),
        _ => Ok(no_page()),
    }
}

fn no_page() -> Response<Body> {
    respond::text(StatusCode::NOT_FOUND, "404 page not found\n")
}

/// The API is that of the version that the schema table is made from.
fn version() -> Value {
    json!({
        "major": "1", "minor": openapi::MINOR,
        "emulationMajor": "1", "emulationMinor": openapi::MINOR,
        "minCompatibilityMajor": "1", "minCompatibilityMinor": openapi::MINOR,
        "gitVersion": format!("{}+aerostat.{}", openapi::VERSION, env!("CARGO_PKG_VERSION")),
        "gitCommit": "", "gitTreeState": "", "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "", "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, platform()),
    })
}

/// Go's name of the architecture.
fn platform() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

pub(super) fn is_aggregated(request: &Request<Incoming>) -> bool {
    let is_ours = |range: &str| {
        let has = |part: &str| range.split(';').any(|one| one.trim() == part);
        has("as=APIGroupDiscoveryList") && has("v=v2") && has("g=apidiscovery.k8s.io")
    };
    header(request, ACCEPT).split(',').any(is_ours)
}

/// An answer that a client may keep and ask about.
pub(super) fn cached(
    request: &Request<Incoming>,
    content_type: &str,
    value: &Value,
) -> Response<Body> {
    cached_bytes(request, content_type, value.to_string().into_bytes())
}

fn cached_bytes(request: &Request<Incoming>, content_type: &str, text: Vec<u8>) -> Response<Body> {
    let hash: String = Sha256::digest(&text)
        .iter()
        .map(|byte| format!("{byte:02X}"))
        .collect();
    let tag = format!("\"{hash}\"");
    let is_known = header(request, IF_NONE_MATCH)
        .split(',')
        .any(|known| known.trim() == tag);
    let mut response = if is_known {
        let mut response = respond::bytes(StatusCode::NOT_MODIFIED, content_type, "");
        response.headers_mut().remove(CONTENT_TYPE);
        response
    } else {
        respond::bytes(StatusCode::OK, content_type, text)
    };
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        response.headers_mut().insert(ETAG, tag);
    }
    response
        .headers_mut()
        .insert(VARY, HeaderValue::from_static("Accept"));
    response
}

pub(super) fn group_list(served: &Snapshot) -> Value {
    let groups: Vec<_> = groups(served)
        .into_iter()
        .map(|(name, versions)| group(name, &versions))
        .collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

fn core_versions() -> Value {
    json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []})
}

/// The groups but the core one, with their versions, in the order in which clients prefer them.
fn groups(served: &Snapshot) -> Vec<(&'static str, Vec<&'static str>)> {
    let mut groups: Vec<(_, Vec<_>)> = Vec::new();
    for (group, version) in served.group_versions() {
        match groups.iter_mut().find(|(known, _)| *known == group) {
            _ if group.is_empty() => {}
            Some((_, versions)) => versions.push(version),
            None => groups.push((group, vec![version])),
        }
    }
    groups
}

fn group(name: &str, versions: &[&str]) -> Value {
    let entry =
        |version: &str| json!({"groupVersion": format!("{name}/{version}"), "version": version});
    let all: Vec<_> = versions.iter().map(|version| entry(version)).collect();
    json!({"name": name, "versions": all, "preferredVersion": all.first()})
}

fn of_version<'a>(
    served: &'a Snapshot,
    group: &'a str,
    version: &'a str,
) -> impl Iterator<Item = &'a Row> {
    let all = served.rows().iter();
    all.filter(move |row| row.group == group && row.version == version)
}

/// Tells whoever rewrites stored objects in what version they are kept, as upstream does.
fn storage_hash(row: &Resource) -> String {
    let stored = row.stored_as.unwrap_or(row);
    let kept = match stored.group {
        "" => format!("/{}, Kind={}", stored.version, stored.kind),
        group => format!("{group}/{}, Kind={}", stored.version, stored.kind),
    };
    BASE64_STANDARD.encode(&Sha256::digest(kept)[..8])
}

fn resources(
    served: &Snapshot,
    request: &Request<Incoming>,
    group: &str,
    version: &str,
) -> Result<Response<Body>, Status> {
    let mut list = Vec::new();
    for row in of_version(served, group, version) {
        let mut entry = json!({
            "name": row.plural, "singularName": row.singular, "namespaced": row.is_namespaced(),
            "kind": row.kind, "verbs": row.verbs,
        });
        if row.verbs.contains(&"list") {
            entry["storageVersionHash"] = storage_hash(row).into();
        }
        if !row.short_names.is_empty() {
            entry["shortNames"] = json!(row.short_names);
        }
        if !row.categories.is_empty() {
            entry["categories"] = json!(row.categories);
        }
        list.push(entry);
        for below in row.subresources {
            let mut entry = json!({
                "name": format!("{}/{}", row.plural, below.name), "singularName": "",
                "namespaced": row.is_namespaced(), "kind": below.kind, "verbs": below.verbs,
            });
            if let Some((group, version)) = below.group_version {
                entry["group"] = group.into();
                entry["version"] = version.into();
            }
            list.push(entry);
        }
    }
    if list.is_empty() {
        return Ok(no_page());
    }
    let group_version = if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    };
    let list = json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version,
        "resources": list,
    });
    Ok(cached(request, "application/json", &list))
}

fn aggregated(
    served: &Snapshot,
    request: &Request<Incoming>,
    is_wanted: impl Fn(&str) -> bool,
) -> Response<Body> {
    cached(request, AGGREGATED, &aggregated_list(served, is_wanted))
}

pub(super) fn aggregated_list(served: &Snapshot, is_wanted: impl Fn(&str) -> bool) -> Value {
    let mut items: Vec<Value> = Vec::new();
    for (group, version) in served.group_versions() {
        if !is_wanted(group) {
            continue;
        }
        let resources: Vec<_> = of_version(served, group, version)
            .map(|row| aggregated_resource(row))
            .collect();
        let entry = json!({"version": version, "resources": resources, "freshness": "Current"});
        match items
            .last_mut()
            .filter(|item| item["metadata"] == named(group))
        {
            Some(item) => {
                let versions = item["versions"].as_array_mut();
                versions.into_iter().for_each(|all| all.push(entry.clone()));
            }
            None => items.push(json!({
                "metadata": named(group), "versions": [entry],
            })),
        }
    }
    json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2",
        "metadata": {}, "items": items,
    })
}

/// The core group has no name, and its metadata nothing in it.
fn named(group: &str) -> Value {
    match group {
        "" => json!({}),
        group => json!({"name": group}),
    }
}

fn aggregated_resource(row: &Resource) -> Value {
    let scope = match row.scope {
        Scope::Namespaced => "Namespaced",
        Scope::Cluster => "Cluster",
    };
    let mut entry = json!({
        "resource": row.plural, "singularResource": row.singular, "scope": scope,
        "responseKind": {"group": row.group, "version": row.version, "kind": row.kind},
        "verbs": row.verbs,
    });
    if !row.short_names.is_empty() {
        entry["shortNames"] = json!(row.short_names);
    }
    if !row.categories.is_empty() {
        entry["categories"] = json!(row.categories);
    }
    let below = |below: &Subresource| {
        let (group, version) = below.group_version.unwrap_or((row.group, row.version));
        json!({
            "subresource": below.name, "verbs": below.verbs,
            "responseKind": {"group": group, "version": version, "kind": below.kind},
        })
    };
    if !row.subresources.is_empty() {
        entry["subresources"] = row.subresources.iter().map(below).collect();
    }
    entry
}

fn paths(served: &Snapshot) -> Vec<String> {
    let mut paths = vec!["/api".to_owned(), "/apis".to_owned()];
    for (group, version) in served.group_versions() {
        paths.push(match group {
            "" => format!("/api/{version}"),
            group => format!("/apis/{group}/{version}"),
        });
    }
    let others = [
        "/healthz",
        "/livez",
        "/metrics",
        "/openapi/v2",
        "/openapi/v3",
        "/readyz",
        "/version",
    ];
    paths.extend(others.map(str::to_owned));
    paths
}
