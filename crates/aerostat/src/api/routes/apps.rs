//! Apps, their services, and what an organisation or a region has.

use types::api::{
    App, AppList, AskPlacement, CreateApp, IDEMPOTENCY_KEY_HEADER, Ok as Done, OrgMachineList,
    Placements, RegionList,
};
use types::service::{Service, ServiceList, ServiceSpec};

use super::super::{apps, orgs, placements, services};
use super::machines::{FROM, LAST_EVENT_ID, WATCH};
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
        post(
            "/v1/platform/placements",
            "Where machines would have room; nothing is promised",
            placements::answer,
        )
        .takes::<AskPlacement>()
        .gives::<Placements>(),
        get(
            "/v1/orgs/{org}/machines",
            "Machines of all apps of an organisation, in the order of their last change",
            orgs::machines,
        )
        .query(&[
            ("state", "Only these states"),
            ("region", "Only of this region"),
            ("include_deleted", "Also destroyed ones"),
            ("summary", "Without configurations"),
            ("updated_after", "Only what was changed after this time"),
            ("cursor", "next_cursor of the page before"),
            ("limit", "1000 at most, and if absent"),
            WATCH,
            FROM,
        ])
        .headers(&[LAST_EVENT_ID])
        .gives::<OrgMachineList>(),
    ]
}
