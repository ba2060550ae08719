//! Strategic merge: a merge patch that knows which lists are merged, and by which key.
//!
//! Directives, in maps: `$patch: replace|delete|merge`, `$retainKeys`; for the list `x` of a map:
//! `$setElementOrder/x`, `$deleteFromPrimitiveList/x`; in items of a merged list: `$patch: delete`
//! with the key, or an item `$patch: replace` that makes the rest replace the list.
//!
//! Lists are looked up by hash: a patch may bring some hundred thousand items.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use crate::schema::{Field, Kind, Type};
use crate::status::Status;

const PATCH: &str = "$patch";
const RETAIN: &str = "$retainKeys";
const ORDER: &str = "$setElementOrder/";
const DELETE: &str = "$deleteFromPrimitiveList/";

pub(super) fn apply(
    schema: &'static Type,
    target: &mut Value,
    patch: &Value,
) -> Result<(), Status> {
    let (Value::Object(patch), Some(target)) = (patch, target.as_object_mut()) else {
        return Err(Status::bad_request("a strategic merge patch is an object"));
    };
    merge_map(Some(schema), target, patch)
}

fn merge_map(
    schema: Option<&'static Type>,
    target: &mut Map<String, Value>,
    patch: &Map<String, Value>,
) -> Result<(), Status> {
    match patch
        .get(PATCH)
        .map(|directive| directive.as_str().unwrap_or_default())
    {
        Some("replace") => {
            *target = without_directives(patch);
            return Ok(());
        }
        Some("delete") => {
            target.clear();
            return Ok(());
        }
        Some("merge") | None => {}
        Some(other) => return Err(unknown_directive(other, patch)),
    }
    if let Some(keep) = patch.get(RETAIN) {
        retain(target, patch, keep)?;
    }
    let before = target.clone();
    for (key, change) in patch {
        if let Some(list) = key.strip_prefix(DELETE) {
            let Value::Array(gone) = change else {
                return Err(Status::bad_request(
                    "invalid patch format of primitive list",
                ));
            };
            delete_primitives(target.get_mut(list), gone);
        } else if !key.starts_with('$') {
            let field = schema.and_then(|schema| schema.field(key));
            merge_field(field, target, key, change)?;
        }
    }
    for (key, order) in patch {
        if let Some(list) = key.strip_prefix(ORDER) {
            let Value::Array(order) = order else {
                let found = go_type(order);
                return Err(failed(format!(
                    "expected a []interface {{}}, but received a {found}"
                )));
            };
            let field = schema.and_then(|schema| schema.field(list));
            if let Some(Value::Array(changes)) = patch.get(list) {
                check_order(changes, order, field.and_then(Field::merge_key))?;
            }
            if let Some(Value::Array(items)) = target.get_mut(list) {
                let server = before.get(list).and_then(Value::as_array);
                let server = server.map_or(&[][..], Vec::as_slice);
                arrange(items, order, server, field.and_then(Field::merge_key));
            }
        }
    }
    Ok(())
}

fn merge_field(
    field: Option<&'static Field>,
    target: &mut Map<String, Value>,
    key: &str,
    change: &Value,
) -> Result<(), Status> {
    match change {
        Value::Null => drop(target.remove(key)),
        Value::Object(change) => {
            let schema = match field.map(|field| &field.kind) {
                Some(Kind::Message(schema)) => Some(schema.get()),
                Some(Kind::Scalar(_) | Kind::List(_) | Kind::Map(_)) | None => None,
            };
            let is_present = target.contains_key(key);
            let present = target
                .entry(key)
                .or_insert_with(|| Value::Object(Map::new()));
            if !present.is_object() {
                *present = Value::Object(Map::new());
            }
            if let Some(map) = present.as_object_mut() {
                merge_map(schema, map, change)?;
            }
            let is_deleted = change
                .get(PATCH)
                .is_some_and(|directive| directive == "delete");
            // Upstream leaves an empty map of one that was there.
            if is_deleted && !is_present {
                target.remove(key);
            }
        }
        Value::Array(changes) => {
            let Some(field) = field.filter(|field| field.has_patch_strategy("merge")) else {
                target.insert(key.into(), without_item_directives(changes));
                return Ok(());
            };
            let present = target
                .entry(key)
                .or_insert_with(|| Value::Array(Vec::new()));
            if !present.is_array() {
                *present = Value::Array(Vec::new());
            }
            if let Some(items) = present.as_array_mut() {
                merge_list(field, items, changes)?;
            }
        }
        Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            target.insert(key.into(), change.clone());
        }
    }
    Ok(())
}

fn merge_list(
    field: &'static Field,
    items: &mut Vec<Value>,
    changes: &[Value],
) -> Result<(), Status> {
    let server = items.clone();
    let Some(merge_key) = field.merge_key() else {
        // A list of scalars is a set.
        let mut present: HashSet<&Value> = server.iter().collect();
        let added = changes.iter().filter(|change| present.insert(change));
        items.extend(added.cloned());
        arrange(items, changes, &server, None);
        return Ok(());
    };
    let schema = match &field.kind {
        Kind::List(item) => match &**item {
            Kind::Message(schema) => Some(schema.get()),
            Kind::Scalar(_) | Kind::List(_) | Kind::Map(_) => None,
        },
        Kind::Scalar(_) | Kind::Message(_) | Kind::Map(_) => None,
    };
    if let Some(odd) = changes.iter().find(|change| !change.is_object()) {
        let found = go_type(odd);
        return Err(failed(format!(
            "list element types are not identical: map[string]interface {{}} {found}"
        )));
    }
    for change in changes.iter().filter_map(Value::as_object) {
        match change.get(PATCH).map(|directive| directive.as_str()) {
            None | Some(Some("delete" | "replace")) => {}
            Some(Some("merge")) => {
                let why = "merging lists cannot yet be specified in the patch";
                return Err(failed(why.into()));
            }
            Some(other) => return Err(unknown_directive(other.unwrap_or_default(), change)),
        }
    }
    let is_replaced = changes.iter().any(|change| change[PATCH] == "replace");
    if is_replaced {
        items.clear();
    }
    let mut merged = Keyed::new(merge_key, std::mem::take(items));
    for change in changes.iter().filter_map(Value::as_object) {
        if change
            .get(PATCH)
            .is_some_and(|directive| directive == "replace")
        {
            continue;
        }
        let Some(key) = change.get(merge_key) else {
            return Err(missing_key(change, merge_key));
        };
        if change
            .get(PATCH)
            .is_some_and(|directive| directive == "delete")
        {
            merged.remove(key);
            continue;
        }
        match merged.get_mut(key) {
            Some(present) => merge_map(schema, present, change)?,
            None => {
                // Nested directives of a new item have nothing to act on, but must not stay.
                let mut added = Map::new();
                merge_map(schema, &mut added, change)?;
                merged.push(Value::Object(added));
            }
        }
    }
    items.extend(merged.items.into_iter().flatten());
    let kept: Vec<_> = changes
        .iter()
        .filter(|change| change.get(PATCH).is_none())
        .cloned()
        .collect();
    arrange(items, &kept, &server, Some(merge_key));
    Ok(())
}

/// A list that is being merged by key.
struct Keyed<'a> {
    merge_key: &'a str,
    /// In their order, with holes where items were removed.
    items: Vec<Option<Value>>,
    /// Two items may have one key: ports that differ in their protocol do.
    places: HashMap<Value, Vec<usize>>,
}

impl<'a> Keyed<'a> {
    fn new(merge_key: &'a str, items: Vec<Value>) -> Self {
        let mut keyed = Self {
            merge_key,
            items: Vec::with_capacity(items.len()),
            places: HashMap::new(),
        };
        items.into_iter().for_each(|item| keyed.push(item));
        keyed
    }

    fn push(&mut self, item: Value) {
        if let Some(key) = item.get(self.merge_key) {
            let places = self.places.entry(key.clone()).or_default();
            places.push(self.items.len());
        }
        self.items.push(Some(item));
    }

    /// The first item with this key.
    fn get_mut(&mut self, key: &Value) -> Option<&mut Map<String, Value>> {
        let place = *self.places.get(key)?.first()?;
        self.items.get_mut(place)?.as_mut()?.as_object_mut()
    }

    /// Removes all items with this key.
    fn remove(&mut self, key: &Value) {
        for place in self.places.remove(key).unwrap_or_default() {
            self.items[place] = None;
        }
    }
}

/// Upstream answers 500 without a reason to most of what is wrong with such a patch; clients have
/// learned to expect it.
fn failed(message: String) -> Status {
    Status {
        code: 500,
        reason: "",
        message,
        details: None,
    }
}

fn missing_key(change: &Map<String, Value>, merge_key: &str) -> Status {
    failed(format!(
        "map: {} does not contain declared merge key: {merge_key}",
        go_map(change)
    ))
}

fn unknown_directive(directive: &str, map: &Map<String, Value>) -> Status {
    failed(format!(
        "unknown patch type: {directive} in map: {}",
        go_map(map)
    ))
}

/// Go's notation of a map.
fn go_map(map: &Map<String, Value>) -> String {
    let fields = map.iter().map(|(key, value)| match value {
        Value::String(text) => format!("{key}:{text}"),
        Value::Object(map) => format!("{key}:{}", go_map(map)),
        Value::Null => format!("{key}:<nil>"),
        other @ (Value::Bool(_) | Value::Number(_) | Value::Array(_)) => format!("{key}:{other}"),
    });
    format!("map[{}]", fields.collect::<Vec<_>>().join(" "))
}

fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

/// Keeps only these keys of a map. What the patch sets has to be among them.
fn retain(
    target: &mut Map<String, Value>,
    patch: &Map<String, Value>,
    keep: &Value,
) -> Result<(), Status> {
    let wrong = || Status::bad_request("invalid patch format of retainKeys");
    let keep = keep.as_array().ok_or_else(wrong)?;
    let keep: HashSet<&str> = keep.iter().filter_map(Value::as_str).collect();
    let mut set = patch
        .iter()
        .filter(|(key, value)| !key.starts_with('$') && !value.is_null());
    if set.any(|(key, _)| !keep.contains(key.as_str())) {
        return Err(wrong());
    }
    target.retain(|key, _| keep.contains(key.as_str()));
    Ok(())
}

/// The items that a patch sets stand in the order that it asks for.
fn check_order(changes: &[Value], order: &[Value], merge_key: Option<&str>) -> Result<(), Status> {
    if changes.is_empty() || order.is_empty() {
        return Ok(());
    }
    let mut order_left = order.iter();
    let mut set = changes.iter().filter(|change| change.get(PATCH).is_none());
    let is_in_order = set.all(|change| {
        let wanted = identity(change, merge_key);
        // Only a key is known of an item in the order.
        wanted.is_none() || order_left.any(|item| identity(item, merge_key) == wanted)
    });
    if is_in_order {
        return Ok(());
    }
    let list = |items: &[Value]| {
        let items = items.iter().map(|item| match item {
            Value::Object(map) => go_map(map),
            Value::String(text) => text.clone(),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => item.to_string(),
        });
        items.collect::<Vec<_>>().join(" ")
    };
    Err(failed(format!(
        "The order in patch list:\n[{}]\n doesn't match {} list:\n[{}]\n",
        list(changes),
        ORDER.trim_end_matches('/'),
        list(order),
    )))
}

fn delete_primitives(list: Option<&mut Value>, gone: &[Value]) {
    if let Some(Value::Array(items)) = list {
        let gone: HashSet<&Value> = gone.iter().collect();
        items.retain(|item| !gone.contains(item));
    }
}

/// Upstream's order of a merged list: the items that the patch names in the order of the patch, and
/// each of the others before the first of those that it stood before on the server.
fn arrange(items: &mut Vec<Value>, order: &[Value], server: &[Value], merge_key: Option<&str>) {
    let (order, server) = (places(order, merge_key), places(server, merge_key));
    let place = |places: &HashMap<&Value, usize>, item: &Value| {
        identity(item, merge_key).and_then(|identity| places.get(identity).copied())
    };
    let (mut named, others): (Vec<_>, Vec<_>) = items
        .drain(..)
        .partition(|item| place(&order, item).is_some());
    named.sort_by_cached_key(|item| place(&order, item));
    let (mut named, mut others) = (named.into_iter().peekable(), others.into_iter().peekable());
    while let (Some(right), Some(left)) = (named.peek(), others.peek()) {
        let stood_before = match (place(&server, left), place(&server, right)) {
            (Some(left), Some(right)) => left < right,
            _ => false,
        };
        items.extend(if stood_before {
            others.next()
        } else {
            named.next()
        });
    }
    items.extend(named);
    items.extend(others);
}

/// By what an item of a list is known.
fn identity<'a>(item: &'a Value, merge_key: Option<&str>) -> Option<&'a Value> {
    match merge_key {
        Some(key) => item.get(key),
        None => Some(item),
    }
}

/// Where each item first stands.
fn places<'a>(list: &'a [Value], merge_key: Option<&str>) -> HashMap<&'a Value, usize> {
    let mut places = HashMap::new();
    for (place, item) in list.iter().enumerate() {
        if let Some(identity) = identity(item, merge_key) {
            places.entry(identity).or_insert(place);
        }
    }
    places
}

fn without_directives(map: &Map<String, Value>) -> Map<String, Value> {
    let plain = map.iter().filter(|(key, _)| !key.starts_with('$'));
    plain
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

fn without_item_directives(items: &[Value]) -> Value {
    let is_directive = |item: &&Value| {
        item.as_object()
            .is_some_and(|map| map.len() == 1 && map.contains_key(PATCH))
    };
    items
        .iter()
        .filter(|item| !is_directive(item))
        .map(|item| match item {
            Value::Object(map) => Value::Object(without_directives(map)),
            other => other.clone(),
        })
        .collect()
}

#[cfg(test)]
mod tests;
