//! The subresource `scale` of workloads.

use std::sync::Arc;

use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use serde_json::{Value, json};

use super::body::Body;
use super::codec::Representation;
use super::query::Query;
use super::router::{Target, Verb};
use super::{Server, codec, options, respond, verbs};
use crate::api::{Api, Patch, User};
use crate::resource::{Resource, SCALES};
use crate::status::Status;
use crate::table::{self, IncludeObject};

pub(super) async fn handle(
    server: &Server,
    user: &Arc<User>,
    resource: &Resource,
    target: &Target,
    query: &Query,
    request: Request<Incoming>,
) -> Result<Response<Body>, Status> {
    let (api, notes) = &verbs::calling(server, user, query, &request);
    let answer = answer(api, resource, target, query, request).await;
    Ok(respond::noted(answer, notes))
}

async fn answer(
    api: &Api,
    resource: &Resource,
    target: &Target,
    query: &Query,
    request: Request<Incoming>,
) -> Result<Response<Body>, Status> {
    let namespace = target.namespace.as_deref();
    let name = target.name.as_deref().unwrap_or_default();
    let representation = codec::negotiate(&request)?;
    let include = IncludeObject::parse(query.get("includeObject"))?;
    let shown = |scale| shown(scale, representation, include);
    match target.verb {
        Verb::Get => {
            let scale = api.scale(resource, namespace, name).await?;
            Ok(respond::json(StatusCode::OK, &shown(scale)))
        }
        Verb::Update | Verb::Patch => {
            let options = options::write(query, "PatchOptions")?;
            let body = codec::read(request).await?;
            let written = if target.verb == Verb::Update {
                let scale = body.object(SCALES.schema)?;
                let change = |_: &_| Ok(scale.clone());
                api.scale_with(resource, namespace, name, change, options)
                    .await?
            } else {
                let patch = verbs::patch(resource, &body, query)?.patch;
                if let Patch::Apply { object } = &patch {
                    api.apply_scale(resource, namespace, name, object, options)
                        .await?
                } else {
                    let change = |old: &_| patch.apply(&SCALES, old);
                    api.scale_with(resource, namespace, name, change, options)
                        .await?
                }
            };
            let response = respond::json(StatusCode::OK, &shown(written.object));
            Ok(respond::warn(response, &written.warnings))
        }
        Verb::List | Verb::Watch | Verb::Create | Verb::Delete | Verb::DeleteCollection => {
            Err(Status::method_not_allowed())
        }
    }
}

/// A scale as the client wants it.
fn shown(scale: Value, representation: Representation, include: IncludeObject) -> Value {
    match representation {
        Representation::Object => scale,
        Representation::Partial => table::partial(&scale),
        Representation::Table => {
            let meta = json!({"resourceVersion": scale["metadata"]["resourceVersion"]});
            table::render(&SCALES, &[scale], meta, include, table::Header::Yes)
        }
    }
}
