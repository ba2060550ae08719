//! Priority: the number behind a pod's PriorityClass, and at most one class for those without.

use serde_json::Value;

use crate::admission::{Attributes, Operation};
use crate::object;
use crate::resource::{PODS, PRIORITY_CLASSES};
use crate::status::Status;

/// Classes of the system, which work before their objects are there.
const SYSTEM: [(&str, i64); 2] = [
    ("system-cluster-critical", 2_000_000_000),
    ("system-node-critical", 2_000_001_000),
];
const PREEMPT: &str = "PreemptLowerPriority";

struct Class {
    name: String,
    priority: i64,
    preemption: String,
}

pub(super) fn mutate(attributes: &mut Attributes<'_>) -> Result<(), Status> {
    if !attributes.is_object(&PODS) {
        return Ok(());
    }
    match attributes.operation {
        Operation::Create => on_create(attributes),
        Operation::Update => {
            if let Some(old) = attributes.old {
                keep(old, &mut attributes.object);
            }
            Ok(())
        }
        Operation::Delete | Operation::Connect => Ok(()),
    }
}

/// Who writes a pod without its priority does not take it away.
fn keep(old: &Value, new: &mut Value) {
    for field in ["priority", "preemptionPolicy"] {
        if let Some(value) = object::at(old, &["spec", field]) {
            object::default(object::map_mut(new, "spec"), field, value.clone());
        }
    }
}

fn on_create(attributes: &mut Attributes<'_>) -> Result<(), Status> {
    let class = class(attributes)?;
    let name = attributes.name.clone();
    let refused = |why: String| Err(Status::forbidden(&PODS, &name, &why));
    let spec = object::map_mut(&mut attributes.object, "spec");
    let given = spec.get("priority").and_then(Value::as_i64);
    if let Some(given) = given.filter(|given| *given != class.priority) {
        return refused(format!(
            "the integer value of priority ({given}) must not be provided in pod spec; priority \
             admission controller computed {} from the given PriorityClass name",
            class.priority
        ));
    }
    let given = spec.get("preemptionPolicy").and_then(Value::as_str);
    if let Some(given) = given.filter(|given| *given != class.preemption) {
        return refused(format!(
            "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; \
             priority admission controller computed {} from the given PriorityClass name",
            class.preemption
        ));
    }
    if !class.name.is_empty() {
        spec.insert("priorityClassName".into(), class.name.into());
    }
    spec.insert("priority".into(), class.priority.into());
    spec.insert("preemptionPolicy".into(), class.preemption.into());
    Ok(())
}

fn class(attributes: &Attributes<'_>) -> Result<Class, Status> {
    let api = attributes.api;
    let classes = &api.admission().priority_classes;
    let name = object::text(&attributes.object, &["spec", "priorityClassName"]);
    if name.is_empty() {
        let all = classes.all(api, None);
        let defaults = all.iter().filter(|class| class["globalDefault"] == true);
        // Should there be several, the least of them does the least harm.
        let found = defaults.min_by_key(|class| class["value"].as_i64());
        let none = || Class {
            name: String::new(),
            priority: 0,
            preemption: PREEMPT.to_owned(),
        };
        return Ok(found.map_or_else(none, |class| of(class)));
    }
    if let Some(found) = classes.get(api, None, name) {
        return Ok(of(&found));
    }
    match SYSTEM.iter().find(|(system, _)| *system == name) {
        Some((name, priority)) => Ok(Class {
            name: (*name).to_owned(),
            priority: *priority,
            preemption: PREEMPT.to_owned(),
        }),
        None => {
            let why = format!("no PriorityClass with name {name} was found");
            Err(Status::forbidden(&PODS, &attributes.name, &why))
        }
    }
}

fn of(class: &Value) -> Class {
    let preemption = match object::text(class, &["preemptionPolicy"]) {
        "" => PREEMPT,
        policy => policy,
    };
    Class {
        name: object::name(class).to_owned(),
        priority: class["value"].as_i64().unwrap_or(0),
        preemption: preemption.to_owned(),
    }
}

/// Only one class may be the default.
pub(super) fn validate(attributes: &Attributes<'_>) -> Result<(), Status> {
    let is_write = matches!(attributes.operation, Operation::Create | Operation::Update);
    if !is_write
        || !attributes.is_object(&PRIORITY_CLASSES)
        || attributes.object["globalDefault"] != true
    {
        return Ok(());
    }
    let all = attributes
        .state()
        .priority_classes
        .all(attributes.api, None);
    let is_other = |class: &&std::sync::Arc<Value>| {
        class["globalDefault"] == true && object::name(class) != attributes.name
    };
    match all.iter().find(is_other) {
        None => Ok(()),
        Some(other) => {
            let why = format!(
                "PriorityClass {} is already marked as default. Only one default can exist",
                object::name(other)
            );
            let name = &attributes.name;
            Err(Status::forbidden(attributes.resource, name, &why))
        }
    }
}
