//! ClusterRoles that are the sum of others, selected by label.

use serde_json::Value;

use super::hands::Hands;
use super::queue::Outcome;
use super::reconcile::Controller;
use super::watches::{Changed, Watches};
use crate::api::Api;
use crate::label_selector;
use crate::object;
use crate::resource::{CLUSTER_ROLES, Resource};
use crate::status::Status;

pub(super) struct ClusterRoleAggregation {
    hands: Hands,
}

impl ClusterRoleAggregation {
    pub(super) fn new(api: &Api, watches: &Watches) -> Self {
        let hands = Hands::new(api, watches, "clusterrole-aggregation-controller");
        Self { hands }
    }
}

fn selectors(role: &Value) -> &[Value] {
    object::items(role, &["aggregationRule", "clusterRoleSelectors"])
}

/// The rules of all that are selected, each once, in the order of the selectors and of names.
fn sum(role: &Value, roles: &[Value]) -> Vec<Value> {
    let mut rules = Vec::new();
    for selector in selectors(role) {
        for other in roles {
            let labels = &other["metadata"]["labels"];
            let is_self = object::name(other) == object::name(role);
            if is_self || !label_selector::matches(selector, labels) {
                continue;
            }
            for rule in object::items(other, &["rules"]) {
                if !rules.contains(rule) {
                    rules.push(rule.clone());
                }
            }
        }
    }
    rules
}

impl Controller for ClusterRoleAggregation {
    const NAME: &'static str = "clusterrole-aggregation";
    const WATCHED: &'static [&'static Resource] = &[&CLUSTER_ROLES];

    fn concerns(&self, changed: &Changed) -> Vec<String> {
        let role = &changed.object;
        self.hands.known.keys(&CLUSTER_ROLES, None, |sum| {
            let is_part = |selector: &Value| changed.is_or_was_selected(selector);
            let is_self = object::name(sum) == object::name(role) && !selectors(sum).is_empty();
            is_self || selectors(sum).iter().any(is_part)
        })
    }

    async fn sync(&self, at: &str) -> Result<Outcome, Status> {
        let Some(role) = self.hands.known.get(&CLUSTER_ROLES, at) else {
            return Ok(Outcome::Done);
        };
        let rules = sum(&role, &self.hands.known.all(&CLUSTER_ROLES, None));
        if selectors(&role).is_empty() || object::items(&role, &["rules"]) == rules {
            return Ok(Outcome::Done);
        }
        let mut changed = role;
        changed["rules"] = rules.into();
        self.hands.update(&CLUSTER_ROLES, changed).await?;
        Ok(Outcome::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_sum_has_each_rule_of_its_parts_once_and_never_its_own() {
        let role = |name: &str, rules: &[&str]| {
            let rules: Vec<_> = rules.iter().map(|verb| json!({"verbs": [verb]})).collect();
            json!({"metadata": {"name": name, "labels": {"to": "edit"}}, "rules": rules})
        };
        let mut edit = role("edit", &["own"]);
        edit["aggregationRule"] = json!({"clusterRoleSelectors": [
            {"matchLabels": {"to": "edit"}}, {"matchLabels": {"to": "nobody"}}]});
        let roles = [
            role("a", &["get"]),
            edit.clone(),
            role("z", &["list", "get"]),
        ];
        let expected = [json!({"verbs": ["get"]}), json!({"verbs": ["list"]})];
        assert_eq!(sum(&edit, &roles), expected);
    }
}
