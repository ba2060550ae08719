//! `metadata.managedFields`: who owns which fields of an object, and since when.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::fields::Fields;
use crate::object;
use crate::time;

/// Entries of updates that are kept apart; older ones become one.
const UPDATERS_MAX: usize = 10;
/// Whose the older ones become.
const ANCIENT: &str = "ancient-changes";

/// How a manager came to own fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Operation {
    Apply,
    Update,
}

impl Operation {
    fn as_str(self) -> &'static str {
        match self {
            Operation::Apply => "Apply",
            Operation::Update => "Update",
        }
    }
}

/// What tells entries apart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Manager {
    pub(super) name: String,
    pub(super) operation: Operation,
    /// Empty for an apply, which goes on with its entry when it changes its version.
    api_version: String,
    pub(super) subresource: String,
}

impl Manager {
    pub(super) fn new(
        name: &str,
        operation: Operation,
        api_version: &str,
        subresource: &str,
    ) -> Self {
        Self {
            name: if name.is_empty() { "unknown" } else { name }.to_owned(),
            operation,
            api_version: match operation {
                Operation::Apply => String::new(),
                Operation::Update => api_version.to_owned(),
            },
            subresource: subresource.to_owned(),
        }
    }

    /// As errors name it.
    pub(super) fn show(&self) -> String {
        let mut shown = format!("{:?}", self.name);
        if !self.subresource.is_empty() {
            shown += &format!(" with subresource {:?}", self.subresource);
        }
        if self.operation == Operation::Update {
            shown += &format!(" using {}", self.api_version);
        }
        shown
    }
}

/// What a manager owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) api_version: String,
    /// Of the last write that changed something; an apply that changed nothing has none.
    pub(super) time: Option<Timestamp>,
    pub(super) fields: Fields,
}

/// All entries of an object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Entries(pub(super) BTreeMap<Manager, Entry>);

/// An entry that is not one, with the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unreadable(pub(super) String);

impl Entries {
    /// Reads the value of `metadata.managedFields`.
    pub(super) fn decode(list: Option<&Value>) -> Result<Self, Unreadable> {
        let list = list
            .and_then(Value::as_array)
            .map_or(&[][..], Vec::as_slice);
        let mut entries = BTreeMap::new();
        for (place, given) in list.iter().enumerate() {
            let text = |field: &str| object::text(given, &[field]);
            let operation = match text("operation") {
                "Apply" => Operation::Apply,
                "Update" => Operation::Update,
                _ => return Err(Unreadable("operation must be `Apply` or `Update`".into())),
            };
            let api_version = text("apiVersion");
            if api_version.is_empty() {
                return Err(Unreadable("apiVersion must not be empty".into()));
            }
            match text("fieldsType") {
                "FieldsV1" => {}
                "" => {
                    let why = format!("missing fieldsType in managed fields entry {place}");
                    return Err(Unreadable(why));
                }
                other => {
                    let why =
                        format!("invalid fieldsType {other:?} in managed fields entry {place}");
                    return Err(Unreadable(why));
                }
            }
            let fields = Fields::decode(given.get("fieldsV1").unwrap_or(&Value::Null))
                .map_err(|error| Unreadable(error.0))?;
            // A name that is not there stays not there.
            let manager = Manager {
                name: text("manager").to_owned(),
                ..Manager::new("", operation, api_version, text("subresource"))
            };
            let entry = Entry {
                api_version: api_version.to_owned(),
                time: time::parse(text("time")),
                fields,
            };
            entries.insert(manager, entry);
        }
        Ok(Self(entries))
    }

    /// Writes the value of `metadata.managedFields`; `None` where there are no entries.
    pub(super) fn encode(&self) -> Option<Value> {
        if self.0.is_empty() {
            return None;
        }
        let mut entries: Vec<_> = self.0.iter().collect();
        entries.sort_by_key(|(manager, entry)| {
            let time_s = entry.time.map_or(0, Timestamp::as_second);
            let Manager {
                name, subresource, ..
            } = manager;
            (
                manager.operation,
                time_s,
                name,
                &entry.api_version,
                subresource,
            )
        });
        let encoded = entries.into_iter().map(|(manager, entry)| {
            let mut encoded = json!({
                "operation": manager.operation.as_str(), "apiVersion": entry.api_version,
                "fieldsType": "FieldsV1", "fieldsV1": entry.fields.encode(),
            });
            if !manager.name.is_empty() {
                encoded["manager"] = manager.name.as_str().into();
            }
            if let Some(time) = entry.time {
                encoded["time"] = time::seconds(time).into();
            }
            if !manager.subresource.is_empty() {
                encoded["subresource"] = manager.subresource.as_str().into();
            }
            encoded
        });
        Some(encoded.collect())
    }

    /// Keeps the number of updaters bounded: the oldest become one per version.
    pub(super) fn cap(&mut self) {
        let mut updaters: Vec<Manager> = self
            .0
            .keys()
            .filter(|manager| manager.operation == Operation::Update)
            .cloned()
            .collect();
        let mut count = updaters.len();
        updaters.sort_by_key(|manager| {
            let time = self.0.get(manager).and_then(|entry| entry.time);
            time.map_or(0, Timestamp::as_second)
        });
        let mut first_of: BTreeMap<String, Manager> = BTreeMap::new();
        for manager in updaters {
            if count <= UPDATERS_MAX {
                return;
            }
            let version = manager.api_version.clone();
            let Some(first) = first_of.get(&version) else {
                first_of.insert(version, manager);
                continue;
            };
            let bucket = Manager::new(ANCIENT, Operation::Update, &version, "");
            if !self.0.contains_key(&bucket)
                && let Some(entry) = self.0.remove(first)
            {
                self.0.insert(bucket.clone(), entry);
            }
            if manager == bucket {
                continue;
            }
            let Some(merged) = self.0.remove(&manager) else {
                continue;
            };
            if let Some(entry) = self.0.get_mut(&bucket) {
                entry.fields.add(merged.fields);
                // The later one's.
                entry.time = merged.time;
            }
            count -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, second: i64) -> Value {
        let time = Timestamp::from_second(second).expect("a time");
        json!({
            "manager": name, "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1",
            "time": time::seconds(time), "fieldsV1": {format!("f:{name}"): {}},
        })
    }

    #[test]
    fn entries_stand_in_upstreams_order() {
        let list = json!([entry("b", 5), entry("a", 5), entry("z", 1), {
            "manager": "m", "operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1",
            "fieldsV1": {}, "subresource": "status",
        }]);
        let encoded = Entries::decode(Some(&list)).expect("reads").encode();
        let names = encoded.expect("entries");
        let names: Vec<_> = names.as_array().expect("a list").iter().collect();
        let names: Vec<_> = names.iter().map(|entry| &entry["manager"]).collect();
        assert_eq!(names, ["m", "z", "a", "b"]);
    }

    #[test]
    fn the_oldest_of_many_updaters_become_one() {
        let list: Value = (0..12)
            .map(|number| entry(&format!("m{number:02}"), number))
            .collect();
        let mut entries = Entries::decode(Some(&list)).expect("reads");
        entries.cap();
        assert_eq!(entries.0.len(), UPDATERS_MAX);
        let bucket = Manager::new(ANCIENT, Operation::Update, "v1", "");
        let ancient = &entries.0[&bucket];
        assert_eq!(
            ancient.fields.encode(),
            json!({"f:m00": {}, "f:m01": {}, "f:m02": {}})
        );
        assert_eq!(ancient.time.map(Timestamp::as_second), Some(2));
        let again = entries.clone();
        entries.cap();
        assert_eq!(entries, again);
    }

    #[test]
    fn what_is_no_entry_is_refused() {
        for (field, value) in [
            ("operation", "Look"),
            ("apiVersion", ""),
            ("fieldsType", "V9"),
        ] {
            let mut wrong = entry("m", 1);
            wrong[field] = value.into();
            assert!(Entries::decode(Some(&json!([wrong]))).is_err(), "{field}");
        }
        let mut wrong = entry("m", 1);
        wrong["fieldsV1"] = json!({"x": {}});
        assert!(Entries::decode(Some(&json!([wrong]))).is_err());
    }
}
