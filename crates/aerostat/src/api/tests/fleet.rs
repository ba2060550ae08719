//! Services, hosts and WireGuard peers over the API.

use types::fleet::{CreateJoinToken, CreateWireGuardPeer, GatewayRecord, HostRecord, HostStatus};
use types::service::{Backend, Protocol, ServicePort, ServiceSpec, Target};
use types::sixpn::{network_resolver, vip};
use types::{HostId, MachineId};

use super::fixture::server;

const PERSONAL: &str = "personal";

fn key(byte: u8) -> String {
    net::wireguard::PublicKey([byte; 32]).to_string()
}

fn record(number: u16) -> HostRecord {
    HostRecord {
        id: HostId::new(number),
        name: format!("host-{number}"),
        region: "local".into(),
        public_key: key(number.to_be_bytes()[1]),
        endpoint: "192.0.2.1:51821".parse().unwrap(),
        gateway: (number == 2).then(|| GatewayRecord {
            public_key: key(200),
            endpoint: "192.0.2.1:51820".parse().unwrap(),
        }),
        certificate: String::new(),
        joined_at: jiff::Timestamp::UNIX_EPOCH,
    }
}

fn spec() -> ServiceSpec {
    let machine: MachineId = "0123456789abcd".parse().unwrap();
    ServiceSpec {
        ports: vec![ServicePort {
            name: "http".into(),
            protocol: Protocol::Tcp,
            port: 80,
            target_port: 8080,
        }],
        backends: vec![Backend {
            target: Target::Machine(machine),
            ports: Default::default(),
            hostname: String::new(),
        }],
        dns_names: vec!["web.default.svc.cluster.local".into()],
        headless: false,
    }
}

#[tokio::test]
async fn a_service_is_put_read_replaced_and_removed() {
    let server = server().await;
    let (client, app) = (&server.client, server.app("web").await);
    let made = client
        .put_service(&app, "web.default", &spec())
        .await
        .unwrap();
    assert_eq!(made.vip, Some(vip(made.network_id, 1)));
    assert_eq!(made.spec, spec());
    let again = client
        .put_service(&app, "web.default", &spec())
        .await
        .unwrap();
    assert_eq!(again, made, "it may be repeated");
    let empty = ServiceSpec::default();
    let replaced = client
        .put_service(&app, "web.default", &empty)
        .await
        .unwrap();
    assert_eq!((replaced.vip, &replaced.spec), (made.vip, &empty));
    assert_eq!(client.service(&app, "web.default").await.unwrap(), replaced);
    client.put_service(&app, "db", &spec()).await.unwrap();
    let names = client.list_services(&app).await.unwrap().services;
    let names: Vec<_> = names.into_iter().map(|service| service.name).collect();
    assert_eq!(names, ["db", "web.default"]);
    client.delete_service(&app, "db").await.unwrap();
    for missing in [
        client.delete_service(&app, "db").await.unwrap_err(),
        client.service(&app, "db").await.unwrap_err(),
    ] {
        assert!(missing.is_not_found());
        assert!(
            missing
                .to_string()
                .contains("app `web` has no service `db`")
        );
    }
}

#[tokio::test]
async fn what_a_service_cannot_be_is_refused_with_the_reason() {
    let server = server().await;
    let app = server.app("web").await;
    let put = async |name: &str, body: &str| {
        let path = format!("/v1/apps/{app}/services/{name}");
        let (status, answer) = server.ask("PUT", &path, body).await;
        (status, answer["error"].as_str().unwrap().to_owned())
    };
    let (status, text) = put("Web_1", "{}").await;
    assert_eq!(status, 400);
    assert!(text.contains("cannot be the name of a service"), "{text}");
    let body = r#"{"backends": [{"address": "fdaa:0:99:a7b:2:1:1:2"}]}"#;
    let (status, text) = put("web", body).await;
    assert_eq!(status, 400);
    assert!(text.contains("fdaa:0:1::/48"), "{text}");
    let large = format!(r#"{{"ports": [], "x": "{}"}}"#, "x".repeat(4 << 20));
    assert_eq!(put("web", &large).await.0, 413);
    let unknown = server.ask("PUT", "/v1/apps/none/services/web", "{}").await;
    assert_eq!(unknown.0, 404);
}

#[tokio::test]
async fn hosts_are_listed_with_what_is_thought_of_them() {
    let server = server().await;
    for number in [2, 3] {
        server.directory.put_host(record(number)).await.unwrap();
    }
    let hosts = server.client.hosts().await.unwrap().hosts;
    let records: Vec<_> = hosts.iter().map(|summary| summary.host.clone()).collect();
    assert_eq!(records, [record(2), record(3)]);
    // Nobody has heard of it yet.
    assert_eq!(hosts[1].status, HostStatus::Unknown);
    // This one has no fleet to invite to.
    let wanted = CreateJoinToken::default();
    let refused = server.client.create_join_token(&wanted).await.unwrap_err();
    assert_eq!(refused.status(), Some(409));
    assert!(refused.to_string().contains("only host host-2 can invite"));
}

#[tokio::test]
async fn a_host_that_is_gone_is_removed_with_the_peers_of_its_gateway() {
    let server = server().await;
    let (client, gone) = (&server.client, HostId::new(3));
    for number in [2, 3] {
        let gateway = record(2).gateway;
        let record = HostRecord {
            gateway,
            ..record(number)
        };
        server.directory.put_host(record).await.unwrap();
    }
    let org = PERSONAL.parse().unwrap();
    let peer = body("laptop", key(50), 3);
    client.create_wireguard_peer(&org, &peer).await.unwrap();
    let own = client.remove_host(server.host, true).await.unwrap_err();
    assert_eq!(own.status(), Some(409));
    assert!(own.to_string().contains("the directory"), "{own}");

    server.catalog.set_host_status(gone, HostStatus::Ok);
    let up = client.remove_host(gone, false).await.unwrap_err();
    assert_eq!(up.status(), Some(409));
    assert!(up.to_string().contains("host-3 is up"), "{up}");
    server
        .catalog
        .set_host_status(gone, HostStatus::Unreachable);
    client.remove_host(gone, false).await.unwrap();
    let left = client.hosts().await.unwrap().hosts;
    let left: Vec<_> = left.iter().map(|found| found.host.id).collect();
    assert_eq!(left, [server.host]);
    assert!(client.wireguard_peers(&org).await.unwrap().peers.is_empty());
    let again = client.remove_host(gone, false).await.unwrap_err();
    assert!(again.is_not_found());

    server.directory.put_host(record(3)).await.unwrap();
    server.catalog.set_host_status(gone, HostStatus::Ok);
    client.remove_host(gone, true).await.unwrap();
    assert_eq!(server.ask("DELETE", "/v1/hosts/x", "").await.0, 400);
}

fn body(name: &str, public_key: String, gateway: u16) -> CreateWireGuardPeer {
    CreateWireGuardPeer {
        name: name.into(),
        public_key,
        gateway: Some(HostId::new(gateway)),
        ..CreateWireGuardPeer::default()
    }
}

#[tokio::test]
async fn a_peer_is_made_with_the_way_to_its_gateway() {
    let server = server().await;
    let (client, org) = (&server.client, PERSONAL.parse().unwrap());
    for number in [2, 3] {
        server.directory.put_host(record(number)).await.unwrap();
    }
    let asked_here = CreateWireGuardPeer {
        gateway: None,
        ..body("laptop", key(50), 2)
    };
    let made = client
        .create_wireguard_peer(&org, &asked_here)
        .await
        .unwrap();
    assert_eq!(made.peer.gateway, HostId::new(2));
    assert_eq!(Some(&made.gateway_record), record(2).gateway.as_ref());
    assert_eq!(made.resolver, network_resolver(made.peer.network_id));
    assert_eq!(client.wireguard_peer(&org, "laptop").await.unwrap(), made);
    let strangers = "nobody".parse().unwrap();
    assert!(
        client
            .wireguard_peers(&strangers)
            .await
            .unwrap_err()
            .is_not_found()
    );
    assert_eq!(
        client.wireguard_peers(&org).await.unwrap().peers,
        [made.peer]
    );
    client.delete_wireguard_peer(&org, "laptop").await.unwrap();
    let again = client.delete_wireguard_peer(&org, "laptop").await;
    assert!(again.unwrap_err().is_not_found());
}

#[tokio::test]
async fn what_a_peer_cannot_be_is_refused_with_the_reason() {
    let server = server().await;
    let (client, org) = (&server.client, PERSONAL.parse().unwrap());
    for number in [2, 3] {
        server.directory.put_host(record(number)).await.unwrap();
    }
    let made = body("laptop", key(50), 2);
    client.create_wireguard_peer(&org, &made).await.unwrap();
    let refused = async |body: CreateWireGuardPeer| {
        let error = client.create_wireguard_peer(&org, &body).await.unwrap_err();
        (error.status().unwrap(), error.to_string())
    };
    let (status, text) = refused(body("phone", key(51), 3)).await;
    assert_eq!(status, 409);
    assert!(text.contains("host 0003 has no gateway"), "{text}");
    assert_eq!(refused(body("phone", key(51), 4)).await.0, 404);
    assert_eq!(
        refused(body("phone", key(50), 2)).await.0,
        409,
        "the key of another"
    );
    assert_eq!(
        refused(body("phone", key(2), 2)).await.0,
        409,
        "the key of a host"
    );
    assert_eq!(
        refused(body("laptop", key(51), 2)).await.0,
        409,
        "the name of another"
    );
    for bad in ["", "short", &key(0)] {
        assert_eq!(
            refused(body("phone", bad.to_owned(), 2)).await.0,
            400,
            "{bad}"
        );
    }
    assert_eq!(refused(body("My Phone", key(51), 2)).await.0, 400);
    let elsewhere = CreateWireGuardPeer {
        network: "nowhere".into(),
        ..body("phone", key(51), 2)
    };
    assert_eq!(refused(elsewhere).await.0, 404);
}
