//! Which names a definition gets: those that nobody else has. Pure.

use std::collections::HashSet;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::definition::{is_condition, names_of};
use crate::object::{items, text};
use crate::time;

/// The names that are taken in a group.
#[derive(Debug, Default)]
pub(crate) struct Taken<'a> {
    /// Plurals, singulars and short names.
    resources: HashSet<&'a str>,
    /// Kinds and kinds of lists.
    kinds: HashSet<&'a str>,
}

impl<'a> Taken<'a> {
    /// Adds the names that a definition has been given.
    pub(crate) fn add_accepted(&mut self, definition: &'a Value) {
        let names = &definition["status"]["acceptedNames"];
        for field in ["plural", "singular"] {
            self.resources.insert(text(names, &[field]));
        }
        let short = items(names, &["shortNames"]).iter();
        self.resources.extend(short.filter_map(Value::as_str));
        for field in ["kind", "listKind"] {
            self.kinds.insert(text(names, &[field]));
        }
        self.resources.remove("");
        self.kinds.remove("");
    }

    /// Adds the names of a row that is built in.
    pub(crate) fn add_row(&mut self, row: &'a crate::resource::Resource) {
        self.resources.extend([row.plural, row.singular]);
        self.resources.extend(row.short_names);
        self.kinds.insert(row.kind);
    }
}

/// The status of a definition, given what is taken in its group by others. `is_served` tells
/// whether the catalog has it already.
pub(crate) fn status(
    definition: &Value,
    taken: &Taken<'_>,
    is_served: bool,
    now: Timestamp,
) -> Value {
    let (accepted, conflict) = accept(definition, taken);
    let mut status = definition["status"].clone();
    status["acceptedNames"] = accepted.into();
    let is_first = !is_condition(definition, "Established");
    match conflict {
        None => {
            set(
                &mut status,
                ["NamesAccepted", "True", "NoConflicts"],
                "no conflicts found",
                now,
            );
            let what = "the initial names have been accepted";
            if is_served {
                set(
                    &mut status,
                    ["Established", "True", "InitialNamesAccepted"],
                    what,
                    now,
                );
            } else if is_first {
                set(
                    &mut status,
                    ["Established", "False", "Installing"],
                    what,
                    now,
                );
            }
        }
        Some((reason, message)) => {
            set(
                &mut status,
                ["NamesAccepted", "False", reason],
                &message,
                now,
            );
            if is_first {
                let what = "not all names are accepted";
                set(
                    &mut status,
                    ["Established", "False", "NotAccepted"],
                    what,
                    now,
                );
            }
        }
    }
    status
}

/// The names that are free, else the ones it had; and the latest conflict.
fn accept(
    definition: &Value,
    taken: &Taken<'_>,
) -> (Map<String, Value>, Option<(&'static str, String)>) {
    let wanted = names_of(&definition["spec"]);
    let had = &definition["status"]["acceptedNames"];
    let mut accepted = wanted.clone();
    let mut conflict = None;
    let keep = |accepted: &mut Map<String, Value>, field: &str| match had.get(field) {
        Some(had) => drop(accepted.insert(field.into(), had.clone())),
        // As Go writes the two that every definition has.
        None if matches!(field, "plural" | "kind") => {
            drop(accepted.insert(field.into(), json!("")));
        }
        None => drop(accepted.remove(field)),
    };
    let single = |field: &str, pool: &HashSet<&str>| {
        let name = wanted.get(field).and_then(Value::as_str);
        let taken = name.filter(|name| pool.contains(name));
        taken.map(|name| format!("{name:?} is already in use"))
    };
    for (field, reason) in [
        ("plural", "PluralConflict"),
        ("singular", "SingularConflict"),
    ] {
        if let Some(why) = single(field, &taken.resources) {
            conflict = Some((reason, why));
            keep(&mut accepted, field);
        }
    }
    let short = items(&definition["spec"], &["names", "shortNames"]);
    let is_taken = |name: &&Value| {
        name.as_str()
            .is_some_and(|name| taken.resources.contains(name))
    };
    let in_use: Vec<_> = short.iter().filter(is_taken).collect();
    if !in_use.is_empty() {
        let names = in_use
            .iter()
            .map(|name| format!("{name} is already in use"));
        conflict = Some(("ShortNamesConflict", names.collect::<Vec<_>>().join(", ")));
        keep(&mut accepted, "shortNames");
    }
    for (field, reason) in [("kind", "KindConflict"), ("listKind", "ListKindConflict")] {
        if let Some(why) = single(field, &taken.kinds) {
            conflict = Some((reason, why));
            keep(&mut accepted, field);
        }
    }
    (accepted, conflict)
}

/// Sets a condition; the time changes only with its status.
pub(crate) fn set(
    status: &mut Value,
    [kind, value, reason]: [&str; 3],
    message: &str,
    now: Timestamp,
) {
    let mut conditions = items(status, &["conditions"]).to_vec();
    let found = conditions.iter_mut().find(|one| one["type"] == kind);
    let since = match &found {
        Some(one) if one["status"] == value => one["lastTransitionTime"].clone(),
        Some(_) | None => json!(time::seconds(now)),
    };
    let condition = json!({
        "type": kind, "status": value, "reason": reason, "message": message,
        "lastTransitionTime": since,
    });
    match found {
        Some(one) => *one = condition,
        None => conditions.push(condition),
    }
    status["conditions"] = conditions.into();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(plural: &str, kind: &str, short: &[&str]) -> Value {
        json!({"spec": {"names": {"plural": plural, "singular": kind.to_lowercase(), "kind": kind,
            "listKind": format!("{kind}List"), "shortNames": short}}})
    }

    fn condition<'a>(status: &'a Value, kind: &str) -> &'a Value {
        let mut all = items(status, &["conditions"]).iter();
        all.find(|one| one["type"] == kind).expect("set")
    }

    #[test]
    fn a_definition_is_established_when_its_names_are_free_and_it_is_served() {
        let now = Timestamp::UNIX_EPOCH;
        let mut foo = definition("foos", "Foo", &["f"]);
        foo["status"] = status(&foo, &Taken::default(), false, now);
        assert_eq!(condition(&foo["status"], "NamesAccepted")["status"], "True");
        assert_eq!(
            condition(&foo["status"], "Established")["reason"],
            "Installing"
        );
        foo["status"] = status(&foo, &Taken::default(), true, now);
        assert_eq!(condition(&foo["status"], "Established")["status"], "True");
        assert_eq!(foo["status"]["acceptedNames"]["shortNames"], json!(["f"]));
        let again = status(
            &foo,
            &Taken::default(),
            true,
            now + jiff::SignedDuration::from_secs(9),
        );
        assert_eq!(again, foo["status"]);
    }

    #[test]
    fn names_that_are_taken_are_not_accepted() {
        let now = Timestamp::UNIX_EPOCH;
        let mut first = definition("foos", "Foo", &["f"]);
        first["status"] = status(&first, &Taken::default(), true, now);
        let mut taken = Taken::default();
        taken.add_accepted(&first);
        let second = definition("bars", "Foo", &["f"]);
        let second = status(&second, &taken, false, now);
        let names = condition(&second, "NamesAccepted");
        assert_eq!(names["reason"], "ListKindConflict");
        assert_eq!(names["message"], "\"FooList\" is already in use");
        assert_eq!(second["acceptedNames"].get("shortNames"), None);
        assert_eq!(second["acceptedNames"]["kind"], "");
        assert_eq!(condition(&second, "Established")["reason"], "NotAccepted");
    }
}
