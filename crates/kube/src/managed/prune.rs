//! Taking fields out of an object.

use serde_json::{Map, Value};

use super::element;
use super::fields::Fields;
use super::schema::{Form, Member, Schema, form};

/// `value` without these fields; null if nothing of it is left.
pub(super) fn without(schema: &dyn Schema, value: &Value, gone: &Fields) -> Value {
    match (form(schema, value), value) {
        (Form::Leaf, _) => match value {
            // Part of what goes is within; as a whole it cannot stay.
            Value::Array(_) | Value::Object(_) => Value::Null,
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
        },
        (Form::Map, Value::Object(map)) => {
            let kept = map.iter().filter_map(|(name, value)| {
                let kept = match gone.below.get(&element::field(name)) {
                    Some(gone) if gone.is_member => return None,
                    Some(gone) => without(schema.member(name).schema(), value, gone),
                    None => value.clone(),
                };
                Some((name.clone(), kept))
            });
            let kept: Map<_, _> = kept.collect();
            if kept.is_empty() {
                return Value::Null;
            }
            Value::Object(kept)
        }
        (Form::List(items), Value::Array(list)) => {
            let schema = schema.item();
            let kept = list.iter().filter_map(|item| {
                let element = element::of_item(items, schema, item).ok();
                match element.and_then(|element| gone.below.get(&element)) {
                    Some(gone) if gone.is_member => None,
                    Some(gone) => Some(without(schema, item, gone)),
                    None => Some(item.clone()),
                }
            });
            let kept: Vec<_> = kept.collect();
            if kept.is_empty() {
                return Value::Null;
            }
            Value::Array(kept)
        }
        (Form::Map | Form::List(_), _) => Value::Null,
    }
}

/// Adds the fields of types that have something below them. They have no owner of their own, but
/// go when nothing is left in them.
pub(super) fn with_named(schema: &dyn Schema, fields: &Fields) -> Fields {
    let mut named = Fields {
        is_member: fields.is_member,
        ..Fields::default()
    };
    for (element, below) in &fields.below {
        let node = match element.strip_prefix("f:") {
            Some(name) => {
                let member = schema.member(name);
                let mut node = with_named(member.schema(), below);
                let is_declared = matches!(member, Member::Declared(_));
                node.is_member |= is_declared && !below.below.is_empty();
                node
            }
            None => with_named(schema.item(), below),
        };
        named.put(element.clone(), node);
    }
    named
}

/// Takes out the nulls that [`without`] left where `before` has something.
pub(super) fn drop_emptied(value: &mut Value, before: &Value) {
    match (value, before) {
        (Value::Object(map), Value::Object(before)) => {
            map.retain(|name, value| {
                let Some(before) = before.get(name) else {
                    return true;
                };
                drop_emptied(value, before);
                !value.is_null() || before.is_null()
            });
        }
        (Value::Array(list), Value::Array(before)) => {
            // Items are never emptied, for their keys are fields; what stands where is not known.
            if list.len() == before.len() {
                list.iter_mut()
                    .zip(before)
                    .for_each(|(value, before)| drop_emptied(value, before));
            } else {
                list.iter_mut().for_each(drop_nulls);
            }
        }
        (_, _) => {}
    }
}

fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| {
                drop_nulls(value);
                !value.is_null()
            });
        }
        Value::Array(list) => list.iter_mut().for_each(drop_nulls),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::schema::type_named;

    #[test]
    fn fields_and_items_go_and_what_is_empty_then_goes_with_them() {
        let schema = type_named("io.k8s.api.core.v1.Pod").expect("served").get();
        let pod = json!({"metadata": {"labels": {"a": "1"}}, "spec": {
            "containers": [{"name": "c", "image": "i", "args": ["x"]}, {"name": "d"}],
        }});
        let gone = json!({"f:metadata": {"f:labels": {"f:a": {}}}, "f:spec": {"f:containers": {
            "k:{\"name\":\"c\"}": {"f:image": {}}, "k:{\"name\":\"d\"}": {".": {}, "f:name": {}},
        }}});
        let gone = Fields::decode(&gone).expect("reads");
        let mut left = without(schema, &pod, &gone);
        drop_emptied(&mut left, &pod);
        let expected = json!({"metadata": {}, "spec": {
            "containers": [{"name": "c", "args": ["x"]}],
        }});
        let mut without_labels = expected.clone();
        without_labels
            .as_object_mut()
            .expect("a map")
            .remove("metadata");
        assert!(left == expected || left == without_labels, "{left}");
    }

    #[test]
    fn fields_of_types_are_named_and_entries_of_maps_are_not() {
        let schema = type_named("io.k8s.api.core.v1.Pod").expect("served").get();
        let fields = json!({"f:spec": {"f:nodeSelector": {"f:a": {}}}});
        let named = with_named(schema, &Fields::decode(&fields).expect("reads"));
        let expected = json!({"f:spec": {".": {}, "f:nodeSelector": {".": {}, "f:a": {}}}});
        assert_eq!(named.encode(), expected);
    }
}
