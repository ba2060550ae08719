//! Questions that are answered and not stored: who am I, what may I do, whose token is this; and the tokens
//! of service accounts, which are not stored either.

use std::sync::Arc;

use hyper::body::Incoming;
use hyper::{Request as HttpRequest, Response, StatusCode};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::body::Body;
use super::query::Query;
use super::router::Target;
use super::{Server, codec, respond, verbs};
use crate::identity::User;
use crate::object;
use crate::rbac::{Decision, Request, Rule};
use crate::resource::{
    LOCAL_SUBJECT_ACCESS_REVIEWS, Resource, SELF_SUBJECT_ACCESS_REVIEWS, SELF_SUBJECT_REVIEWS,
    SELF_SUBJECT_RULES_REVIEWS, SUBJECT_ACCESS_REVIEWS, TOKEN_REQUESTS, TOKEN_REVIEWS,
};
use crate::status::{Cause, Status};

/// `POST serviceaccounts/<name>/token`.
pub(super) async fn token(
    server: &Server,
    user: &Arc<User>,
    target: &Target,
    query: &Query,
    request: HttpRequest<Incoming>,
) -> Result<Response<Body>, Status> {
    let (api, notes) = verbs::calling(server, user, query, &request);
    let namespace = target.namespace.as_deref().unwrap_or_default();
    let name = target.name.as_deref().unwrap_or_default();
    let body = codec::read(request).await?.object(TOKEN_REQUESTS.schema)?;
    let identity = &server.identity;
    let answer = identity.request_token(&api, namespace, name, &body, Timestamp::now());
    let answer = answer.map(|answer| respond::json(StatusCode::CREATED, &answer));
    Ok(respond::noted(answer, &notes))
}

/// The answer, if the resource is a question. `namespace` is the path's.
pub(super) async fn answer(
    server: &Server,
    user: &User,
    resource: &Resource,
    namespace: Option<&str>,
    body: &Value,
) -> Option<Result<Value, Status>> {
    let authorizer = server.api.authorizer();
    let spec = body.get("spec").cloned().unwrap_or_else(|| json!({}));
    let access = |user: &User| {
        let request = access_request(resource, &spec)?;
        Ok(access_status(&authorizer.allowed(user, &request)))
    };
    let status = if resource.is(&SELF_SUBJECT_REVIEWS) {
        let status = json!({"userInfo": user.to_json()});
        return Some(Ok(whole(resource, None, status)));
    } else if resource.is(&SELF_SUBJECT_ACCESS_REVIEWS) {
        access(user)
    } else if resource.is(&SUBJECT_ACCESS_REVIEWS) {
        subject(resource, &spec).and_then(|user| access(&user))
    } else if resource.is(&LOCAL_SUBJECT_ACCESS_REVIEWS) {
        within(resource, &spec, namespace)
            .and_then(|()| subject(resource, &spec))
            .and_then(|user| access(&user))
    } else if resource.is(&SELF_SUBJECT_RULES_REVIEWS) {
        match object::text(&spec, &["namespace"]) {
            "" => Err(Status::bad_request("no namespace on request")),
            namespace => {
                let (rules, error) = authorizer.rules_of(user, namespace);
                Ok(rules_status(&rules, error))
            }
        }
    } else if resource.is(&TOKEN_REVIEWS) {
        token_review(server, resource, &spec).await
    } else {
        return None;
    };
    Some(status.map(|status| whole(resource, Some(spec), status)))
}

fn whole(resource: &Resource, spec: Option<Value>, status: Value) -> Value {
    let mut answer = json!({
        "kind": resource.kind, "apiVersion": resource.api_version(),
        "metadata": {}, "status": status,
    });
    if let Some(spec) = spec {
        answer["spec"] = spec;
    }
    answer
}

async fn token_review(server: &Server, resource: &Resource, spec: &Value) -> Result<Value, Status> {
    let token = object::text(spec, &["token"]);
    if token.is_empty() {
        let why = format!("token is required for {} in authentication", resource.kind);
        return Err(Status::bad_request(why));
    }
    let audiences = texts(spec, "audiences");
    let identity = &server.identity;
    match identity.token(&server.api, token, &audiences).await {
        Ok((user, audiences)) => Ok(json!({
            "authenticated": true, "user": user.to_json(), "audiences": audiences,
        })),
        // Not why: whoever may ask is not whoever configured.
        Err(error) => Ok(json!({"user": {}, "error": error.to_string()})),
    }
}

/// The user that a review is about.
fn subject(resource: &Resource, spec: &Value) -> Result<User, Status> {
    let name = object::text(spec, &["user"]);
    let groups = texts(spec, "groups");
    if name.is_empty() && groups.is_empty() {
        let why = "at least one of user or group must be specified";
        let cause = Cause::invalid("spec.user", &"".into(), why);
        return Err(Status::invalid(resource, "", vec![cause]));
    }
    let extra = spec.get("extra").and_then(Value::as_object);
    let extra = extra.into_iter().flatten().map(|(key, values)| {
        let values = values.as_array().map_or(&[][..], Vec::as_slice);
        let values = values.iter().filter_map(Value::as_str).map(str::to_owned);
        (key.to_lowercase(), values.collect())
    });
    Ok(User {
        name: name.to_owned(),
        uid: object::text(spec, &["uid"]).to_owned(),
        groups,
        extra: extra.collect(),
    })
}

/// A local review asks about its own namespace.
fn within(resource: &Resource, spec: &Value, namespace: Option<&str>) -> Result<(), Status> {
    let field = "spec.resourceAttributes.namespace";
    let given = object::text(spec, &["resourceAttributes", "namespace"]);
    let cause = if spec
        .get("nonResourceAttributes")
        .is_some_and(|one| !one.is_null())
    {
        let why = "disallowed on this kind of request";
        Cause::invalid("spec.nonResourceAttributes", &Value::Null, why)
    } else if Some(given) == namespace {
        return Ok(());
    } else {
        Cause::invalid(field, &given.into(), "must match metadata.namespace")
    };
    Err(Status::invalid(resource, "", vec![cause]))
}

fn access_request(resource: &Resource, spec: &Value) -> Result<Request, Status> {
    let attributes = |field: &str| spec.get(field).filter(|one| !one.is_null());
    let (of_resource, of_path) = (
        attributes("resourceAttributes"),
        attributes("nonResourceAttributes"),
    );
    match (of_resource, of_path) {
        (Some(given), None) => {
            let text = |field: &str| object::text(given, &[field]);
            Ok(
                Request::resource(text("verb"), text("group"), text("resource"))
                    .in_namespace(text("namespace"))
                    .named(text("name"))
                    .below(text("subresource")),
            )
        }
        (None, Some(given)) => {
            let text = |field: &str| object::text(given, &[field]);
            Ok(Request::path(text("verb"), text("path")))
        }
        (None, None) | (Some(_), Some(_)) => {
            let why =
                "exactly one of nonResourceAttributes or resourceAttributes must be specified";
            let cause = Cause::invalid("spec.resourceAttributes", &Value::Null, why);
            Err(Status::invalid(resource, "", vec![cause]))
        }
    }
}

fn access_status(decision: &Decision) -> Value {
    let mut status = json!({"allowed": decision.is_allowed()});
    if !decision.reason().is_empty() {
        status["reason"] = decision.reason().into();
    }
    if let (Decision::Refused { reason }, false) = (decision, decision.reason().is_empty()) {
        let error = reason.strip_prefix("RBAC: ").unwrap_or(reason);
        status["evaluationError"] = error.into();
    }
    status
}

fn rules_status(rules: &[Rule], error: Option<String>) -> Value {
    let (mut of_resources, mut of_paths) = (Vec::new(), Vec::new());
    for rule in rules {
        let lists = [
            ("verbs", &rule.verbs),
            ("apiGroups", &rule.api_groups),
            ("resources", &rule.resources),
            ("resourceNames", &rule.resource_names),
            ("nonResourceURLs", &rule.non_resource_urls),
        ];
        let shown = |fields: &[&str]| -> Value {
            let lists = lists
                .iter()
                .filter(|(field, list)| fields.contains(field) && !list.is_empty());
            let shown: Map<_, _> = lists
                .map(|(field, list)| ((*field).to_owned(), json!(list)))
                .collect();
            shown.into()
        };
        if !rule.resources.is_empty() {
            of_resources.push(shown(&["verbs", "apiGroups", "resources", "resourceNames"]));
        }
        if !rule.non_resource_urls.is_empty() {
            of_paths.push(shown(&["verbs", "nonResourceURLs"]));
        }
    }
    let mut status = json!({
        "resourceRules": of_resources, "nonResourceRules": of_paths, "incomplete": false,
    });
    if let Some(error) = error {
        status["evaluationError"] = error.into();
    }
    status
}

fn texts(spec: &Value, field: &str) -> Vec<String> {
    let items = object::items(spec, &[field]).iter();
    items.filter_map(Value::as_str).map(str::to_owned).collect()
}
