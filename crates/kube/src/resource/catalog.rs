//! What is served now: the built-in rows and those of custom resources.
//!
//! Readers take a snapshot and keep it for as long as one request lasts; a change of the custom
//! rows makes a new one and wakes who follows (discovery, garbage collection, ...).

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::watch;

use super::{BUILT_IN, Resource, Row};

/// The served resources; clones share them.
#[derive(Debug, Clone)]
pub struct Catalog {
    state: Arc<watch::Sender<Arc<Snapshot>>>,
}

/// The served resources at one moment.
#[derive(Debug)]
pub struct Snapshot {
    /// Groups together, and within them versions, in the order of discovery.
    rows: Vec<Row>,
    by_path: HashMap<(&'static str, &'static str, &'static str), usize>,
    /// Counts the changes of this catalog.
    generation: u64,
}

impl Default for Catalog {
    /// The built-in rows only.
    fn default() -> Self {
        let first = Snapshot::new(Vec::new(), 0);
        Self {
            state: Arc::new(watch::Sender::new(Arc::new(first))),
        }
    }
}

impl Catalog {
    /// Everything as it is now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.state.borrow().clone()
    }

    /// The row of a path, if it is served.
    pub fn find(&self, group: &str, version: &str, plural: &str) -> Option<Row> {
        self.state.borrow().find(group, version, plural).cloned()
    }

    /// The row of a kind that can be stored, as references between objects name it.
    pub fn find_kind(&self, api_version: &str, kind: &str) -> Option<Row> {
        self.state.borrow().find_kind(api_version, kind).cloned()
    }

    /// The row as it is now: a definition may have changed since `row` was taken.
    pub fn current(&self, row: &Row) -> Option<Row> {
        match row {
            Row::BuiltIn(_) => Some(row.clone()),
            Row::Custom(custom) => self.find(custom.group, custom.version, custom.plural),
        }
    }

    /// All rows in the order of discovery: one for each version of a resource.
    pub fn all(&self) -> Vec<Row> {
        self.snapshot().rows.clone()
    }

    /// One row for each resource that can be listed and watched, in its first served version.
    pub fn stored(&self) -> Vec<Row> {
        self.snapshot().stored()
    }

    /// The groups and versions served, in the order of discovery.
    pub fn group_versions(&self) -> Vec<(&'static str, &'static str)> {
        self.snapshot().group_versions()
    }

    /// Tells of every change; the value is what is served then.
    pub fn changed(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.state.subscribe()
    }

    /// Replaces all rows of custom resources. They come with groups together, and the versions of
    /// a group in the order of preference.
    pub(crate) fn set_custom(&self, custom: Vec<Arc<Resource>>) {
        self.state.send_modify(|state| {
            *state = Arc::new(Snapshot::new(custom, state.generation + 1));
        });
    }
}

impl Snapshot {
    fn new(custom: Vec<Arc<Resource>>, generation: u64) -> Self {
        let built_in = BUILT_IN.iter().map(|row| Row::BuiltIn(row));
        let mut rows: Vec<_> = built_in.collect();
        for row in custom {
            // A definition may add to a group that is there already.
            let is_here = |one: &Row| (one.group, one.version) == (row.group, row.version);
            let in_group = |one: &Row| one.group == row.group;
            let last = rows.iter().rposition(is_here);
            let last = last.or_else(|| rows.iter().rposition(in_group));
            rows.insert(last.map_or(rows.len(), |last| last + 1), Row::Custom(row));
        }
        let mut by_path = HashMap::new();
        for (index, row) in rows.iter().enumerate() {
            let path = (row.group, row.version, row.plural);
            // What is built in comes first, and wins.
            by_path.entry(path).or_insert(index);
        }
        Self {
            rows,
            by_path,
            generation,
        }
    }

    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// Differs between snapshots of one catalog.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    pub fn find(&self, group: &str, version: &str, plural: &str) -> Option<&Row> {
        let index = self.by_path.get(&(group, version, plural))?;
        self.rows.get(*index)
    }

    pub fn find_kind(&self, api_version: &str, kind: &str) -> Option<&Row> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        self.rows.iter().find(|row| {
            row.kind == kind
                && (row.group, row.version) == (group, version)
                && row.verbs.contains(&"get")
        })
    }

    pub fn stored(&self) -> Vec<Row> {
        let mut stored: Vec<Row> = Vec::new();
        for row in &self.rows {
            let is_known = row.custom.is_some() && stored.iter().any(|one| one.is(row));
            let is_view = row.stored_as.is_some();
            if row.verbs.contains(&"watch") && !is_known && !is_view {
                stored.push(row.clone());
            }
        }
        stored
    }

    pub fn group_versions(&self) -> Vec<(&'static str, &'static str)> {
        let all = self.rows.iter().map(|row| (row.group, row.version));
        let mut all: Vec<_> = all.collect();
        all.dedup();
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::{CORE, PODS};

    fn custom(group: &'static str, version: &'static str, plural: &'static str) -> Arc<Resource> {
        Arc::new(Resource {
            group,
            version,
            plural,
            kind: "Thing",
            ..CORE
        })
    }

    #[test]
    fn what_is_built_in_is_found_and_what_is_custom_comes_and_goes() {
        let catalog = Catalog::default();
        assert!(catalog.find("", "v1", "pods").expect("served").is(&PODS));
        assert!(catalog.find_kind("v1", "Pod").expect("served").is(&PODS));
        let mut changes = catalog.changed();
        assert!(!changes.has_changed().expect("open"));
        catalog.set_custom(vec![
            custom("example.com", "v1", "things"),
            custom("example.com", "v1beta1", "things"),
            custom("apps", "v1", "things"),
        ]);
        assert!(changes.has_changed().expect("open"));
        changes.mark_unchanged();
        let found = catalog.find_kind("example.com/v1beta1", "Thing");
        let found = found.expect("served");
        let again = catalog.current(&found).expect("served");
        assert!(again.is(&found) && again.version == "v1beta1");
        let versions = catalog.group_versions();
        let apps = versions.iter().filter(|(group, _)| *group == "apps");
        assert_eq!(apps.count(), 1, "{versions:?}");
        catalog.set_custom(Vec::new());
        assert!(catalog.current(&found).is_none());
    }
}
