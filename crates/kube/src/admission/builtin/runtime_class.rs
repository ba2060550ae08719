//! RuntimeClass: the class exists, and its overhead and scheduling rules become the pod's.

use serde_json::{Value, json};

use crate::admission::{Attributes, Operation};
use crate::object;
use crate::quantity;
use crate::resource::PODS;
use crate::status::Status;

pub(super) fn mutate(attributes: &mut Attributes<'_>) -> Result<(), Status> {
    if attributes.operation != Operation::Create || !attributes.is_object(&PODS) {
        return Ok(());
    }
    let name = attributes.name.clone();
    let refused = |why: &str| Err(Status::forbidden(&PODS, &name, why));
    let class = object::text(&attributes.object, &["spec", "runtimeClassName"]);
    if class.is_empty() {
        let overhead = object::at(&attributes.object, &["spec", "overhead"]);
        if overhead
            .and_then(Value::as_object)
            .is_some_and(|all| !all.is_empty())
        {
            return refused(
                "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead",
            );
        }
        return Ok(());
    }
    let classes = &attributes.state().runtime_classes;
    let Some(found) = classes.get(attributes.api, None, class) else {
        return refused(&format!("pod rejected: RuntimeClass {class:?} not found"));
    };
    let spec = object::map_mut(&mut attributes.object, "spec");
    let overhead = object::at(&found, &["overhead", "podFixed"]);
    match (overhead, spec.get("overhead")) {
        (wanted, Some(given)) if !same(wanted.unwrap_or(&Value::Null), given) => {
            return refused(
                "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead",
            );
        }
        (Some(wanted), None) => drop(spec.insert("overhead".into(), wanted.clone())),
        (_, Some(_)) | (None, None) => {}
    }
    if let Err(why) = schedule(spec, &found["scheduling"]) {
        return refused(&why);
    }
    Ok(())
}

/// Whether two lists of resources are the same amounts.
fn same(a: &Value, b: &Value) -> bool {
    let amounts = |list: &Value| -> Vec<_> {
        let all = list.as_object().into_iter().flatten();
        all.map(|(name, amount)| {
            (
                name.clone(),
                quantity::parse(amount.as_str().unwrap_or("0")),
            )
        })
        .collect()
    };
    amounts(a) == amounts(b)
}

fn schedule(spec: &mut serde_json::Map<String, Value>, rules: &Value) -> Result<(), String> {
    if let Some(selector) = rules["nodeSelector"].as_object() {
        let own = spec.entry("nodeSelector").or_insert(json!({}));
        for (key, value) in selector {
            if let Some(present) = own.get(key).filter(|present| *present != value) {
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                return Err(format!(
                    "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {}, \
                     pod.spec.nodeSelector[{key}] = {}; must be equal",
                    text(value),
                    text(present)
                ));
            }
            own[key] = value.clone();
        }
    }
    let wanted = object::items(rules, &["tolerations"]);
    if !wanted.is_empty() {
        let tolerations = spec.entry("tolerations").or_insert(json!([]));
        if let Some(tolerations) = tolerations.as_array_mut() {
            let new = wanted.iter().filter(|one| !tolerations.contains(one));
            let new: Vec<_> = new.cloned().collect();
            tolerations.extend(new);
        }
    }
    Ok(())
}
