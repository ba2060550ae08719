//! One host alone, and several on loopback of which some are slow, silent or full.

use std::time::Duration;

use axum::Router;
use axum::routing::post;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use types::fleet::HostStatus;

use super::*;
use crate::rpc::loopback::Loopback;
use crate::rpc::{Answer, RPC_PORT, Rpc, serve};
use crate::worker::Capacity;
use crate::worker::tests::World;

fn request(config: &str) -> BidRequest {
    let config = crate::worker::check(serde_json::from_str(config).unwrap()).unwrap();
    BidRequest {
        app: "web".parse().unwrap(),
        network: types::NetworkId::try_from(7).unwrap(),
        region: String::new(),
        config,
    }
}

fn here(hosts: &Loopback) -> Rpc {
    hosts.rpc(HostId::new(2))
}

/// A host that answers every bid and every reservation after `delay` with the same.
async fn host(
    hosts: &Loopback,
    number: u16,
    delay: Duration,
    bid: Value,
    reserve: Value,
) -> Bidder {
    let id = HostId::new(number);
    let answer = |answer: Value| {
        post(async move || {
            tokio::time::sleep(delay).await;
            Answer(answer)
        })
    };
    let router = Router::new()
        .route("/worker/v1/bid", answer(bid))
        .route("/worker/v1/reserve", answer(reserve));
    let listener = hosts.rpc(id).listen(RPC_PORT).await.unwrap();
    tokio::spawn(serve(listener, router, CancellationToken::new()));
    Bidder::There(Remote::new(id, here(hosts)))
}

fn bid(replicas: u32) -> Value {
    json!({"Ok": {"replicas": replicas, "load_percent": 0, "images_present": true,
        "free_memory_mb": 9}})
}

fn full() -> Value {
    json!({"Err": {"insufficient_memory": {"asked_mb": 256, "free_mb": 8}}})
}

fn promise() -> Value {
    json!({"Ok": ulid::Ulid::from_parts(1, 2).to_string()})
}

fn any() -> Regions {
    Regions::read("", &[].into()).unwrap()
}

const NOW: Duration = Duration::ZERO;

#[tokio::test]
async fn room_is_promised_by_one_worker_or_refused_by_all() {
    let world = World::new();
    let worker = world.start().await;
    let workers = [Bidder::Here(worker.handle())];
    let large = request(r#"{"image": "x", "guest": {"memory_mb": 3000}}"#);
    assert!(place(&workers, &large, &any()).await.is_ok());
    // The promise takes the room, though no machine was made of it yet.
    let refused = place(&workers, &large, &any()).await.unwrap_err();
    assert!(matches!(refused.refusal, NoBid::InsufficientMemory { .. }));
    assert!(
        refused.placement.bids[0]
            .refusal
            .contains("insufficient memory")
    );
    assert_eq!(
        place(&[], &large, &any()).await.unwrap_err().refusal,
        NoBid::Late
    );
    worker.shutdown().await;
}

#[tokio::test]
async fn late_and_silent_hosts_do_not_take_part() {
    let hosts = Loopback::default();
    let late = BID_DEADLINE * 4;
    let silent = HostId::new(5);
    hosts.silence(silent);
    let bidders = [
        host(&hosts, 3, late, bid(0), promise()).await,
        Bidder::There(Remote::new(silent, here(&hosts))),
        Bidder::There(Remote::new(HostId::new(6), here(&hosts))),
        host(&hosts, 4, NOW, bid(7), promise()).await,
    ];
    let begun = Instant::now();
    let place = place(&bidders, &request(r#"{"image": "x"}"#), &any())
        .await
        .unwrap();
    assert_eq!(place.worker.host(), HostId::new(4));
    assert!(begun.elapsed() < BID_DEADLINE * 3, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_host_that_declines_its_own_bid_is_passed_over() {
    let hosts = Loopback::default();
    let bidders = [
        host(&hosts, 3, NOW, bid(0), full()).await,
        host(&hosts, 4, NOW, bid(1), promise()).await,
    ];
    let place = place(&bidders, &request(r#"{"image": "x"}"#), &any())
        .await
        .unwrap();
    assert_eq!(place.worker.host(), HostId::new(4));
    let told = &place.placement.bids;
    assert_eq!((told[0].host.as_str(), told[0].won), ("0003", false));
    assert!(told[0].refusal.contains("insufficient memory"), "{told:?}");
    assert_eq!((told[1].host.as_str(), told[1].won), ("0004", true));
    assert!(told[1].offer.contains("9 MB free"), "{told:?}");
}

#[tokio::test]
async fn a_region_that_is_preferred_comes_first() {
    let hosts = Loopback::default();
    let mut bidders = Vec::new();
    for (number, region, replicas) in [(3, "ams", 0), (4, "fra", 5)] {
        let there = host(&hosts, number, NOW, bid(replicas), promise()).await;
        let Bidder::There(remote) = there else {
            unreachable!()
        };
        bidders.push(Bidder::There(remote.in_region(region.into())));
    }
    let known = ["ams", "fra"].map(str::to_owned).into();
    let regions = Regions::read("fra,any", &known).unwrap();
    let web = request(r#"{"image": "x"}"#);
    let place = place(&bidders, &web, &regions).await.unwrap();
    assert_eq!(place.worker.host(), HostId::new(4));
}

#[tokio::test]
async fn a_region_that_is_full_says_what_its_hosts_lacked() {
    let hosts = Loopback::default();
    let bidders = [
        host(&hosts, 3, NOW, full(), promise()).await,
        host(&hosts, 4, NOW, bid(1), full()).await,
        Bidder::There(Remote::new(HostId::new(6), here(&hosts))),
    ];
    let refused = place(&bidders, &request(r#"{"image": "x"}"#), &any())
        .await
        .unwrap_err();
    let said: Vec<_> = refused
        .placement
        .bids
        .iter()
        .map(|bid| &*bid.refusal)
        .collect();
    assert!(said.iter().all(|refusal| !refusal.is_empty()), "{said:?}");
    let refused = refused.refusal;
    let text = refused.to_string();
    assert!(
        text.contains("on 2 of 3 hosts; no answer in time on 1 of 3 hosts"),
        "{text}"
    );
    assert_eq!(refused.scope(), crate::worker::Scope::Region);
}

#[tokio::test]
async fn replicas_go_to_different_hosts_though_one_is_busier() {
    let (one, two) = (World::new(), World::new());
    let (one, two) = (one.start().await, two.start().await);
    let bidders = [Bidder::Here(one.handle()), Bidder::Here(two.handle())];
    let busy = request(
        r#"{"image": "x", "guest": {"memory_mb": 2500},
        "metadata": {"fly_process_group": "other"}}"#,
    );
    one.handle().reserve(&busy).await.unwrap();
    let web = request(r#"{"image": "x"}"#);
    for _ in 0..4 {
        place(&bidders, &web, &any()).await.unwrap();
    }
    for worker in [one, two] {
        assert_eq!(worker.handle().bid(&web).await.unwrap().replicas, 2);
        worker.shutdown().await;
    }
}

#[tokio::test]
async fn only_hosts_of_the_region_are_asked_and_only_those_that_may_answer() {
    let world = World::new();
    let worker = world.start().await;
    let other = |number, region: &str, status| Host {
        id: HostId::new(number),
        region: region.into(),
        status,
        capacity: Some(Capacity::default()),
    };
    let others = [
        other(3, "local", HostStatus::Unknown),
        other(4, "fra", HostStatus::Ok),
        other(5, "fra", HostStatus::Unreachable),
        other(6, "ams", HostStatus::Unreachable),
    ];
    let rpc = here(&Loopback::default());
    let asked = |region: &str| {
        let regions = regions(&worker.handle(), &others, region)?;
        let found = bidders(&worker.handle(), &others, &rpc, &regions);
        Ok::<_, NoBid>(found.iter().map(|b| b.host().number()).collect::<Vec<_>>())
    };
    assert_eq!(asked("").unwrap(), [2, 3, 4]);
    assert_eq!(asked("local").unwrap(), [2, 3]);
    assert_eq!(asked("fra").unwrap(), [4]);
    assert_eq!(asked("ams").unwrap(), Vec::<u16>::new());
    let unknown = asked("mars").unwrap_err();
    assert_eq!(
        unknown.to_string(),
        "there is no region `mars`; there is `ams`, `fra`, `local`"
    );
    worker.shutdown().await;
}
