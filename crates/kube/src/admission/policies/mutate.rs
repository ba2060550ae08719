//! MutatingAdmissionPolicy: objects are changed by rules in CEL, before webhooks see them.
//!
//! ```text
//!   policy <── binding ── for each object of parameters: conditions ── variables ── mutations
//!                                                    ApplyConfiguration: merged as server-side apply
//!                                                    JSONPatch: a list of operations
//! ```
//!
//! Each mutation sees what those before it left. Whoever asks to be (`reinvocationPolicy: IfNeeded`)
//! is asked once more if the object changes after it.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::Value;

use super::evaluate::Run;
use super::parameters::{self, Parameters};
use super::policy::{Binding, FailurePolicy, Mutation, MutationKind, Policy};
use crate::admission::matching::Form;
use crate::admission::{Attributes, expressions, forms};
use crate::managed;
use crate::patch::Patch;
use crate::status::Status;

/// A policy that changed the object or could have, and the object that it left.
pub(crate) struct Asked {
    policy: Arc<Policy>,
    binding: Arc<Binding>,
    left: Value,
}

/// What a round of policies did.
#[derive(Default)]
pub(crate) struct Round {
    pub(crate) is_changed: bool,
    /// Those that want to be asked again if the object changes after them.
    pub(crate) reinvocable: Vec<Asked>,
}

/// Lets every policy that a binding applies to the request change the object.
pub(crate) async fn mutate(attributes: &mut Attributes<'_>) -> Result<Round, Status> {
    let mut round = Round::default();
    let state = attributes.state();
    let bindings = state.mutating_bindings.all(attributes.api, None);
    if bindings.is_empty() || attributes.object.is_null() {
        return Ok(round);
    }
    for policy in state.mutating_policies.all(attributes.api, None) {
        let own = bindings.iter().filter(|one| one.policy == policy.name);
        for binding in own {
            let Some(is_changed) = by_binding(attributes, &policy, binding).await? else {
                continue;
            };
            round.is_changed |= is_changed;
            if policy.is_reinvoked {
                round.reinvocable.push(Asked {
                    policy: policy.clone(),
                    binding: binding.clone(),
                    left: attributes.object.clone(),
                });
            }
        }
    }
    Ok(round)
}

/// Asks those again after whom the object has changed.
pub(crate) async fn mutate_again(
    attributes: &mut Attributes<'_>,
    asked: Vec<Asked>,
) -> Result<(), Status> {
    for one in asked {
        if one.left != attributes.object {
            by_binding(attributes, &one.policy, &one.binding).await?;
        }
    }
    Ok(())
}

/// None if the policy is not about the request, else whether the object is another one now.
async fn by_binding(
    attributes: &mut Attributes<'_>,
    policy: &Policy,
    binding: &Binding,
) -> Result<Option<bool>, Status> {
    let Some(form) = policy.selection.selects(attributes) else {
        return Ok(None);
    };
    if !binding.selection.allows(attributes) {
        return Ok(None);
    }
    let found = match parameters::find(attributes, policy, binding).await {
        Ok(Parameters::Skip) => return Ok(None),
        Ok(Parameters::These(found)) => found,
        Err(why) => return failed(attributes, policy, binding, &why).map(|()| None),
    };
    let before = attributes.object.clone();
    for parameter in &found {
        for mutation in &policy.mutations {
            if let Err(why) = apply(attributes, policy, mutation, &form, parameter).await? {
                failed(attributes, policy, binding, &why)?;
            }
        }
    }
    Ok(Some(attributes.object != before))
}

/// One mutation; the inner error says why it came to nothing.
async fn apply(
    attributes: &mut Attributes<'_>,
    policy: &Policy,
    mutation: &Mutation,
    form: &Form,
    parameter: &Value,
) -> Result<Result<(), String>, Status> {
    let variables = expressions::variables(attributes, form).await?;
    let wanted = {
        let run = Run::begin(attributes, policy, &variables, parameter);
        let value = match run {
            Ok(Some(mut run)) => run.value(&mutation.expression),
            Ok(None) => return Ok(Ok(())),
            Err(why) => Err(why),
        };
        match value {
            Ok(value) => value.to_json(),
            Err(why) => return Ok(Err(why)),
        }
    };
    let Some(wanted) = wanted else {
        return Ok(Err(
            "the expression has no value that an object can have".to_owned()
        ));
    };
    let shown = forms::shown(attributes, form, &attributes.object).await?;
    let row = form.0.as_deref().unwrap_or(attributes.resource);
    let changed = match mutation.kind {
        MutationKind::ApplyConfiguration => applied(row, &shown, wanted),
        MutationKind::JsonPatch => patched(row, &shown, wanted),
    };
    match changed {
        Ok(changed) => forms::take(attributes, form, changed).await.map(Ok),
        Err(why) => Ok(Err(why)),
    }
}

/// What is wanted is merged into the object; what it says nothing of stays.
fn applied(
    row: &crate::resource::Resource,
    object: &Value,
    mut wanted: Value,
) -> Result<Value, String> {
    let Some(map) = wanted.as_object_mut() else {
        return Err("invalid return type: an apply configuration is an object".to_owned());
    };
    for field in ["apiVersion", "kind"] {
        map.insert(field.into(), object[field].clone());
    }
    let schema = managed::schema_of(row);
    let atomic = managed::atomic_paths(schema, &wanted);
    if !atomic.is_empty() {
        return Err(format!(
            "error applying patch: invalid ApplyConfiguration: may not mutate atomic arrays, maps \
             or structs: {}",
            atomic.join(", ")
        ));
    }
    managed::merged(schema, object, &wanted)
        .map_err(|why| format!("error applying patch: failed to merge patch: {why}"))
}

/// A patch whose test does not hold changes nothing.
fn patched(
    row: &crate::resource::Resource,
    object: &Value,
    wanted: Value,
) -> Result<Value, String> {
    let Value::Array(mut operations) = wanted else {
        let why = "type mismatch: JSONPatchType.expression should evaluate to array";
        return Err(why.to_owned());
    };
    for operation in &mut operations {
        // Whoever leaves the value out means null.
        let takes_value = matches!(operation["op"].as_str(), Some("add" | "replace" | "test"));
        if let Some(operation) = operation.as_object_mut().filter(|_| takes_value) {
            operation.entry("value").or_insert(Value::Null);
        }
    }
    let apply = |operations: &[Value]| {
        let patch = Patch::json(operations.to_vec().into());
        patch.and_then(|patch| patch.apply(row, object))
    };
    apply(&operations).or_else(|error| {
        let tests: BTreeSet<_> = operations
            .iter()
            .enumerate()
            .filter_map(|(index, one)| (one["op"] == "test").then_some(index))
            .collect();
        let is_refused_test = |index: &usize| {
            apply(&operations[..*index]).is_ok() && apply(&operations[..=*index]).is_err()
        };
        match tests.iter().any(is_refused_test) {
            true => Ok(object.clone()),
            false => Err(format!("JSON Patch: {}", error.message)),
        }
    })
}

/// A policy that could not change the object refuses it, unless it says otherwise.
fn failed(
    attributes: &Attributes<'_>,
    policy: &Policy,
    binding: &Binding,
    why: &str,
) -> Result<(), Status> {
    if policy.failure == FailurePolicy::Ignore {
        return Ok(());
    }
    let why = format!(
        "policy '{}' with binding '{}' denied request: {why}",
        policy.name, binding.name
    );
    let mut status = Status::forbidden(attributes.resource, &attributes.name, &why);
    (status.code, status.reason) = (422, "Invalid");
    Err(status)
}
