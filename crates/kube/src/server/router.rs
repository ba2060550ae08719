//! From a path to what it means.

use std::sync::Arc;

use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};

use super::auth::Call;
use super::body::Body;
use super::query::Query;
use super::{Server, aggregate, discovery, pods, proxy, respond, reviews, scale, verbs, watch};
use crate::api::User;
use crate::resource::{self, Catalog, Row};
use crate::status::Status;

/// What a request for objects is about, whether or not it is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) verb: Verb,
    pub(super) group: String,
    pub(super) version: String,
    pub(super) namespace: Option<String>,
    pub(super) resource: String,
    pub(super) name: Option<String>,
    pub(super) subresource: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Get,
    List,
    Watch,
    Create,
    Update,
    Patch,
    Delete,
    DeleteCollection,
}

impl Verb {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Verb::Get => "get",
            Verb::List => "list",
            Verb::Watch => "watch",
            Verb::Create => "create",
            Verb::Update => "update",
            Verb::Patch => "patch",
            Verb::Delete => "delete",
            Verb::DeleteCollection => "deletecollection",
        }
    }
}

impl Target {
    /// The served resource, if it is one.
    pub(super) fn row(&self, resources: &Catalog) -> Option<Row> {
        resources.find(&self.group, &self.version, &self.resource)
    }
}

/// The parts of a path below `/api/v1` or `/apis/<group>/<version>` that name objects.
pub(super) fn target(method: &Method, path: &str, query: &Query) -> Option<Target> {
    let parts: Vec<_> = path.trim_matches('/').split('/').collect();
    let (group, version, rest) = match parts[..] {
        ["api", version, ref rest @ ..] if !rest.is_empty() => ("", version, rest),
        ["apis", group, version, ref rest @ ..] if !rest.is_empty() => (group, version, rest),
        _ => return None,
    };
    let (namespace, rest) = match rest {
        // The namespace itself and its subresources are cluster objects.
        ["namespaces", _] | ["namespaces", _, "status" | "finalize"] => (None, rest),
        ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (Some(*namespace), rest),
        rest => (None, rest),
    };
    let (resource, name, subresource) = match rest {
        [resource] => (*resource, None, None),
        [resource, name] => (*resource, Some(*name), None),
        [resource, name, subresource @ ..] => (*resource, Some(*name), Some(subresource.join("/"))),
        [] => return None,
    };
    let verb = match (method.as_str(), name) {
        ("GET" | "HEAD", Some(_)) => Verb::Get,
        ("GET" | "HEAD", None) if query.flag("watch") => Verb::Watch,
        ("GET" | "HEAD", None) => Verb::List,
        ("POST", _) => Verb::Create,
        ("PUT", _) => Verb::Update,
        ("PATCH", _) => Verb::Patch,
        ("DELETE", Some(_)) => Verb::Delete,
        ("DELETE", None) => Verb::DeleteCollection,
        _ => return None,
    };
    Some(Target {
        verb,
        group: group.to_owned(),
        version: version.to_owned(),
        namespace: namespace.map(str::to_owned),
        resource: resource.to_owned(),
        name: name.map(str::to_owned),
        subresource,
    })
}

pub(super) async fn handle(
    server: Arc<Server>,
    user: Arc<User>,
    call: Call,
    request: Request<Incoming>,
) -> Result<Response<Body>, Status> {
    let Call {
        path,
        query,
        target,
        asked: _,
    } = call;
    let request = match aggregate::handle(&server, &user, request).await {
        Ok(answered) => return answered,
        Err(ours) => ours,
    };
    match target {
        Some(target) => objects(&server, &user, target, &query, request).await,
        None => discovery::handle(&server, &path, &query, &request),
    }
}

/// Health, for load balancers and people. The process is alive when it answers; it is ready when
/// it can write.
pub(super) fn health(server: &Server, path: &str, query: &Query) -> Response<Body> {
    let mut parts = path.trim_matches('/').split('/');
    let name = parts.next().unwrap_or_default();
    // One check of them by its name; there is none below a check.
    if !matches!(parts.next(), None | Some("ping" | "store" | "etcd")) || parts.next().is_some() {
        return respond::text(StatusCode::NOT_FOUND, "404 page not found\n");
    }
    let store = if name == "livez" {
        Ok(())
    } else {
        server.api.check()
    };
    match store {
        Ok(()) if query.all("verbose").next().is_none() => respond::text(StatusCode::OK, "ok"),
        Ok(()) => {
            let text = format!("[+]ping ok\n[+]store ok\n{name} check passed\n");
            respond::text(StatusCode::OK, text)
        }
        Err(why) => {
            let text = format!("[+]ping ok\n[-]store failed: {why}\n{name} check failed\n");
            respond::text(StatusCode::INTERNAL_SERVER_ERROR, text)
        }
    }
}

/// Whether the verb is one for a collection, or for an object, as the path is.
fn fits(target: &Target, is_namespaced: bool) -> bool {
    match target.verb {
        // A list can be of all namespaces; what changes something names one.
        Verb::Create | Verb::DeleteCollection => {
            target.name.is_none() && (target.namespace.is_some() || !is_namespaced)
        }
        Verb::Update | Verb::Patch => target.name.is_some(),
        Verb::Get | Verb::List | Verb::Watch | Verb::Delete => true,
    }
}

/// Subresources that are told by discovery, as every server has them, and are not built yet.
const UNBUILT: [&str; 2] = ["portforward", "proxy"];

async fn objects(
    server: &Arc<Server>,
    user: &Arc<User>,
    target: Target,
    query: &Query,
    request: Request<Incoming>,
) -> Result<Response<Body>, Status> {
    let resource = target.row(server.api.resources());
    let resource = &resource.ok_or_else(Status::no_such_resource)?;
    if resource.is_namespaced() && target.namespace.is_none() && target.name.is_some() {
        return Err(Status::no_such_resource());
    }
    if !resource.is_namespaced() && target.namespace.is_some() {
        return Err(Status::no_such_resource());
    }
    if proxy::is_proxy(&target) {
        return proxy::handle(server, user, &target, query, request).await;
    }
    if let Some(subresource) = &target.subresource {
        let row = resource.subresource(subresource);
        let proxied = subresource.strip_prefix("proxy/").map(|_| "proxy");
        let row = row.or_else(|| resource.subresource(proxied?));
        let row = row.ok_or_else(Status::no_such_resource)?;
        if resource.custom.is_none() && UNBUILT.contains(&row.name) {
            let what = format!("{}/{}", resource.plural, row.name);
            return Err(Status::not_implemented(&what));
        }
        if !row.verbs.contains(&target.verb.as_str()) {
            return Err(Status::method_not_allowed());
        }
        let is_part = matches!(
            subresource.as_str(),
            "status" | "ephemeralcontainers" | "resize"
        );
        if resource.is(&resource::PODS) && !is_part {
            return pods::handle(server, user, &target, query, request).await;
        }
        if resource.is(&resource::SERVICE_ACCOUNTS) && subresource == "token" {
            return reviews::token(server, user, &target, query, request).await;
        }
        if subresource == "scale" {
            return scale::handle(server, user, resource, &target, query, request).await;
        }
    } else if !resource.verbs.contains(&target.verb.as_str())
        || !fits(&target, resource.is_namespaced())
    {
        return Err(Status::method_not_allowed());
    }
    match target.verb {
        Verb::Watch => watch::handle(server, resource, &target, query, &request).await,
        Verb::Get
        | Verb::List
        | Verb::Create
        | Verb::Update
        | Verb::Patch
        | Verb::Delete
        | Verb::DeleteCollection => {
            verbs::handle(server, user, resource, &target, query, request).await
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(method: Method, path: &str) -> Target {
        target(&method, path, &Query::default()).expect("names objects")
    }

    #[test]
    fn paths_name_objects() {
        let pod = parse(Method::GET, "/api/v1/namespaces/default/pods/web/log");
        assert_eq!((pod.verb, pod.resource.as_str()), (Verb::Get, "pods"));
        assert_eq!(pod.namespace.as_deref(), Some("default"));
        assert_eq!(pod.subresource.as_deref(), Some("log"));
        let namespace = parse(Method::PUT, "/api/v1/namespaces/default/finalize");
        assert_eq!(
            (namespace.resource.as_str(), namespace.namespace),
            ("namespaces", None)
        );
        let all = parse(Method::GET, "/apis/coordination.k8s.io/v1/leases");
        assert_eq!(
            (all.verb, all.group.as_str()),
            (Verb::List, "coordination.k8s.io")
        );
        assert_eq!(target(&Method::GET, "/api/v1", &Query::default()), None);
    }
}
