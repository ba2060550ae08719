//! ValidatingAdmissionPolicy: rules in CEL, bound to requests by bindings.
//!
//! ```text
//!   policy (what has to hold) <── binding (where, with which parameters, and then what)
//!        └── for each object of parameters: conditions ── variables ── validations ── actions
//! ```

mod evaluate;
mod mutate;
mod parameters;
mod policy;

use std::sync::Arc;

use serde_json::json;

use self::evaluate::{Verdict, evaluate};
pub(crate) use self::mutate::{mutate, mutate_again};
use self::parameters::Parameters;
use self::policy::{Action, FailurePolicy};
pub(crate) use self::policy::{Binding, Policy};
use super::{Attributes, expressions};
use crate::resource::VALIDATING_ADMISSION_POLICIES;
use crate::status::{Cause, Status};

const AUDIT_FAILURE: &str = "validation.policy.admission.k8s.io/validation_failure";

/// Asks every policy that a binding applies to the request; the first refusal counts.
pub(super) async fn validate(attributes: &Attributes<'_>) -> Result<(), Status> {
    let state = attributes.state();
    let bindings = state.bindings.all(attributes.api, None);
    if bindings.is_empty() {
        return Ok(());
    }
    for policy in state.policies.all(attributes.api, None) {
        let own = bindings
            .iter()
            .filter(|binding| binding.policy == policy.name);
        let own: Vec<_> = own.cloned().collect();
        if !own.is_empty() {
            by_policy(attributes, &policy, &own).await?;
        }
    }
    Ok(())
}

async fn by_policy(
    attributes: &Attributes<'_>,
    policy: &Policy,
    bindings: &[Arc<Binding>],
) -> Result<(), Status> {
    let Some(form) = policy.selection.selects(attributes) else {
        return Ok(());
    };
    for binding in bindings {
        if !binding.selection.allows(attributes) {
            continue;
        }
        let found = match parameters::find(attributes, policy, binding).await {
            Ok(Parameters::Skip) => continue,
            Ok(Parameters::These(found)) => found,
            Err(why) => {
                failed(attributes, policy, binding, &why)?;
                continue;
            }
        };
        let variables = expressions::variables(attributes, &form).await?;
        for parameter in &found {
            let verdict = evaluate(attributes, policy, &variables, parameter);
            act(attributes, policy, binding, verdict)?;
        }
    }
    Ok(())
}

/// What the binding wants done about a verdict.
fn act(
    attributes: &Attributes<'_>,
    policy: &Policy,
    binding: &Binding,
    verdict: Verdict,
) -> Result<(), Status> {
    for (key, value) in &verdict.annotations {
        attributes
            .api
            .annotate(&format!("{}/{key}", policy.name), value);
    }
    for why in &verdict.errors {
        failed(attributes, policy, binding, why)?;
    }
    for failure in verdict.failures {
        if binding.actions.contains(&Action::Audit) {
            let note = json!([{
                "message": failure.message, "policy": policy.name, "binding": binding.name,
                "expressionIndex": failure.index, "validationActions": binding.action_names(),
            }]);
            attributes.api.annotate(AUDIT_FAILURE, &note.to_string());
        }
        if binding.actions.contains(&Action::Warn) {
            attributes.api.warn(format!(
                "Validation failed for ValidatingAdmissionPolicy '{}' with binding '{}': {}",
                policy.name, binding.name, failure.message
            ));
        }
        if binding.actions.contains(&Action::Deny) {
            let code = failure.code;
            return Err(denied(attributes, policy, binding, &failure.message, code));
        }
    }
    Ok(())
}

/// A policy that could not be asked refuses, unless it says otherwise or its binding only warns.
fn failed(
    attributes: &Attributes<'_>,
    policy: &Policy,
    binding: &Binding,
    why: &str,
) -> Result<(), Status> {
    if policy.failure == FailurePolicy::Ignore {
        return Ok(());
    }
    if binding.actions.contains(&Action::Warn) {
        attributes.api.warn(format!(
            "Validation failed for ValidatingAdmissionPolicy '{}' with binding '{}': {why}",
            policy.name, binding.name
        ));
    }
    if binding.actions.contains(&Action::Deny) {
        return Err(denied(attributes, policy, binding, why, Code::Invalid));
    }
    Ok(())
}

/// With which status a validation refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Code {
    Invalid,
    Forbidden,
    Unauthorized,
    TooLarge,
}

impl Code {
    fn of(reason: &str) -> Self {
        match reason {
            "Forbidden" => Code::Forbidden,
            "Unauthorized" => Code::Unauthorized,
            "RequestEntityTooLarge" => Code::TooLarge,
            _ => Code::Invalid,
        }
    }
}

fn denied(
    attributes: &Attributes<'_>,
    policy: &Policy,
    binding: &Binding,
    message: &str,
    code: Code,
) -> Status {
    let why = format!(
        "{} '{}' with binding '{}' denied request: {message}",
        VALIDATING_ADMISSION_POLICIES.kind, policy.name, binding.name
    );
    let mut status = Status::forbidden(attributes.resource, &attributes.name, &why);
    (status.code, status.reason) = match code {
        Code::Invalid => (422, "Invalid"),
        Code::Forbidden => (403, "Forbidden"),
        Code::Unauthorized => (401, "Unauthorized"),
        Code::TooLarge => (413, "RequestEntityTooLarge"),
    };
    if let Some(details) = &mut status.details {
        details.causes = vec![Cause::new("", "", why)];
    }
    status
}
