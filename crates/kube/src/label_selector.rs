//! Label selectors as objects carry them: `matchLabels` and `matchExpressions`.

use serde_json::Value;

use crate::object;
use crate::status::Cause;

/// Whether the map of labels is selected. A missing selector selects nothing, an empty one all.
pub(crate) fn matches(selector: &Value, labels: &Value) -> bool {
    if !selector.is_object() {
        return false;
    }
    let label = |key: &str| labels.get(key).and_then(Value::as_str);
    let mut equal = selector["matchLabels"].as_object().into_iter().flatten();
    equal.all(|(key, value)| label(key) == value.as_str() && value.is_string())
        && object::items(selector, &["matchExpressions"])
            .iter()
            .all(|expression| {
                let value = label(object::text(expression, &["key"]));
                let values = object::items(expression, &["values"]);
                let is_in = value.is_some_and(|value| values.iter().any(|one| one == value));
                match object::text(expression, &["operator"]) {
                    "In" => is_in,
                    "NotIn" => !is_in,
                    "Exists" => value.is_some(),
                    "DoesNotExist" => value.is_none(),
                    _ => false,
                }
            })
}

pub(crate) fn is_empty(selector: &Value) -> bool {
    selector["matchLabels"]
        .as_object()
        .is_none_or(serde_json::Map::is_empty)
        && object::items(selector, &["matchExpressions"]).is_empty()
}

/// As kubectl shows it and as a query parameter says it: `app=web,tier in (a,b)`.
pub(crate) fn format(selector: &Value) -> String {
    let equal = selector["matchLabels"].as_object().into_iter().flatten();
    let mut parts: Vec<_> = equal
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    for expression in object::items(selector, &["matchExpressions"]) {
        let key = object::text(expression, &["key"]);
        let mut values: Vec<_> = object::items(expression, &["values"])
            .iter()
            .filter_map(Value::as_str)
            .collect();
        values.sort_unstable();
        let values = values.join(",");
        parts.push(match object::text(expression, &["operator"]) {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "DoesNotExist" => format!("!{key}"),
            _ => key.to_owned(),
        });
    }
    parts.sort_by(|a, b| sort_key(a).cmp(sort_key(b)));
    parts.join(",")
}

/// The label that a requirement is about.
fn sort_key(requirement: &str) -> &str {
    let key = requirement.trim_start_matches('!');
    key.split(['=', ' ']).next().unwrap_or(key)
}

/// What is wrong with its expressions.
pub(crate) fn faults(selector: &Value, path: &str) -> Vec<Cause> {
    let mut causes = Vec::new();
    for (index, expression) in object::items(selector, &["matchExpressions"])
        .iter()
        .enumerate()
    {
        let path = format!("{path}.matchExpressions[{index}]");
        let count = object::items(expression, &["values"]).len();
        match object::text(expression, &["operator"]) {
            "In" | "NotIn" if count == 0 => {
                let why = "must be specified when `operator` is 'In' or 'NotIn'";
                causes.push(Cause::required(format!("{path}.values"), why));
            }
            "Exists" | "DoesNotExist" if count > 0 => {
                let why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                causes.push(Cause::forbidden(format!("{path}.values"), why));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            _ => {
                let (field, why) = (format!("{path}.operator"), "not a valid selector operator");
                causes.push(Cause::invalid(field, &expression["operator"], why));
            }
        }
    }
    causes
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_selector_selects_by_equality_and_by_set() {
        let selector = json!({"matchLabels": {"app": "web"}, "matchExpressions": [
            {"key": "tier", "operator": "In", "values": ["b", "a"]},
            {"key": "old", "operator": "DoesNotExist"}]});
        assert!(matches(&selector, &json!({"app": "web", "tier": "a"})));
        assert!(!matches(&selector, &json!({"app": "web", "tier": "c"})));
        assert!(!matches(
            &selector,
            &json!({"app": "web", "tier": "a", "old": "1"})
        ));
        assert!(matches(&json!({}), &json!(null)) && !matches(&json!(null), &json!({})));
        assert_eq!(format(&selector), "app=web,!old,tier in (a,b)");
        assert_eq!(faults(&selector, "s"), []);
        let wrong = json!({"matchExpressions": [{"key": "a", "operator": "In"}]});
        assert_eq!(faults(&wrong, "s")[0].field, "s.matchExpressions[0].values");
    }
}
