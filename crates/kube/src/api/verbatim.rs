//! Objects from the store to a client without being parsed.
//!
//! Stored objects begin with their version, kind and metadata, so that what a client is to see is
//! the stored bytes with the revision put in at a known place:
//!
//! ```text
//!   {"apiVersion":"v1","kind":"Pod","metadata":{"name":…          as stored
//!   {"apiVersion":"v1","kind":"Pod","metadata":{"resourceVersion":"7","name":…
//!                     {"metadata":{"resourceVersion":"7","name":…  in a list
//! ```
//!
//! Anything else (another version, an encrypted object) has no such beginning and is decoded.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Map, Value};

use super::read::{make_token, parse_token, range_error};
use super::{Api, ListOptions};
use crate::resource::Resource;
use crate::status::Status;

/// An object's JSON with kind and metadata first, and without its revision.
pub(super) fn write(object: &Value) -> serde_json::Result<Vec<u8>> {
    const FIRST: [&str; 3] = ["apiVersion", "kind", "metadata"];
    /// More than most small objects need.
    const CAPACITY: usize = 2048;
    let Value::Object(map) = object else {
        return serde_json::to_vec(object);
    };
    let first = FIRST.iter().filter_map(|key| map.get_key_value(*key));
    let rest = map.iter().filter(|(key, _)| !FIRST.contains(&key.as_str()));
    let mut bytes = Vec::with_capacity(CAPACITY);
    for (key, value) in first.chain(rest) {
        begin_member(&mut bytes, 0, key)?;
        match value {
            Value::Object(meta) if key == "metadata" => write_meta(meta, &mut bytes)?,
            _ => serde_json::to_writer(&mut bytes, value)?,
        }
    }
    end_map(&mut bytes, 0);
    Ok(bytes)
}

fn write_meta(meta: &Map<String, Value>, bytes: &mut Vec<u8>) -> serde_json::Result<()> {
    let start = bytes.len();
    for (key, value) in meta.iter().filter(|(key, _)| *key != "resourceVersion") {
        begin_member(bytes, start, key)?;
        serde_json::to_writer(&mut *bytes, value)?;
    }
    end_map(bytes, start);
    Ok(())
}

/// Of a map that begins at `start`.
fn begin_member(bytes: &mut Vec<u8>, start: usize, key: &str) -> serde_json::Result<()> {
    bytes.push(if bytes.len() == start { b'{' } else { b',' });
    serde_json::to_writer(&mut *bytes, key)?;
    bytes.push(b':');
    Ok(())
}

fn end_map(bytes: &mut Vec<u8>, start: usize) {
    if bytes.len() == start {
        bytes.push(b'{');
    }
    bytes.push(b'}');
}

/// How the stored objects of one resource begin.
#[derive(Debug, Clone)]
pub(crate) struct Verbatim {
    /// Up to and with the brace that opens the metadata. Empty: none can be shown as it is stored.
    beginning: String,
}

impl Verbatim {
    pub(crate) fn of(resource: &Resource) -> Self {
        let is_plain = resource.custom.is_none() && resource.stored_as.is_none();
        let (version, kind) = (resource.api_version(), &resource.kind);
        let beginning = if is_plain {
            format!(r#"{{"apiVersion":"{version}","kind":"{kind}","metadata":{{"#)
        } else {
            String::new()
        };
        Self { beginning }
    }

    /// What follows the beginning, if the entry has it and its metadata is not empty.
    fn rest<'a>(&self, entry: &'a store::Entry) -> Option<&'a [u8]> {
        if self.beginning.is_empty() {
            return None;
        }
        entry
            .value
            .strip_prefix(self.beginning.as_bytes())
            .filter(|rest| rest.first() == Some(&b'"'))
    }

    pub(crate) fn fits(&self, entry: &store::Entry) -> bool {
        self.rest(entry).is_some()
    }

    /// Appends the object with revision `rev`; false if it has to be decoded.
    pub(crate) fn object(&self, entry: &store::Entry, rev: u64, to: &mut Vec<u8>) -> bool {
        self.put(entry, rev, &self.beginning, to)
    }

    /// [`Self::object`], without what a list says for all its items.
    pub(crate) fn item(&self, entry: &store::Entry, to: &mut Vec<u8>) -> bool {
        self.put(entry, entry.rev, r#"{"metadata":{"#, to)
    }

    fn put(&self, entry: &store::Entry, rev: u64, beginning: &str, to: &mut Vec<u8>) -> bool {
        let Some(rest) = self.rest(entry) else {
            return false;
        };
        to.extend_from_slice(beginning.as_bytes());
        to.extend_from_slice(format!(r#""resourceVersion":"{rev}","#).as_bytes());
        to.extend_from_slice(rest);
        true
    }
}

/// A page of a list, still as it is stored.
#[derive(Debug)]
pub(crate) struct StoredList {
    pub(crate) entries: Vec<(Arc<str>, store::Entry)>,
    pub(crate) rev: u64,
    pub(crate) continue_token: Option<String>,
    pub(crate) remaining: Option<usize>,
}

impl Api {
    /// A list of everything of a resource as it is stored; `None` if the options select, or if
    /// something in it cannot be shown as it is.
    pub(crate) async fn list_stored(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        options: &ListOptions,
    ) -> Result<Option<StoredList>, Status> {
        let verbatim = Verbatim::of(resource);
        if !options.selector.is_everything() || verbatim.beginning.is_empty() {
            return Ok(None);
        }
        self.catch_up(options.at_rev).await?;
        let prefix = resource.prefix(namespace);
        let (from, at_rev) = match &options.continue_token {
            Some(token) => {
                let token = parse_token(token)?;
                let at_rev = token.at_rev();
                (Some(prefix.clone() + &token.start), at_rev)
            }
            None => (None, options.at_rev),
        };
        let limit = match options.limit {
            0 => usize::MAX,
            limit => limit,
        };
        let range = self
            .store
            .range(&prefix, from.as_deref(), limit, at_rev)
            .map_err(|error| range_error(error, options.continue_token.as_deref()))?;
        if !range.entries.iter().all(|(_, entry)| verbatim.fits(entry)) {
            return Ok(None);
        }
        let next = range.entries.last().filter(|_| range.remaining > 0);
        let token = next.map(|(key, _)| {
            let start = format!("{key}\0");
            make_token(range.rev, &start[prefix.len()..])
        });
        Ok(Some(StoredList {
            remaining: token.is_some().then_some(range.remaining),
            continue_token: token,
            entries: range.entries,
            rev: range.rev,
        }))
    }
}

/// The stored bytes, compact enough to keep: a buffer that was grown is not.
pub(super) fn stored(bytes: Vec<u8>) -> Bytes {
    Bytes::from(bytes.into_boxed_slice())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::resource::{CONFIG_MAPS, PODS};

    #[test]
    fn the_revision_is_not_stored() {
        let object = json!({"kind": "ConfigMap", "metadata": {"name": "x", "resourceVersion": "7"},
            "data": {"resourceVersion": "8"}});
        let stored =
            r#"{"kind":"ConfigMap","metadata":{"name":"x"},"data":{"resourceVersion":"8"}}"#;
        assert_eq!(write(&object).expect("JSON"), stored.as_bytes());
        let bare = json!({"metadata": {"resourceVersion": "7"}});
        assert_eq!(write(&bare).expect("JSON"), br#"{"metadata":{}}"#);
    }

    fn entry(object: &Value) -> store::Entry {
        store::Entry {
            rev: 7,
            create_rev: 7,
            value: stored(write(object).expect("JSON")),
            expires_unix_s: None,
        }
    }

    #[test]
    fn a_stored_object_is_shown_with_its_revision_and_without_being_parsed() {
        let object = json!({"data": {"a": "\"metadata\":{"}, "kind": "ConfigMap",
            "apiVersion": "v1", "metadata": {"name": "x", "uid": "u"}});
        let (entry, verbatim) = (entry(&object), Verbatim::of(&CONFIG_MAPS));
        let mut shown = Vec::new();
        assert!(verbatim.object(&entry, 9, &mut shown));
        let mut whole = object.clone();
        whole["metadata"]["resourceVersion"] = "9".into();
        let parsed: Value = serde_json::from_slice(&shown).expect("JSON");
        assert_eq!(parsed, whole);
        let mut item = Vec::new();
        assert!(verbatim.item(&entry, &mut item));
        let parsed: Value = serde_json::from_slice(&item).expect("JSON");
        assert_eq!(parsed["metadata"]["resourceVersion"], "7");
        assert!(parsed.get("kind").is_none());
    }

    #[test]
    fn what_is_not_stored_so_is_left_to_be_decoded() {
        let verbatim = Verbatim::of(&PODS);
        let other = entry(&json!({"apiVersion": "v2", "kind": "Pod", "metadata": {"name": "x"}}));
        let bare = entry(&json!({"apiVersion": "v1", "kind": "Pod", "metadata": {}}));
        let mut shown = Vec::new();
        for entry in [other, bare] {
            assert!(!verbatim.fits(&entry));
            assert!(!verbatim.object(&entry, 1, &mut shown));
        }
        assert!(shown.is_empty());
        assert_eq!(write(&json!({})).expect("JSON"), b"{}");
    }
}
