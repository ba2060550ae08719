//! `POST /v1/platform/placements`: where machines would have room, without promising it.
//!
//! Hosts are asked for a bid, as for a machine. A bid says whether one has room; for how many more
//! there would be, each host's last word on its free capacity is divided by the size.

use axum::Json;
use axum::extract::State;
use types::api::{AskPlacement, Placements, RegionPlacement};
use types::machine::{Guest, MachineConfig};
use types::{AppName, NetworkId};

use super::error::ApiError;
use super::extract::Body;
use super::{Api, State as Shared, orgs};
use crate::catalog::Capacity;
use crate::placement::{Bidder, COUNT_MAX, Room, Weights, ask, bidders, regions, spread};
use crate::worker::{self, BidRequest};

/// Machines that are asked about have no image, but a configuration has one.
const IMAGE: &str = "localhost/placement";
const APP: &str = "placement";

pub(super) async fn answer(
    State(api): State<Api>,
    Body(body): Body<AskPlacement>,
) -> Result<Json<Placements>, ApiError> {
    orgs::find(&api, &body.org_slug)?;
    let weights = weights(&body)?;
    if body.count > COUNT_MAX {
        return Err(ApiError::bad(format!("count must be at most {COUNT_MAX}")));
    }
    let others = api.deps.hosts.others(api.deps.rpc.host());
    let expression = match body.region.as_str() {
        "" => format!("{},any", api.region),
        expression => expression.to_owned(),
    };
    let worker = &api.deps.worker;
    let wanted = regions(worker, &others, &expression).map_err(ApiError::nowhere)?;
    let asked = bidders(worker, &others, &api.deps.rpc, &wanted);
    let request = request(&body)?;
    let guest = request.config.guest();
    let mut rooms = Vec::new();
    let bids = ask(&asked, &request).await;
    for region in wanted.in_order() {
        let bids = asked.iter().zip(&bids);
        let here = bids.filter(|(bidder, bid)| bidder.region() == region && bid.is_ok());
        let hosts =
            here.map(|(bidder, _)| fits(&free(&api, bidder), &guest, body.volume_size_bytes));
        rooms.push(Room {
            region: region.clone(),
            hosts: hosts.collect(),
        });
    }
    let counts = spread(&rooms, body.count, weights);
    let regions = rooms
        .into_iter()
        .zip(counts)
        .filter(|(_, count)| *count > 0);
    let regions = regions.map(|(room, count)| RegionPlacement {
        concurrency: count.min(room.hosts.len() as u64),
        region: room.region,
        count,
    });
    Ok(Json(Placements {
        regions: regions.collect(),
    }))
}

fn weights(body: &AskPlacement) -> Result<Weights, ApiError> {
    let mut weights = Weights::default();
    for (name, weight) in &body.weights {
        match name.as_str() {
            "region" => weights.region = *weight,
            "spread" => weights.spread = *weight,
            _ => return Err(ApiError::bad("weights are region and spread".into())),
        }
    }
    if weights.region < 0 || weights.spread < 0 {
        return Err(ApiError::bad("weights must not be negative".into()));
    }
    Ok(weights)
}

fn request(body: &AskPlacement) -> Result<BidRequest, ApiError> {
    let config = MachineConfig {
        image: IMAGE.into(),
        guest: body.compute.clone(),
        ..MachineConfig::default()
    };
    let app: Result<AppName, _> = APP.parse();
    Ok(BidRequest {
        app: app.map_err(|error| ApiError::bad(error.to_string()))?,
        network: NetworkId::HOST_PLANE,
        region: String::new(),
        config: worker::check(config)?,
    })
}

/// What the host has said last; it says so every other second.
fn free(api: &Shared, bidder: &Bidder) -> Capacity {
    match bidder {
        Bidder::Here(worker) => worker.word(),
        Bidder::There(remote) => {
            let words = api.deps.catalog.words();
            let word = words.into_iter().find(|word| word.origin == remote.host());
            word.map(|word| word.capacity).unwrap_or_default()
        }
    }
}

/// How many machines of this size there is room for. At least one: the host has bid.
fn fits(free: &Capacity, guest: &Guest, volume_bytes: u64) -> u64 {
    // A shared CPU is a sixteenth of a hardware thread.
    let sixteenths = if guest.cpu_kind == "shared" { 1 } else { 16 };
    let sixteenths = u64::from(guest.cpus.max(1)) * sixteenths;
    let cpus = free.free_cpu_millis * 16 / (sixteenths * 1000);
    let memory = free.free_memory_mb / u64::from(guest.memory_mb.max(1));
    let disk = match volume_bytes.div_ceil(1 << 20) {
        0 => u64::MAX,
        each_mb => free.free_disk_mb / each_mb,
    };
    if disk == 0 {
        return 0;
    }
    cpus.min(memory).min(disk).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_scarce_says_how_many_fit() {
        let free = Capacity {
            free_cpu_millis: 2000,
            free_memory_mb: 2048,
            free_disk_mb: 10_000,
            ..Capacity::default()
        };
        let guest = |kind: &str, cpus, memory_mb| Guest {
            cpu_kind: kind.into(),
            cpus,
            memory_mb,
            ..Guest::default()
        };
        assert_eq!(fits(&free, &guest("shared", 1, 256), 0), 8);
        assert_eq!(fits(&free, &guest("shared", 8, 256), 0), 4);
        assert_eq!(fits(&free, &guest("performance", 1, 256), 0), 2);
        assert_eq!(fits(&free, &guest("shared", 1, 256), 4000 << 20), 2);
        assert_eq!(fits(&free, &guest("shared", 1, 256), 20_000 << 20), 0);
    }
}
