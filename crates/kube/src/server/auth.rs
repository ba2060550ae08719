//! Who may do what, for now: masters everything, everybody discovery and questions about
//! themselves, nobody in particular only the health of the server.

use super::router::Target;
use crate::api::User;
use crate::resource::Catalog;
use crate::status::Status;

/// Paths that need no credentials.
fn is_public(path: &str) -> bool {
    let root = path
        .trim_start_matches('/')
        .split('/')
        .next()
        .unwrap_or_default();
    matches!(root, "livez" | "readyz" | "healthz" | "version")
}

/// Paths by which a client finds out what there is.
fn is_discovery(path: &str) -> bool {
    let parts: Vec<_> = path.trim_matches('/').split('/').collect();
    matches!(
        parts[..],
        ["api"] | ["api", _] | ["apis"] | ["apis", _] | ["apis", _, _] | ["openapi", ..]
    )
}

/// 403 in upstream's words if `user` may not.
pub(super) fn authorize(
    user: &User,
    resources: &Catalog,
    method: &hyper::Method,
    path: &str,
    target: Option<&Target>,
) -> Result<(), Status> {
    let is_known = user
        .groups
        .iter()
        .any(|group| group == "system:authenticated");
    let is_question = target.is_some_and(|target| {
        matches!(
            target.resource.as_str(),
            "selfsubjectreviews" | "selfsubjectaccessreviews"
        )
    });
    if user.is_master()
        || is_public(path)
        || (is_known && is_question)
        || (is_known && method == hyper::Method::GET && is_discovery(path))
    {
        return Ok(());
    }
    let name = &user.name;
    let Some(target) = target else {
        let verb = method.as_str().to_lowercase();
        let message = format!("forbidden: User {name:?} cannot {verb} path {path:?}");
        return Err(Status::denied("", "", "", message));
    };
    let resource = match &target.subresource {
        Some(subresource) => format!("{}/{subresource}", target.resource),
        None => target.resource.clone(),
    };
    let group = &target.group;
    let qualified = if group.is_empty() {
        target.resource.clone()
    } else {
        format!("{}.{group}", target.resource)
    };
    let object = target
        .name
        .as_ref()
        .map(|name| format!(" {name:?}"))
        .unwrap_or_default();
    let scope = match &target.namespace {
        Some(namespace) => format!("in the namespace {namespace:?}"),
        None => "at the cluster scope".to_owned(),
    };
    let verb = target.verb.as_str();
    let message = format!(
        "{qualified}{object} is forbidden: User {name:?} cannot {verb} resource {resource:?} in \
         API group {group:?} {scope}"
    );
    let known = target.row(resources);
    let (group, kind) = known
        .as_ref()
        .map_or(("", ""), |row| (row.group, row.plural));
    Err(Status::denied(
        group,
        kind,
        target.name.as_deref().unwrap_or_default(),
        message,
    ))
}

#[cfg(test)]
mod tests {
    use hyper::Method;

    use super::super::query::Query;
    use super::super::router::target;
    use super::*;

    fn message(user: &User, path: &str) -> String {
        let target = target(&Method::GET, path, &Query::default());
        match authorize(
            user,
            &Catalog::default(),
            &Method::GET,
            path,
            target.as_ref(),
        ) {
            Ok(()) => "allowed".to_owned(),
            Err(status) => status.message,
        }
    }

    #[test]
    fn refusals_are_worded_as_upstream_words_them() {
        let alice = User::authenticated("alice".into(), vec![]);
        assert_eq!(
            message(&alice, "/api/v1/namespaces/default/pods"),
            "pods is forbidden: User \"alice\" cannot list resource \"pods\" in API group \"\" in \
             the namespace \"default\""
        );
        assert_eq!(
            message(&alice, "/apis/node.k8s.io/v1/runtimeclasses/x"),
            "runtimeclasses.node.k8s.io \"x\" is forbidden: User \"alice\" cannot get resource \
             \"runtimeclasses\" in API group \"node.k8s.io\" at the cluster scope"
        );
        assert_eq!(message(&alice, "/apis"), "allowed");
        assert_eq!(
            message(&User::anonymous(), "/apis"),
            "forbidden: User \"system:anonymous\" cannot get path \"/apis\""
        );
        assert_eq!(message(&User::anonymous(), "/readyz"), "allowed");
        let master = User::authenticated("root".into(), vec!["system:masters".into()]);
        assert_eq!(message(&master, "/api/v1/pods"), "allowed");
    }
}
