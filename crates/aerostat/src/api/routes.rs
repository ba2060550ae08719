//! Every route in one table: the router and the OpenAPI document are both made of it, so that
//! neither knows a path that the other does not.

mod access;
mod apps;
mod clusters;
mod fleet;
mod images;
mod machines;
mod route;
mod secrets;
mod volumes;

pub(super) use route::{Content, Route};

/// Whatever is built. What is not stands in [`super::not_built`].
pub(super) fn all() -> Vec<Route> {
    let tables = [
        apps::routes(),
        machines::routes(),
        fleet::routes(),
        images::routes(),
        access::routes(),
        secrets::routes(),
        volumes::routes(),
        clusters::routes(),
    ];
    tables.into_iter().flatten().collect()
}
