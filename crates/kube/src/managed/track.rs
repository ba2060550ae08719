//! Whose the fields are that an ordinary write wrote.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::Value;

use super::compare::{Change, compare};
use super::entries::{Entries, Entry, Manager, Operation};
use super::fields::Fields;
use super::filter::Filter;
use super::schema::{Schema, Shape};
use super::schema_of;
use crate::object::{self, meta_mut};
use crate::resource::Row;

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
    pub(crate) versions: &'a dyn Versions,
}

/// The other versions of a kind: entries of updates name fields as their version has them.
pub(crate) trait Versions: std::fmt::Debug {
    /// The object in this version and the version's row; `None` if it is not served any more.
    fn at(&self, api_version: &str, object: &Value) -> Option<(Value, Row)>;
}

/// Writes `metadata.managedFields` of an object that is new: `blank` is what it would be with
/// nothing in it.
pub(crate) fn created(subject: Subject<'_>, blank: &Value, new: &mut Value, writer: Writer<'_>) {
    meta_mut(new).remove("managedFields");
    let mut entries = Entries::default();
    let written = changes(subject, blank, new).into_written();
    own(&mut entries, written, writer);
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
    Changes::of(&entries, subject, (old, new), &change, writer).release(&mut entries);
    own(&mut entries, change.into_written(), writer);
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

/// What a write changed, in each version in which somebody owns fields. Nothing for a version that
/// is not served any more.
pub(super) struct Changes<'a> {
    version: &'a str,
    own: &'a Change,
    others: BTreeMap<String, Option<Change>>,
}

impl<'a> Changes<'a> {
    /// `own` is the change in the version of the writer.
    pub(super) fn of(
        entries: &Entries,
        subject: Subject<'_>,
        (old, new): (&Value, &Value),
        own: &'a Change,
        writer: Writer<'a>,
    ) -> Self {
        let version = writer.api_version;
        let mut others = BTreeMap::new();
        for entry in entries.0.values() {
            if entry.api_version != version && !others.contains_key(&entry.api_version) {
                let change = change_at(subject, &entry.api_version, old, new);
                others.insert(entry.api_version.clone(), change);
            }
        }
        Self {
            version,
            own,
            others,
        }
    }

    /// In the version of this entry.
    pub(super) fn to(&self, entry: &Entry) -> Option<&Change> {
        if entry.api_version == self.version {
            return Some(self.own);
        }
        self.others.get(&entry.api_version)?.as_ref()
    }

    /// Nobody owns what is gone or has become something else.
    pub(super) fn release(&self, entries: &mut Entries) {
        entries.0.retain(|_, entry| {
            let Some(change) = self.to(entry) else {
                return false;
            };
            change.release(&mut entry.fields);
            !entry.fields.is_empty()
        });
    }
}

/// What changed, in another version.
fn change_at(subject: Subject<'_>, version: &str, old: &Value, new: &Value) -> Option<Change> {
    let (old, row) = subject.versions.at(version, old)?;
    let (new, _) = subject.versions.at(version, new)?;
    let schema = schema_of(&row);
    Some(changes(Subject { schema, ..subject }, &old, &new))
}

/// The writer owns what it has written.
pub(super) fn own(entries: &mut Entries, written: Fields, writer: Writer<'_>) {
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

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use serde_json::json;

    use super::super::{OneVersion, blank};
    use super::*;
    use crate::resource::PODS;

    /// Run with `--release --ignored --nocapture`: what tracking costs.
    #[test]
    #[ignore = "measures"]
    fn a_write_of_a_pod_is_tracked_in_less_than_a_tenth_of_a_millisecond() {
        const ROUNDS: u32 = 2000;
        let containers = ["web", "proxy", "log"].map(|name| {
            json!({
                "name": name, "image": "registry.example/x:1", "args": ["a", "b"],
                "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
                "ports": [{"containerPort": 80, "protocol": "TCP", "name": "http"}],
                "resources": {"limits": {"cpu": "1", "memory": "1Gi"}},
                "volumeMounts": [{"name": "v", "mountPath": "/v"}],
                "livenessProbe": {"httpGet": {"path": "/", "port": 80, "scheme": "HTTP"}},
                "imagePullPolicy": "Always", "terminationMessagePath": "/dev/termination-log",
            })
        });
        let mut pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "p", "namespace": "n", "uid": "u", "labels": {"app": "web"}},
            "spec": {"containers": containers, "volumes": [{"name": "v", "emptyDir": {}}],
                "nodeName": "n", "restartPolicy": "Always", "dnsPolicy": "ClusterFirst"},
        });
        let schema = schema_of(&PODS);
        let writer = |manager, subresource| Writer {
            manager,
            api_version: "v1",
            subresource,
            now: Timestamp::UNIX_EPOCH,
        };
        let (object, status) = (Filter::of(&PODS, ""), Filter::of(&PODS, "status"));
        let subject = |filter| Subject {
            schema,
            filter,
            versions: &OneVersion,
        };
        let measure = |what: &str, run: &mut dyn FnMut(u32)| {
            let start = Instant::now();
            (0..ROUNDS).for_each(run);
            let micros = start.elapsed().as_secs_f64() * 1e6 / f64::from(ROUNDS);
            eprintln!("{what}: {micros:.1} µs");
        };
        let blank = blank(&PODS);
        measure("create", &mut |_| {
            created(subject(&object), &blank, &mut pod, writer("creator", ""));
        });
        pod["status"] = json!({"phase": "Running", "conditions": [
            {"type": "Ready", "status": "True"}, {"type": "PodScheduled", "status": "True"},
        ]});
        measure("update of the status", &mut |round| {
            let mut new = pod.clone();
            new["status"]["conditions"][0]["lastTransitionTime"] = round.to_string().into();
            updated(
                subject(&status),
                &pod,
                &mut new,
                writer("kubelet", "status"),
            );
            pod = new;
        });
        measure("update of a label", &mut |round| {
            let mut new = pod.clone();
            new["metadata"]["labels"]["app"] = round.to_string().into();
            updated(subject(&object), &pod, &mut new, writer("labeller", ""));
            pod = new;
        });
        measure("nothing", &mut |_| {
            let mut new = pod.clone();
            updated(subject(&object), &pod, &mut new, writer("nobody", ""));
        });
        measure("the copies alone", &mut |_| drop(pod.clone()));
    }
}
