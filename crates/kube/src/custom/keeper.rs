//! Keeps the catalog: a row per served version of each definition that has its names.
//!
//! Every API server has its own keeper; what a definition is told of itself is written by one of
//! them only (see [`super::controller`]).

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;
use sha2::{Digest, Sha256};
use tracing::warn;

use super::definition::is_condition;
use super::kind::Kind;
use crate::api::{Api, Selector};
use crate::controllers::informer::{self, Change};
use crate::egress::Client;
use crate::object::{self, items, text};
use crate::resource::{
    CUSTOM_RESOURCE_DEFINITIONS as DEFINITIONS, NameRule, Resource, Row, Scope, StatusPart,
    Subresource, WordsFull, intern, intern_all,
};
use crate::status::Status;

/// What can be done with every custom resource, in the order that upstream lists it.
const VERBS: &[&str] = &[
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "create",
    "update",
    "watch",
];

/// Follows the definitions and keeps the catalog of `api` by them, until the future is dropped.
pub(crate) async fn run(api: &Api) {
    let mut changes = informer::follow(api, &DEFINITIONS, Selector::default());
    let mut keeper = Keeper::new(api);
    while let Some(change) = changes.recv().await {
        let mut is_changed = keeper.take(change);
        while let Ok(change) = changes.try_recv() {
            is_changed |= keeper.take(change);
        }
        if is_changed {
            api.resources().set_custom(keeper.rows());
        }
    }
}

impl Api {
    /// Keeps the catalog by the definitions until the future is dropped, as a server does. Only one
    /// at a time for handles that share a catalog.
    pub async fn keep_catalog(&self) {
        Box::pin(run(self)).await;
    }
}

/// Fills the catalog with what is stored, so that a server that has just started serves it at
/// once.
pub(crate) async fn load(api: &Api) -> Result<(), Status> {
    let (all, _) = api.list(&DEFINITIONS, None, &Selector::default()).await?;
    let mut keeper = Keeper::new(api);
    keeper.take(Change::Listed(all));
    api.resources().set_custom(keeper.rows());
    Ok(())
}

#[derive(Default)]
struct Keeper {
    /// For conversion webhooks.
    client: Client,
    /// The rows of each definition, by its name.
    definitions: BTreeMap<String, Known>,
}

/// A definition and the rows that were made of it.
struct Known {
    /// A digest of what the rows depend on: the definition itself may be large.
    seen: [u8; 32],
    rows: Vec<Arc<Resource>>,
}

impl Keeper {
    fn new(api: &Api) -> Self {
        Self {
            client: api.egress().clone(),
            definitions: BTreeMap::new(),
        }
    }

    /// Takes in a change and tells whether rows have changed by it.
    fn take(&mut self, change: Change) -> bool {
        match change {
            Change::Listed(all) => {
                let mut before = std::mem::take(&mut self.definitions);
                for definition in all {
                    let name = object::name(&definition).to_owned();
                    if let Some(known) = before.remove(&name) {
                        self.definitions.insert(name, known);
                    }
                    self.put(&definition);
                }
                true
            }
            Change::Changed(definition) => self.put(&definition),
            Change::Deleted(definition) => {
                self.definitions.remove(object::name(&definition)).is_some()
            }
        }
    }

    fn put(&mut self, definition: &Value) -> bool {
        let name = object::name(definition);
        if !is_condition(definition, "NamesAccepted") && !is_condition(definition, "Established") {
            return self.definitions.remove(name).is_some();
        }
        let accepted = &definition["status"]["acceptedNames"];
        let is_terminating = [u8::from(object::is_terminating(definition))];
        let seen = Sha256::new()
            .chain_update(definition["spec"].to_string())
            .chain_update(accepted.to_string())
            .chain_update(is_terminating);
        let seen: [u8; 32] = seen.finalize().into();
        let is_same = |known: &Known| known.seen == seen;
        if self.definitions.get(name).is_some_and(is_same) {
            return false;
        }
        let versions = items(definition, &["spec", "versions"]).iter();
        let served = versions.filter(|version| version["served"] == true);
        let rows = match rows(definition, served, &self.client) {
            Ok(rows) => rows,
            Err(error) => {
                warn!(definition = name, %error, "custom resource not served");
                Vec::new()
            }
        };
        let known = Known { seen, rows };
        self.definitions.insert(name.to_owned(), known);
        true
    }

    /// All rows: by group, versions in the order of preference, and by name.
    fn rows(&self) -> Vec<Arc<Resource>> {
        let known = self.definitions.values();
        let mut rows: Vec<_> = known.flat_map(|known| known.rows.iter().cloned()).collect();
        rows.sort_by(|one, other| {
            let versions = || preference(other.version).cmp(&preference(one.version));
            let names = || one.plural.cmp(other.plural);
            one.group
                .cmp(other.group)
                .then_with(versions)
                .then_with(names)
        });
        rows
    }
}

/// The row of the version that objects are stored in, served or not.
pub(super) fn storage_row(api: &Api, definition: &Value) -> Option<Row> {
    let versions = items(definition, &["spec", "versions"]).iter();
    let mut storage = versions.filter(|version| version["storage"] == true);
    rows(definition, storage.by_ref(), api.egress())
        .ok()?
        .pop()
        .map(Row::Custom)
}

/// These versions of a definition.
fn rows<'a>(
    definition: &Value,
    versions: impl Iterator<Item = &'a Value>,
    client: &Client,
) -> Result<Vec<Arc<Resource>>, WordsFull> {
    let spec = &definition["spec"];
    let names = &definition["status"]["acceptedNames"];
    let words = |field: &str| {
        let all = items(names, &[field]).iter();
        intern_all(all.filter_map(Value::as_str))
    };
    let word = |field: &str| intern(text(names, &[field]));
    let rows = versions.map(|version| {
        let kind = Kind::new(definition, version, client);
        let kind_name = word("kind")?;
        let row = Resource {
            group: intern(text(spec, &["group"]))?,
            version: intern(text(version, &["name"]))?,
            plural: intern(text(spec, &["names", "plural"]))?,
            singular: word("singular")?,
            kind: kind_name,
            scope: match text(spec, &["scope"]) {
                "Cluster" => Scope::Cluster,
                _ => Scope::Namespaced,
            },
            short_names: words("shortNames")?,
            categories: words("categories")?,
            subresources: subresources(kind_name, kind.has_status(), kind.scale().is_some()),
            names: NameRule::Subdomain,
            verbs: VERBS,
            status: match kind.has_status() {
                true => StatusPart::Subresource,
                false => StatusPart::None,
            },
            has_generation: true,
            custom: Some(Arc::new(kind)),
            ..Resource::CUSTOM
        };
        Ok(Arc::new(row))
    });
    rows.collect()
}

/// The subresources of a custom kind; each combination is made once, as its words are.
fn subresources(kind: &'static str, has_status: bool, has_scale: bool) -> &'static [Subresource] {
    type Made = HashMap<(&'static str, bool, bool), &'static [Subresource]>;
    static MADE: Mutex<Option<Made>> = Mutex::new(None);
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    let make = || {
        let status = has_status.then(|| crate::resource::status_of(kind));
        let scale = has_scale.then_some(crate::resource::SCALE);
        let all: Vec<_> = status.into_iter().chain(scale).collect();
        all.leak() as &[_]
    };
    made.get_or_insert_default()
        .entry((kind, has_status, has_scale))
        .or_insert_with(make)
}

/// Orders versions as clients prefer them: v2, v1, v2beta1, v1beta1, v1alpha1, then all others.
pub(super) fn preference(version: &str) -> (u8, u32, u32, std::cmp::Reverse<&str>) {
    let parse = || {
        let rest = version.strip_prefix('v')?;
        let end = rest
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(rest.len());
        let major = rest[..end].parse().ok()?;
        let rest = &rest[end..];
        if rest.is_empty() {
            return Some((3, major, 0));
        }
        let (rank, minor) = match (rest.strip_prefix("beta"), rest.strip_prefix("alpha")) {
            (Some(minor), _) => (2, minor),
            (None, Some(minor)) => (1, minor),
            (None, None) => return None,
        };
        Some((rank, major, minor.parse().ok()?))
    };
    let (rank, major, minor) = parse().unwrap_or((0, 0, 0));
    (rank, major, minor, std::cmp::Reverse(version))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn definition() -> Value {
        json!({
            "metadata": {"name": "foos.ex.com"},
            "spec": {"group": "ex.com", "scope": "Namespaced",
                "names": {"plural": "foos", "singular": "foo", "kind": "Foo", "shortNames": ["f"]},
                "versions": [
                    {"name": "v1beta1", "served": true, "storage": false},
                    {"name": "v1", "served": true, "storage": true,
                        "subresources": {"status": {}}},
                    {"name": "v1alpha1", "served": false, "storage": false},
                ]},
            "status": {
                "acceptedNames": {"plural": "foos", "singular": "foo", "kind": "Foo",
                    "shortNames": ["f"]},
                "conditions": [{"type": "NamesAccepted", "status": "True"}]},
        })
    }

    #[test]
    fn each_served_version_is_a_row_the_preferred_one_first() {
        let mut keeper = Keeper::default();
        assert!(keeper.take(Change::Changed(definition())));
        let rows = keeper.rows();
        let versions: Vec<_> = rows.iter().map(|row| row.version).collect();
        assert_eq!(versions, ["v1", "v1beta1"]);
        assert_eq!(
            (rows[0].short_names, rows[0].subresources.len()),
            (&["f"][..], 1)
        );
        // A status that changes nothing of the rows makes no new ones.
        let mut same = definition();
        same["status"]["conditions"][0]["message"] = "no conflicts found".into();
        assert!(!keeper.take(Change::Changed(same)));
        assert!(keeper.take(Change::Deleted(definition())));
        assert!(keeper.rows().is_empty());
    }

    #[test]
    fn stable_versions_come_before_others() {
        let mut versions = ["foo1", "v1alpha1", "v2beta1", "v1", "v10", "v2beta2", "v2"];
        versions.sort_by_key(|version| std::cmp::Reverse(preference(version)));
        assert_eq!(
            versions,
            ["v10", "v2", "v1", "v2beta2", "v2beta1", "v1alpha1", "foo1"]
        );
    }
}
