//! Who owns which field of an object (`metadata.managedFields`), and server-side apply.
//!
//! ```text
//!   create, update, patch ── track ── compare(old, new) ─── entries: the writer owns the difference
//!   apply ────────────────── apply ── merge, prune, conflicts ─ entries: the manager owns what it
//!                                                                wants, and nothing else
//! ```
//!
//! Everything is generic over a [`schema::Schema`], which says what merges how. A set of fields is
//! a tree ([`fields::Fields`]) of the elements of paths ([`element`]); the entries of an object
//! ([`entries`]) are such sets by manager. Nothing here reads the clock or the store.
//!
//! The rules and texts are those of upstream's structured merge, checked against what a genuine
//! server of version 1.36 answered.

mod apply;
mod builtin;
mod check;
mod compare;
mod conflict;
mod element;
mod entries;
mod fields;
mod filter;
pub(crate) mod fuzz;
mod last_applied;
mod merge;
mod owned;
mod prune;
pub(crate) mod schema;
mod track;

use serde_json::Value;

pub(crate) use apply::{Apply, apply, show_kind};
pub(crate) use builtin::object_meta;
pub(crate) use filter::{Filter, blank};
pub(crate) use track::{Subject, Versions, Writer, created, updated};

use crate::resource::{Resource, Row};
use schema::{ANY, Member, Schema, Shape};

/// How objects of the resource merge.
pub(crate) fn schema_of(resource: &Resource) -> &dyn Schema {
    if let Some(kind) = &resource.custom {
        return &**kind;
    }
    match crate::schema::type_named(resource.schema) {
        Some(schema) => schema.get(),
        None => &UNTYPED,
    }
}

/// An object of which only the metadata is known.
#[derive(Debug)]
struct Untyped;

static UNTYPED: Untyped = Untyped;

impl Schema for Untyped {
    fn shape(&self) -> Shape<'_> {
        Shape::Map
    }

    fn member(&self, name: &str) -> Member<'_> {
        match name {
            "apiVersion" | "kind" => Member::Declared(&ANY),
            "metadata" => Member::Declared(object_meta()),
            _ => Member::Entry(&ANY),
        }
    }

    fn item(&self) -> &dyn Schema {
        &ANY
    }
}

/// A kind of which one version is all there is.
#[derive(Debug)]
pub(crate) struct OneVersion;

impl Versions for OneVersion {
    fn at(&self, _: &str, _: &Value) -> Option<(Value, Row)> {
        None
    }
}

/// `object` with everything that `wanted` has, whoever owns it.
///
/// # Errors
/// An item of a list has no key, or `wanted` has two items of one key.
pub(crate) fn merged(schema: &dyn Schema, object: &Value, wanted: &Value) -> Result<Value, String> {
    merge::merge(schema, object, wanted).map_err(|error| error.0)
}

/// Where a value has maps and lists that are replaced as a whole.
pub(crate) fn atomic_paths(schema: &dyn Schema, value: &Value) -> Vec<String> {
    let mut paths = Vec::new();
    atomics(schema, value, &mut String::new(), &mut paths);
    paths
}

fn atomics(schema: &dyn Schema, value: &Value, path: &mut String, paths: &mut Vec<String>) {
    if matches!(schema.shape(), Shape::AtomicMap | Shape::AtomicList) {
        paths.push(path.clone());
        return;
    }
    let len = path.len();
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                path.push('.');
                path.push_str(name);
                atomics(schema.member(name).schema(), value, path, paths);
                path.truncate(len);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                path.push_str(&format!("[{index}]"));
                atomics(schema.item(), item, path, paths);
                path.truncate(len);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Takes back new times of entries that are all there is to a write: it is not one.
pub(crate) fn keep_times(old: &Value, new: &mut Value) {
    let (Some(before), Some(after)) = (track::list_of(old), track::list_of(new)) else {
        return;
    };
    let (Some(before), Some(after)) = (before.as_array(), after.as_array()) else {
        return;
    };
    if before.len() != after.len() || before == after {
        return;
    }
    let is_time = |name: &str| name == "time";
    let same_entry = |(one, two): (&Value, &Value)| match (one.as_object(), two.as_object()) {
        (Some(one), Some(two)) => {
            let one = one.iter().filter(|(name, _)| !is_time(name));
            one.eq(two.iter().filter(|(name, _)| !is_time(name)))
        }
        (_, _) => false,
    };
    if !before.iter().zip(after).all(same_entry) {
        return;
    }
    let before = Value::Array(before.clone());
    let after = crate::object::meta_mut(new).insert("managedFields".into(), before);
    if new != old
        && let Some(after) = after
    {
        crate::object::meta_mut(new).insert("managedFields".into(), after);
    }
}
