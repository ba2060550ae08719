//! The verbs on objects: from a request to the [`Api`](crate::api::Api) and back.

use std::sync::Arc;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use serde_json::{Value, json};

use super::body::{self, Body};
use super::codec::{self, Representation, negotiate};
use super::query::Query;
use super::router::{Target, Verb};
use super::{Server, options, pods, respond, reviews};
use crate::api::{
    Api, Deleted, Given, GivenPatch, List, Notes, Part, Patch, StoredList, User, Verbatim, Written,
};
use crate::object;
use crate::resource::{self, Resource, Row};
use crate::status::{Cause, Status};
use crate::table::{self, IncludeObject};

const PATCH_TYPES: &str = "application/json-patch+json, application/merge-patch+json, \
                           application/strategic-merge-patch+json, application/apply-patch+yaml";
const CUSTOM_PATCH_TYPES: &str = "application/json-patch+json, application/merge-patch+json, \
                                  application/apply-patch+yaml";

pub(super) async fn handle(
    server: &Server,
    user: &Arc<User>,
    resource: &Row,
    target: &Target,
    query: &Query,
    request: Request<Incoming>,
) -> Result<Response<Body>, Status> {
    let shape = Shape::of(resource, query, &request)?;
    let (api, notes) = &calling(server, user, query, &request);
    let kind = resource.custom.as_ref();
    if let Some(warning) = kind.and_then(|kind| kind.deprecation.clone()) {
        notes.warn(warning);
    }
    let deprecated = match (resource.group, resource.plural) {
        ("", "endpoints") => {
            Some("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice")
        }
        ("", "componentstatuses") => Some("v1 ComponentStatus is deprecated in v1.19+"),
        _ => None,
    };
    if let Some(warning) = deprecated {
        notes.warn(warning.to_owned());
    }
    let answer = answer(server, api, user, &shape, target, query, request);
    Ok(respond::noted(answer.await, notes))
}

/// The API in the name of who sent the request, and what it has to say beside the answer.
pub(super) fn calling(
    server: &Server,
    user: &Arc<User>,
    query: &Query,
    request: &Request<Incoming>,
) -> (Api, Notes) {
    let known = request.extensions().get::<Notes>();
    let notes = known.cloned().unwrap_or_default();
    let api = server.api.acting_as(user.clone(), &manager(query, request));
    (api.with_notes(notes.clone()), notes)
}

async fn answer(
    server: &Server,
    api: &Api,
    user: &User,
    shape: &Shape,
    target: &Target,
    query: &Query,
    request: Request<Incoming>,
) -> Result<Response<Body>, Status> {
    let resource = &*shape.resource;
    let namespace = target.namespace.as_deref();
    let name = target.name.as_deref().unwrap_or_default();
    if resource.is(&resource::COMPONENT_STATUSES) {
        return shape.components(api, target, query);
    }
    if resource.is(&resource::BINDINGS) {
        let body = codec::read(request).await?.object(resource.schema)?;
        let namespace = namespace.unwrap_or_default();
        return pods::bind(api, namespace, object::name(&body), &body).await;
    }
    match target.verb {
        Verb::Get => {
            options::check_revision(query, api.current_rev())?;
            let object = api.get(resource, namespace, name).await?;
            shape.object(StatusCode::OK, object, &[])
        }
        Verb::List | Verb::Watch => {
            let options = options::list(resource, query, api.current_rev())?;
            if shape.representation == Representation::Object
                && let Some(list) = api.list_stored(resource, namespace, &options).await?
            {
                return Ok(shape.stored(list));
            }
            Ok(shape.list(api.list_with(resource, namespace, &options).await?))
        }
        Verb::Create => {
            let options = options::write(query, "CreateOptions")?;
            let body = codec::read(request).await?.given(resource.schema)?;
            let review = reviews::answer(server, user, resource, namespace, &body.object);
            if let Some(answer) = review.await {
                return Ok(respond::json(StatusCode::CREATED, &answer?));
            }
            let written = api.create_with(resource, namespace, body, options).await?;
            shape.object(StatusCode::CREATED, written.object, &written.warnings)
        }
        Verb::Update => {
            let options = options::write(query, "UpdateOptions")?;
            let body = codec::read(request).await?.given(resource.schema)?;
            let part = part(target);
            let written = api
                .update_with(resource, part, namespace, name, body, options)
                .await?;
            shape.object(code_of(&written), written.object, &written.warnings)
        }
        Verb::Patch => {
            let options = options::write(query, "PatchOptions")?;
            let patch = patch(resource, &codec::read(request).await?, query)?;
            let part = part(target);
            let written = api
                .patch_with(resource, part, namespace, name, &patch, options)
                .await?;
            shape.object(code_of(&written), written.object, &written.warnings)
        }
        Verb::Delete => {
            let options = options::delete(query, &codec::read(request).await?)?;
            shape.deleted(api.delete(resource, namespace, name, &options).await?)
        }
        Verb::DeleteCollection => {
            let options = options::delete(query, &codec::read(request).await?)?;
            let selector = options::selector(resource, query)?;
            let items = api
                .delete_collection(resource, namespace, &selector, &options)
                .await?;
            let rev = api.current_rev();
            Ok(shape.list(List {
                items,
                rev,
                ..List::default()
            }))
        }
    }
}

/// The controllers and the scheduler are in this process, so that they are there whenever it
/// answers.
fn components(api: &Api) -> Vec<Value> {
    let told = |name: &str, state: Result<(), &str>| {
        let condition = match state {
            Ok(()) => json!({"type": "Healthy", "status": "True", "message": "ok"}),
            Err(why) => json!({"type": "Healthy", "status": "False", "message": why}),
        };
        json!({"kind": "ComponentStatus", "apiVersion": "v1", "metadata": {"name": name},
            "conditions": [condition]})
    };
    vec![
        told("controller-manager", Ok(())),
        told("etcd-0", api.check()),
        told("scheduler", Ok(())),
    ]
}

fn code_of(written: &Written) -> StatusCode {
    if written.is_new {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    }
}

/// Who owns the fields that a request writes: as it says, else the first word of its user agent.
fn manager(query: &Query, request: &Request<Incoming>) -> String {
    const MANAGER_MAX: usize = 128;
    let given = query.get("fieldManager");
    if !given.is_empty() {
        return given.to_owned();
    }
    let agent = request.headers().get(hyper::header::USER_AGENT);
    let agent = agent.and_then(|agent| agent.to_str().ok());
    let first = agent.unwrap_or("unknown").split('/').next();
    let first = first.unwrap_or("unknown");
    first.chars().take(MANAGER_MAX).collect()
}

fn part(target: &Target) -> Part {
    match target.subresource.as_deref() {
        Some("status") => Part::Status,
        Some("approval") => Part::Approval,
        Some("finalize") => Part::Finalize,
        Some("ephemeralcontainers") => Part::EphemeralContainers,
        Some("resize") => Part::Resize,
        Some(_) | None => Part::Object,
    }
}

/// A patch, and what stands twice in its text.
pub(super) struct SentPatch {
    pub(super) patch: Patch,
    repeated: Vec<String>,
}

impl<'a> From<&'a SentPatch> for GivenPatch<'a> {
    fn from(sent: &'a SentPatch) -> Self {
        Self {
            patch: &sent.patch,
            repeated: &sent.repeated,
        }
    }
}

pub(super) fn patch(
    resource: &Resource,
    body: &codec::Body,
    query: &Query,
) -> Result<SentPatch, Status> {
    let is_custom = resource.custom.is_some();
    let is_apply = body.media_type == "application/apply-patch+yaml";
    let invalid = |cause| {
        let causes = vec![cause];
        Err(Status::invalid_kind(
            "meta.k8s.io",
            "PatchOptions",
            "",
            causes,
        ))
    };
    if !is_apply && query.all("force").next().is_some() {
        let why = "may not be specified for non-apply patch";
        return invalid(Cause::forbidden("force", why));
    }
    match body.media_type.as_str() {
        "application/json-patch+json" => {
            let given = body.json()?;
            let repeated = given.text.map_or_else(Vec::new, |text| text.operations());
            let patch = Patch::json(given.object)?;
            Ok(SentPatch { patch, repeated })
        }
        "application/merge-patch+json" => sent(body.json()?, Patch::Merge),
        "application/strategic-merge-patch+json" if !is_custom => {
            sent(body.json()?, Patch::Strategic)
        }
        "application/apply-patch+yaml" if query.get("fieldManager").is_empty() => invalid(
            Cause::required("fieldManager", "is required for apply patch"),
        ),
        "application/apply-patch+yaml" => {
            let given = body.wanted()?;
            let repeated = given.text.and_then(|text| text.applied());
            Ok(SentPatch {
                patch: Patch::server_side(given.object),
                repeated: repeated.into_iter().collect(),
            })
        }
        _ if is_custom => Err(Status::unsupported_media_type(CUSTOM_PATCH_TYPES)),
        _ => Err(Status::unsupported_media_type(PATCH_TYPES)),
    }
}

fn sent(given: Given, patch: impl FnOnce(Value) -> Patch) -> Result<SentPatch, Status> {
    let repeated = given.text.map_or_else(Vec::new, |text| text.repeated());
    let patch = patch(given.object);
    Ok(SentPatch { patch, repeated })
}

/// Of a list, gathered before they are sent.
const CHUNK_BYTES: usize = 64 * 1024;

/// How this answer is to look.
struct Shape {
    resource: Row,
    representation: Representation,
    include: IncludeObject,
}

impl Shape {
    fn of(resource: &Row, query: &Query, request: &Request<Incoming>) -> Result<Self, Status> {
        let representation = negotiate(request)?;
        // Reviews are answers, not objects that could be shown in a list.
        let is_stored = resource.verbs.contains(&"get");
        if !is_stored && representation != Representation::Object {
            return Err(Status::not_acceptable(codec::AVAILABLE));
        }
        let include = IncludeObject::parse(query.get("includeObject"))?;
        Ok(Self {
            resource: resource.clone(),
            representation,
            include,
        })
    }

    fn object(
        &self,
        code: StatusCode,
        object: Value,
        warnings: &[String],
    ) -> Result<Response<Body>, Status> {
        let value = match self.representation {
            Representation::Object => object,
            Representation::Partial => table::partial(&object),
            Representation::Table => {
                let meta = json!({"resourceVersion": object["metadata"]["resourceVersion"]});
                table::render(
                    &self.resource,
                    &[object],
                    meta,
                    self.include,
                    table::Header::Yes,
                )
            }
        };
        Ok(respond::warn(respond::json(code, &value), warnings))
    }

    /// A list that is written while it is sent, so that a large one is never in memory a second
    /// time.
    fn stored(&self, list: StoredList) -> Response<Body> {
        let meta = list_meta(list.rev, list.continue_token, list.remaining);
        let (kind, version) = (&self.resource.kind, self.resource.api_version());
        let head = format!(
            r#"{{"kind":"{kind}List","apiVersion":"{version}","metadata":{meta},"items":["#
        );
        let verbatim = Verbatim::of(&self.resource);
        let mut entries = list.entries.into_iter().peekable();
        let mut chunk = head.into_bytes();
        let mut is_first = true;
        let chunks = std::iter::from_fn(move || {
            if is_first || entries.peek().is_some() {
                while chunk.len() < CHUNK_BYTES
                    && let Some((_, entry)) = entries.next()
                {
                    if !std::mem::take(&mut is_first) {
                        chunk.push(b',');
                    }
                    verbatim.item(&entry, &mut chunk);
                }
                is_first = false;
                if entries.peek().is_none() {
                    chunk.extend_from_slice(b"]}\n");
                }
                return Some(Ok(Bytes::from(std::mem::take(&mut chunk))));
            }
            None
        });
        let mut response = respond::bytes(StatusCode::OK, "application/json", "");
        *response.body_mut() = body::stream(futures::stream::iter(chunks));
        response
    }

    fn components(
        &self,
        api: &Api,
        target: &Target,
        query: &Query,
    ) -> Result<Response<Body>, Status> {
        let mut items = components(api);
        if target.verb == Verb::List {
            let selector = options::selector(&self.resource, query)?;
            items.retain(|item| selector.matches(item));
            return Ok(self.list(List {
                items,
                ..List::default()
            }));
        }
        let name = target.name.as_deref().unwrap_or_default();
        let found = items.into_iter().find(|item| object::name(item) == name);
        let found = found.ok_or_else(|| Status::not_found(&self.resource, name))?;
        self.object(StatusCode::OK, found, &[])
    }

    fn list(&self, list: List) -> Response<Body> {
        let meta = list_meta(list.rev, list.continue_token, list.remaining);
        let value = match self.representation {
            Representation::Table => table::render(
                &self.resource,
                &list.items,
                meta,
                self.include,
                table::Header::Yes,
            ),
            Representation::Partial => json!({
                "kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1",
                "metadata": meta,
                "items": list.items.iter().map(table::partial).collect::<Vec<_>>(),
            }),
            Representation::Object => json!({
                "kind": format!("{}List", self.resource.kind),
                "apiVersion": self.resource.api_version(),
                "metadata": meta,
                "items": list.items.into_iter().map(without_kind).collect::<Vec<_>>(),
            }),
        };
        respond::json(StatusCode::OK, &value)
    }

    /// Gone objects are told by a Status, except for the kinds that upstream returns.
    fn deleted(&self, deleted: Deleted) -> Result<Response<Body>, Status> {
        match deleted {
            Deleted::Gone(object) if !self.resource.returns_deleted => {
                let mut details = json!({
                    "name": object::name(&object), "kind": self.resource.plural,
                    "uid": object::uid(&object),
                });
                if !self.resource.group.is_empty() {
                    details["group"] = self.resource.group.into();
                }
                let status = json!({
                    "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
                    "details": details,
                });
                Ok(respond::json(StatusCode::OK, &status))
            }
            Deleted::Gone(object) | Deleted::Terminating(object) => {
                self.object(StatusCode::OK, object, &[])
            }
        }
    }
}

fn list_meta(rev: u64, continue_token: Option<String>, remaining: Option<usize>) -> Value {
    let mut meta = json!({"resourceVersion": rev.to_string()});
    if let Some(token) = continue_token {
        meta["continue"] = token.into();
    }
    if let Some(remaining) = remaining {
        meta["remainingItemCount"] = remaining.into();
    }
    meta
}

/// Items of a list do not repeat what the list says.
fn without_kind(mut object: Value) -> Value {
    if let Some(map) = object.as_object_mut() {
        map.remove("kind");
        map.remove("apiVersion");
    }
    object
}

/// The body type of a subresource of pods.
pub(super) fn body_type(subresource: &resource::Subresource) -> &'static str {
    match subresource.kind {
        "Binding" => "io.k8s.api.core.v1.Binding",
        "Eviction" => "io.k8s.api.policy.v1.Eviction",
        _ => resource::PODS.schema,
    }
}
