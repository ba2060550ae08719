//! RFC 7386.

use serde_json::{Map, Value};

pub(super) fn apply(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Some(target) = target.as_object_mut() else {
        return;
    };
    for (key, change) in patch {
        if change.is_null() {
            target.remove(key);
        } else {
            apply(target.entry(key.clone()).or_insert(Value::Null), change);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn maps_merge_null_removes_and_lists_are_replaced() {
        let mut target = json!({"a": {"b": 1, "c": 2}, "l": [1, 2], "x": "y"});
        apply(
            &mut target,
            &json!({"a": {"b": null, "d": {"e": null}}, "l": [3], "x": {"z": 1}}),
        );
        assert_eq!(
            target,
            json!({"a": {"c": 2, "d": {}}, "l": [3], "x": {"z": 1}})
        );
    }
}
