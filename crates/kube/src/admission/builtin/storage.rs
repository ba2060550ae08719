//! DefaultStorageClass, StorageObjectInUseProtection, PersistentVolumeClaimResize and
//! DefaultIngressClass.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::admission::{Attributes, Operation};
use crate::object;
use crate::quantity;
use crate::resource::{INGRESSES, PERSISTENT_VOLUME_CLAIMS};
use crate::status::Status;

const IS_DEFAULT_STORAGE: [&str; 2] = [
    "storageclass.kubernetes.io/is-default-class",
    "storageclass.beta.kubernetes.io/is-default-class",
];
const STORAGE_CLASS_BETA: &str = "volume.beta.kubernetes.io/storage-class";
const IS_DEFAULT_INGRESS: [&str; 1] = ["ingressclass.kubernetes.io/is-default-class"];
const INGRESS_CLASS_OLD: &str = "kubernetes.io/ingress.class";

/// A claim that names no class gets the default one.
pub(super) fn default_class(attributes: &mut Attributes<'_>) {
    let is_new = attributes.operation == Operation::Create;
    if !is_new || !attributes.is_object(&PERSISTENT_VOLUME_CLAIMS) {
        return;
    }
    let claim = &attributes.object;
    let annotations = &claim["metadata"]["annotations"];
    // The empty class is a class: it asks for a volume without one.
    if object::at(claim, &["spec", "storageClassName"]).is_some()
        || annotations.get(STORAGE_CLASS_BETA).is_some()
    {
        return;
    }
    let classes = attributes.state().storage_classes.all(attributes.api, None);
    if let Some(name) = default_of(&classes, &IS_DEFAULT_STORAGE) {
        let spec = object::map_mut(&mut attributes.object, "spec");
        spec.insert("storageClassName".into(), name.into());
    }
}

/// An ingress that names no class gets the default one.
pub(super) fn default_ingress_class(attributes: &mut Attributes<'_>) {
    let is_new = attributes.operation == Operation::Create;
    if !is_new || !attributes.is_object(&INGRESSES) {
        return;
    }
    let annotations = &attributes.object["metadata"]["annotations"];
    if object::at(&attributes.object, &["spec", "ingressClassName"]).is_some()
        || annotations.get(INGRESS_CLASS_OLD).is_some()
    {
        return;
    }
    let classes = attributes.state().ingress_classes.all(attributes.api, None);
    if let Some(name) = default_of(&classes, &IS_DEFAULT_INGRESS) {
        let spec = object::map_mut(&mut attributes.object, "spec");
        spec.insert("ingressClassName".into(), name.into());
    }
}

/// The newest of the classes that say they are the default; of equally new ones the first by name.
fn default_of(classes: &[Arc<Value>], annotations: &[&str]) -> Option<String> {
    let says = |class: &Value| {
        let given = &class["metadata"]["annotations"];
        annotations
            .iter()
            .any(|annotation| given[annotation] == "true")
    };
    let mut newest: Option<&Value> = None;
    for class in classes.iter().filter(|class| says(class)) {
        let at = |class: &Value| object::meta(class, "creationTimestamp").map(str::to_owned);
        if newest.is_none_or(|newest| at(class) > at(newest)) {
            newest = Some(class);
        }
    }
    newest.map(|class| object::name(class).to_owned())
}

/// Volumes and claims are not removed while they are used.
pub(super) fn in_use_protection(attributes: &mut Attributes<'_>) {
    if attributes.operation != Operation::Create || attributes.subresource.is_some() {
        return;
    }
    let finalizer = match (attributes.resource.group, attributes.resource.plural) {
        ("", "persistentvolumeclaims") => "kubernetes.io/pvc-protection",
        ("", "persistentvolumes") => "kubernetes.io/pv-protection",
        ("storage.k8s.io", "volumeattributesclasses") => "kubernetes.io/vac-protection",
        _ => return,
    };
    let meta = object::meta_mut(&mut attributes.object);
    let finalizers = meta.entry("finalizers").or_insert(json!([]));
    if let Some(finalizers) = finalizers.as_array_mut()
        && !finalizers.iter().any(|one| one == finalizer)
    {
        finalizers.push(finalizer.into());
    }
}

/// A claim grows only where its class lets it.
pub(super) fn resize(attributes: &Attributes<'_>) -> Result<(), Status> {
    let (Operation::Update, Some(old)) = (attributes.operation, attributes.old) else {
        return Ok(());
    };
    if !attributes.is_object(&PERSISTENT_VOLUME_CLAIMS) {
        return Ok(());
    }
    let size = |claim: &Value| {
        let path = ["spec", "resources", "requests", "storage"];
        quantity::parse(object::text(claim, &path)).unwrap_or(0)
    };
    if size(&attributes.object) <= size(old) {
        return Ok(());
    }
    let refused = |why| {
        Err(Status::forbidden(
            attributes.resource,
            &attributes.name,
            why,
        ))
    };
    if object::text(old, &["status", "phase"]) != "Bound" {
        return refused("Only bound persistent volume claims can be expanded");
    }
    let class = object::text(&attributes.object, &["spec", "storageClassName"]);
    let classes = &attributes.state().storage_classes;
    let class = classes.get(attributes.api, None, class);
    if class.is_some_and(|class| class["allowVolumeExpansion"] == true) {
        return Ok(());
    }
    refused(
        "only dynamically provisioned pvc can be resized and the storageclass that provisions the \
         pvc must support resize",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_default_classes_the_newest_is_taken() {
        let class = |name: &str, at: &str, says: &str| {
            Arc::new(json!({"metadata": {"name": name, "creationTimestamp": at,
                "annotations": {IS_DEFAULT_STORAGE[0]: says}}}))
        };
        let classes = [
            class("a", "2026-01-01T00:00:00Z", "true"),
            class("b", "2026-01-02T00:00:00Z", "true"),
            class("c", "2026-01-03T00:00:00Z", "false"),
            class("d", "2026-01-02T00:00:00Z", "true"),
        ];
        assert_eq!(
            default_of(&classes, &IS_DEFAULT_STORAGE).as_deref(),
            Some("b")
        );
        assert_eq!(default_of(&classes[2..3], &IS_DEFAULT_STORAGE), None);
    }
}
