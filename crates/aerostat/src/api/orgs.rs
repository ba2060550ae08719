//! `/v1/orgs/{org}/machines`: what an organisation has, over all its apps.
//!
//! Pages are in the order of the last change. A cursor is the place of the last machine of a page,
//! so that machines which change between two pages come again rather than never.

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::{FromRequestParts, Path, State};
use axum::http::HeaderMap;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde::Deserialize;
use types::api::{OrgMachine, OrgMachineList, OverviewConfig};
use types::fleet::HostStatus;
use types::machine::MachineState;
use types::{AppName, MachineId, OrgSlug};

use super::error::ApiError;
use super::extract::Query;
use super::guard::{Ends, Grant};
use super::machines::{states, wanted_states};
use super::watch::{self, Whose};
use super::{Api, State as Shared};
use crate::catalog::{Entry, Filter};
use crate::directory;

/// Fly's bound, and its default.
const LIMIT_MAX: usize = 1000;

#[derive(Deserialize)]
struct OrgInPath {
    org: String,
}

/// The organisation that the path names.
impl FromRequestParts<Api> for directory::Org {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, ApiError> {
        let path = Path::<OrgInPath>::from_request_parts(parts, api).await;
        let Path(OrgInPath { org }) =
            path.map_err(|_| ApiError::bad("the path cannot be read".into()))?;
        find(api, &org)
    }
}

/// The organisation with this slug.
pub(super) fn find(api: &Shared, slug: &str) -> Result<directory::Org, ApiError> {
    let parsed = slug.parse::<OrgSlug>();
    let slug = parsed.map_err(|error| ApiError::bad(error.to_string()))?;
    let missing = || directory::Error::from(directory::Refused::OrgNotFound { slug: slug.clone() });
    let org = api.deps.directory.org(&slug);
    Ok(org.ok_or_else(missing)?)
}

/// `GET /v1/orgs/{org}/machines?…`, or with `watch=true` what happens to them.
pub(super) async fn machines(
    State(api): State<Api>,
    org: directory::Org,
    grant: Grant,
    ends: Ends,
    query: Query,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    if query.flag("watch")? {
        let whose = Whose::Org(org.slug, grant);
        return watch::answer(&api, whose, ends, &query, &headers);
    }
    let limit = query.parse("limit", "a number")?.unwrap_or(LIMIT_MAX);
    if !(1..=LIMIT_MAX).contains(&limit) {
        return Err(ApiError::bad(format!("limit must be 1 to {LIMIT_MAX}")));
    }
    let from = match query.get("cursor") {
        Some(cursor) => Some(Place::read(cursor)?),
        None => query
            .parse("updated_after", "a time such as 2026-01-31T12:00:00Z")?
            .map(Place::after),
    };
    let wanted = states(&wanted_states(&query))?;
    let destroyed = query.flag("include_deleted")? || wanted.contains(&MachineState::Destroyed);
    let region = query.get("region");
    let summary = query.flag("summary")?;
    let snapshot = match destroyed {
        true => api.deps.catalog.list_with_destroyed(&Filter::All),
        false => api.deps.catalog.list(&Filter::All),
    };
    let apps = seen(&api, &grant, &org.slug);
    let mut found: Vec<(Place, &Entry)> = snapshot
        .entries
        .iter()
        .filter(|entry| {
            let machine = &entry.machine;
            apps.contains(&entry.app)
                && (wanted.is_empty() || wanted.contains(&machine.state))
                && region.is_none_or(|region| region == machine.region)
        })
        .map(|entry| (Place::of(entry), &**entry))
        .filter(|(place, _)| from.as_ref().is_none_or(|from| place > from))
        .collect();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    let more = found.len() > limit;
    found.truncate(limit);
    let last = found.last();
    let list = OrgMachineList {
        next_cursor: match last {
            Some((place, _)) if more => place.write(),
            Some(_) | None => String::new(),
        },
        last_machine_id: last.map_or_else(String::new, |(place, _)| place.id.clone()),
        last_updated_at: last.map(|(place, _)| place.updated_at),
        error_regions: silent_regions(&api),
        machines: found
            .iter()
            .map(|(_, entry)| show(entry, summary))
            .collect(),
    };
    Ok(Json(list).into_response())
}

/// The apps of an organisation that the caller may see.
pub(super) fn seen(api: &Shared, grant: &Grant, org: &OrgSlug) -> BTreeSet<AppName> {
    let all = grant.reads_all(org);
    let apps = api.deps.directory.apps().into_iter();
    let seen = apps.filter(|app| app.org == *org && (all || grant.reads(app)));
    seen.map(|app| app.name).collect()
}

/// Regions of hosts that cannot be reached: what is shown of them is how it was.
fn silent_regions(api: &Shared) -> Vec<String> {
    let hosts = api.deps.hosts.others(api.deps.rpc.host()).into_iter();
    let silent = hosts.filter(|host| host.status == HostStatus::Unreachable);
    let mut regions: Vec<String> = silent.map(|host| host.region).collect();
    regions.sort();
    regions.dedup();
    regions
}

fn show(entry: &Entry, summary: bool) -> OrgMachine {
    let machine = entry.machine.clone();
    OrgMachine {
        id: machine.id,
        app_name: entry.app.clone(),
        name: machine.name,
        state: machine.state,
        region: machine.region,
        instance_id: machine.instance_id,
        version: machine.version,
        private_ip: machine.private_ip,
        created_at: machine.created_at,
        updated_at: machine.updated_at,
        config: (!summary).then_some(OverviewConfig {
            image: machine.config.image,
            guest: machine.config.guest,
            metadata: machine.config.metadata,
        }),
    }
}

/// Where a machine stands in the list.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    updated_at: Timestamp,
    id: String,
}

impl Place {
    fn of(entry: &Entry) -> Self {
        Self {
            updated_at: entry.machine.updated_at,
            id: entry.machine.id.to_string(),
        }
    }

    /// Behind every machine that changed at this time.
    fn after(updated_at: Timestamp) -> Self {
        let id = "g".into();
        Self { updated_at, id }
    }

    fn write(&self) -> String {
        URL_SAFE_NO_PAD.encode(format!("{} {}", self.updated_at.as_nanosecond(), self.id))
    }

    fn read(text: &str) -> Result<Self, ApiError> {
        let parse = || {
            let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
            let text = String::from_utf8(bytes).ok()?;
            let (nanoseconds, id) = text.split_once(' ')?;
            let updated_at = Timestamp::from_nanosecond(nanoseconds.parse().ok()?).ok()?;
            let id = id.parse::<MachineId>().ok()?.to_string();
            Some(Self { updated_at, id })
        };
        parse().ok_or_else(|| ApiError::bad("cursor is not one of this API".into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_a_place_between_machines() {
        let at = Timestamp::from_nanosecond(1_700_000_000_123_456_789).unwrap();
        let place = Place {
            updated_at: at,
            id: "ffffffffffffff".into(),
        };
        assert_eq!(Place::read(&place.write()).unwrap(), place);
        assert!(Place::after(at) > place);
        for text in ["", "x", "§", &URL_SAFE_NO_PAD.encode("1 2")] {
            assert!(Place::read(text).is_err(), "{text}");
        }
    }
}
