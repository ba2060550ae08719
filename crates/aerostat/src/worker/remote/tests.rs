//! Two hosts on loopback: one asks the other's worker.

use tokio_util::sync::CancellationToken;
use types::HostId;

use super::*;
use crate::rpc::loopback::Loopback;
use crate::rpc::{RPC_PORT, serve};
use crate::worker::tests::World;

const HERE: u16 = 3;
const THERE: u16 = 2;

async fn answered(hosts: &Loopback, worker: Handle) -> Remote {
    let there = HostId::new(THERE);
    let listener = hosts.rpc(there).listen(RPC_PORT).await.unwrap();
    tokio::spawn(serve(listener, router(worker), CancellationToken::new()));
    Remote::new(there, hosts.rpc(HostId::new(HERE)))
}

fn request(config: &str) -> BidRequest {
    BidRequest {
        app: "web".parse().unwrap(),
        network: NetworkId::try_from(7).unwrap(),
        region: String::new(),
        config: check(serde_json::from_str(config).unwrap()).unwrap(),
    }
}

#[tokio::test]
async fn a_remote_worker_bids_and_promises_like_one_at_hand() {
    let world = World::new();
    let worker = world.start().await;
    let remote = answered(&Loopback::default(), worker.handle()).await;
    let large = request(r#"{"image": "x", "guest": {"memory_mb": 3000}}"#);
    assert_eq!(remote.bid(&large).await, worker.handle().bid(&large).await);
    remote.reserve(&large).await.unwrap();
    let refused = NoBid::InsufficientMemory {
        asked_mb: 3000,
        free_mb: 1096,
    };
    assert_eq!(remote.reserve(&large).await, Err(refused));
    let small = request(r#"{"image": "x"}"#);
    assert_eq!(remote.bid(&small).await.unwrap().replicas, 1);
    worker.shutdown().await;
}

#[tokio::test]
async fn a_machine_of_another_host_is_destroyed_when_its_app_is_deleted() {
    let world = World::new();
    let worker = world.start().await;
    let remote = answered(&Loopback::default(), worker.handle()).await;
    let nobody = MachineId::from_bits(99);
    assert_eq!(remote.destroy(&nobody).await.unwrap(), Destroyed::Recorded);
    worker.shutdown().await;
}

#[tokio::test]
async fn what_only_a_newer_version_takes_is_refused_on_arrival() {
    let world = World::new();
    let worker = world.start().await;
    let hosts = Loopback::default();
    answered(&hosts, worker.handle()).await;
    let config = serde_json::from_str(r#"{"image": "x", "teleport": true}"#).unwrap();
    let question = Question {
        app: "web".parse().unwrap(),
        network: NetworkId::try_from(7).unwrap(),
        region: String::new(),
        config,
    };
    let rpc = hosts.rpc(HostId::new(HERE));
    let asked = rpc.call(HostId::new(THERE), BID, &question, MARKET_TIMEOUT);
    let refused: Result<Bid, NoBid> = asked.await.unwrap();
    assert!(matches!(refused, Err(NoBid::ConfigRefused { reason }) if reason.contains("teleport")));
    worker.shutdown().await;
}

#[tokio::test]
async fn a_host_that_does_not_listen_is_unreachable() {
    let host = HostId::new(9);
    let remote = Remote::new(host, Loopback::default().rpc(HostId::new(HERE)));
    let refused = remote.bid(&request(r#"{"image": "x"}"#)).await;
    assert_eq!(refused, Err(NoBid::Unreachable { host }));
}

#[test]
fn what_may_be_secret_goes_only_to_the_winner() {
    let request = request(
        r#"{"env": {"A": "s3cret"}, "containers": [{"name": "a", "image": "x",
            "env": {"B": "s3cret"}, "files": [{"guest_path": "/a", "raw_value": "czNjcmV0"}]}]}"#,
    );
    let text = serde_json::to_string(&Question::of(&request)).unwrap();
    assert!(
        !text.contains("s3cret") && !text.contains("czNjcmV0"),
        "{text}"
    );
}
