//! What somebody wants to do, as authorization sees it.

use crate::identity::User;
use crate::status::Status;

/// A verb on objects, or on a path that is no object's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// `get`, `list`, …, or a method in lower case for paths.
    pub verb: String,
    pub asked: Asked,
}

/// What a [`Request`] is about. Empty texts mean "none", as they do in reviews.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    Resource {
        group: String,
        resource: String,
        subresource: String,
        /// Empty: the whole cluster.
        namespace: String,
        /// Empty: all.
        name: String,
    },
    Path(String),
}

impl Request {
    pub fn resource(verb: &str, group: &str, resource: &str) -> Self {
        Self {
            verb: verb.to_owned(),
            asked: Asked::Resource {
                group: group.to_owned(),
                resource: resource.to_owned(),
                subresource: String::new(),
                namespace: String::new(),
                name: String::new(),
            },
        }
    }

    pub fn path(verb: &str, path: &str) -> Self {
        Self {
            verb: verb.to_owned(),
            asked: Asked::Path(path.to_owned()),
        }
    }

    /// Within `namespace`; nothing for paths.
    pub fn in_namespace(mut self, within: &str) -> Self {
        if let Asked::Resource { namespace, .. } = &mut self.asked {
            within.clone_into(namespace);
        }
        self
    }

    /// The one object of this name; nothing for paths.
    pub fn named(mut self, one: &str) -> Self {
        if let Asked::Resource { name, .. } = &mut self.asked {
            one.clone_into(name);
        }
        self
    }

    /// A subresource of it; nothing for paths.
    pub fn below(mut self, part: &str) -> Self {
        if let Asked::Resource { subresource, .. } = &mut self.asked {
            part.clone_into(subresource);
        }
        self
    }

    /// 403 in upstream's words. `reason` is the authorizer's, if it has something to add.
    pub fn refusal(&self, user: &User, reason: &str) -> Status {
        let (user, verb) = (&user.name, &self.verb);
        let (what, group, resource, name) = match &self.asked {
            Asked::Path(path) => {
                let what = format!("User {user:?} cannot {verb} path {path:?}");
                (what, "", "", "")
            }
            Asked::Resource {
                group,
                resource,
                subresource,
                namespace,
                name,
            } => {
                let whole = match subresource.as_str() {
                    "" => resource.clone(),
                    part => format!("{resource}/{part}"),
                };
                let scope = match namespace.as_str() {
                    "" => "at the cluster scope".to_owned(),
                    namespace => format!("in the namespace {namespace:?}"),
                };
                let what = format!(
                    "User {user:?} cannot {verb} resource {whole:?} in API group {group:?} {scope}"
                );
                (what, group.as_str(), resource.as_str(), name.as_str())
            }
        };
        let why = match reason {
            "" => what,
            reason => format!("{what}: {reason}"),
        };
        Status::not_allowed(group, resource, name, &sanitized(&why))
    }
}

/// Upstream's guard against browsers that take an error for a page.
fn sanitized(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_worded_as_upstream_words_them() {
        let alice = User::authenticated("alice".into(), vec![]);
        let pods = Request::resource("list", "", "pods").in_namespace("default");
        let status = pods.refusal(&alice, "");
        assert_eq!(
            status.message,
            "pods is forbidden: User \"alice\" cannot list resource \"pods\" in API group \"\" in \
             the namespace \"default\""
        );
        let class = Request::resource("get", "node.k8s.io", "runtimeclasses").named("x");
        let status = class.refusal(&alice, "RBAC: why");
        assert_eq!(
            status.message,
            "runtimeclasses.node.k8s.io \"x\" is forbidden: User \"alice\" cannot get resource \
             \"runtimeclasses\" in API group \"node.k8s.io\" at the cluster scope: RBAC: why"
        );
        let path = Request::path("get", "/<b>");
        assert_eq!(
            path.refusal(&User::anonymous(), "").message,
            "forbidden: User \"system:anonymous\" cannot get path \"/&lt;b&gt;\""
        );
    }
}
