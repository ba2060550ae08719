//! The audit policy: how much is told of a request. Pure.

use serde::Deserialize;
use serde_json::Value;

use crate::identity::User;
use crate::rbac::{Asked, Request};

/// How much an event tells. Ordered: more is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub(super) enum Level {
    None,
    Metadata,
    Request,
    RequestResponse,
}

/// A moment of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(super) enum Stage {
    RequestReceived,
    ResponseStarted,
    ResponseComplete,
    Panic,
}

/// `audit.k8s.io/v1 Policy`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Policy {
    #[serde(default)]
    rules: Vec<Rule>,
    #[serde(default)]
    omit_stages: Vec<Stage>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    level: Level,
    #[serde(default)]
    users: Vec<String>,
    #[serde(default)]
    user_groups: Vec<String>,
    #[serde(default)]
    verbs: Vec<String>,
    #[serde(default)]
    resources: Vec<Resources>,
    #[serde(default)]
    namespaces: Vec<String>,
    #[serde(default, rename = "nonResourceURLs")]
    urls: Vec<String>,
    #[serde(default)]
    omit_stages: Vec<Stage>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct Resources {
    group: String,
    resources: Vec<String>,
    resource_names: Vec<String>,
}

/// What the policy says of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) level: Level,
    pub(super) omit: Vec<Stage>,
}

impl Default for Policy {
    /// Who did what, once it is done.
    fn default() -> Self {
        let rule = Rule {
            level: Level::Metadata,
            users: Vec::new(),
            user_groups: Vec::new(),
            verbs: Vec::new(),
            resources: Vec::new(),
            namespaces: Vec::new(),
            urls: Vec::new(),
            omit_stages: Vec::new(),
        };
        Self {
            rules: vec![rule],
            omit_stages: vec![Stage::RequestReceived],
        }
    }
}

impl Policy {
    pub(super) fn parse(value: Value) -> Option<Self> {
        let is =
            |field: &str, wanted: &str| value.get(field).and_then(Value::as_str) == Some(wanted);
        if !is("apiVersion", "audit.k8s.io/v1") || !is("kind", "Policy") {
            return None;
        }
        Self::deserialize(value).ok()
    }

    /// The first rule that matches decides; what none matches is not told.
    pub(super) fn verdict(&self, user: &User, request: &Request) -> Verdict {
        let rule = self.rules.iter().find(|rule| rule.matches(user, request));
        let Some(rule) = rule else {
            return Verdict {
                level: Level::None,
                omit: Vec::new(),
            };
        };
        let mut level = rule.level;
        if is_secret(request) {
            level = level.min(Level::Metadata);
        }
        let omit = self.omit_stages.iter().chain(&rule.omit_stages);
        Verdict {
            level,
            omit: omit.copied().collect(),
        }
    }
}

/// Whose bodies are never told, whatever the policy says.
fn is_secret(request: &Request) -> bool {
    match &request.asked {
        Asked::Path(_) => false,
        Asked::Resource {
            resource,
            subresource,
            ..
        } => {
            matches!(resource.as_str(), "secrets" | "tokenreviews")
                || (resource == "serviceaccounts" && subresource == "token")
        }
    }
}

impl Rule {
    fn matches(&self, user: &User, request: &Request) -> bool {
        let any =
            |list: &[String], one: &str| list.is_empty() || list.iter().any(|each| each == one);
        let groups = &self.user_groups;
        any(&self.users, &user.name)
            && (groups.is_empty() || groups.iter().any(|group| user.is_in(group)))
            && any(&self.verbs, &request.verb)
            && match &request.asked {
                Asked::Resource { namespace, .. } => {
                    self.urls.is_empty()
                        && any(&self.namespaces, namespace)
                        && (self.resources.is_empty()
                            || self.resources.iter().any(|one| one.matches(request)))
                }
                Asked::Path(path) => {
                    let of_objects = !self.resources.is_empty() || !self.namespaces.is_empty();
                    !of_objects
                        && (self.urls.is_empty()
                            || self.urls.iter().any(|url| match url.strip_suffix('*') {
                                Some(prefix) => path.starts_with(prefix),
                                None => url == path,
                            }))
                }
            }
    }
}

impl Resources {
    fn matches(&self, request: &Request) -> bool {
        let Asked::Resource {
            group,
            resource,
            subresource,
            name,
            namespace: _,
        } = &request.asked
        else {
            return false;
        };
        let whole = match subresource.as_str() {
            "" => resource.clone(),
            part => format!("{resource}/{part}"),
        };
        let is = |pattern: &String| match pattern.split_once('/') {
            Some(("*", part)) => !subresource.is_empty() && part == subresource,
            Some((parent, "*")) => parent == resource,
            Some(_) | None => pattern == "*" || *pattern == whole,
        };
        self.group == *group
            && (self.resources.is_empty() || self.resources.iter().any(is))
            && (self.resource_names.is_empty() || self.resource_names.contains(name))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_first_rule_that_matches_decides_but_never_for_the_bodies_of_secrets() {
        let policy = json!({
            "apiVersion": "audit.k8s.io/v1", "kind": "Policy",
            "omitStages": ["RequestReceived"],
            "rules": [
                {"level": "None", "users": ["system:kube-proxy"], "verbs": ["watch"]},
                {"level": "None", "nonResourceURLs": ["/healthz*", "/version"]},
                {"level": "Metadata", "resources": [{"group": "", "resources": ["pods/log"]}],
                    "omitStages": ["ResponseStarted"]},
                {"level": "RequestResponse", "resources": [{"group": ""}]},
            ],
        });
        let policy = Policy::parse(policy).expect("a policy");
        let alice = User::authenticated("alice".into(), Vec::new());
        let level = |request: &Request| policy.verdict(&alice, request).level;
        let pods = Request::resource("get", "", "pods").named("a");
        assert_eq!(level(&pods), Level::RequestResponse);
        assert_eq!(
            level(&Request::resource("get", "", "secrets")),
            Level::Metadata
        );
        assert_eq!(
            level(&Request::resource("get", "apps", "deployments")),
            Level::None
        );
        assert_eq!(level(&Request::path("get", "/healthz/x")), Level::None);
        let log = policy.verdict(&alice, &pods.below("log"));
        let omit = vec![Stage::RequestReceived, Stage::ResponseStarted];
        assert_eq!(
            log,
            Verdict {
                level: Level::Metadata,
                omit
            }
        );
        assert!(Policy::parse(json!({"kind": "Policy", "rules": []})).is_none());
    }
}
