//! What only the text of a body tells: fields that are given twice, and in which order it all
//! stands.
//!
//! A body is read in one pass that merely notices that some field was repeated. Where it was is
//! looked up in a second pass over the text, for the few bodies that somebody must be told about.

use std::collections::HashSet;
use std::fmt;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::map::Entry;
use serde_json::{Map, Value};

use crate::yaml;

/// Upstream tells no more than this of one body.
const COMPLAINTS_MAX: usize = 100;
const YAML_ERRORS: &str = "yaml: unmarshal errors:\n";
const CONVERTING: &str = "error converting YAML to JSON: ";

/// A value, and whether a field in it was given twice. Of two values the last counts; objects in
/// the place of a struct or a typed map are merged, as Go reads into what is already there.
pub(crate) struct Read<const MERGE: bool> {
    pub(crate) value: Value,
    pub(crate) is_repeated: bool,
}

/// Reads a JSON body.
pub(crate) fn from_json<const MERGE: bool>(bytes: &[u8]) -> Result<Read<MERGE>, serde_json::Error> {
    serde_json::from_slice(bytes)
}

impl<'de, const MERGE: bool> Deserialize<'de> for Read<MERGE> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader::<MERGE>)
    }
}

struct Reader<const MERGE: bool>;

impl<const MERGE: bool> Reader<MERGE> {
    fn one<E>(value: impl Into<Value>) -> Result<Read<MERGE>, E> {
        Ok(Read {
            value: value.into(),
            is_repeated: false,
        })
    }
}

impl<'de, const MERGE: bool> Visitor<'de> for Reader<MERGE> {
    type Value = Read<MERGE>;

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("any valid JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Self::one(value)
    }

    fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
        Self::one(value)
    }

    fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
        Self::one(value)
    }

    fn visit_f64<E>(self, value: f64) -> Result<Self::Value, E> {
        Self::one(value)
    }

    fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
        Self::one(value)
    }

    fn visit_string<E>(self, value: String) -> Result<Self::Value, E> {
        Self::one(value)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Self::one(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Self::Value, E> {
        Self::one(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<Self::Value, D::Error> {
        Deserialize::deserialize(inner)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut list = Vec::new();
        let mut is_repeated = false;
        while let Some(item) = items.next_element::<Read<MERGE>>()? {
            is_repeated |= item.is_repeated;
            list.push(item.value);
        }
        let value = Value::Array(list);
        Ok(Read { value, is_repeated })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Self::Value, A::Error> {
        let mut map = Map::new();
        let mut is_repeated = false;
        while let Some((name, field)) = fields.next_entry::<String, Read<MERGE>>()? {
            is_repeated |= field.is_repeated;
            match map.entry(name) {
                Entry::Vacant(place) => drop(place.insert(field.value)),
                Entry::Occupied(mut place) => {
                    is_repeated = true;
                    if MERGE {
                        merge(place.get_mut(), field.value);
                    } else {
                        place.insert(field.value);
                    }
                }
            }
        }
        let value = Value::Object(map);
        Ok(Read { value, is_repeated })
    }
}

fn merge(present: &mut Value, later: Value) {
    match (present, later) {
        (Value::Object(present), Value::Object(later)) => {
            for (name, value) in later {
                match present.entry(name) {
                    Entry::Vacant(place) => drop(place.insert(value)),
                    Entry::Occupied(mut place) => merge(place.get_mut(), value),
                }
            }
        }
        (present, later) => *present = later,
    }
}

/// The text that an object was read from.
#[derive(Debug, Clone)]
pub(crate) struct Text {
    pub(crate) bytes: Bytes,
    pub(crate) form: Form,
    pub(crate) is_repeated: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Json,
    Yaml,
}

impl Text {
    /// What is wrong with an object of a type in the schema table, given the paths of the fields
    /// that it does not know, in the order of the text. What is within an unknown field is not
    /// looked at, and an unknown field that is given twice is only unknown.
    pub(crate) fn typed(&self, unknown: &[String]) -> Vec<String> {
        match self.form {
            Form::Yaml => self.yaml().into_iter().chain(told(unknown)).collect(),
            Form::Json if !self.is_repeated && unknown.len() < 2 => told(unknown).collect(),
            Form::Json => {
                let unknown: HashSet<&str> = unknown.iter().map(String::as_str).collect();
                let mut complaints = Complaints::default();
                let mut within: Option<String> = None;
                walk(&self.bytes, &mut |path, is_repeated| {
                    if within
                        .as_deref()
                        .is_some_and(|outer| is_within(path, outer))
                    {
                        return;
                    }
                    within = unknown.contains(path).then(|| path.to_owned());
                    if within.is_some() {
                        complaints.add(format!("unknown field {path:?}"));
                    } else if is_repeated {
                        complaints.add(format!("duplicate field {path:?}"));
                    }
                });
                complaints.list
            }
        }
    }

    /// What is wrong with a custom resource: its text is read before its schema is looked at.
    pub(crate) fn untyped(&self, unknown: &[String]) -> Vec<String> {
        let repeated = match self.form {
            Form::Yaml => self.yaml().into_iter().collect(),
            Form::Json => self.repeated(),
        };
        let mut unknown = unknown.to_vec();
        unknown.sort();
        repeated.into_iter().chain(told(&unknown)).collect()
    }

    /// The fields that are given twice in a JSON text.
    pub(crate) fn repeated(&self) -> Vec<String> {
        let mut complaints = Complaints::default();
        if self.is_repeated {
            walk(&self.bytes, &mut |path, is_repeated| {
                if is_repeated {
                    complaints.add(format!("duplicate field {path:?}"));
                }
            });
        }
        complaints.list
    }

    /// What is wrong with the operations of a JSON patch. Their values are not looked into.
    pub(crate) fn operations(&self) -> Vec<String> {
        let mut complaints = Complaints::default();
        walk(&self.bytes, &mut |path, is_repeated| {
            let Some((_, name)) = path.split_once("].") else {
                return;
            };
            if name.contains(['.', '[']) {
                return;
            }
            if !matches!(name, "op" | "path" | "from" | "value") {
                complaints.add(format!("json patch unknown field {path:?}"));
            } else if is_repeated {
                complaints.add(format!("json patch duplicate field {path:?}"));
            }
        });
        complaints.list
    }

    /// The keys that are given twice in a YAML text, as one error of many lines.
    fn yaml(&self) -> Option<String> {
        if !self.is_repeated {
            return None;
        }
        let lines = yaml::repeated(&self.bytes);
        let lines = lines.iter().map(|(line, key)| {
            // Keys are told as Go writes them.
            format!("  line {line}: key {key:?} already set in map")
        });
        let lines: Vec<_> = lines.collect();
        (!lines.is_empty()).then(|| format!("{YAML_ERRORS}{}", lines.join("\n")))
    }

    /// [`Text::yaml`] in the words of a server-side apply.
    pub(crate) fn applied(&self) -> Option<String> {
        self.yaml().map(|error| format!("{CONVERTING}{error}"))
    }
}

/// Complaints as warnings: YAML's come one by one.
pub(crate) fn warnings(complaints: Vec<String>) -> Vec<String> {
    let mut warnings = Vec::new();
    for complaint in complaints {
        let bare = complaint.strip_prefix(CONVERTING).unwrap_or(&complaint);
        match bare.strip_prefix(YAML_ERRORS) {
            Some(lines) => warnings.extend(lines.lines().map(|line| line.trim().to_owned())),
            None => warnings.push(complaint),
        }
    }
    warnings
}

/// Unknown fields in words.
pub(crate) fn told(unknown: &[String]) -> impl Iterator<Item = String> {
    unknown.iter().map(|path| format!("unknown field {path:?}"))
}

#[derive(Default)]
struct Complaints {
    list: Vec<String>,
    said: HashSet<String>,
}

impl Complaints {
    fn add(&mut self, complaint: String) {
        if self.list.len() < COMPLAINTS_MAX && self.said.insert(complaint.clone()) {
            self.list.push(complaint);
        }
    }
}

fn is_within(path: &str, outer: &str) -> bool {
    path.strip_prefix(outer)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// Calls with the path of every field in the order of a JSON text, and whether it was there before.
fn walk(bytes: &[u8], on_field: &mut dyn FnMut(&str, bool)) {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let walker = Walker {
        path: &mut String::new(),
        on_field,
    };
    // The text was read once, so nothing is wrong with it.
    let _ = walker.deserialize(&mut deserializer);
}

struct Walker<'a> {
    path: &'a mut String,
    on_field: &'a mut dyn FnMut(&str, bool),
}

impl Walker<'_> {
    fn below(&mut self) -> Walker<'_> {
        Walker {
            path: &mut *self.path,
            on_field: &mut *self.on_field,
        }
    }
}

impl<'de> DeserializeSeed<'de> for Walker<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walker<'_> {
    type Value = ();

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("any valid JSON value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
        let len = self.path.len();
        for index in 0.. {
            self.path.push_str(&format!("[{index}]"));
            let item = items.next_element_seed(self.below())?;
            self.path.truncate(len);
            if item.is_none() {
                break;
            }
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut fields: A) -> Result<(), A::Error> {
        let len = self.path.len();
        let mut seen = HashSet::new();
        while let Some(name) = fields.next_key::<String>()? {
            if len > 0 {
                self.path.push('.');
            }
            self.path.push_str(&name);
            let is_repeated = !seen.insert(name);
            (self.on_field)(self.path, is_repeated);
            fields.next_value_seed(self.below())?;
            self.path.truncate(len);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn text(text: &str, form: Form) -> Text {
        Text {
            bytes: Bytes::copy_from_slice(text.as_bytes()),
            form,
            is_repeated: true,
        }
    }

    fn paths(unknown: &[&str]) -> Vec<String> {
        unknown.iter().map(|&path| path.to_owned()).collect()
    }

    #[test]
    fn of_two_values_the_last_counts_and_structs_are_merged() {
        let body = br#"{"a":{"b":1,"c":[1,2]},"a":{"c":[3],"d":null}}"#;
        let read = from_json::<true>(body).expect("JSON");
        assert!(read.is_repeated);
        assert_eq!(read.value, json!({"a": {"b": 1, "c": [3], "d": null}}));
        let read = from_json::<false>(body).expect("JSON");
        assert_eq!(read.value, json!({"a": {"c": [3], "d": null}}));
        let read = from_json::<true>(br#"{"a":[{"b":1},{"b":2}],"c":-1,"d":1.5}"#).expect("JSON");
        assert!(!read.is_repeated);
        let same = json!({"a": [{"b": 1}, {"b": 2}], "c": -1, "d": 1.5});
        assert_eq!(read.value, same);
    }

    #[test]
    fn typed_fields_are_told_in_the_order_of_the_text() {
        let body = text(
            r#"{"metadata":{"name":"a","name":"b","odd":1},"spec":{"twice":{"x":1,"x":2},
               "twice":2,"paused":true,"paused":false,"list":[{"odd":1,"n":1,"n":2}]}}"#,
            Form::Json,
        );
        let unknown = paths(&["metadata.odd", "spec.list[0].odd", "spec.twice"]);
        let expected = [
            "duplicate field \"metadata.name\"",
            "unknown field \"metadata.odd\"",
            "unknown field \"spec.twice\"",
            "duplicate field \"spec.paused\"",
            "unknown field \"spec.list[0].odd\"",
            "duplicate field \"spec.list[0].n\"",
        ];
        assert_eq!(body.typed(&unknown), expected);
        let expected = [
            "duplicate field \"metadata.name\"",
            "duplicate field \"spec.twice.x\"",
            "duplicate field \"spec.twice\"",
            "duplicate field \"spec.paused\"",
            "duplicate field \"spec.list[0].n\"",
            "unknown field \"spec.list[0].odd\"",
        ];
        assert_eq!(body.untyped(&paths(&["spec.list[0].odd"])), expected);
    }

    #[test]
    fn yaml_tells_lines_and_warnings_come_one_by_one() {
        let body = text("a: 1\nb:\n  c: 1\n  c: 2\na: 2\n", Form::Yaml);
        let error = "yaml: unmarshal errors:\n  line 4: key \"c\" already set in map\n  \
                     line 5: key \"a\" already set in map";
        let complaints = body.typed(&paths(&["odd"]));
        assert_eq!(complaints, [error, "unknown field \"odd\""]);
        let lines = [
            "line 4: key \"c\" already set in map",
            "line 5: key \"a\" already set in map",
            "unknown field \"odd\"",
        ];
        assert_eq!(warnings(complaints), lines);
        let applied = body.applied().expect("two");
        assert_eq!(applied, format!("error converting YAML to JSON: {error}"));
        assert_eq!(warnings(vec![applied]), lines[..2]);
    }

    #[test]
    fn operations_of_a_json_patch_are_told_and_their_values_are_not() {
        let body = text(
            r#"[{"op":"add","path":"/a","value":{"x":1,"x":2},"foo":1},{"path":"/b","path":"/c"}]"#,
            Form::Json,
        );
        let expected = [
            "json patch unknown field \"[0].foo\"",
            "json patch duplicate field \"[1].path\"",
        ];
        assert_eq!(body.operations(), expected);
    }

    #[test]
    fn a_body_of_mistakes_is_told_up_to_a_bound() {
        let fields: Vec<_> = (0..300)
            .map(|at| format!("\"f{at}\":1,\"f{at}\":1"))
            .collect();
        let body = text(&format!("{{{}}}", fields.join(",")), Form::Json);
        assert_eq!(body.untyped(&[]).len(), COMPLAINTS_MAX);
    }
}
