//! Apps, their services, and regions.

use types::api::{App, AppList, CreateApp, IDEMPOTENCY_KEY_HEADER, Ok as Done, RegionList};
use types::service::{Service, ServiceList, ServiceSpec};

use super::super::{apps, services};
use super::route::{Route, delete, get, post, put};

pub(super) fn routes() -> Vec<Route> {
    vec![
        get("/v1/apps", "Apps, by name", apps::list)
            .query(&[
                ("org_slug", "Only those of this organisation"),
                ("app_role", "Only those that were created as this"),
            ])
            .gives::<AppList>(),
        post("/v1/apps", "Creates an app", apps::create)
            .query(&[("wait", "Nothing: the answer always waits")])
            .headers(&[(IDEMPOTENCY_KEY_HEADER, "Makes the request repeatable")])
            .takes::<CreateApp>()
            .creates::<App>(),
        get("/v1/apps/{app}", "An app", apps::get).gives::<App>(),
        delete("/v1/apps/{app}", "Deletes an app", apps::delete)
            .query(&[("force", "Destroys its machines first")])
            .accepts::<Done>(),
        get(
            "/v1/apps/{app}/services",
            "Services, by name",
            services::list,
        )
        .gives::<ServiceList>(),
        get("/v1/apps/{app}/services/{name}", "A service", services::get).gives::<Service>(),
        put(
            "/v1/apps/{app}/services/{name}",
            "Makes a service, or replaces it with the same VIP",
            services::put,
        )
        .takes::<ServiceSpec>()
        .gives::<Service>(),
        delete(
            "/v1/apps/{app}/services/{name}",
            "Deletes a service",
            services::delete,
        )
        .says_nothing(),
        get(
            "/v1/platform/regions",
            "Regions that hosts are in",
            apps::regions,
        )
        .gives::<RegionList>(),
    ]
}
