//! Whose the fields are that an ordinary write wrote.

use jiff::Timestamp;
use serde_json::Value;

use super::compare::{Change, compare};
use super::entries::{Entries, Entry, Manager, Operation};
use super::fields::Fields;
use super::filter::Filter;
use super::schema::{Schema, Shape};
use crate::object::{self, meta_mut};

/// Who writes, and how.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Writer<'a> {
    /// The manager; empty is "unknown".
    pub(crate) manager: &'a str,
    /// Version in which the object is written.
    pub(crate) api_version: &'a str,
    /// Subresource through which it is written; empty for the object itself.
    pub(crate) subresource: &'a str,
    pub(crate) now: Timestamp,
}

impl Writer<'_> {
    pub(super) fn is(&self, operation: Operation) -> Manager {
        Manager::new(self.manager, operation, self.api_version, self.subresource)
    }
}

/// What a write is about.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subject<'a> {
    pub(crate) schema: &'a dyn Schema,
    pub(crate) filter: &'a Filter,
}

/// Writes `metadata.managedFields` of an object that is new: `blank` is what it would be with
/// nothing in it.
pub(crate) fn created(subject: Subject<'_>, blank: &Value, new: &mut Value, writer: Writer<'_>) {
    meta_mut(new).remove("managedFields");
    let mut entries = Entries::default();
    take(&mut entries, changes(subject, blank, new), writer);
    put(&entries, new);
}

/// Writes `metadata.managedFields` of an object that becomes `new`.
///
/// Clients may replace the entries in a write of the object itself: an empty list, or one empty
/// entry, makes them forgotten, and with that the object is not tracked until somebody applies.
/// Entries that cannot be read are as if they were not given.
pub(crate) fn updated(subject: Subject<'_>, old: &Value, new: &mut Value, writer: Writer<'_>) {
    let before = list_of(old).cloned();
    let given = meta_mut(new).remove("managedFields");
    // Through a subresource the object's entries cannot be replaced.
    let given = given.filter(|_| writer.subresource.is_empty());
    let change = changes(subject, old, new);
    let is_replaced = given
        .as_ref()
        .is_some_and(|given| Some(given) != before.as_ref());
    if change.is_empty() && !is_replaced {
        if let Some(before) = before {
            meta_mut(new).insert("managedFields".into(), before);
        }
        return;
    }
    if given.as_ref().is_some_and(is_reset) {
        return;
    }
    let given = Entries::decode(given.as_ref()).unwrap_or_default();
    let mut entries = if given.0.is_empty() {
        Entries::decode(before.as_ref()).unwrap_or_default()
    } else {
        given
    };
    if entries.0.is_empty() {
        return;
    }
    settle_all(subject.schema, &mut entries);
    take(&mut entries, change, writer);
    put(&entries, new);
}

fn is_reset(given: &Value) -> bool {
    match given.as_array().map(Vec::as_slice) {
        Some([]) => true,
        Some([one]) => one.as_object().is_some_and(serde_json::Map::is_empty),
        Some(_) | None => false,
    }
}

pub(super) fn list_of(object: &Value) -> Option<&Value> {
    object::at(object, &["metadata", "managedFields"])
}

pub(super) fn put(entries: &Entries, object: &mut Value) {
    match entries.encode() {
        Some(list) => drop(meta_mut(object).insert("managedFields".into(), list)),
        None => drop(meta_mut(object).remove("managedFields")),
    }
}

/// What differs, of what can be owned through this part.
pub(super) fn changes(subject: Subject<'_>, old: &Value, new: &Value) -> Change {
    compare(subject.schema, old, new).filtered(|fields| subject.filter.apply(fields))
}

/// The writer owns what it wrote, and nobody what is gone.
pub(super) fn take(entries: &mut Entries, change: Change, writer: Writer<'_>) {
    let removed = change.removed;
    let mut written = change.modified;
    written.add(change.added);
    entries.0.retain(|_, entry| {
        entry.fields.remove(&written);
        entry.fields.remove(&removed);
        !entry.fields.is_empty()
    });
    if written.is_empty() {
        return;
    }
    let manager = writer.is(Operation::Update);
    let entry = entries.0.entry(manager).or_insert_with(|| Entry {
        api_version: writer.api_version.to_owned(),
        time: None,
        fields: Fields::default(),
    });
    entry.fields.add(written);
    entry.time = Some(writer.now);
    entries.cap();
}

/// What was owned in parts before its type became atomic is owned as a whole.
pub(super) fn settle_all(schema: &dyn Schema, entries: &mut Entries) {
    for entry in entries.0.values_mut() {
        for (element, below) in &mut entry.fields.below {
            settle(of_element(schema, element), below);
        }
    }
}

fn settle(schema: &dyn Schema, fields: &mut Fields) {
    if fields.below.is_empty() {
        return;
    }
    match schema.shape() {
        Shape::AtomicMap | Shape::AtomicList => {
            fields.below.clear();
            fields.is_member = true;
        }
        Shape::Scalar(_) | Shape::Any => {}
        Shape::Map | Shape::Set | Shape::Keyed(_) => {
            for (element, below) in &mut fields.below {
                settle(of_element(schema, element), below);
            }
        }
    }
}

fn of_element<'a>(schema: &'a dyn Schema, element: &str) -> &'a dyn Schema {
    match element.strip_prefix("f:") {
        Some(name) => schema.member(name).schema(),
        None => schema.item(),
    }
}
