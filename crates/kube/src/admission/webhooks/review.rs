//! AdmissionReview: what a webhook is asked, and what it answers.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use crate::admission::Attributes;
use crate::api::Patch;
use crate::object;
use crate::status::Status;

/// What a webhook says.
#[derive(Debug, Default)]
pub(super) struct Response {
    /// None if the request is let in.
    pub(super) denial: Option<Status>,
    pub(super) patch: Option<Patch>,
    pub(super) warnings: Vec<String>,
    pub(super) annotations: Vec<(String, String)>,
}

/// The question. `request` is [`Attributes::request`] in the form that the webhook wants.
pub(super) fn question(version: &str, request: Value) -> Value {
    json!({
        "kind": "AdmissionReview", "apiVersion": format!("admission.k8s.io/{version}"),
        "request": request,
    })
}

/// Reads the answer; the error says what is wrong with it.
pub(super) fn response(
    webhook: &str,
    version: &str,
    uid: &str,
    is_mutating: bool,
    answer: &Value,
) -> Result<Response, String> {
    let response = &answer["response"];
    if !response.is_object() {
        return Err("webhook response was absent".to_owned());
    }
    let patch = if version == "v1" {
        check(version, uid, answer)?;
        patch_of(response, is_mutating)?
    } else {
        object::text(response, &["patch"])
    };
    let texts = object::items(response, &["warnings"]).iter();
    let annotations = response["auditAnnotations"]
        .as_object()
        .into_iter()
        .flatten();
    Ok(Response {
        denial: (response["allowed"] != true).then(|| denial(webhook, &response["status"])),
        patch: parse(patch)?.filter(|_| is_mutating),
        warnings: texts.filter_map(Value::as_str).map(str::to_owned).collect(),
        annotations: annotations
            .map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned()))
            .collect(),
    })
}

fn check(version: &str, uid: &str, answer: &Value) -> Result<(), String> {
    let is = |field: &str| object::text(answer, &[field]);
    let expected = format!("admission.k8s.io/{version}");
    if (is("apiVersion"), is("kind")) != (expected.as_str(), "AdmissionReview") {
        return Err(format!(
            "expected webhook response of {expected}, Kind=AdmissionReview, got {}, Kind={}",
            is("apiVersion"),
            is("kind")
        ));
    }
    let given = object::text(&answer["response"], &["uid"]);
    if given != uid {
        return Err(format!("expected response.uid={uid:?}, got {given:?}"));
    }
    Ok(())
}

fn patch_of(response: &Value, is_mutating: bool) -> Result<&str, String> {
    let patch = object::text(response, &["patch"]);
    let kind = object::at(response, &["patchType"]).and_then(Value::as_str);
    let wrong = match (is_mutating, patch.is_empty(), kind) {
        (false, false, _) => "validating webhook may not return response.patch",
        (false, true, Some(_)) => "validating webhook may not return response.patchType",
        (true, false, None) => "webhook returned response.patch but not response.patchType",
        (true, true, Some(_)) => "webhook returned response.patchType but not response.patch",
        (true, false, Some(kind)) if kind != "JSONPatch" => {
            return Err(format!(
                "webhook returned invalid response.patchType of {kind:?}"
            ));
        }
        (true, false, Some(_)) | (_, true, None) => return Ok(patch),
    };
    Err(wrong.to_owned())
}

fn parse(patch: &str) -> Result<Option<Patch>, String> {
    if patch.is_empty() {
        return Ok(None);
    }
    let bytes = BASE64_STANDARD
        .decode(patch)
        .map_err(|error| error.to_string())?;
    let body = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
    Patch::json(body).map(Some).map_err(|status| status.message)
}

/// A refusal in the webhook's words; upstream sees to it that it is one.
fn denial(webhook: &str, given: &Value) -> Status {
    let by = format!("admission webhook {webhook:?} denied the request");
    let text = |field: &str| object::text(given, &[field]);
    let message = match (text("message"), text("reason")) {
        ("", "") => format!("{by} without explanation"),
        ("", reason) => format!("{by}: {reason}"),
        (message, _) => format!("{by}: {message}"),
    };
    let code = given["code"]
        .as_u64()
        .and_then(|code| u16::try_from(code).ok());
    let code = code.filter(|code| (400..600).contains(code)).unwrap_or(400);
    Status {
        code,
        reason: reason(text("reason")),
        message,
        details: None,
    }
}

/// Reasons that programs know. Others stand in the message.
fn reason(given: &str) -> &'static str {
    const KNOWN: [&str; 16] = [
        "AlreadyExists",
        "BadRequest",
        "Conflict",
        "Expired",
        "Forbidden",
        "Gone",
        "InternalError",
        "Invalid",
        "MethodNotAllowed",
        "NotAcceptable",
        "NotFound",
        "ServiceUnavailable",
        "Timeout",
        "TooManyRequests",
        "Unauthorized",
        "UnsupportedMediaType",
    ];
    let known = KNOWN.iter().find(|known| **known == given);
    known.copied().unwrap_or_default()
}

/// The request as webhooks and expressions see it, without the objects.
pub(crate) fn request(
    attributes: &Attributes<'_>,
    form: &crate::resource::Resource,
    uid: &str,
) -> Value {
    let own = attributes.resource;
    let subresource = attributes.subresource;
    let kind = |row: &crate::resource::Resource| {
        let sub = subresource.and_then(|name| row.subresource(name));
        let (group, version) = sub
            .and_then(|sub| sub.group_version)
            .unwrap_or((row.group, row.version));
        let kind = sub.map_or(row.kind, |sub| sub.kind);
        json!({"group": group, "version": version, "kind": kind})
    };
    let resource = |row: &crate::resource::Resource| json!({"group": row.group, "version": row.version, "resource": row.plural});
    let mut request = json!({
        "uid": uid,
        "kind": kind(form), "resource": resource(form),
        "requestKind": kind(own), "requestResource": resource(own),
        "operation": attributes.operation.as_str(),
        "userInfo": attributes.user_info(),
        "dryRun": attributes.is_dry_run(),
        "options": attributes.options(),
    });
    if let Some(subresource) = subresource {
        request["subResource"] = subresource.into();
        request["requestSubResource"] = subresource.into();
    }
    if !attributes.name.is_empty() {
        request["name"] = attributes.name.as_str().into();
    }
    if let Some(namespace) = attributes.namespace_of_request() {
        request["namespace"] = namespace.into();
    }
    request
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(is_mutating: bool, response: Value) -> Result<Response, String> {
        let mut response = response;
        response["uid"] = "u".into();
        let answer = json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1",
            "response": response});
        super::response("w", "v1", "u", is_mutating, &answer)
    }

    #[test]
    fn a_denial_is_worded_as_upstream_words_it() {
        let told = |status: Value| {
            let answer = answered(false, json!({"allowed": false, "status": status}));
            let denial = answer.expect("an answer").denial.expect("denied");
            (denial.code, denial.reason, denial.message)
        };
        let by = "admission webhook \"w\" denied the request";
        assert_eq!(
            told(json!(null)),
            (400, "", format!("{by} without explanation"))
        );
        assert_eq!(
            told(json!({"reason": "Conflict"})),
            (400, "Conflict", format!("{by}: Conflict"))
        );
        let status = json!({"code": 403, "message": "no", "reason": "Forbidden"});
        assert_eq!(told(status), (403, "Forbidden", format!("{by}: no")));
        assert_eq!(told(json!({"code": 200, "message": "no"})).0, 400);
    }

    #[test]
    fn an_answer_that_does_not_fit_is_told() {
        let wrong = |is_mutating: bool, response: Value| {
            answered(is_mutating, response).expect_err("wrong")
        };
        assert_eq!(
            wrong(false, json!({"allowed": true, "patch": "W10="})),
            "validating webhook may not return response.patch"
        );
        assert_eq!(
            wrong(true, json!({"allowed": true, "patch": "W10="})),
            "webhook returned response.patch but not response.patchType"
        );
        let absent = response("w", "v1", "u", false, &json!({}));
        assert_eq!(absent.expect_err("absent"), "webhook response was absent");
        let other = json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1",
            "response": {"uid": "other", "allowed": true}});
        let other = response("w", "v1", "u", false, &other);
        assert_eq!(
            other.expect_err("other"),
            "expected response.uid=\"u\", got \"other\""
        );
    }
}
