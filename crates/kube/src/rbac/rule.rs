//! One rule of a role. Pure.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::request::{Asked, Request};

const ALL: &str = "*";

/// `PolicyRule`: the verbs that it allows, and on what.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Rule {
    pub verbs: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub api_groups: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resource_names: Vec<String>,
    #[serde(rename = "nonResourceURLs", skip_serializing_if = "Vec::is_empty")]
    pub non_resource_urls: Vec<String>,
}

impl Rule {
    /// The rules of a role as it is stored. What is not a rule allows nothing.
    pub(crate) fn all_of(role: &Value) -> Vec<Self> {
        let rules = crate::object::items(role, &["rules"]);
        let rule = |rule: &Value| Self::deserialize(rule).ok();
        rules.iter().filter_map(rule).collect()
    }

    /// Whether this rule allows it, where the rule holds.
    pub(crate) fn allows(&self, request: &Request) -> bool {
        if !has(&self.verbs, &request.verb) {
            return false;
        }
        match &request.asked {
            Asked::Path(path) => self
                .non_resource_urls
                .iter()
                .any(|pattern| path_matches(pattern, path)),
            Asked::Resource {
                group,
                resource,
                subresource,
                namespace: _,
                name,
            } => {
                has(&self.api_groups, group)
                    && self
                        .resources
                        .iter()
                        .any(|pattern| resource_matches(pattern, resource, subresource))
                    && (self.resource_names.is_empty() || self.resource_names.contains(name))
            }
        }
    }
}

fn has(list: &[String], one: &str) -> bool {
    list.iter().any(|entry| entry == ALL || entry == one)
}

/// `pods`, `pods/log`, `*/scale` or `*`, which covers subresources too.
fn resource_matches(pattern: &str, resource: &str, subresource: &str) -> bool {
    if pattern == ALL {
        return true;
    }
    match pattern.split_once('/') {
        None => subresource.is_empty() && pattern == resource,
        Some((parent, part)) => {
            !subresource.is_empty() && part == subresource && (parent == ALL || parent == resource)
        }
    }
}

/// A path, or the beginning of one before `*`.
fn path_matches(pattern: &str, path: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => path.starts_with(prefix),
        None => pattern == path,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rule(value: Value) -> Rule {
        Rule::deserialize(&value).expect("a rule")
    }

    #[test]
    fn a_resource_does_not_include_its_subresources() {
        let pods = rule(json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}));
        let get = Request::resource("get", "", "pods").named("web");
        assert!(pods.allows(&get));
        assert!(!pods.allows(&get.clone().below("log")));
        assert!(!pods.allows(&Request::resource("list", "", "pods")));
        assert!(!pods.allows(&Request::resource("get", "apps", "pods")));
        let all = rule(json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}));
        assert!(all.allows(&get.clone().below("log")));
        assert!(!all.allows(&Request::path("get", "/metrics")));
        let scales = rule(json!({"verbs": ["get"], "apiGroups": ["*"], "resources": ["*/scale"]}));
        let scale = Request::resource("get", "apps", "deployments").below("scale");
        assert!(scales.allows(&scale));
        assert!(!scales.allows(&get));
    }

    #[test]
    fn names_narrow_a_rule_to_requests_that_have_one_of_them() {
        let one = rule(
            json!({"verbs": ["*"], "apiGroups": [""], "resources": ["configmaps"],
            "resourceNames": ["a"]}),
        );
        let maps = Request::resource("get", "", "configmaps");
        assert!(one.allows(&maps.clone().named("a")));
        assert!(!one.allows(&maps.clone().named("b")));
        assert!(!one.allows(&maps));
    }

    #[test]
    fn paths_may_end_in_a_star() {
        let paths = rule(json!({"verbs": ["get"], "nonResourceURLs": ["/healthz", "/apis/*"]}));
        for (path, allowed) in [
            ("/healthz", true),
            ("/healthz/x", false),
            ("/apis/apps", true),
            ("/apis", false),
        ] {
            assert_eq!(paths.allows(&Request::path("get", path)), allowed, "{path}");
        }
    }
}
