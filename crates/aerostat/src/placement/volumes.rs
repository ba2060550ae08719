//! Volumes and placement: a machine goes where its volumes are, and a new volume where there is
//! room, on another host than its namesakes if it can.

use std::cmp::Reverse;

use tokio::time::timeout;
use types::{HostId, VolumeId};

use super::{BID_DEADLINE, Bidder, summary};
use crate::worker::{CheckedConfig, NoBid, VolumeBid, VolumeBidRequest};

/// The host that has the volumes of such a machine, and one of them; `None` if it has none.
///
/// # Errors
/// [`NoBid::VolumesApart`].
pub fn at_volumes(config: &CheckedConfig) -> Result<Option<(HostId, VolumeId)>, NoBid> {
    let mounts = config.as_given().mounts.iter();
    let mut volumes = mounts.filter_map(|mount| mount.volume.parse::<VolumeId>().ok());
    let Some(one) = volumes.next() else {
        return Ok(None);
    };
    match volumes.find(|other| other.host() != one.host()) {
        Some(other) => Err(NoBid::VolumesApart { one, other }),
        None => Ok(Some((one.host(), one))),
    }
}

/// Leaves only the host that has the machine's volumes among the `bidders`.
///
/// # Errors
/// [`NoBid::VolumesApart`], [`NoBid::Unreachable`] if it is not among them.
pub fn among_volumes(
    mut bidders: Vec<Bidder>,
    config: &CheckedConfig,
) -> Result<Vec<Bidder>, NoBid> {
    if let Some((host, _)) = at_volumes(config)? {
        bidders.retain(|bidder| bidder.host() == host);
        if bidders.is_empty() {
            return Err(NoBid::Unreachable { host });
        }
    }
    Ok(bidders)
}

/// What it means that the host of the volumes will not have the machine.
pub(super) fn refused_there(config: &CheckedConfig, refusal: NoBid) -> NoBid {
    let lacks_room = matches!(
        refusal,
        NoBid::InsufficientMemory { .. }
            | NoBid::InsufficientCpus { .. }
            | NoBid::InsufficientDisk { .. }
    );
    match at_volumes(config) {
        Ok(Some((host, volume))) if lacks_room => NoBid::VolumePlacement {
            host,
            volume,
            refusal: Box::new(refusal),
        },
        Ok(_) | Err(_) => refusal,
    }
}

/// The hosts that would have a new volume, the best first. There is no promise: who is asked next
/// may have no room any more, and then says so.
///
/// # Errors
/// As [`super::place`].
pub async fn place_volume(
    bidders: &[Bidder],
    request: &VolumeBidRequest,
) -> Result<Vec<HostId>, NoBid> {
    let asked = bidders.iter().map(|bidder| async move {
        let bid = timeout(BID_DEADLINE, bidder.bid_volume(request)).await;
        bid.unwrap_or(Err(NoBid::Late))
            .map(|bid| (bidder.host(), bid))
    });
    let (mut offers, mut refusals) = (Vec::new(), Vec::new());
    for answer in futures::future::join_all(asked).await {
        match answer {
            Ok(offer) => offers.push(offer),
            Err(refusal) => refusals.push(refusal),
        }
    }
    if offers.is_empty() {
        return Err(summary::summary(bidders.len(), refusals));
    }
    rank(&mut offers);
    Ok(offers.into_iter().map(|(host, _)| host).collect())
}

/// Puts the best first: fewest namesakes, then most room. Equals stay in their order. Pure.
fn rank(offers: &mut [(HostId, VolumeBid)]) {
    offers.sort_by_key(|(_, bid)| (bid.same_name, Reverse(bid.free_gb)));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn config(volumes: &[(u16, u64)]) -> CheckedConfig {
        let mounts = volumes.iter().enumerate().map(|(index, (host, number))| {
            let id = VolumeId::new(HostId::new(*host), *number);
            json!({"volume": id, "path": format!("/data/{index}")})
        });
        let config = json!({"image": "x", "mounts": mounts.collect::<Vec<_>>()});
        crate::worker::check(serde_json::from_value(config).unwrap()).unwrap()
    }

    #[test]
    fn a_machine_goes_where_its_volumes_are() {
        assert_eq!(at_volumes(&config(&[])), Ok(None));
        let (host, _) = at_volumes(&config(&[(3, 1), (3, 2)])).unwrap().unwrap();
        assert_eq!(host, HostId::new(3));
        let apart = at_volumes(&config(&[(3, 1), (4, 2)])).unwrap_err();
        assert!(matches!(apart, NoBid::VolumesApart { .. }));
        let elsewhere = among_volumes(Vec::new(), &config(&[(3, 1)])).unwrap_err();
        assert_eq!(
            elsewhere,
            NoBid::Unreachable {
                host: HostId::new(3)
            }
        );
    }

    #[test]
    fn a_full_host_is_told_as_the_place_of_the_volume() {
        let full = NoBid::InsufficientMemory {
            asked_mb: 9,
            free_mb: 1,
        };
        let told = refused_there(&config(&[(3, 1)]), full.clone());
        assert_eq!(told.code(), "volume_placement_capacity");
        assert_eq!(told.scope(), crate::worker::Scope::Volume);
        assert_eq!(refused_there(&config(&[]), full.clone()), full);
        assert_eq!(refused_there(&config(&[(3, 1)]), NoBid::Late), NoBid::Late);
    }

    proptest! {
        #[test]
        fn namesakes_are_spread_as_evenly_as_can_be(
            free in prop::collection::vec(0u64..100, 1..7),
            volumes in 0u32..30,
        ) {
            let mut offers: Vec<_> = free.iter().zip(2..).map(|(free_gb, host)| {
                (HostId::new(host), VolumeBid { same_name: 0, free_gb: *free_gb })
            }).collect();
            for _ in 0..volumes {
                rank(&mut offers);
                offers[0].1.same_name += 1;
            }
            let counts = || offers.iter().map(|(_, bid)| bid.same_name);
            prop_assert!(counts().max().unwrap() - counts().min().unwrap() <= 1);
        }
    }
}
