//! Who controls whom: owner references, and what adoption changes in them. Pure.

use serde_json::{Value, json};

use crate::label_selector;
use crate::object;

/// The reference to the controller of an object.
pub(crate) fn controller(object: &Value) -> Option<&Value> {
    object::items(object, &["metadata", "ownerReferences"])
        .iter()
        .find(|reference| reference["controller"] == true)
}

/// The reference with which `owner` controls.
pub(crate) fn reference(owner: &Value) -> Value {
    json!({
        "apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": object::name(owner),
        "uid": object::uid(owner), "controller": true, "blockOwnerDeletion": true,
    })
}

pub(in crate::controllers) fn is_controlled_by(object: &Value, owner: &Value) -> bool {
    controller(object)
        .is_some_and(|reference| object::text(reference, &["uid"]) == object::uid(owner))
}

/// What an owner makes of an object in its namespace.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::controllers) enum Claim {
    /// It is the owner's.
    Own,
    /// Nobody's, and the selector selects it.
    Adopt,
    /// The owner's, and the selector selects it no longer.
    Release,
    /// Somebody else's, or not meant.
    Leave,
}

/// By the owner's selector, in the form that ReplicaSets have it.
pub(in crate::controllers) fn claim_by(selector: &Value, owner: &Value, object: &Value) -> Claim {
    let is_selected = label_selector::matches(selector, &object["metadata"]["labels"]);
    let may_change = !object::is_terminating(owner) && !object::is_terminating(object);
    match controller(object) {
        Some(_) if !is_controlled_by(object, owner) => Claim::Leave,
        Some(_) if is_selected => Claim::Own,
        Some(_) if object::is_terminating(owner) => Claim::Leave,
        Some(_) => Claim::Release,
        None if is_selected && may_change => Claim::Adopt,
        None => Claim::Leave,
    }
}

/// The object with `owner` as its controller.
pub(in crate::controllers) fn adopted(owner: &Value, object: &Value) -> Value {
    let mut references = others(owner, object);
    references.push(reference(owner));
    with_references(object, references)
}

/// The object without the reference to `owner`.
pub(in crate::controllers) fn released(owner: &Value, object: &Value) -> Value {
    with_references(object, others(owner, object))
}

fn others(owner: &Value, object: &Value) -> Vec<Value> {
    let references = object::items(object, &["metadata", "ownerReferences"]).iter();
    references
        .filter(|one| object::text(one, &["uid"]) != object::uid(owner))
        .cloned()
        .collect()
}

fn with_references(object: &Value, references: Vec<Value>) -> Value {
    let mut object = object.clone();
    let meta = object::meta_mut(&mut object);
    if references.is_empty() {
        meta.remove("ownerReferences");
    } else {
        meta.insert("ownerReferences".into(), references.into());
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selector_and_controller_decide_whose_a_pod_is() {
        let set = |uid: &str| {
            json!({"apiVersion": "apps/v1", "kind": "ReplicaSet",
                "metadata": {"name": "web", "uid": uid},
                "spec": {"selector": {"matchLabels": {"app": "web"}}}})
        };
        let claim = |set: &Value, pod: &Value| claim_by(&set["spec"]["selector"], set, pod);
        let (ours, theirs) = (set("1"), set("2"));
        let pod = json!({"metadata": {"name": "p", "labels": {"app": "web"}}});
        assert_eq!(claim(&ours, &pod), Claim::Adopt);
        let adopted = adopted(&ours, &pod);
        assert_eq!(claim(&ours, &adopted), Claim::Own);
        assert_eq!(claim(&theirs, &adopted), Claim::Leave);
        let mut relabelled = adopted.clone();
        relabelled["metadata"]["labels"]["app"] = "other".into();
        assert_eq!(claim(&ours, &relabelled), Claim::Release);
        assert_eq!(released(&ours, &adopted), pod);
        let mut going = ours.clone();
        going["metadata"]["deletionTimestamp"] = "1970-01-01T00:00:00Z".into();
        assert_eq!(claim(&going, &pod), Claim::Leave);
    }
}
