//! Patches: JSON patch (RFC 6902), merge patch (RFC 7386) and Kubernetes' strategic merge.

#[cfg(test)]
mod golden;
mod json;
mod merge;
mod strategic;

use serde_json::Value;

use crate::resource::Resource;
use crate::schema;
use crate::status::Status;

/// What custom resources can be patched by: their schemas have no patch strategies.
const CUSTOM_PATCHES: &str = "application/json-patch+json, application/merge-patch+json, \
                              application/apply-patch+yaml";
/// Upstream's bound.
const OPERATIONS_MAX: usize = 10_000;

/// A change that is applied to whatever the object is.
#[derive(Debug, Clone)]
pub enum Patch {
    Json(json_patch::Patch),
    Merge(Value),
    Strategic(Value),
    /// Server-side apply: the fields that the caller's manager wants, and no others. Makes the
    /// object if there is none.
    Apply {
        object: Value,
    },
}

impl Patch {
    /// A server-side apply of `object` in the name of the caller's manager.
    pub fn server_side(object: Value) -> Self {
        Self::Apply { object }
    }

    /// A merge patch: maps are merged, null removes, everything else replaces.
    pub fn merge(patch: Value) -> Self {
        Self::Merge(patch)
    }

    /// Reads a JSON patch.
    pub fn json(body: Value) -> Result<Self, Status> {
        let patch: json_patch::Patch = serde_json::from_value(body)
            .map_err(|error| Status::bad_request(format!("error decoding patch: {error}")))?;
        if patch.0.len() > OPERATIONS_MAX {
            let message = format!(
                "Request entity too large: The allowed maximum operations in a JSON patch is \
                 {OPERATIONS_MAX}, got {}",
                patch.0.len()
            );
            return Err(Status {
                message,
                ..Status::request_too_large(OPERATIONS_MAX)
            });
        }
        Ok(Self::Json(patch))
    }

    /// The patched object.
    pub fn apply(&self, resource: &Resource, object: &Value) -> Result<Value, Status> {
        let mut patched = object.clone();
        match self {
            // Upstream tells nothing more about a failed test or a missing path.
            Patch::Json(patch) => {
                json::apply(&mut patched, &patch.0).map_err(|json::Refused| Status {
                    code: 422,
                    reason: "Invalid",
                    message: "the server rejected our request due to an error in our request"
                        .into(),
                    details: Some(Box::default()),
                })?;
            }
            Patch::Merge(patch) => merge::apply(&mut patched, patch),
            Patch::Strategic(_) if resource.custom.is_some() => {
                return Err(Status::unsupported_media_type(CUSTOM_PATCHES));
            }
            Patch::Strategic(patch) => {
                let schema = schema::type_named(resource.schema).ok_or_else(|| {
                    Status::internal(format!("{} has no schema", resource.schema))
                })?;
                strategic::apply(schema.get(), &mut patched, patch)?;
            }
            // It depends on who owns what, so `Api::patch` has a way of its own for it.
            Patch::Apply { .. } => {
                return Err(Status::not_implemented("server-side apply of this part"));
            }
        }
        Ok(patched)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_json_patch_of_too_many_operations_is_refused_with_their_number() {
        let remove = json!({"op": "remove", "path": "/data/a"});
        let refusal = Patch::json(vec![remove; OPERATIONS_MAX + 1].into()).expect_err("too many");
        assert_eq!(
            (refusal.code, refusal.reason),
            (413, "RequestEntityTooLarge")
        );
        assert_eq!(
            refusal.message,
            "Request entity too large: The allowed maximum operations in a JSON patch is 10000, got \
             10001"
        );
    }
}
