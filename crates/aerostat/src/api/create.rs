//! `POST …/machines`: check, place, create; on this host or on the one that won.
//!
//! A name is unique among an app's machines on all hosts. Each worker is strict about its own
//! ledger; about the others the catalog is asked before a place is sought, and creations of one
//! name through this host come one after the other, each answered when the catalog has it. What
//! is left is a race between two hosts that are asked for the same name within the time that a
//! statement travels: then there are two machines of that name. Kubernetes, which creates through
//! one host and repeats by name, does not meet it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use tokio::sync::OwnedMutexGuard;
use types::api::CreateMachine;
use types::machine::{Machine, Placement};
use types::{AppName, MachineId};

use super::error::ApiError;
use super::extract::Configured;
use super::forward::{self, Origin};
use super::idempotency::{CreationKey, Key};
use super::{Api, State as Shared, lease, members, names};
use crate::catalog::Filter;
use crate::directory;
use crate::placement::{self, Bidder, Place, bidders, regions};
use crate::worker::{
    self, BidRequest, CheckedConfig, CreateRequest, LeaseRequest, Refused, Reservation,
    SecretsWanted,
};

/// How often a made-up id or name is made up anew when it is taken.
const ATTEMPTS_MAX: usize = 3;

/// What a caller wants, checked.
struct New {
    app: directory::App,
    body: CreateMachine,
    config: CheckedConfig,
    lease: Option<LeaseRequest>,
    key: Option<CreationKey>,
}

/// What the host that was asked tells the one that won, beside the request itself.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Told {
    #[serde(skip_serializing_if = "Option::is_none")]
    placement: Option<Placement>,
    #[serde(skip_serializing_if = "Option::is_none")]
    creation_key: Option<String>,
}

/// The member of a forwarded body that has it. From others than hosts it says nothing.
const TOLD: &str = "aerostat_told";

pub(super) async fn create(
    State(api): State<Api>,
    app: directory::App,
    origin: Origin,
    key: Key,
    Configured(mut body): Configured<CreateMachine>,
) -> Result<Response, ApiError> {
    let told = body.other.remove(TOLD);
    let key = key.with(&body);
    members::check_other(&body.other, &[])?;
    if !body.name.is_empty() && !names::is_name(&body.name) {
        return Err(ApiError::bad(format!(
            "`{}` cannot be the name of a machine: use up to 63 letters, digits, dashes, dots and \
             underscores",
            body.name.chars().take(80).collect::<String>()
        )));
    }
    let config = worker::check(body.config.clone())?;
    let _no_deletion = api.app_deletion.read().await;
    // Again, now that no deletion can come in between (on this host; see `apps::delete`).
    let app = api.deps.directory.app(&app.name).await?;
    let lease = match body.lease_ttl {
        None | Some(0) => None,
        Some(ttl_s) => Some(lease::request(&app, ttl_s, String::new())?),
    };
    let mut body = body;
    // Those that are known here: the host that runs it may not have heard of them yet.
    let known = api.deps.directory.sealed_secrets(&app.name).version;
    if known > 0 && body.min_secrets_version.is_none() {
        body.min_secrets_version = Some(known);
    }
    let new = New {
        app,
        body,
        config,
        lease,
        key,
    };
    match origin {
        Origin::Host(reservation) => {
            let told = told.map_or_else(|| Ok(Told::default()), serde_json::from_value);
            let told = told.map_err(|error| ApiError::bad(format!("{TOLD}: {error}")))?;
            let key = told.creation_key.clone().map(CreationKey);
            let _one_at_a_time = turn(&api, &new.app.name, key.as_ref()).await;
            let machine = match repeated(&api, &new.app.name, key.as_ref())? {
                Some(machine) => machine,
                None => here(&api, &new, &new.body.name, reservation, told).await?,
            };
            let mut response = Json(&machine).into_response();
            forward::state(&mut response, &machine);
            Ok(response)
        }
        Origin::Outside => somewhere(&api, new).await,
    }
}

/// Finds a place, and creates the machine there.
async fn somewhere(api: &Shared, mut new: New) -> Result<Response, ApiError> {
    let _one_at_a_time = turn(api, &new.app.name, new.key.as_ref()).await;
    if let Some(mut machine) = repeated(api, &new.app.name, new.key.as_ref())? {
        if new.lease.is_some() {
            // Whoever repeats the request is who was to have it.
            let lease = api.deps.worker.lease(&machine.id).await;
            machine.nonce = lease.ok().flatten().map(|lease| lease.nonce.to_string());
        }
        return Ok(Json(machine).into_response());
    }
    let is_made_up = new.body.name.is_empty();
    let mut attempt = 0;
    loop {
        attempt += 1;
        if is_made_up {
            new.body.name = names::name(rand::random());
        }
        let name = (new.app.name.clone(), new.body.name.clone());
        let _one_at_a_time = api.names.lock(name).await;
        let created = match taken(api, &new.app.name, &new.body.name) {
            Some(refused) => Err(refused),
            None => {
                let place = place(api, &new).await?;
                let told = Told {
                    placement: Some(place.placement),
                    creation_key: new.key.as_ref().map(|key| key.0.clone()),
                };
                match place.worker {
                    Bidder::Here(_) => {
                        here(api, &new, &new.body.name, place.reservation, told).await
                    }
                    Bidder::There(remote) => {
                        let (app, reservation) = (&new.app.name, place.reservation);
                        let mut body = new.body.clone();
                        if let Ok(told) = serde_json::to_value(told) {
                            body.other.insert(TOLD.into(), told);
                        }
                        return forward::create(api, remote.host(), app, &body, reservation).await;
                    }
                }
            }
        };
        match created {
            Err(Refused::IdTaken { .. }) if attempt < ATTEMPTS_MAX => {}
            Err(Refused::NameTaken { .. }) if is_made_up && attempt < ATTEMPTS_MAX => {}
            answer => return Ok(Json(answer?).into_response()),
        }
    }
}

/// Waits until no other request with this key is being answered.
pub(super) async fn turn(
    api: &Shared,
    app: &AppName,
    key: Option<&CreationKey>,
) -> Option<OwnedMutexGuard<()>> {
    let key = key?.key().to_owned();
    Some(api.keys.lock((app.clone(), key)).await)
}

/// The machine that an earlier request with this key created, on whatever host.
fn repeated(
    api: &Shared,
    app: &AppName,
    key: Option<&CreationKey>,
) -> Result<Option<Machine>, ApiError> {
    let Some(key) = key else { return Ok(None) };
    let filter = Filter::App(app.clone());
    for entry in api.deps.catalog.list_with_destroyed(&filter).entries {
        if key.has_created(entry.machine.creation_key.as_deref())? {
            return Ok(Some(entry.machine.clone()));
        }
    }
    Ok(None)
}

/// Whether any host has a machine of this name.
fn taken(api: &Shared, app: &AppName, name: &str) -> Option<Refused> {
    let entries = api.deps.catalog.list(&Filter::App(app.clone())).entries;
    let other = entries.iter().find(|entry| entry.machine.name == name)?;
    Some(Refused::NameTaken {
        name: name.to_owned(),
        id: other.machine.id.clone(),
    })
}

async fn place(api: &Shared, new: &New) -> Result<Place, ApiError> {
    let deps = &api.deps;
    let others = deps.hosts.others(deps.rpc.host());
    let regions = regions(&deps.worker, &others, &new.body.region);
    let regions = regions.map_err(ApiError::nowhere)?;
    let bidders = bidders(&deps.worker, &others, &deps.rpc, &regions);
    let bidders = placement::among_volumes(bidders, &new.config).map_err(ApiError::nowhere)?;
    let request = BidRequest {
        app: new.app.name.clone(),
        network: new.app.network_id,
        region: regions.only().unwrap_or_default().to_owned(),
        config: new.config.clone(),
    };
    // Replicas that are placed at once would all see the same bids and go to the same host; one
    // after the other, each sees the promise of the one before.
    let _one_after_the_other = match bidders.len() {
        0 | 1 => None,
        _ => Some(api.replicas.lock(request.replicas_key()).await),
    };
    let place = placement::place(&bidders, &request, &regions).await;
    Ok(place?)
}

/// Creates the machine with this host's worker, who has promised room.
async fn here(
    api: &Shared,
    new: &New,
    name: &str,
    reservation: Reservation,
    told: Told,
) -> Result<Machine, Refused> {
    let request = CreateRequest {
        reservation,
        id: MachineId::from_bits(rand::random()),
        app: new.app.name.clone(),
        network: new.app.network_id,
        name: match name {
            "" => names::name(rand::random()),
            name => name.to_owned(),
        },
        config: new.config.clone(),
        launch: !new.body.skip_launch,
        lease: new.lease.clone(),
        cordoned: new.body.skip_service_registration,
        placement: told.placement,
        creation_key: told.creation_key,
        secrets: SecretsWanted {
            skip: new.body.skip_secrets,
            min_version: new.body.min_secrets_version,
        },
    };
    api.deps.worker.create(request).await
}

/// A lock for each key of an app that somebody is using. As many as there are requests at a time.
#[derive(Debug, Default)]
pub(super) struct Locks(Mutex<BTreeMap<LockKey, Arc<tokio::sync::Mutex<()>>>>);

type LockKey = (AppName, String);

impl Locks {
    pub(super) async fn lock(&self, key: LockKey) -> OwnedMutexGuard<()> {
        let lock = {
            let mut locks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            locks.retain(|_, lock| Arc::strong_count(lock) > 1);
            Arc::clone(locks.entry(key).or_default())
        };
        lock.lock_owned().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_key_is_locked_by_one_at_a_time_and_forgotten_afterwards() {
        let locks = Locks::default();
        let key = |name: &str| ("web".parse().unwrap(), name.to_owned());
        let first = locks.lock(key("a")).await;
        let _other = locks.lock(key("b")).await;
        let soon = std::time::Duration::from_millis(20);
        let second = tokio::time::timeout(soon, locks.lock(key("a"))).await;
        assert!(second.is_err());
        drop(first);
        let _third = locks.lock(key("a")).await;
        assert_eq!(locks.0.lock().unwrap().len(), 2);
    }
}
