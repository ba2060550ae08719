//! What Fly's API has and this one has not yet: answered by name, so that a caller learns more
//! than "not found".

use axum::Router;
use axum::routing::any;

use super::Api;
use super::error::ApiError;

/// Paths of Fly's OpenAPI document and its client libraries, by feature.
const PATHS: [(&str, &str); 29] = [
    ("/v1/apps/{app}/deploy_token", "tokens"),
    ("/v1/apps/{app}/ip_assignments", "public addresses"),
    ("/v1/apps/{app}/ip_assignments/{*rest}", "public addresses"),
    ("/v1/apps/{app}/volumes", "volumes"),
    ("/v1/apps/{app}/volumes/{*rest}", "volumes"),
    ("/v1/apps/{app}/secrets", "secrets"),
    ("/v1/apps/{app}/secrets/{*rest}", "secrets"),
    ("/v1/apps/{app}/secretkeys", "secret keys"),
    ("/v1/apps/{app}/secretkeys/{*rest}", "secret keys"),
    ("/v1/apps/{app}/certificates", "certificates"),
    ("/v1/apps/{app}/certificates/{*rest}", "certificates"),
    ("/v1/apps/{app}/network_policies", "network policies"),
    (
        "/v1/apps/{app}/network_policies/{*rest}",
        "network policies",
    ),
    (
        "/v1/apps/{app}/machines/{id}/suspend",
        "machines that are suspended",
    ),
    (
        "/v1/apps/{app}/machines/{id}/signal",
        "signals other than those of a stop",
    ),
    ("/v1/apps/{app}/machines/{id}/ps", "process lists"),
    ("/v1/apps/{app}/machines/{id}/versions", "lists of versions"),
    (
        "/v1/apps/{app}/machines/{id}/cordon",
        "services, which could be cordoned,",
    ),
    (
        "/v1/apps/{app}/machines/{id}/uncordon",
        "services, which could be cordoned,",
    ),
    (
        "/v1/apps/{app}/machines/{id}/metadata/{key}",
        "changes of metadata without an update",
    ),
    ("/v1/apps/{app}/machines/{id}/memory", "memory balloons"),
    (
        "/v1/apps/{app}/machines/{id}/memory/reclaim",
        "memory balloons",
    ),
    (
        "/v1/orgs/{org}/machines",
        "lists of an organisation's machines",
    ),
    ("/v1/orgs/{org}/volumes", "volumes"),
    ("/v1/platform/placements", "placement questions"),
    ("/v1/tokens/{*rest}", "tokens"),
    ("/v1/postgres", "managed databases"),
    ("/v1/postgres/{*rest}", "managed databases"),
    ("/api/{*rest}", "the endpoints of Fly's web application"),
];

pub(super) fn routes() -> Router<Api> {
    PATHS.iter().fold(Router::new(), |router, (path, feature)| {
        router.route(path, any(async move || ApiError::NotBuilt { feature }))
    })
}

/// Methods of paths of which others are built.
pub(super) async fn metadata() -> ApiError {
    ApiError::NotBuilt {
        feature: "changes of metadata without an update",
    }
}
