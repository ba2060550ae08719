//! Which path and method is which handler, and how long each may take.

use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{Method, Uri};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};

use super::error::ApiError;
use super::forward::forward;
use super::guard::name_request;
use super::{
    Api, apps, create, exec, graphql, hosts, images, lease, machines, mesh, not_built, services,
    stream, wait, watch, wireguard,
};

/// Everything that answers when its change is recorded. Longer than the longest wait (60 s).
const USUAL_LIMIT: Duration = Duration::from_secs(75);
/// One-shot exec and restart have time limits of their own, a little below this.
const LONG_LIMIT: Duration = Duration::from_secs(345);
/// An import converts a whole image.
const IMPORT_LIMIT: Duration = Duration::from_secs(900);

pub(super) fn router(api: Api) -> Router {
    Router::new()
        .merge(limited(usual().merge(fleet()), USUAL_LIMIT))
        .merge(limited(long(), LONG_LIMIT))
        .merge(limited(
            Router::new()
                .route("/v1/images/import", post(images::import))
                .route("/v1/images/prune", post(images::prune)),
            IMPORT_LIMIT,
        ))
        .merge(not_built::routes())
        .layer(from_fn_with_state(Api::clone(&api), forward))
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .layer(from_fn(name_request))
        .with_state(api)
}

fn usual() -> Router<Api> {
    Router::new()
        .route("/v1/platform/regions", get(apps::regions))
        .route("/graphql", post(graphql::answer))
        .route("/v1/apps", get(apps::list).post(apps::create))
        .route("/v1/apps/{app}", get(apps::get).delete(apps::delete))
        .route("/v1/apps/{app}/watch", get(watch::watch))
        .route(
            "/v1/apps/{app}/machines",
            get(machines::list).post(create::create),
        )
        .route(
            "/v1/apps/{app}/machines/{id}",
            get(machines::get)
                .post(machines::update)
                .delete(machines::destroy),
        )
        .route("/v1/apps/{app}/machines/{id}/start", post(machines::start))
        .route("/v1/apps/{app}/machines/{id}/stop", post(machines::stop))
        .route("/v1/apps/{app}/machines/{id}/wait", get(wait::wait))
        .route("/v1/apps/{app}/machines/{id}/events", get(machines::events))
        .route(
            "/v1/apps/{app}/machines/{id}/metadata",
            get(machines::metadata)
                .put(not_built::metadata)
                .patch(not_built::metadata),
        )
        .route(
            "/v1/apps/{app}/machines/{id}/lease",
            get(lease::get).post(lease::acquire).delete(lease::release),
        )
        .route(
            "/v1/apps/{app}/machines/{id}/exec/stream",
            get(stream::exec),
        )
        .route("/v1/apps/{app}/machines/{id}/attach", get(stream::attach))
        .route("/v1/apps/{app}/machines/{id}/logs", get(stream::logs))
        .route("/v1/mesh", get(mesh::status))
        .route(
            "/v1/images",
            get(images::list)
                .post(images::pull)
                .merge(delete(images::remove)),
        )
}

/// What the directory answers, beyond Fly's API.
fn fleet() -> Router<Api> {
    Router::new()
        .route("/v1/apps/{app}/services", get(services::list))
        .route(
            "/v1/apps/{app}/services/{name}",
            get(services::get)
                .put(services::put)
                .delete(services::delete),
        )
        .route("/v1/hosts", get(hosts::list))
        .route("/v1/hosts/tokens", post(hosts::create_token))
        .route("/v1/hosts/{number}", delete(hosts::remove))
        .route(
            "/v1/orgs/{org}/wireguard/peers",
            get(wireguard::list).post(wireguard::create),
        )
        .route(
            "/v1/orgs/{org}/wireguard/peers/{name}",
            get(wireguard::get).delete(wireguard::delete),
        )
}

fn long() -> Router<Api> {
    Router::new()
        .route("/v1/apps/{app}/machines/{id}/exec", post(exec::exec))
        .route(
            "/v1/apps/{app}/machines/{id}/restart",
            post(machines::restart),
        )
}

/// The answer must have begun by then; what goes on for longer (a watch, a stream) has its own
/// end.
fn limited(router: Router<Api>, limit: Duration) -> Router<Api> {
    router.layer(from_fn_with_state(limit, within))
}

async fn within(State(limit): State<Duration>, request: Request, next: Next) -> Response {
    match tokio::time::timeout(limit, next.run(request)).await {
        Ok(response) => response,
        Err(_) => ApiError::TooSlow { limit }.into_response(),
    }
}

async fn no_such_path(uri: Uri) -> ApiError {
    ApiError::NoSuchPath {
        path: uri.path().chars().take(200).collect(),
    }
}

async fn no_such_method(method: Method, uri: Uri) -> ApiError {
    let path = uri.path().chars().take(200).collect();
    ApiError::NoSuchMethod {
        method: method.to_string(),
        path,
    }
}
