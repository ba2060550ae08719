//! APIService aggregation: groups and versions that another server answers for.
//!
//! ```text
//!   /apis/<group>/<version>/...  ── is there an APIService with a service? ── no ── our own
//!                                            │ yes, and available
//!                                            └── the same request to that server, with who asks
//! ```
//!
//! Discovery and OpenAPI are merged, so that clients see one server. `keeper` writes the objects
//! of our own groups and finds out which of the others answer.

mod discovery;
mod keeper;
mod proxy;

use std::sync::{Arc, OnceLock};

use hyper::body::Incoming;
use hyper::{Method, Request, Response};
use serde_json::Value;

use super::body::Body;
use super::{Server, usage};
use crate::admission::Index;
use crate::egress::{Endpoint, api_service};
use crate::identity::User;
use crate::object;
use crate::status::Status;

pub(super) use self::keeper::{Aggregated, keep};

/// A group and version, and who answers for it.
#[derive(Debug)]
pub(crate) struct Remote {
    name: String,
    group: String,
    version: String,
    group_priority: i64,
    version_priority: i64,
    /// None: we do.
    endpoint: Option<Result<Endpoint, String>>,
    is_available: bool,
}

/// The parsed APIServices.
pub(crate) type Remotes = Index<Remote>;

impl Remote {
    pub(crate) fn parse(object: Value) -> Self {
        let spec = &object["spec"];
        let text = |field: &str| object::text(spec, &[field]).to_owned();
        let conditions = object::items(&object, &["status", "conditions"]);
        let mut available = conditions.iter().filter(|one| one["type"] == "Available");
        Self {
            name: object::name(&object).to_owned(),
            group: text("group"),
            version: text("version"),
            group_priority: spec["groupPriorityMinimum"].as_i64().unwrap_or(0),
            version_priority: spec["versionPriority"].as_i64().unwrap_or(0),
            endpoint: spec["service"].is_object().then(|| api_service(spec)),
            is_available: available.any(|one| one["status"] == "True"),
        }
    }

    fn is_remote(&self) -> bool {
        self.endpoint.is_some()
    }

    /// What is used, which this server tells itself.
    fn of_usage() -> Arc<Self> {
        static OWN: OnceLock<Arc<Remote>> = OnceLock::new();
        let own = OWN.get_or_init(|| {
            Arc::new(Self {
                name: usage::SERVICE.to_owned(),
                group: usage::GROUP.to_owned(),
                version: usage::VERSION.to_owned(),
                group_priority: 100,
                version_priority: 100,
                endpoint: None,
                is_available: true,
            })
        });
        Arc::clone(own)
    }
}

/// Those that others answer for, and the one of ours that is like them, the most important first.
fn remotes(server: &Server) -> Vec<Arc<Remote>> {
    let api = &server.api;
    let mut all = api.admission().api_services.all(api, None);
    all.retain(|one| one.is_remote());
    if server.usage.is_some() && !all.iter().any(|one| one.name == usage::SERVICE) {
        all.push(Remote::of_usage());
    }
    all.sort_by_key(|one| {
        (
            -one.group_priority,
            one.group.clone(),
            -one.version_priority,
        )
    });
    all
}

/// Answers a request that is not, or not only, for us; gives back one that is.
pub(super) async fn handle(
    server: &Server,
    user: &User,
    request: Request<Incoming>,
) -> Result<Result<Response<Body>, Status>, Request<Incoming>> {
    let path = request.uri().path().to_owned();
    let is_ours = !path.starts_with("/apis") && !path.starts_with("/openapi/v3");
    if is_ours {
        return Err(request);
    }
    let remotes = remotes(server);
    if remotes.is_empty() {
        return Err(request);
    }
    let parts: Vec<_> = path.trim_matches('/').split('/').collect();
    let of = |group: &str, version: &str| {
        remotes
            .iter()
            .find(|one| one.group == group && one.version == version)
    };
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    match parts[..] {
        ["apis"] if is_read => Ok(discovery::groups(server, &remotes, &request)),
        ["apis", group] if is_read && remotes.iter().any(|one| one.group == group) => {
            Ok(discovery::group(server, &remotes, group, &request))
        }
        ["openapi", "v3"] if is_read => Ok(discovery::documents(server, &remotes, &request)),
        ["apis", group, version, ..] | ["openapi", "v3", "apis", group, version] => {
            match (of(group, version), &server.usage) {
                (Some(remote), Some(usage)) if !remote.is_remote() && parts[0] == "apis" => {
                    Ok(usage::handle(server, &**usage, &request).await)
                }
                (Some(remote), _) => Ok(proxy::forward(server, user, remote, request).await),
                (None, _) => Err(request),
            }
        }
        _ => Err(request),
    }
}
