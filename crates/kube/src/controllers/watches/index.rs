//! Which objects there are of one resource, whose they are, and which labels they have. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use serde_json::{Value, json};

use crate::controllers::owner;
use crate::object;
use crate::resource::Resource;

/// What is remembered of an object.
#[derive(Debug)]
pub(super) struct Brief {
    rev: u64,
    uid: String,
    pub(super) labels: Value,
    /// The reference to its controller.
    reference: Option<Box<Value>>,
}

impl Brief {
    pub(super) fn of(object: &Value) -> Self {
        Self {
            rev: object::resource_version(object),
            uid: object::uid(object).to_owned(),
            labels: object["metadata"]["labels"].clone(),
            reference: owner::controller(object).cloned().map(Box::new),
        }
    }

    pub(super) fn is_controlled(&self) -> bool {
        self.reference.is_some()
    }

    fn controller(&self) -> Option<&str> {
        let reference = self.reference.as_deref()?;
        Some(object::text(reference, &["uid"]))
    }

    /// As much of the object as is known, for those who are told that it is gone.
    pub(super) fn object(&self, resource: &Resource, key: &str) -> Value {
        let (namespace, name) = key.split_once('/').unwrap_or(("", key));
        let mut meta = json!({"name": name, "uid": self.uid, "labels": self.labels});
        if !namespace.is_empty() {
            meta["namespace"] = namespace.into();
        }
        if let Some(reference) = self.reference.as_deref() {
            meta["ownerReferences"] = json!([reference]);
        }
        json!({"apiVersion": resource.api_version(), "kind": resource.kind, "metadata": meta})
    }
}

/// The objects of one resource, by `namespace/name`.
#[derive(Debug, Default)]
pub(super) struct Index {
    briefs: BTreeMap<String, Brief>,
    /// Keys by uid of the controller.
    owned: HashMap<String, BTreeSet<String>>,
}

impl Index {
    /// Takes in an object unless a later state is known, and returns the labels it had.
    pub(super) fn put(&mut self, key: &str, brief: Brief) -> Option<Value> {
        if let Some(known) = self.briefs.get(key)
            && known.rev > brief.rev
        {
            return Some(known.labels.clone());
        }
        let before = self.remove(key);
        if let Some(owner) = brief.controller() {
            let keys = self.owned.entry(owner.to_owned()).or_default();
            keys.insert(key.to_owned());
        }
        self.briefs.insert(key.to_owned(), brief);
        before.map(|brief| brief.labels)
    }

    pub(super) fn remove(&mut self, key: &str) -> Option<Brief> {
        let brief = self.briefs.remove(key)?;
        if let Some(owner) = brief.controller()
            && let Some(keys) = self.owned.get_mut(owner)
        {
            keys.remove(key);
            if keys.is_empty() {
                self.owned.remove(owner);
            }
        }
        Some(brief)
    }

    /// Forgets an object unless it has been written since it was known at this revision.
    pub(super) fn remove_at(&mut self, key: &str, rev: u64) {
        if self.briefs.get(key).is_some_and(|brief| brief.rev == rev) {
            self.remove(key);
        }
    }

    /// Forgets this life of an object, not one that took its name since.
    pub(super) fn remove_life(&mut self, key: &str, uid: &str) -> Option<Brief> {
        let is_it = self.briefs.get(key).is_some_and(|brief| brief.uid == uid);
        is_it.then(|| self.remove(key)).flatten()
    }

    /// Forgets and returns what a complete list does not have.
    pub(super) fn not_in(&mut self, all: &[Value]) -> Vec<(String, Brief)> {
        let uids: HashSet<_> = all.iter().map(object::uid).collect();
        let gone = self.briefs.iter();
        let gone = gone.filter(|(_, brief)| !uids.contains(brief.uid.as_str()));
        let gone: Vec<_> = gone.map(|(key, _)| key.clone()).collect();
        let removed = gone.into_iter().map(|key| (self.remove(&key), key));
        removed
            .filter_map(|(brief, key)| Some((key, brief?)))
            .collect()
    }

    /// Keys and revisions of what this uid controls.
    pub(super) fn owned(&self, uid: &str) -> Vec<(String, u64)> {
        let keys = self.owned.get(uid).into_iter().flatten();
        let briefs = keys.filter_map(|key| self.briefs.get_key_value(key));
        briefs
            .map(|(key, brief)| (key.clone(), brief.rev))
            .collect()
    }

    /// Keys and revisions of those that are meant.
    pub(super) fn within(
        &self,
        namespace: Option<&str>,
        is_meant: impl Fn(&Brief) -> bool,
    ) -> Vec<(String, u64)> {
        let prefix = namespace.map_or(String::new(), |namespace| format!("{namespace}/"));
        let from = self.briefs.range(prefix.clone()..);
        from.take_while(|(key, _)| key.starts_with(&prefix))
            .filter(|(_, brief)| is_meant(brief))
            .map(|(key, brief)| (key.clone(), brief.rev))
            .collect()
    }
}
