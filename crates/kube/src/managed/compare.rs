//! What a write changed: the fields that it added, modified and removed.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::element;
use super::fields::Fields;
use super::schema::{Form, Items, Schema, form};

/// The difference between two objects of a type.
#[derive(Debug, Default)]
pub(super) struct Change {
    pub(super) added: Fields,
    pub(super) modified: Fields,
    pub(super) removed: Fields,
}

impl Change {
    pub(super) fn is_empty(&self) -> bool {
        self.added.is_empty() && self.modified.is_empty() && self.removed.is_empty()
    }

    /// The fields that have a new value.
    pub(super) fn written(&self) -> Fields {
        let mut written = self.modified.clone();
        written.add(self.added.clone());
        written
    }

    /// [`Self::written`], and nothing else.
    pub(super) fn into_written(self) -> Fields {
        let mut written = self.modified;
        written.add(self.added);
        written
    }

    /// Takes out of somebody's fields what is theirs no more.
    pub(super) fn release(&self, fields: &mut Fields) {
        fields.remove(&self.modified);
        fields.remove(&self.added);
        fields.remove(&self.removed);
    }

    /// The same without what `filter` leaves out.
    pub(super) fn filtered(mut self, filter: impl Fn(&mut Fields)) -> Self {
        for fields in [&mut self.added, &mut self.modified, &mut self.removed] {
            filter(fields);
        }
        self
    }

    fn put(&mut self, element: String, below: Self) {
        let parts = [
            (&mut self.added, below.added),
            (&mut self.modified, below.modified),
            (&mut self.removed, below.removed),
        ];
        let mut parts = parts.into_iter().filter(|(_, below)| !below.is_empty());
        // Most of the time only one of them has something.
        if let Some((first, below)) = parts.next() {
            for (fields, below) in parts {
                fields.put(element.clone(), below);
            }
            first.put(element, below);
        }
    }
}

/// Compares two whole objects.
pub(super) fn compare(schema: &dyn Schema, old: &Value, new: &Value) -> Change {
    let mut change = Change::default();
    walk(schema, Some(old), Some(new), &mut change);
    for fields in [&mut change.added, &mut change.modified, &mut change.removed] {
        fields.is_member = false;
    }
    change
}

fn walk(schema: &dyn Schema, old: Option<&Value>, new: Option<&Value>, into: &mut Change) {
    let form_of = |value: &Value| form(schema, value);
    // Values of one field may differ in form where nothing is known of the type: a map that
    // becomes a text loses its parts and is modified itself.
    let is_leaf = match (old, new) {
        (Some(old), Some(new)) if form_of(old) != form_of(new) => {
            parts(form_of(old), schema, Some(old), Some(new), &mut *into);
            parts(form_of(new), schema, Some(old), Some(new), into)
        }
        (_, Some(new)) => parts(form_of(new), schema, old, Some(new), into),
        (Some(old), None) => parts(form_of(old), schema, Some(old), None, into),
        (None, None) => return,
    };
    if !is_leaf {
        into.added.is_member |= old.is_none();
        into.removed.is_member |= new.is_none();
    }
}

/// Compares values as something of this form; whether they were compared as a whole.
fn parts(
    form: Form<'_>,
    schema: &dyn Schema,
    old: Option<&Value>,
    new: Option<&Value>,
    into: &mut Change,
) -> bool {
    match form {
        Form::Leaf => {}
        Form::Map => {
            let (old, new) = (old.and_then(as_map), new.and_then(as_map));
            if old.is_some() || new.is_some() {
                maps(schema, old, new, into);
                return false;
            }
        }
        Form::List(items) => {
            let (old, new) = (old.and_then(as_list), new.and_then(as_list));
            if old.is_some() || new.is_some() {
                if old != new {
                    let (old, new) = (old.unwrap_or_default(), new.unwrap_or_default());
                    lists(items, schema.item(), old, new, into);
                }
                return false;
            }
        }
    }
    // So that an empty map or list is told from none.
    leaf(old, new, into);
    true
}

fn leaf(old: Option<&Value>, new: Option<&Value>, into: &mut Change) {
    match (old, new) {
        (None, _) => into.added.is_member = true,
        (_, None) => into.removed.is_member = true,
        (Some(old), Some(new)) => into.modified.is_member |= !is_same(old, new),
    }
}

/// Equal, where 1 and 1.0 are.
pub(super) fn is_same(old: &Value, new: &Value) -> bool {
    match (old, new) {
        (Value::Number(one), Value::Number(two)) => one == two || one.as_f64() == two.as_f64(),
        (Value::Array(one), Value::Array(two)) => {
            one.len() == two.len() && one.iter().zip(two).all(|(one, two)| is_same(one, two))
        }
        (Value::Object(one), Value::Object(two)) => {
            one.len() == two.len()
                && one
                    .iter()
                    .zip(two)
                    .all(|((name, one), (other, two))| name == other && is_same(one, two))
        }
        (one, two) => one == two,
    }
}

/// A map that is not empty.
fn as_map(value: &Value) -> Option<&Map<String, Value>> {
    value.as_object().filter(|map| !map.is_empty())
}

/// A list that is not empty.
fn as_list(value: &Value) -> Option<&[Value]> {
    let list = value.as_array().map(Vec::as_slice);
    list.filter(|list| !list.is_empty())
}

fn maps(
    schema: &dyn Schema,
    old: Option<&Map<String, Value>>,
    new: Option<&Map<String, Value>>,
    into: &mut Change,
) {
    let mut member = |name: &str, old: Option<&Value>, new: Option<&Value>| {
        let mut below = Change::default();
        walk(schema.member(name).schema(), old, new, &mut below);
        if !below.is_empty() {
            into.put(element::field(name), below);
        }
    };
    for (name, value) in new.into_iter().flatten() {
        let old = old.and_then(|old| old.get(name));
        // Most of an object stays as it is, and to see that is cheaper than to look for changes.
        if old != Some(value) {
            member(name, old, Some(value));
        }
    }
    for (name, value) in old.into_iter().flatten() {
        if !new.is_some_and(|new| new.contains_key(name)) {
            member(name, Some(value), None);
        }
    }
}

fn lists(items: Items<'_>, schema: &dyn Schema, old: &[Value], new: &[Value], into: &mut Change) {
    // By element: the items before and after. There is more than one of each with duplicates.
    let mut found: BTreeMap<String, (Vec<&Value>, Vec<&Value>)> = BTreeMap::new();
    for item in old {
        if let Ok(element) = element::of_item(items, schema, item) {
            found.entry(element).or_default().0.push(item);
        }
    }
    for item in new {
        if let Ok(element) = element::of_item(items, schema, item) {
            found.entry(element).or_default().1.push(item);
        }
    }
    for (element, (old, new)) in found {
        let mut below = Change::default();
        match (&old[..], &new[..]) {
            ([], []) => {}
            ([] | [_], [] | [_]) => {
                walk(
                    schema,
                    old.first().copied(),
                    new.first().copied(),
                    &mut below,
                );
            }
            // Duplicates are one thing together.
            ([_, _, ..], [_, _, ..]) => below.modified.is_member = old != new,
            ([_, _, ..], [] | [_]) => {
                if let Some(new) = new.first() {
                    walk(schema, None, Some(new), &mut below);
                }
                below.removed.is_member = true;
            }
            ([] | [_], [_, _, ..]) => {
                if let Some(old) = old.first() {
                    walk(schema, Some(old), None, &mut below);
                }
                below.added.is_member = true;
            }
        }
        if !below.is_empty() {
            into.put(element, below);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::schema::ANY;
    use super::*;
    use crate::schema::type_named;

    fn pod(old: &Value, new: &Value) -> [Value; 3] {
        let schema = type_named("io.k8s.api.core.v1.Pod").expect("served");
        let change = compare(schema.get(), old, new);
        [&change.added, &change.modified, &change.removed].map(Fields::encode)
    }

    #[test]
    fn equal_objects_have_no_difference() {
        let object = json!({"spec": {"containers": [{"name": "a"}]}, "x": [1]});
        assert!(compare(&ANY, &object, &object).is_empty());
        assert_eq!(pod(&object, &object), [json!({}), json!({}), json!({})]);
    }

    #[test]
    fn an_added_map_is_a_field_with_fields_and_an_item_is_found_by_its_key() {
        let old = json!({"metadata": {}, "spec": {"containers": [{"name": "a"}, {"name": "b"}]}});
        let new = json!({"metadata": {"labels": {"l": "1"}},
            "spec": {"containers": [{"name": "b", "image": "i"}], "nodeName": "n"}});
        let [added, modified, removed] = pod(&old, &new);
        let expected = json!({
            "f:metadata": {"f:labels": {".": {}, "f:l": {}}},
            "f:spec": {"f:containers": {"k:{\"name\":\"b\"}": {"f:image": {}}}, "f:nodeName": {}},
        });
        assert_eq!(added, expected);
        assert_eq!(modified, json!({}));
        let expected =
            json!({"f:spec": {"f:containers": {"k:{\"name\":\"a\"}": {".": {}, "f:name": {}}}}});
        assert_eq!(removed, expected);
    }

    #[test]
    fn a_map_that_becomes_a_text_loses_its_parts_and_is_modified() {
        let change = compare(&ANY, &json!({"a": {"b": 1}}), &json!({"a": "x"}));
        assert_eq!(change.modified.encode(), json!({"f:a": {}}));
        assert_eq!(change.removed.encode(), json!({"f:a": {"f:b": {}}}));
    }

    #[test]
    fn numbers_are_compared_by_value() {
        assert!(compare(&ANY, &json!({"a": [1]}), &json!({"a": [1.0]})).is_empty());
    }
}
