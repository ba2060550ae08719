//! The set of all fields that a value has.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::element;
use super::fields::Fields;
use super::schema::{Form, Items, Member, Schema, form};

/// The fields of a whole object, as their owner would have them in `FieldsV1`.
pub(super) fn of(schema: &dyn Schema, object: &Value) -> Fields {
    let mut fields = Fields::default();
    collect(schema, object, &mut fields);
    fields.is_member = false;
    fields
}

fn collect(schema: &dyn Schema, value: &Value, into: &mut Fields) {
    match (form(schema, value), value) {
        (Form::Leaf, _) => into.is_member = true,
        (Form::Map, Value::Object(map)) => of_map(schema, map, into),
        (Form::List(items), Value::Array(list)) => of_list(items, schema.item(), list, into),
        // Null has no parts, and neither has what does not fit its type.
        (Form::Map | Form::List(_), _) => {}
    }
}

fn of_map(schema: &dyn Schema, map: &Map<String, Value>, into: &mut Fields) {
    for (name, value) in map {
        let member = schema.member(name);
        let mut below = Fields::default();
        collect(member.schema(), value, &mut below);
        let is_empty_map = value.as_object().is_some_and(Map::is_empty);
        let is_field = matches!(member, Member::Declared(_));
        below.is_member |= value.is_null() || is_empty_map || !is_field;
        into.put(element::field(name), below);
    }
}

fn of_list(items: Items<'_>, schema: &dyn Schema, list: &[Value], into: &mut Fields) {
    let elements = list
        .iter()
        .filter_map(|item| Some((element::of_item(items, schema, item).ok()?, item)));
    let elements: Vec<_> = elements.collect();
    let mut times: HashMap<&str, usize> = HashMap::with_capacity(elements.len());
    for (element, _) in &elements {
        *times.entry(element).or_default() += 1;
    }
    let is_one = |element: &str| times.get(element) == Some(&1);
    for (element, item) in &elements {
        let mut below = Fields {
            is_member: true,
            ..Fields::default()
        };
        // Items that cannot be told apart have no parts of their own.
        if is_one(element) {
            collect(schema, item, &mut below);
            below.is_member = true;
        }
        into.put(element.clone(), below);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::schema::type_named;

    fn fields(type_name: &str, object: &Value) -> Value {
        of(type_named(type_name).expect("served").get(), object).encode()
    }

    #[test]
    fn lists_with_keys_have_items_and_atomic_ones_are_whole() {
        let pod = json!({"spec": {
            "containers": [{"name": "c", "args": ["x"], "ports": [{"containerPort": 80}]}],
            "tolerations": [{"key": "k"}], "volumes": [],
        }});
        let port = r#"k:{"containerPort":80,"protocol":"TCP"}"#;
        let expected = json!({"f:spec": {
            "f:containers": {"k:{\"name\":\"c\"}": {
                ".": {}, "f:name": {}, "f:args": {},
                "f:ports": {port: {".": {}, "f:containerPort": {}}},
            }},
            "f:tolerations": {},
        }});
        assert_eq!(fields("io.k8s.api.core.v1.Pod", &pod), expected);
    }

    #[test]
    fn entries_of_maps_are_fields_and_duplicates_have_no_parts() {
        let object = json!({
            "metadata": {"labels": {"a": "1"}, "annotations": {}, "finalizers": ["x", "y"],
                "ownerReferences": [{"uid": "u", "name": "n"}]},
            "data": {"k": "v"},
        });
        let expected = json!({
            "f:metadata": {
                "f:labels": {"f:a": {}}, "f:annotations": {},
                "f:finalizers": {"v:\"x\"": {}, "v:\"y\"": {}},
                "f:ownerReferences": {"k:{\"uid\":\"u\"}": {}},
            },
            "f:data": {"f:k": {}},
        });
        assert_eq!(fields("io.k8s.api.core.v1.ConfigMap", &object), expected);
        let pod = json!({"spec": {"containers": [{"name": "c"}, {"name": "c"}]}});
        let expected = json!({"f:spec": {"f:containers": {"k:{\"name\":\"c\"}": {}}}});
        assert_eq!(fields("io.k8s.api.core.v1.Pod", &pod), expected);
    }
}
