//! Revisions of a template, kept as ControllerRevisions: what `kubectl rollout history` and
//! `rollout undo` read. Pure.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::owner;
use super::pods::number;
use crate::object;

/// What to do so that the present template has a revision, and that is the latest.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Record {
    /// It has.
    Present(Value),
    /// It is an older one again: write it with this number.
    Renumbered(Value),
    New(Value),
}

/// The part of a workload that a revision is of, as a strategic merge patch.
pub(super) fn data(owner: &Value) -> Value {
    let mut template = owner["spec"]["template"].clone();
    object::map_mut(&mut template, "metadata");
    if let Some(template) = template.as_object_mut() {
        template.insert("$patch".into(), "replace".into());
    }
    json!({"spec": {"template": template}})
}

/// The template that a revision is of.
pub(super) fn template(revision: &Value) -> Value {
    let mut template = revision["data"]["spec"]["template"].clone();
    if let Some(template) = template.as_object_mut() {
        template.remove("$patch");
    }
    template
}

fn revision_number(revision: &Value) -> i64 {
    revision["revision"].as_i64().unwrap_or(0)
}

/// Oldest first.
pub(super) fn sort(revisions: &mut [Value]) {
    revisions.sort_by_cached_key(|one| {
        let created = object::meta(one, "creationTimestamp").unwrap_or_default();
        let name = object::name(one).to_owned();
        (revision_number(one), created.to_owned(), name)
    });
}

/// FNV-1a over the canonical JSON, in the alphabet of generated names; how often it has collided
/// changes it.
fn hash(data: &Value, collisions: i64) -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut text = data.to_string();
    if collisions > 0 {
        text += &collisions.to_string();
    }
    let hash = text.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    let digits = hash.to_string().into_bytes();
    let letter = |digit: u8| char::from(ALPHABET[usize::from(digit) % ALPHABET.len()]);
    digits.into_iter().map(letter).collect()
}

/// Upstream's bound on the part of a name before the hash.
const PREFIX_MAX: usize = 223;

/// What the present template needs. `revisions` are sorted; the hash goes into `hash_label`.
pub(super) fn record(owner: &Value, revisions: &[Value], hash_label: &str) -> Record {
    let data = data(owner);
    let next = revisions.last().map_or(0, revision_number) + 1;
    let equal = revisions.iter().rev().find(|one| one["data"] == data);
    if let Some(equal) = equal {
        if revision_number(equal) + 1 == next {
            return Record::Present(equal.clone());
        }
        let mut equal = equal.clone();
        equal["revision"] = next.into();
        return Record::Renumbered(equal);
    }
    let hash = hash(
        &data,
        number(owner, &["status", "collisionCount"]).unwrap_or(0),
    );
    let mut labels = owner["spec"]["template"]["metadata"]["labels"].clone();
    if !labels.is_object() {
        labels = json!({});
    }
    labels[hash_label] = hash.as_str().into();
    let prefix: String = object::name(owner).chars().take(PREFIX_MAX).collect();
    let mut meta = json!({
        "name": format!("{prefix}-{hash}"), "namespace": object::namespace(owner),
        "labels": labels, "ownerReferences": [owner::reference(owner)],
    });
    if let Some(annotations) = object::at(owner, &["metadata", "annotations"]) {
        meta["annotations"] = annotations.clone();
    }
    Record::New(json!({
        "apiVersion": "apps/v1", "kind": "ControllerRevision", "metadata": meta,
        "data": data, "revision": next,
    }))
}

/// The oldest ones beyond the owner's limit that are not `live`, to be deleted. Sorted as given.
pub(super) fn beyond_limit(
    owner: &Value,
    revisions: &[Value],
    live: impl Fn(&Value) -> bool,
) -> Vec<Value> {
    let limit = number(owner, &["spec", "revisionHistoryLimit"]).unwrap_or(10);
    let limit = usize::try_from(limit).unwrap_or(0);
    let dead: Vec<_> = revisions.iter().filter(|one| !live(one)).collect();
    let surplus = dead.len().saturating_sub(limit);
    dead.into_iter().take(surplus).cloned().collect()
}

/// The values of a label among objects.
pub(super) fn label_values(objects: &[Value], label: &str) -> BTreeSet<String> {
    let values = objects.iter().filter_map(|one| object::label(one, label));
    values.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(image: &str) -> Value {
        json!({"apiVersion": "apps/v1", "kind": "StatefulSet",
            "metadata": {"name": "web", "namespace": "n", "uid": "u"},
            "spec": {"revisionHistoryLimit": 1, "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"image": image}]}}}})
    }

    #[test]
    fn a_template_gets_a_revision_once_and_an_old_one_comes_back_as_the_latest() {
        let mut revisions = Vec::new();
        for image in ["a", "b", "a"] {
            match record(&owner(image), &revisions, "hash") {
                Record::New(one) => revisions.push(one),
                Record::Renumbered(one) => {
                    revisions.retain(|old| object::name(old) != object::name(&one));
                    revisions.push(one);
                }
                Record::Present(_) => unreachable!("the template changed"),
            }
            sort(&mut revisions);
            let present = record(&owner(image), &revisions, "hash");
            assert_eq!(
                present,
                Record::Present(revisions[revisions.len() - 1].clone())
            );
        }
        let numbers: Vec<_> = revisions.iter().map(revision_number).collect();
        assert_eq!(numbers, [2, 3]);
        let expected = owner("a")["spec"]["template"].clone();
        assert_eq!(template(&revisions[1]), expected);
        assert_eq!(
            revisions[1]["data"]["spec"]["template"]["$patch"],
            "replace"
        );
    }

    #[test]
    fn what_pods_still_use_is_kept_and_of_the_rest_the_latest() {
        let revisions: Vec<_> = (1..5)
            .map(|n| json!({"metadata": {"name": format!("r{n}")}, "revision": n}))
            .collect();
        let live = |one: &Value| object::name(one) == "r1";
        let gone = beyond_limit(&owner("a"), &revisions, live);
        let names: Vec<_> = gone.iter().map(object::name).collect();
        assert_eq!(names, ["r2", "r3"]);
    }
}
