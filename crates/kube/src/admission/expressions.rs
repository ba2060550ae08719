//! What expressions of webhooks and policies can name: the request and its objects.

use std::sync::Arc;

use serde_json::Value;

use super::attributes::Attributes;
use super::matching::Form;
use super::{forms, webhooks};
use crate::cel::{self, AUTHORIZER, Ask, Budget, EvaluateError, Expression, Outcome, Variables};
use crate::object;
use crate::rbac;
use crate::status::Status;

/// `object`, `oldObject`, `request` and `authorizer`.
pub(super) async fn variables(
    attributes: &Attributes<'_>,
    form: &Form,
) -> Result<Variables, Status> {
    let mut variables = Variables::default();
    let object = forms::shown(attributes, form, &attributes.object).await?;
    variables.set("object", &object);
    let old = match attributes.old {
        Some(old) => forms::shown(attributes, form, old).await?,
        None => Value::Null,
    };
    variables.set("oldObject", &old);
    let row = form.0.as_deref().unwrap_or(attributes.resource);
    let mut request = webhooks::request(attributes, row, "");
    for field in ["name", "namespace", "subResource", "requestSubResource"] {
        if request.get(field).is_none() {
            request[field] = "".into();
        }
    }
    variables.set("request", &request);
    variables.set(AUTHORIZER, &cel::authorizer_value());
    Ok(variables)
}

/// Evaluates in the name of who sent the request.
pub(super) fn evaluate(
    attributes: &Attributes<'_>,
    expression: &Expression,
    variables: &Variables,
    budget: &mut Budget,
) -> Result<Outcome, EvaluateError> {
    let (api, user) = (attributes.api.clone(), attributes.api.caller().user.clone());
    let ask: Ask = Arc::new(move |question| {
        let is_allowed = api.may(&user, &asked(question));
        (is_allowed, String::new())
    });
    cel::authorizer(ask, || expression.evaluate(variables, budget))
}

/// What a chain of calls on `authorizer` asks.
fn asked(question: &Value) -> rbac::Request {
    let text = |field: &str| object::text(question, &[field]);
    match text("path") {
        "" => rbac::Request::resource(text("verb"), text("group"), text("resource"))
            .below(text("subresource"))
            .in_namespace(text("namespace"))
            .named(text("name")),
        path => rbac::Request::path(text("verb"), path),
    }
}
