//! Server-side apply: a manager says which fields it wants, and nothing of the others.
//!
//! ```text
//!   live ──┬── merge ── prune ── new object      prune: what the manager wanted last time, does
//!   wanted ┘              ▲         │            not want now, and nobody else owns
//!             owners ─────┘      compare ──> conflicts: a field that others own has a new value
//! ```

use std::sync::LazyLock;

use serde_json::Value;

use super::compare::is_same;
use super::conflict::{Conflict, Conflicts};
use super::entries::{Entries, Entry, Manager, Operation};
use super::fields::Fields;
use super::prune::{drop_emptied, with_named, without};
use super::schema::Schema;
use super::track::{Changes, Subject, Writer, changes, list_of, own, put, settle_all};
use super::{check, last_applied, merge, owned};
use crate::object::{self, meta_mut};
use crate::status::Status;

/// Owner of what was there before anybody applied.
const BEFORE_APPLY: &str = "before-first-apply";

static EMPTY: LazyLock<Value> = LazyLock::new(|| serde_json::json!({"metadata": {}}));

static NAME: LazyLock<Fields> = LazyLock::new(|| {
    let mut fields = Fields::default();
    fields.add_path(&["metadata", "name"]);
    fields
});

/// Why an apply was not done.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(crate) enum Refused {
    #[error("fields that others own would change")]
    Conflicts(Conflicts),
    /// What is wanted is not of the type.
    #[error("{0}")]
    Untyped(String),
    #[error("{0}")]
    BadRequest(String),
}

impl From<Refused> for Status {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Conflicts(conflicts) => conflicts.into(),
            // Upstream answers 500 without a reason here; clients have learned to expect it.
            Refused::Untyped(message) => Status {
                code: 500,
                reason: "",
                message,
                details: None,
            },
            Refused::BadRequest(message) => Status::bad_request(message),
        }
    }
}

/// What somebody wants of an object.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Apply<'a> {
    pub(crate) wanted: &'a Value,
    /// Group, version and kind that it must have, as Go shows them: `apps/v1, Kind=Deployment`.
    pub(crate) kind: &'a str,
    /// Takes over what others own.
    pub(crate) force: bool,
}

/// The object after an apply, with its `metadata.managedFields`. `live` is `None` for one that is
/// not there yet, `blank` an object with nothing in it.
pub(crate) fn apply(
    subject: Subject<'_>,
    live: Option<&Value>,
    blank: &Value,
    apply: Apply<'_>,
    writer: Writer<'_>,
) -> Result<Value, Refused> {
    check_wanted(subject.schema, &apply)?;
    let entries = Entries::decode(live.and_then(list_of)).map_err(|error| {
        Refused::Untyped(format!("failed to decode managed fields: {}", error.0))
    })?;
    let mut live_plain = live.unwrap_or(&EMPTY).clone();
    meta_mut(&mut live_plain).remove("managedFields");
    let mut attempt = Attempt {
        subject,
        live: &live_plain,
        wanted: apply.wanted,
        writer,
        entries,
    };
    if attempt.entries.0.is_empty() && live.is_some() {
        attempt.begin(blank);
    }
    settle_all(subject.schema, &mut attempt.entries);
    let mut applied = match attempt.clone().run(apply.force) {
        Err(Refused::Conflicts(conflicts)) if writer.manager == last_applied::MANAGER => {
            let last = last_applied::allowed(subject.schema, &live_plain, writer.api_version);
            let conflicts = match last {
                Some(allowed) => conflicts.without(&allowed),
                None => conflicts,
            };
            if !conflicts.is_empty() {
                return Err(Refused::Conflicts(conflicts));
            }
            attempt.run(true)?
        }
        other => other?,
    };
    if writer.manager == last_applied::MANAGER {
        last_applied::refresh(&mut applied, apply.wanted);
    }
    Ok(applied)
}

fn check_wanted(schema: &dyn Schema, apply: &Apply<'_>) -> Result<(), Refused> {
    let wanted = apply.wanted;
    let api_version = object::text(wanted, &["apiVersion"]);
    let kind = show_kind(api_version, object::text(wanted, &["kind"]));
    if kind != apply.kind {
        return Err(Refused::BadRequest(format!("invalid object type: {kind}")));
    }
    if list_of(wanted).is_some_and(|list| !list.is_null()) {
        return Err(Refused::BadRequest(
            "metadata.managedFields must be nil".into(),
        ));
    }
    check::check(schema, wanted).map_err(|why| {
        let namespace = object::text(wanted, &["metadata", "namespace"]);
        let name = object::text(wanted, &["metadata", "name"]);
        Refused::Untyped(format!(
            "failed to create typed patch object ({namespace}/{name}; {kind}): {why}"
        ))
    })
}

/// `/v1, Kind=ConfigMap`, `apps/v1, Kind=Deployment`.
pub(crate) fn show_kind(api_version: &str, kind: &str) -> String {
    let slash = if api_version.contains('/') { "" } else { "/" };
    format!("{slash}{api_version}, Kind={kind}")
}

#[derive(Clone)]
struct Attempt<'a> {
    subject: Subject<'a>,
    live: &'a Value,
    wanted: &'a Value,
    writer: Writer<'a>,
    entries: Entries,
}

impl Attempt<'_> {
    /// Nobody was tracked so far: what is there is somebody's.
    fn begin(&mut self, blank: &Value) {
        let change = changes(self.subject, blank, self.live);
        let writer = Writer {
            manager: BEFORE_APPLY,
            ..self.writer
        };
        own(&mut self.entries, change.into_written(), writer);
    }

    fn run(mut self, force: bool) -> Result<Value, Refused> {
        let Subject { schema, filter, .. } = self.subject;
        let merged = merge::merge(schema, self.live, self.wanted)
            .map_err(|error| Refused::Untyped(format!("failed to merge config: {}", error.0)))?;
        let mut fields = owned::of(schema, self.wanted);
        filter.apply(&mut fields);
        let manager = self.writer.is(Operation::Apply);
        let last = self.entries.0.remove(&manager);
        let mut entry = Entry {
            api_version: self.writer.api_version.to_owned(),
            time: last.as_ref().and_then(|last| last.time),
            fields,
        };
        let mut new = match last {
            Some(last) => self.prune(&merged, &last.fields, &entry.fields),
            None => merged,
        };
        self.settle_others(&manager, &new, force)?;
        if is_same(self.live, &new) {
            new = self.live.clone();
        } else {
            entry.time = Some(self.writer.now);
        }
        if !entry.fields.is_empty() {
            self.entries.0.insert(manager, entry);
        }
        put(&self.entries, &mut new);
        Ok(new)
    }

    /// Takes out what the manager applied last time and nobody owns any more.
    fn prune(&self, merged: &Value, last: &Fields, now: &Fields) -> Value {
        let schema = self.subject.schema;
        let set = |value: &Value| with_named(schema, &owned::of(schema, value));
        let last = with_named(schema, last);
        let pruned = without(schema, merged, &last);
        // Back comes what others own, or the manager still wants.
        let all = set(merged);
        let mut kept = set(&pruned);
        for fields in self.entries.0.values().map(|entry| &entry.fields) {
            kept.add(with_named(schema, fields));
        }
        kept.add(with_named(schema, now));
        // Nobody is told to own the name, but every apply says it.
        kept.add(with_named(schema, &NAME));
        let mut gone = all.clone();
        gone.remove(&kept);
        let pruned = without(schema, merged, &gone);
        // And what the manager never had: nobody's, or in an item of its own that others fill.
        let mut gone = all;
        gone.remove(&set(&pruned));
        let mut pruned = without(schema, merged, &gone.common(&last));
        drop_emptied(&mut pruned, merged);
        pruned
    }

    /// The others lose what the new object has otherwise; if that is not allowed, it is a conflict.
    fn settle_others(
        &mut self,
        manager: &Manager,
        new: &Value,
        force: bool,
    ) -> Result<(), Refused> {
        let change = changes(self.subject, self.live, new);
        if change.is_empty() {
            return Ok(());
        }
        let both = (self.live, new);
        let changes = Changes::of(&self.entries, self.subject, both, &change, self.writer);
        if !force {
            let others = self.entries.0.iter();
            let conflicts: Conflicts = others
                .filter(|(other, _)| *other != manager)
                .filter_map(|(other, entry)| {
                    let taken = entry.fields.common(&changes.to(entry)?.written());
                    Some(Conflict::all(&other.show(), &taken))
                })
                .flatten()
                .collect();
            if !conflicts.is_empty() {
                return Err(Refused::Conflicts(conflicts));
            }
        }
        changes.release(&mut self.entries);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
