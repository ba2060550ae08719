//! One question to one webhook.

use serde_json::Value;
use tracing::warn;

use super::Place;
use super::config::{FailurePolicy, Webhook};
use super::review::{self, Response};
use crate::admission::matching::Form;
use crate::admission::{Attributes, expressions, forms};
use crate::cel::Budget;
use crate::status::Status;

/// Bytes of an answer without review that are told.
const TOLD_BYTES_MAX: usize = 2048;
const OK: u16 = 200;
const NOT_FOUND: u16 = 404;

pub(super) enum Called {
    /// It is not about this request, or could not be asked and lets that pass.
    NotAsked,
    Answered {
        response: Response,
        form: Form,
    },
}

pub(super) async fn call(
    attributes: &Attributes<'_>,
    webhook: &Webhook,
    at: &Place<'_>,
    is_mutating: bool,
) -> Result<Called, Status> {
    let Some(form) = webhook.selection.selects(attributes) else {
        return Ok(Called::NotAsked);
    };
    if !is_wanted(attributes, webhook, &form).await? {
        return Ok(Called::NotAsked);
    }
    if attributes.is_dry_run() && !webhook.takes_dry_runs {
        let name = &webhook.name;
        let why = format!("admission webhook {name:?} does not support dry run");
        return Err(Status::bad_request(why));
    }
    match exchange(attributes, webhook, &form, is_mutating).await {
        Ok(response) => {
            for warning in &response.warnings {
                attributes.api.warn(warning.clone());
            }
            for (key, value) in &response.annotations {
                attributes
                    .api
                    .annotate(&format!("{}/{key}", webhook.name), value);
            }
            Ok(Called::Answered { response, form })
        }
        Err(why) => {
            let why = format!("failed calling webhook {:?}: {why}", webhook.name);
            match webhook.failure {
                FailurePolicy::Fail => Err(Status::internal(why)),
                FailurePolicy::Ignore => {
                    warn!(
                        webhook = webhook.name,
                        error = why,
                        "a webhook is passed over"
                    );
                    let kind = if is_mutating {
                        "mutation"
                    } else {
                        "validating"
                    };
                    let key = format!("failed-open.{kind}.webhook.admission.k8s.io/{}", at.name());
                    attributes.api.annotate(&key, &webhook.name);
                    Ok(Called::NotAsked)
                }
            }
        }
    }
}

/// Whether the conditions of the webhook hold.
async fn is_wanted(
    attributes: &Attributes<'_>,
    webhook: &Webhook,
    form: &Form,
) -> Result<bool, Status> {
    if webhook.conditions.is_empty() {
        return Ok(true);
    }
    let variables = expressions::variables(attributes, form).await?;
    let mut budget = Budget::default();
    let mut faults = Vec::new();
    for condition in &webhook.conditions {
        let evaluated = match &condition.expression {
            Ok(expression) => {
                expressions::evaluate(attributes, expression, &variables, &mut budget)
            }
            Err(error) => {
                faults.push(format!("matchCondition {:?}: {error}", condition.name));
                continue;
            }
        };
        match evaluated.map(|outcome| outcome.as_bool()) {
            // One that does not hold decides, whatever is wrong with others.
            Ok(Some(false)) => return Ok(false),
            Ok(Some(true)) => {}
            Ok(None) => faults.push(format!("matchCondition {:?}: no boolean", condition.name)),
            Err(error) => faults.push(format!("matchCondition {:?}: {error}", condition.name)),
        }
    }
    match (&faults[..], webhook.failure) {
        ([], _) => Ok(true),
        (_, FailurePolicy::Ignore) => Ok(false),
        (_, FailurePolicy::Fail) => {
            let why = faults.join(", ");
            Err(Status::forbidden(
                attributes.resource,
                &attributes.name,
                &why,
            ))
        }
    }
}

/// Asks and reads the answer; the error says what went wrong.
async fn exchange(
    attributes: &Attributes<'_>,
    webhook: &Webhook,
    form: &Form,
    is_mutating: bool,
) -> Result<Response, String> {
    let version = webhook
        .review_version
        .ok_or("webhook does not accept known AdmissionReview versions (v1, v1beta1)")?;
    let endpoint = webhook.endpoint.as_ref().map_err(Clone::clone)?;
    let uid = uuid::Uuid::new_v4().to_string();
    let row = form.0.as_deref().unwrap_or(attributes.resource);
    let mut request = review::request(attributes, row, &uid);
    let told = |status: Status| status.message;
    request["object"] = forms::shown(attributes, form, &attributes.object)
        .await
        .map_err(told)?;
    request["oldObject"] = match attributes.old {
        Some(old) => forms::shown(attributes, form, old).await.map_err(told)?,
        None => Value::Null,
    };
    let body = review::question(version, request).to_string();
    let post = attributes
        .api
        .egress()
        .post(endpoint, &webhook.path, body.into(), webhook.timeout);
    let answer = post.await.map_err(|error| {
        let authority = endpoint.address.authority();
        format!(
            "failed to call webhook: Post \"https://{authority}{}\": {error}",
            webhook.path
        )
    })?;
    if answer.code != OK {
        return Err(format!(
            "failed to call webhook: {}",
            told_by(answer.code, &answer.body)
        ));
    }
    let answer: Value = serde_json::from_slice(&answer.body)
        .map_err(|error| format!("failed to call webhook: couldn't get a review: {error}"))?;
    let read = review::response(&webhook.name, version, &uid, is_mutating, &answer);
    read.map_err(|why| format!("received invalid webhook response: {why}"))
}

/// What an answer says that is no review.
fn told_by(code: u16, body: &[u8]) -> String {
    let body = String::from_utf8_lossy(&body[..body.len().min(TOLD_BYTES_MAX)]);
    let body = body.trim_end();
    match code {
        NOT_FOUND => "the server could not find the requested resource".to_owned(),
        500.. => {
            format!("an error on the server ({body:?}) has prevented the request from succeeding")
        }
        _ => format!(
            "the server responded with the status code {code} but did not return more information"
        ),
    }
}
