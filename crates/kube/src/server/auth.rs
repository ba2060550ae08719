//! Authorization of requests: what a path and method mean to [`crate::rbac`].

use super::query::Query;
use super::router::{Target, Verb};
use crate::identity::{AUTHENTICATED, User};
use crate::rbac::{Authorizer, Decision, Request};
use crate::status::Status;

/// Load balancers and supervisors ask these without being anybody.
fn is_health(path: &str) -> bool {
    let root = path.trim_start_matches('/').split('/').next();
    matches!(root, Some("livez" | "readyz" | "healthz"))
}

/// What everybody may ask while the roles that say so are not there: discovery, questions about
/// oneself and, without being anybody, the version.
fn is_basic(user: &User, path: &str, target: Option<&Target>) -> bool {
    let parts: Vec<_> = path.trim_matches('/').split('/').collect();
    let is_discovery = matches!(
        parts[..],
        ["api"] | ["api", _] | ["apis"] | ["apis", _] | ["apis", _, _] | ["openapi", ..]
    );
    let is_question = target.is_some_and(|target| {
        matches!(
            target.resource.as_str(),
            "selfsubjectreviews" | "selfsubjectaccessreviews"
        )
    });
    parts == ["version"] || user.is_in(AUTHENTICATED) && (is_discovery || is_question)
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
    path: &str,
    target: Option<&Target>,
    request: &Request,
) -> Result<String, Status> {
    if is_health(path) {
        return Ok(String::new());
    }
    match authorizer.allowed(user, request) {
        Decision::Allowed { reason } => Ok(reason),
        Decision::Refused { .. } if is_basic(user, path, target) => Ok(String::new()),
        Decision::Refused { reason } => Err(request.refusal(user, &reason)),
    }
}

#[cfg(test)]
mod tests {
    use hyper::Method;

    use super::super::router::target;
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
