//! From the table of routes to the router, with what stands in front of each.

use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{Method, Uri};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};

use super::error::ApiError;
use super::forward::forward;
use super::guard::name_request;
use super::{Api, not_built, routes};

pub(super) fn router(api: Api) -> Router {
    let mut router = not_built::routes();
    for route in routes::all() {
        let limit = route.limit.duration();
        let handler = route.handler.layer(from_fn_with_state(limit, within));
        router = router.route(route.path, handler);
    }
    router
        .layer(from_fn_with_state(Api::clone(&api), forward))
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .layer(from_fn(name_request))
        .with_state(api)
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
