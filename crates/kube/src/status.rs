//! `Status`: the one error that the Kubernetes API knows, with the texts that clients match on.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::{Value, json};

use crate::resource::Resource;

/// A refused or failed request, as `meta/v1 Status`.
#[derive(Debug, Clone, PartialEq, Serialize, thiserror::Error)]
#[error("{message}")]
pub struct Status {
    pub code: u16,
    pub reason: &'static str,
    pub message: String,
    /// Boxed, because a `Status` travels in every `Result`.
    pub details: Option<Box<Details>>,
}

/// What a [`Status`] is about, for programs.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Details {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub group: Cow<'static, str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub kind: Cow<'static, str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<Cause>,
    #[serde(skip_serializing_if = "is_zero")]
    pub retry_after_seconds: u32,
    /// Where a list that is too old can be gone on with. It stands in the metadata.
    #[serde(skip)]
    pub continue_token: String,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// One field that is wrong.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Cause {
    #[serde(skip_serializing_if = "str::is_empty")]
    pub reason: &'static str,
    pub message: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub field: String,
}

impl Cause {
    pub(crate) fn new(reason: &'static str, field: impl Into<String>, message: String) -> Self {
        Self {
            reason,
            message,
            field: field.into(),
        }
    }

    /// `Invalid value: <value>: <why>`; strings are quoted as Go does.
    pub fn invalid(field: impl Into<String>, value: &Value, why: &str) -> Self {
        Self::new(
            "FieldValueInvalid",
            field,
            format!("Invalid value: {value}: {why}"),
        )
    }

    /// Like [`Cause::invalid`], of a value that has not even the right type.
    pub fn type_invalid(field: impl Into<String>, value: &Value, why: &str) -> Self {
        Self {
            reason: "FieldValueTypeInvalid",
            ..Self::invalid(field, value, why)
        }
    }

    pub fn too_many(field: impl Into<String>, count: u64, max: u64) -> Self {
        let message = format!("Too many: {count}: must have at most {max} items");
        Self::new("FieldValueTooMany", field, message)
    }

    pub fn required(field: impl Into<String>, why: &str) -> Self {
        let message = match why {
            "" => "Required value".to_owned(),
            why => format!("Required value: {why}"),
        };
        Self::new("FieldValueRequired", field, message)
    }

    pub fn forbidden(field: impl Into<String>, why: &str) -> Self {
        Self::new("FieldValueForbidden", field, format!("Forbidden: {why}"))
    }

    pub fn duplicate(field: impl Into<String>, value: &Value) -> Self {
        Self::new(
            "FieldValueDuplicate",
            field,
            format!("Duplicate value: {value}"),
        )
    }

    pub fn not_found(field: impl Into<String>, value: &Value) -> Self {
        Self::new("FieldValueNotFound", field, format!("Not found: {value}"))
    }

    pub fn not_supported(field: impl Into<String>, value: &Value, supported: &[&str]) -> Self {
        let supported: Vec<_> = supported.iter().map(|one| format!("{one:?}")).collect();
        let message = format!(
            "Unsupported value: {value}: supported values: {}",
            supported.join(", ")
        );
        Self::new("FieldValueNotSupported", field, message)
    }

    pub fn too_long(field: impl Into<String>, max: usize) -> Self {
        let message = format!("Too long: may not be more than {max} bytes");
        Self::new("FieldValueTooLong", field, message)
    }
}

impl Status {
    fn new(code: u16, reason: &'static str, message: String) -> Self {
        Self {
            code,
            reason,
            message,
            details: None,
        }
    }

    fn about(mut self, resource: &Resource, name: &str) -> Self {
        let (group, kind) = (resource.group, resource.plural);
        self.details = Some(Box::new(Details {
            name: name.into(),
            group: group.into(),
            kind: kind.into(),
            ..Details::default()
        }));
        self
    }

    /// 404 for an object.
    pub fn not_found(resource: &Resource, name: &str) -> Self {
        let message = format!("{} {name:?} not found", resource.qualified());
        Self::new(404, "NotFound", message).about(resource, name)
    }

    /// 404 for a path below /api or /apis that is not served.
    pub fn no_such_resource() -> Self {
        let message = "the server could not find the requested resource".to_owned();
        Self {
            details: Some(Box::default()),
            ..Self::new(404, "NotFound", message)
        }
    }

    pub fn already_exists(resource: &Resource, name: &str) -> Self {
        let message = format!("{} {name:?} already exists", resource.qualified());
        Self::new(409, "AlreadyExists", message).about(resource, name)
    }

    /// 409 because the object changed since the caller read it.
    pub fn modified(resource: &Resource, name: &str) -> Self {
        let why = "the object has been modified; please apply your changes to the latest version \
                   and try again";
        Self::conflict(resource, name, why)
    }

    pub fn conflict(resource: &Resource, name: &str, why: &str) -> Self {
        let message = format!(
            "Operation cannot be fulfilled on {} {name:?}: {why}",
            resource.qualified()
        );
        Self::new(409, "Conflict", message).about(resource, name)
    }

    /// 409 because a precondition of the request does not hold. Upstream names the kind here.
    pub fn precondition(resource: &Resource, name: &str, what: &str, want: &str, is: &str) -> Self {
        let message = format!(
            "Operation cannot be fulfilled on {} {name:?}: the {what} in the precondition ({want}) \
             does not match the {what} in record ({is}). The object might have been {}",
            match resource.group {
                "" => resource.kind.to_owned(),
                group => format!("{}.{group}", resource.kind),
            },
            if what == "UID" {
                "deleted and then recreated"
            } else {
                "modified"
            },
        );
        let details = Details {
            name: name.into(),
            group: resource.group.into(),
            kind: resource.kind.into(),
            ..Details::default()
        };
        Self {
            details: Some(Box::new(details)),
            ..Self::new(409, "Conflict", message)
        }
    }

    /// 422: the object breaks these rules.
    pub fn invalid(resource: &Resource, name: &str, causes: Vec<Cause>) -> Self {
        Self::invalid_kind(resource.group, resource.kind, name, causes)
    }

    pub fn invalid_kind(
        group: &'static str,
        kind: &'static str,
        name: &str,
        causes: Vec<Cause>,
    ) -> Self {
        let mut texts: Vec<_> = causes
            .iter()
            .map(|cause| format!("{}: {}", cause.field, cause.message))
            .collect();
        let qualified = if group.is_empty() {
            kind.to_owned()
        } else {
            format!("{kind}.{group}")
        };
        let all = if texts.len() == 1 {
            texts.remove(0)
        } else {
            format!("[{}]", texts.join(", "))
        };
        let message = format!("{qualified} {name:?} is invalid: {all}");
        let details = Details {
            name: name.into(),
            group: group.into(),
            kind: kind.into(),
            causes,
            ..Details::default()
        };
        Self {
            details: Some(Box::new(details)),
            ..Self::new(422, "Invalid", message)
        }
    }

    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message.into())
    }

    /// 403 by admission: `pods "x" is forbidden: <why>`.
    pub fn forbidden(resource: &Resource, name: &str, why: &str) -> Self {
        let message = format!("{} {name:?} is forbidden: {why}", resource.qualified());
        Self::new(403, "Forbidden", message).about(resource, name)
    }

    /// 403 because the namespace is going away.
    pub fn terminating(resource: &Resource, name: &str, namespace: &str) -> Self {
        let why = format!(
            "unable to create new content in namespace {namespace} because it is being terminated"
        );
        let mut status = Self::forbidden(resource, name, &why);
        let message = format!("namespace {namespace} is being terminated");
        if let Some(details) = &mut status.details {
            details.causes.push(Cause::new(
                "NamespaceTerminating",
                "metadata.namespace",
                message,
            ));
        }
        status
    }

    /// 403 by the authorizer, about words that need not name anything that is served. An empty
    /// `resource` is a path.
    pub fn not_allowed(group: &str, resource: &str, name: &str, why: &str) -> Self {
        let qualified = match group {
            "" => resource.to_owned(),
            group => format!("{resource}.{group}"),
        };
        let message = match (resource, name) {
            ("", _) => format!("forbidden: {why}"),
            (_, "") => format!("{qualified} is forbidden: {why}"),
            (_, name) => format!("{qualified} {name:?} is forbidden: {why}"),
        };
        let details = Details {
            name: name.into(),
            group: group.to_owned().into(),
            kind: resource.to_owned().into(),
            ..Details::default()
        };
        Self {
            details: Some(Box::new(details)),
            ..Self::new(403, "Forbidden", message)
        }
    }

    /// 401: the credentials of the request are not good.
    pub fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized".to_owned())
    }

    pub fn method_not_allowed() -> Self {
        let message = "the server does not allow this method on the requested resource".to_owned();
        Self {
            details: Some(Box::default()),
            ..Self::new(405, "MethodNotAllowed", message)
        }
    }

    pub fn unsupported_media_type(accepted: &str) -> Self {
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: \
             {accepted}"
        );
        Self::new(415, "UnsupportedMediaType", message)
    }

    pub fn not_acceptable(available: &str) -> Self {
        let message = format!("406: Not Acceptable\n\nAvailable representations: {available}");
        let details = Some(Box::default());
        Self {
            details,
            ..Self::new(406, "NotAcceptable", message)
        }
    }

    /// 410: the revision is older than the kept history.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message.into())
    }

    /// 410 on a watch; upstream's text names the revision asked for and the oldest kept.
    pub fn too_old(rev: u64, floor: u64) -> Self {
        Self::expired(format!("too old resource version: {rev} ({floor})"))
    }

    /// 504: the revision is in the future.
    pub fn too_large(rev: u64, current: u64) -> Self {
        let message = format!("Timeout: Too large resource version: {rev}, current: {current}");
        let cause = Cause::new(
            "ResourceVersionTooLarge",
            "",
            "Too large resource version".into(),
        );
        let details = Details {
            causes: vec![cause],
            retry_after_seconds: 1,
            ..Details::default()
        };
        Self {
            details: Some(Box::new(details)),
            ..Self::new(504, "Timeout", message)
        }
    }

    pub fn too_many_requests(message: &str) -> Self {
        let details = Details {
            retry_after_seconds: 1,
            ..Details::default()
        };
        Self {
            details: Some(Box::new(details)),
            ..Self::new(429, "TooManyRequests", message.to_owned())
        }
    }

    /// 504: the server gave up after the time that a request may take.
    pub fn request_timeout() -> Self {
        let message = "Timeout: request did not complete within the allotted timeout".to_owned();
        Self {
            details: Some(Box::default()),
            ..Self::new(504, "Timeout", message)
        }
    }

    pub fn request_too_large(limit_bytes: usize) -> Self {
        let message = format!("Request entity too large: limit is {limit_bytes}");
        Self::new(413, "RequestEntityTooLarge", message)
    }

    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(
            500,
            "InternalError",
            format!("Internal error occurred: {}", message.into()),
        )
    }

    /// 501: understood, and not built in this version.
    pub fn not_implemented(what: &str) -> Self {
        Self::new(501, "NotImplemented", format!("{what} is not built yet"))
    }

    /// 503: the server cannot do it now.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(503, "ServiceUnavailable", message.into())
    }

    pub fn is_not_found(&self) -> bool {
        self.code == 404
    }

    /// Nothing new may be made in the namespace.
    pub(crate) fn is_namespace_terminating(&self) -> bool {
        let causes = self.details.as_ref().map(|details| details.causes.iter());
        causes
            .into_iter()
            .flatten()
            .any(|cause| cause.reason == "NamespaceTerminating")
    }

    pub fn is_conflict(&self) -> bool {
        self.reason == "Conflict"
    }

    /// As the API sends it.
    pub fn to_json(&self) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "code": self.code,
        });
        if !self.reason.is_empty() {
            status["reason"] = self.reason.into();
        }
        if let Some(details) = &self.details {
            if details.continue_token.is_empty() {
                status["details"] = json!(details);
            } else {
                status["metadata"]["continue"] = details.continue_token.clone().into();
            }
        }
        status
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::CONFIG_MAPS;

    #[test]
    fn one_broken_rule_is_told_plainly_and_several_in_brackets() {
        let cause = || Cause::required("spec.x", "");
        let one = Status::invalid(&CONFIG_MAPS, "a", vec![cause()]);
        assert_eq!(
            one.message,
            "ConfigMap \"a\" is invalid: spec.x: Required value"
        );
        let two = Status::invalid(&CONFIG_MAPS, "a", vec![cause(), cause()]);
        assert!(
            two.message
                .ends_with("[spec.x: Required value, spec.x: Required value]")
        );
    }

    #[test]
    fn a_missing_object_is_told_as_upstream_tells_it() {
        let expected = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": "configmaps \"nope\" not found", "reason": "NotFound",
            "details": {"name": "nope", "kind": "configmaps"}, "code": 404,
        });
        assert_eq!(Status::not_found(&CONFIG_MAPS, "nope").to_json(), expected);
    }
}
