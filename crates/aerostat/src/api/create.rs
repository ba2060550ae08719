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
use serde_json::Value;
use tokio::sync::OwnedMutexGuard;
use types::api::CreateMachine;
use types::machine::Machine;
use types::{AppName, MachineId};

use super::error::ApiError;
use super::extract::Body;
use super::forward::{self, Origin};
use super::{Api, State as Shared, lease, names};
use crate::catalog::Filter;
use crate::directory;
use crate::placement::{self, Bidder, Place, bidders};
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
}

pub(super) async fn create(
    State(api): State<Api>,
    app: directory::App,
    origin: Origin,
    Body(body): Body<CreateMachine>,
) -> Result<Response, ApiError> {
    refuse_unbuilt(&body.other)?;
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
    };
    match origin {
        Origin::Host(reservation) => {
            let machine = here(&api, &new, &new.body.name, reservation).await?;
            let mut response = Json(&machine).into_response();
            forward::state(&mut response, &machine);
            Ok(response)
        }
        Origin::Outside => somewhere(&api, new).await,
    }
}

/// Finds a place, and creates the machine there.
async fn somewhere(api: &Shared, mut new: New) -> Result<Response, ApiError> {
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
                match place.worker {
                    Bidder::Here(_) => here(api, &new, &new.body.name, place.reservation).await,
                    Bidder::There(remote) => {
                        let (app, reservation) = (&new.app.name, place.reservation);
                        return forward::create(api, remote.host(), app, &new.body, reservation)
                            .await;
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
    let bidders = bidders(&deps.worker, &others, &deps.rpc, &new.body.region);
    let bidders = bidders.map_err(ApiError::NoPlace)?;
    let bidders = placement::among_volumes(bidders, &new.config).map_err(ApiError::NoPlace)?;
    let request = BidRequest {
        app: new.app.name.clone(),
        network: new.app.network_id,
        region: new.body.region.clone(),
        config: new.config.clone(),
    };
    // Replicas that are placed at once would all see the same bids and go to the same host; one
    // after the other, each sees the promise of the one before.
    let _one_after_the_other = match bidders.len() {
        0 | 1 => None,
        _ => Some(api.replicas.lock(request.replicas_key()).await),
    };
    let place = placement::place(&bidders, &request).await;
    place.map_err(ApiError::NoPlace)
}

/// Creates the machine with this host's worker, who has promised room.
async fn here(
    api: &Shared,
    new: &New,
    name: &str,
    reservation: Reservation,
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
        placement: None,
        creation_key: None,
        secrets: SecretsWanted {
            skip: new.body.skip_secrets,
            min_version: new.body.min_secrets_version,
        },
    };
    api.deps.worker.create(request).await
}

/// Members beside the configuration that would change what the machine is. What only tunes Fly's
/// own platform is ignored, and so is what says nothing.
pub(super) fn refuse_unbuilt(other: &BTreeMap<String, Value>) -> Result<(), ApiError> {
    for (member, feature) in [
        // Of an update; a new machine may begin with one.
        ("lease_ttl", "leases that an update begins"),
        ("lsvd", "volumes"),
    ] {
        let value = other.get(member).unwrap_or(&Value::Null);
        let says_nothing = value.is_null() || *value == false || *value == 0;
        if !says_nothing {
            return Err(ApiError::NotBuilt { feature });
        }
    }
    Ok(())
}

/// A lock for each key of an app that somebody is using. As many as there are requests at a time.
#[derive(Debug, Default)]
pub(super) struct Locks(Mutex<BTreeMap<Key, Arc<tokio::sync::Mutex<()>>>>);

type Key = (AppName, String);

impl Locks {
    async fn lock(&self, key: Key) -> OwnedMutexGuard<()> {
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

    #[test]
    fn what_says_nothing_may_stand_beside_a_configuration() {
        let other = |text: &str| {
            let body: CreateMachine = serde_json::from_str(text).unwrap();
            refuse_unbuilt(&body.other)
        };
        let fly = r#"{"config":{},"skip_secrets":false,"lsvd":false,
            "min_secrets_version":null,"skip_service_registration":true}"#;
        assert!(other(fly).is_ok());
        let lsvd = other(r#"{"config":{},"lsvd":true}"#).unwrap_err();
        assert_eq!(lsvd.to_string(), "volumes are not built yet");
    }

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
