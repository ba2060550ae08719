//! Objects are JSON values; these are the few things the server needs to read and write in all of
//! them.

use serde_json::{Map, Value};

/// `metadata.<field>` if it is a non-empty string.
pub fn meta<'a>(object: &'a Value, field: &str) -> Option<&'a str> {
    object
        .get("metadata")?
        .get(field)?
        .as_str()
        .filter(|text| !text.is_empty())
}

pub fn name(object: &Value) -> &str {
    meta(object, "name").unwrap_or_default()
}

pub fn namespace(object: &Value) -> Option<&str> {
    meta(object, "namespace")
}

pub fn uid(object: &Value) -> &str {
    meta(object, "uid").unwrap_or_default()
}

/// The revision of the latest write, 0 if the object has not been stored.
pub fn resource_version(object: &Value) -> u64 {
    meta(object, "resourceVersion")
        .and_then(|rev| rev.parse().ok())
        .unwrap_or(0)
}

pub fn is_terminating(object: &Value) -> bool {
    meta(object, "deletionTimestamp").is_some()
}

/// The text at a path of keys, empty if there is none.
pub fn text<'a>(object: &'a Value, path: &[&str]) -> &'a str {
    at(object, path).and_then(Value::as_str).unwrap_or_default()
}

/// The value at a path of keys.
pub fn at<'a>(object: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(object, |value, key| value.get(key))
}

/// The items at a path of keys; none if there is no list.
pub fn items<'a>(object: &'a Value, path: &[&str]) -> &'a [Value] {
    at(object, path)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

/// The map at a key, made if it is missing or not a map.
pub fn map_mut<'a>(object: &'a mut Value, key: &str) -> &'a mut Map<String, Value> {
    let parent = ensure_map(object);
    ensure_map(
        parent
            .entry(key)
            .or_insert_with(|| Value::Object(Map::new())),
    )
}

/// The value at a key, made a map if it is missing or not one.
pub fn ensure_at<'a>(object: &'a mut Value, key: &str) -> &'a mut Value {
    map_mut(object, key);
    &mut object[key]
}

fn ensure_map(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(map) => map,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            unreachable!("made a map above")
        }
    }
}

pub fn meta_mut(object: &mut Value) -> &mut Map<String, Value> {
    map_mut(object, "metadata")
}

pub fn set_resource_version(object: &mut Value, rev: u64) {
    meta_mut(object).insert("resourceVersion".into(), rev.to_string().into());
}

/// The maps in a list, if there is a list.
pub fn maps(list: Option<&mut Value>) -> impl Iterator<Item = &mut Map<String, Value>> {
    list.and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
        .filter_map(Value::as_object_mut)
}

/// The map at a path of keys below a map, if it is there.
pub fn inner<'a>(
    map: &'a mut Map<String, Value>,
    path: &[&str],
) -> Option<&'a mut Map<String, Value>> {
    path.iter()
        .try_fold(map, |map, key| map.get_mut(*key)?.as_object_mut())
}

/// Puts `value` where there is nothing yet.
pub fn default(map: &mut Map<String, Value>, key: &str, value: impl Into<Value>) {
    if !map.contains_key(key) {
        map.insert(key.to_owned(), value.into());
    }
}

/// `metadata.finalizers` is there and not empty.
pub fn has_finalizers(object: &Value) -> bool {
    !items(object, &["metadata", "finalizers"]).is_empty()
}

/// A label's value.
pub fn label<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    at(object, &["metadata", "labels"])?.get(key)?.as_str()
}
