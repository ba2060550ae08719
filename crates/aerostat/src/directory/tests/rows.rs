//! What the authority decides about hosts, tokens, services and peers.

use std::collections::BTreeSet;

use jiff::SignedDuration;
use proptest::prelude::*;
use types::fleet::GatewayRecord;
use types::service::{Protocol, ServicePort};
use types::sixpn::{network_of, vip};

use super::*;

/// A public key made of one byte.
pub(super) fn key(byte: u8) -> PublicKeyText {
    net::wireguard::PublicKey([byte; 32]).to_string()
}

pub(super) fn record(number: u16, byte: u8) -> HostRecord {
    HostRecord {
        id: HostId::new(number),
        name: format!("host-{number}"),
        region: "local".into(),
        public_key: key(byte),
        endpoint: "192.0.2.1:51821".parse().unwrap(),
        gateway: Some(GatewayRecord {
            public_key: key(byte.wrapping_add(100)),
            endpoint: "192.0.2.1:51820".parse().unwrap(),
        }),
        certificate: String::new(),
        joined_at: NOW,
    }
}

pub(super) fn spec(port: u16) -> ServiceSpec {
    ServiceSpec {
        ports: vec![ServicePort {
            name: String::new(),
            protocol: Protocol::Tcp,
            port,
            target_port: 0,
        }],
        ..ServiceSpec::default()
    }
}

pub(super) fn new_peer(name: &str, byte: u8, gateway: u16) -> NewPeer {
    NewPeer {
        name: name.into(),
        org: PERSONAL.parse().unwrap(),
        network: String::new(),
        public_key: key(byte),
        gateway: HostId::new(gateway),
    }
}

/// A refusal, as a test expects it.
pub(super) fn refused<T: std::fmt::Debug>(result: Result<T, Error>) -> Refused {
    match result {
        Err(Error::Refused(refused)) => refused,
        other => panic!("no refusal: {other:?}"),
    }
}

async fn directory() -> (tempfile::TempDir, Handle) {
    let files = tempfile::tempdir().unwrap();
    let directory = Handle::open(store(&files)).await.unwrap();
    (files, directory)
}

#[tokio::test]
async fn a_host_number_is_its_key_s_for_as_long_as_the_record_lives() {
    let (_files, directory) = directory().await;
    let allocate = async |wanted, byte| directory.allocate_host_number(wanted, &key(byte)).await;
    let first = allocate(None, 1).await.unwrap();
    assert_eq!(first, HostId::new(2));
    assert_eq!(
        allocate(None, 1).await.unwrap(),
        first,
        "the same key again"
    );
    assert_eq!(allocate(Some(7), 3).await.unwrap(), HostId::new(7));
    // Nobody has come as 7 yet, so it can still be another's; the first is refused in the end.
    assert_eq!(allocate(Some(7), 4).await.unwrap(), HostId::new(7));
    let late = refused(directory.put_host(record(7, 3)).await);
    let taken = Refused::HostTaken { id: HostId::new(7) };
    assert_eq!(late, taken);
    directory.put_host(record(7, 4)).await.unwrap();
    assert_eq!(refused(allocate(Some(7), 3).await), taken);
    assert_eq!(allocate(Some(7), 4).await.unwrap(), HostId::new(7));
    assert_eq!(
        refused(allocate(Some(1), 5).await),
        Refused::HostNumber { number: 1 }
    );
    for byte in 10..20 {
        let id = allocate(None, byte).await.unwrap();
        assert!(id != first && id != HostId::new(7), "{id}");
    }
    directory.remove_host(HostId::new(7)).await.unwrap();
    assert_eq!(allocate(Some(7), 3).await.unwrap(), HostId::new(7));
}

#[tokio::test]
async fn hosts_are_told_when_they_change() {
    let (_files, directory) = directory().await;
    let mut hosts = directory.hosts_changed();
    assert_eq!(hosts.borrow_and_update().len(), 0);
    directory.put_host(record(2, 1)).await.unwrap();
    hosts.changed().await.unwrap();
    assert_eq!(**hosts.borrow_and_update(), [record(2, 1)]);
    let moved = HostRecord {
        endpoint: "192.0.2.9:51821".parse().unwrap(),
        ..record(2, 1)
    };
    directory.put_host(moved.clone()).await.unwrap();
    hosts.changed().await.unwrap();
    assert_eq!(**hosts.borrow_and_update(), [moved]);
}

#[tokio::test]
async fn a_join_token_is_good_for_one_key_until_it_expires() {
    let (_files, directory) = directory().await;
    let later = |minutes| NOW + SignedDuration::from_mins(minutes);
    let (hash, other) = ([7; 32], [8; 32]);
    let redeem = async |hash, byte, now| directory.redeem_join_token(hash, &key(byte), now).await;
    directory
        .create_join_token(hash, later(10), NOW)
        .await
        .unwrap();
    directory
        .create_join_token(other, later(10), NOW)
        .await
        .unwrap();
    assert_eq!(
        refused(redeem([9; 32], 1, NOW).await),
        Refused::TokenNotFound
    );
    redeem(hash, 1, later(1)).await.unwrap();
    redeem(hash, 1, later(2)).await.unwrap();
    assert_eq!(refused(redeem(hash, 2, later(2)).await), Refused::TokenUsed);
    let expired_at = later(10);
    assert_eq!(
        refused(redeem(other, 2, later(10)).await),
        Refused::TokenExpired { expired_at }
    );
    // Long after, it is not even remembered.
    let next_week = later(7 * 24 * 60);
    let create = directory.create_join_token([1; 32], next_week, next_week);
    create.await.unwrap();
    assert_eq!(
        refused(redeem(other, 2, next_week).await),
        Refused::TokenNotFound
    );
}

#[tokio::test]
async fn two_hosts_at_once_cannot_use_the_same_token() {
    let (_files, directory) = directory().await;
    let later = NOW + SignedDuration::from_mins(1);
    directory
        .create_join_token([7; 32], later, NOW)
        .await
        .unwrap();
    let attempts = (1..20).map(|byte| {
        let directory = directory.clone();
        async move { directory.redeem_join_token([7; 32], &key(byte), NOW).await }
    });
    let results = futures::future::join_all(attempts).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
}

#[tokio::test]
async fn a_service_keeps_its_vip_until_it_goes() {
    let (_files, directory) = directory().await;
    let app = directory.create_app(new_app("web", ""), NOW).await.unwrap();
    let (name, network) = (&app.name, app.network_id);
    let put = async |name: &AppName, service, spec| {
        directory
            .put_service(name, service, spec)
            .await
            .unwrap()
            .vip
    };
    assert_eq!(put(name, "a", spec(80)).await, Some(vip(network, 1)));
    assert_eq!(put(name, "b", spec(80)).await, Some(vip(network, 2)));
    assert_eq!(put(name, "a", spec(81)).await, Some(vip(network, 1)));
    directory.delete_service(name, "a").await.unwrap();
    let missing = refused(directory.delete_service(name, "a").await);
    assert!(matches!(missing, Refused::ServiceNotFound { .. }));
    assert_eq!(put(name, "a", spec(80)).await, Some(vip(network, 3)));
    let headless = ServiceSpec {
        headless: true,
        ..spec(80)
    };
    assert_eq!(put(name, "h", headless).await, None);
    let apart = directory
        .create_app(new_app("x", "apart"), NOW)
        .await
        .unwrap();
    assert_eq!(
        put(&apart.name, "a", spec(80)).await,
        Some(vip(apart.network_id, 1))
    );
    assert_eq!(directory.services(name).len(), 3);
    directory.delete_app(name).await.unwrap();
    assert_eq!(directory.services(name), []);
    assert_eq!(directory.services(&apart.name).len(), 1);
    let gone = refused(directory.put_service(name, "a", spec(80)).await);
    assert!(matches!(gone, Refused::AppNotFound { .. }));
}

#[tokio::test]
async fn a_peer_has_an_address_of_its_gateway_and_a_key_that_nobody_else_has() {
    let (_files, directory) = directory().await;
    directory.put_host(record(5, 1)).await.unwrap();
    let plain = HostRecord {
        gateway: None,
        ..record(6, 2)
    };
    directory.put_host(plain).await.unwrap();
    let create = async |new| directory.create_wireguard_peer(new, NOW).await;
    let laptop = create(new_peer("laptop", 50, 5)).await.unwrap();
    let network = u32::from(laptop.network_id);
    assert_eq!(
        laptop.address.to_string(),
        format!("fdaa:0:{network:x}:a7b:5:0:a:102")
    );
    assert_eq!(
        create(new_peer("laptop", 50, 5)).await.unwrap(),
        laptop,
        "repeated"
    );
    let phone = create(new_peer("phone", 51, 5)).await.unwrap();
    assert_ne!(phone.address, laptop.address);
    let name = refused(create(new_peer("laptop", 52, 5)).await);
    assert!(matches!(name, Refused::PeerNameTaken { .. }));
    // Of a peer, of a host's mesh, of a host's gateway.
    for byte in [50, 1, 101] {
        let taken = refused(create(new_peer("tablet", byte, 5)).await);
        assert_eq!(taken, Refused::PublicKeyTaken);
    }
    assert_eq!(
        refused(create(new_peer("tablet", 53, 6)).await),
        Refused::NoGateway { id: HostId::new(6) }
    );
    assert_eq!(
        refused(create(new_peer("tablet", 53, 9)).await),
        Refused::HostNotFound { id: HostId::new(9) }
    );
    let found = directory.peer_by_key(&key(51)).await.unwrap();
    assert_eq!(found, Some(phone));
    let org = PERSONAL.parse().unwrap();
    directory
        .delete_wireguard_peer(&org, "phone")
        .await
        .unwrap();
    assert_eq!(directory.peer_by_key(&key(51)).await.unwrap(), None);
    assert_eq!(directory.peer_by_key(&"no key".into()).await.unwrap(), None);
    // The peers of a gateway go with their host.
    directory.remove_host(HostId::new(5)).await.unwrap();
    assert_eq!(directory.wireguard_peers(&org), []);
}

#[tokio::test]
async fn a_gateway_has_255_peers_in_a_network_and_no_two_with_one_address() {
    let (_files, directory) = directory().await;
    directory.put_host(record(5, 1)).await.unwrap();
    let create = async |number: u16, name: &str| {
        let mut bytes = [200; 32];
        bytes[..2].copy_from_slice(&number.to_be_bytes());
        let new = NewPeer {
            public_key: net::wireguard::PublicKey(bytes).to_string(),
            ..new_peer(name, 0, 5)
        };
        directory.create_wireguard_peer(new, NOW).await
    };
    let mut addresses = BTreeSet::new();
    for number in 0..255 {
        let peer = create(number, &format!("p{number}")).await.unwrap();
        addresses.insert(peer.address);
    }
    assert_eq!(addresses.len(), 255);
    let full = refused(create(255, "one-more").await);
    assert!(matches!(full, Refused::PeersExhausted { .. }));
    let org = PERSONAL.parse().unwrap();
    directory.delete_wireguard_peer(&org, "p77").await.unwrap();
    let again = create(256, "one-more").await.unwrap();
    assert!(addresses.contains(&again.address));
}

#[test]
fn a_host_speaks_for_itself_only() {
    let (me, other) = (HostId::new(3), HostId::new(4));
    let put = |number| Command::PutHost {
        record: Box::new(record(number, 1)),
    };
    assert_eq!(command::permit(me, &put(3)), Ok(()));
    let foreign = Refused::NotYours { by: me, of: other };
    assert_eq!(command::permit(me, &put(4)), Err(foreign.clone()));
    assert_eq!(
        command::permit(me, &Command::RemoveHost { id: other }),
        Err(foreign)
    );
    let token = Command::RedeemJoinToken {
        hash: [0; 32],
        public_key: key(1),
        now: NOW,
    };
    assert_eq!(command::permit(me, &token), Err(Refused::AuthorityOnly));
}

/// A history of services: which app, which service, what.
fn step() -> impl Strategy<Value = (usize, usize, u8)> {
    (0..3_usize, 0..4_usize, 0..4_u8)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn no_two_services_ever_have_one_vip(steps in proptest::collection::vec(step(), 1..60)) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(no_two_share(steps));
    }
}

async fn no_two_share(steps: Vec<(usize, usize, u8)>) {
    let (files, mut directory) = directory().await;
    let apps: [AppName; 3] = ["a", "b", "c"].map(|name| name.parse().unwrap());
    for (app, network) in apps.iter().zip(["", "", "apart"]) {
        let new = new_app(app.as_str(), network);
        directory.create_app(new, NOW).await.unwrap();
    }
    // Who has had each address.
    let mut owners = std::collections::HashMap::new();
    for (number, (app, service, what)) in steps.into_iter().enumerate() {
        let (app, service) = (&apps[app], format!("s{service}"));
        let before = directory.service(app, &service);
        match what {
            0 => drop(directory.delete_service(app, &service).await),
            1 => {
                directory.inner.rows.0.clone().close().await;
                directory = Handle::open(store(&files)).await.unwrap();
            }
            _ => {
                let made = directory
                    .put_service(app, &service, spec(80))
                    .await
                    .unwrap();
                let vip = made.vip.unwrap();
                assert_eq!(network_of(vip), Some(made.network_id));
                match before {
                    Some(before) => assert_eq!(before.vip, Some(vip)),
                    None => assert_eq!(owners.insert(vip, number), None, "{vip} came back"),
                }
            }
        }
    }
}
