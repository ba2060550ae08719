//! The objects that a binding gives a policy as parameters.

use serde_json::Value;

use super::{Binding, Policy};
use crate::admission::Attributes;
use crate::api::ListOptions;
use crate::label_selector;
use crate::object;

pub(super) enum Parameters {
    /// The binding does not apply.
    Skip,
    /// Evaluated once with each; null stands for none.
    These(Vec<Value>),
}

/// The error says why there are none and that is not allowed.
pub(super) async fn find(
    attributes: &Attributes<'_>,
    policy: &Policy,
    binding: &Binding,
) -> Result<Parameters, String> {
    let Some((api_version, kind)) = &policy.parameters else {
        return Ok(Parameters::These(vec![Value::Null]));
    };
    let reference = &binding.parameters;
    if !reference.is_object() {
        return Ok(Parameters::These(vec![Value::Null]));
    }
    let api = attributes.api;
    let row = api.resources().find_kind(api_version, kind);
    let row = row.ok_or_else(|| {
        format!("failed to configure policy: failed to find resource referenced by paramKind: '{api_version}, Kind={kind}'")
    })?;
    let own = object::text(reference, &["namespace"]);
    let namespace = match (row.is_namespaced(), own, attributes.namespace_of_request()) {
        (false, "", _) => None,
        (false, _, _) => {
            return Err("failed to configure binding: paramRef.namespace must not be provided for a cluster-scoped `paramKind`".to_owned());
        }
        (true, "", None) => {
            return Err("failed to configure binding: cannot use namespaced paramRef in policy binding that matches cluster-scoped resources".to_owned());
        }
        (true, "", Some(namespace)) => Some(namespace),
        (true, own, _) => Some(own),
    };
    let name = object::text(reference, &["name"]);
    let found = if name.is_empty() {
        let list = api
            .list_with(&row, namespace, &ListOptions::default())
            .await;
        let items = list.map_err(|status| status.message)?.items;
        let selector = &reference["selector"];
        let labels = |object: &Value| object["metadata"]["labels"].clone();
        let selected = items.into_iter();
        selected
            .filter(|one| label_selector::matches(selector, &labels(one)))
            .collect()
    } else {
        match api.read(&row, namespace, name) {
            Ok(found) => vec![found],
            Err(status) if status.is_not_found() => Vec::new(),
            Err(status) => return Err(status.message),
        }
    };
    if !found.is_empty() {
        return Ok(Parameters::These(found));
    }
    match object::text(reference, &["parameterNotFoundAction"]) {
        "Allow" => Ok(Parameters::Skip),
        _ => {
            let why = "failed to configure binding: no params found for policy binding with \
                       `Deny` parameterNotFoundAction";
            Err(why.to_owned())
        }
    }
}
