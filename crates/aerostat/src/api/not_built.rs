//! What Fly's API has and this one has not yet: answered by name, so that a caller learns more
//! than "not found".

use axum::Router;
use axum::routing::{MethodFilter, MethodRouter, any, on};

use super::Api;
use super::error::ApiError;

/// Methods and paths of Fly's OpenAPI document and its client libraries, and the feature that they
/// belong to. `ANY` stands for every method.
pub(super) const PATHS: &[(&str, &str, &str)] = &[
    ("GET POST", "/v1/apps/{app}/ip_assignments", PUBLIC),
    ("DELETE", "/v1/apps/{app}/ip_assignments/{ip}", PUBLIC),
    ("GET", "/v1/apps/{app}/secretkeys", KEYS),
    ("GET POST DELETE", "/v1/apps/{app}/secretkeys/{name}", KEYS),
    ("POST", "/v1/apps/{app}/secretkeys/{name}/generate", KEYS),
    ("POST", "/v1/apps/{app}/secretkeys/{name}/encrypt", KEYS),
    ("POST", "/v1/apps/{app}/secretkeys/{name}/decrypt", KEYS),
    ("POST", "/v1/apps/{app}/secretkeys/{name}/sign", KEYS),
    ("POST", "/v1/apps/{app}/secretkeys/{name}/verify", KEYS),
    ("GET", "/v1/apps/{app}/certificates", CERTIFICATES),
    ("POST", "/v1/apps/{app}/certificates/acme", CERTIFICATES),
    ("POST", "/v1/apps/{app}/certificates/custom", CERTIFICATES),
    (
        "GET DELETE",
        "/v1/apps/{app}/certificates/{hostname}",
        CERTIFICATES,
    ),
    (
        "DELETE",
        "/v1/apps/{app}/certificates/{hostname}/acme",
        CERTIFICATES,
    ),
    (
        "DELETE",
        "/v1/apps/{app}/certificates/{hostname}/custom",
        CERTIFICATES,
    ),
    (
        "POST",
        "/v1/apps/{app}/certificates/{hostname}/check",
        CERTIFICATES,
    ),
    (
        "GET POST",
        "/v1/apps/{app}/network_policies",
        "network policies",
    ),
    (
        "DELETE",
        "/v1/apps/{app}/network_policies/{id}",
        "network policies",
    ),
    ("PUT", "/v1/apps/{app}/machines/{id}/memory", BALLOONS),
    (
        "POST",
        "/v1/apps/{app}/machines/{id}/memory/reclaim",
        BALLOONS,
    ),
    ("POST", "/v1/tokens/oidc", "tokens for other clouds"),
    ("POST", "/v1/tokens/kms", "tokens for a key service"),
    ("ANY", "/v1/postgres", "managed databases"),
    ("ANY", "/v1/postgres/{*rest}", "managed databases"),
    (
        "ANY",
        "/api/{*rest}",
        "the endpoints of Fly's web application",
    ),
];

const PUBLIC: &str = "public addresses";
const KEYS: &str = "secret keys";
const CERTIFICATES: &str = "certificates";
const BALLOONS: &str = "memory balloons";

pub(super) fn routes() -> Router<Api> {
    let mut router = Router::new();
    for (methods, path, feature) in PATHS {
        for method in methods.split(' ') {
            router = router.route(path, refusal(method, feature));
        }
    }
    router
}

fn refusal(method: &str, feature: &'static str) -> MethodRouter<Api> {
    let refuse = async move || ApiError::NotBuilt { feature };
    let filter = match method {
        "GET" => MethodFilter::GET,
        "POST" => MethodFilter::POST,
        "PUT" => MethodFilter::PUT,
        "PATCH" => MethodFilter::PATCH,
        "DELETE" => MethodFilter::DELETE,
        _ => return any(refuse),
    };
    on(filter, refuse)
}
