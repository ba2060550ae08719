//! Authorization of requests: what a path and method mean to [`crate::rbac`].

use super::query::Query;
use super::router::{Target, Verb, target};
use crate::identity::User;
use crate::rbac::{Authorizer, Decision, Request};
use crate::status::Status;

/// Load balancers and supervisors ask these without being anybody.
fn is_health(path: &str) -> bool {
    let root = path.trim_start_matches('/').split('/').next();
    matches!(root, Some("livez" | "readyz" | "healthz"))
}

/// Whether it is a stream that a client keeps open for as long as it likes. A watch is one too,
/// but its answer begins at once.
pub(super) fn is_stream(call: &Call) -> bool {
    let subresource = call
        .target
        .as_ref()
        .and_then(|target| target.subresource.as_deref());
    let first = subresource.and_then(|subresource| subresource.split('/').next());
    matches!(
        first,
        Some("attach" | "exec" | "log" | "portforward" | "proxy")
    )
}

/// What a request says of itself, parsed once.
pub(super) struct Call {
    pub(super) path: String,
    pub(super) query: Query,
    /// The objects it is about, if it is.
    pub(super) target: Option<Target>,
    pub(super) asked: Request,
}

impl Call {
    pub(super) fn parse(method: &hyper::Method, uri: &hyper::Uri) -> Self {
        let path = uri.path().to_owned();
        let query = Query::parse(uri.query());
        let target = target(method, &path, &query);
        let asked = asked(method, &path, &query, target.as_ref());
        Self {
            path,
            query,
            target,
            asked,
        }
    }
}

/// What a request for objects, or for a path that is no object's, wants to do.
pub(super) fn asked(
    method: &hyper::Method,
    path: &str,
    query: &Query,
    target: Option<&Target>,
) -> Request {
    let Some(target) = target else {
        return Request::path(&method.as_str().to_lowercase(), path);
    };
    let name = match (&target.name, target.verb) {
        (Some(name), _) => name,
        // A list of one object is about that object.
        (None, Verb::List | Verb::Watch) => only_name(query.get("fieldSelector")),
        (None, _) => "",
    };
    // A namespace is in itself, so that its administrator may read it.
    let namespace = match (&target.namespace, target.resource.as_str()) {
        (Some(namespace), _) => namespace,
        (None, "namespaces") if target.group.is_empty() => target.name.as_deref().unwrap_or(""),
        (None, _) => "",
    };
    let subresource = target.subresource.as_deref().unwrap_or_default();
    Request::resource(target.verb.as_str(), &target.group, &target.resource)
        .in_namespace(namespace)
        .named(name)
        .below(subresource.split('/').next().unwrap_or_default())
}

/// The name that a field selector demands, if it does.
fn only_name(selector: &str) -> &str {
    let value = |term: &'_ str| -> Option<usize> {
        let rest = term.strip_prefix("metadata.name=")?;
        let rest = rest.strip_prefix('=').unwrap_or(rest);
        let is_name = !rest.is_empty() && !rest.contains(['/', '%', '\\']) && rest != "..";
        is_name.then_some(rest.len())
    };
    selector
        .split(',')
        .find_map(|term| value(term).map(|len| &term[term.len() - len..]))
        .unwrap_or_default()
}

/// 403 in upstream's words if `user` may not; why, if they may.
pub(super) fn authorize(
    authorizer: &Authorizer,
    user: &User,
    call: &Call,
) -> Result<String, Status> {
    if is_health(&call.path) {
        return Ok(String::new());
    }
    match authorizer.allowed(user, &call.asked) {
        Decision::Allowed { reason } => Ok(reason),
        Decision::Refused { reason } => Err(call.asked.refusal(user, &reason)),
    }
}

#[cfg(test)]
mod tests {
    use hyper::Method;

    use super::*;

    fn parse(path: &str) -> Request {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let query = Query::parse(Some(query));
        let target = target(&Method::GET, path, &query);
        asked(&Method::GET, path, &query, target.as_ref())
    }

    #[test]
    fn paths_mean_what_they_mean_upstream() {
        let pods = Request::resource("list", "", "pods").in_namespace("team");
        assert_eq!(parse("/api/v1/namespaces/team/pods"), pods);
        let one = pods.named("web");
        let selected = "/api/v1/namespaces/team/pods?fieldSelector=a=b,metadata.name=web";
        assert_eq!(parse(selected), one);
        let proxy = Request::resource("get", "", "pods").in_namespace("team");
        let proxy = proxy.named("web").below("proxy");
        assert_eq!(parse("/api/v1/namespaces/team/pods/web/proxy/x/y"), proxy);
        let namespace = Request::resource("get", "", "namespaces");
        let namespace = namespace.in_namespace("team").named("team");
        assert_eq!(parse("/api/v1/namespaces/team"), namespace);
        assert_eq!(parse("/apis"), Request::path("get", "/apis"));
    }
}
