//! The mesh over real namespaces: who reaches whom across hosts, and what it survives.

mod world;

use std::net::{Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use aerostat::mesh::{Error, Override};
use net::RPC_PORT;
use net::wireguard::{
    Backend as _, DropReason, Engine, EngineConfig, Offloads, PeerConfig, PeerId, Policy, Underlay,
};
use types::SixPn;
use types::sixpn::{HOST_PLANE, host_addr};

use world::{
    Host, PORT, World, assert_out_of_reach, eventually, in_world, inside, network, pings, reach,
    run, serve,
};

#[test]
fn machines_reach_those_of_their_network_on_other_hosts_and_no_others() {
    in_world("mesh_networks", 2, |world| {
        let running = world.start_all();
        let [a, b] = [&world.hosts[0], &world.hosts[1]];
        let (client, from) = a.machine(7, 0x10001);
        let (web, web_at) = b.machine(7, 0x10001);
        let (stranger, stranger_at) = b.machine(8, 0x10002);
        let (_, friend_at) = a.machine(8, 0x10002);
        serve(&web_at, "[::]:8080");
        serve(&stranger_at, "[::]:8080");
        eventually("ping", || pings(&from, web));
        assert_eq!(reach(&from, web, 8080), Some(client.to_string()));
        assert!(reach(&friend_at, stranger, 8080).is_some());
        assert_out_of_reach(&from, stranger, 8080);
        assert_out_of_reach(&friend_at, web, 8080);
        assert!(!pings(&from, stranger));
        // A machine that is not there: its host says so.
        let absent = SixPn::of_machine(network(7), b.id, 0x1_0077).addr();
        let begin = Instant::now();
        assert!(reach(&from, absent, 80).is_none());
        assert!(begin.elapsed() < Duration::from_secs(8), "no answer");

        let peer = &running[0].status().peers[0];
        assert_eq!((peer.id, &peer.name), (b.id, &b.record().name));
        assert_eq!(peer.endpoint, Some(b.record().endpoint));
        assert!(peer.handshake_age_s.is_some() && peer.rx_bytes > 0 && peer.tx_bytes > 0);
    });
}

#[test]
fn hosts_reach_each_other_and_machines_do_not_reach_hosts() {
    in_world("mesh_host_plane", 2, |world| {
        let running = world.start_all();
        let [a, b] = [&world.hosts[0], &world.hosts[1]];
        let (_, from) = a.machine(7, 0x10001);
        b.machine(7, 0x10001);
        let plane = [a, b].map(|host| host_addr(HOST_PLANE, host.id));
        serve(b.net.netns(), &format!("[::]:{RPC_PORT}"));
        eventually("ping", || pings(a.net.netns(), plane[1]));
        let seen = reach(a.net.netns(), plane[1], RPC_PORT);
        assert_eq!(seen, Some(plane[0].to_string()));
        for host in [plane[1], plane[0], host_addr(network(7), b.id)] {
            assert_out_of_reach(&from, host, RPC_PORT);
            assert!(!pings(&from, host), "{host}");
        }
        // A process on another host that speaks for a network of machines is no host either.
        let source = host_addr(network(7), a.id);
        let heard = inside(a.net.netns(), || {
            let socket = UdpSocket::bind((source, 0)).unwrap();
            socket
                .send_to(b"x", (plane[1], net::MEMBERSHIP_PORT))
                .is_ok()
        });
        assert!(heard);
        eventually("drop", || running[0].drops("other_network") > 0);
        eventually("probes", || {
            let peer = running[0].status().peers.remove(0);
            peer.loss_percent.is_some() && peer.round_trip_ms.is_some_and(|ms| ms < 1000.0)
        });
    });
}

/// Sends everything to one peer, whatever it says of itself.
struct Liar(PeerId);

impl Policy for Liar {
    fn route(&self, _: Ipv6Addr, _: Ipv6Addr) -> Result<PeerId, DropReason> {
        Ok(self.0)
    }

    fn allow(&self, _: PeerId, _: Ipv6Addr, _: Ipv6Addr) -> Result<(), DropReason> {
        Ok(())
    }
}

/// The engine of a host that tells `to` what it likes.
fn lying(liar: &Host, to: &Host) -> Engine {
    let engine = EngineConfig {
        private_key: liar.key.clone(),
        tun: liar.net.mesh_tun(Offloads::default()).unwrap(),
        underlay: liar.under(|| {
            let address = SocketAddr::from((Ipv6Addr::UNSPECIFIED, PORT));
            Underlay::bind(address, Offloads::default()).unwrap()
        }),
    };
    let engine = Engine::start(engine, Liar(to.id.into())).unwrap();
    engine
        .ensure_peer(&PeerConfig {
            id: to.id.into(),
            public_key: to.key.public(),
            endpoint: Some(to.record().endpoint),
            keepalive_s: Some(1),
        })
        .unwrap();
    engine
}

#[test]
fn a_host_that_lies_about_its_machines_is_not_heard() {
    in_world("mesh_liar", 3, |world| {
        let honest = world.start(0);
        let [a, liar, other] = [&world.hosts[0], &world.hosts[1], &world.hosts[2]];
        let (target, target_at) = a.machine(7, 0x10001);
        a.machine(8, 0x10002);
        let _engine = lying(liar, a);
        let ear = inside(&target_at, || UdpSocket::bind("[::]:7000").unwrap());
        ear.set_read_timeout(Some(Duration::from_millis(500)))
            .unwrap();
        let say = |source: Ipv6Addr, to: Ipv6Addr| {
            inside(liar.net.netns(), || {
                run(&format!("ip address replace {source}/128 dev lo nodad"));
                let socket = UdpSocket::bind((source, 0)).unwrap();
                socket.send_to(b"x", (to, 7000)).unwrap();
            });
            ear.recv_from(&mut [0; 8]).is_ok()
        };
        let machine = |id, host, field| SixPn::of_machine(network(id), host, field).addr();
        let own = machine(7, liar.id, 0x10009);
        eventually("the truth is heard", || say(own, target));
        for (source, to, reason) in [
            (machine(7, other.id, 0x10001), target, "foreign_source"),
            (machine(8, liar.id, 0x10001), target, "other_network"),
            (own, machine(7, other.id, 0x10002), "foreign_destination"),
            (machine(7, a.id, 0x10005), target, "foreign_source"),
            (
                host_addr(HOST_PLANE, other.id),
                host_addr(HOST_PLANE, a.id),
                "foreign_source",
            ),
        ] {
            let before = honest.drops(reason);
            eventually(reason, || {
                assert!(!say(source, to), "{source} is heard");
                honest.drops(reason) > before
            });
        }
        // A machine of the other host that has moved to the liar is no lie.
        let moved = SixPn::of_machine(network(7), other.id, 0x10001);
        let away = Override {
            owner: liar.id,
            version: 1,
            expires: Instant::now() + Duration::from_secs(600),
        };
        honest
            .mesh
            .overrides()
            .put(moved, away, Instant::now())
            .unwrap();
        eventually("the machine that moved is heard", || {
            say(moved.addr(), target)
        });
    });
}

/// Pings from a machine of the first host to one of the second.
fn machines(world: &World) -> impl Fn() -> bool {
    let (_, from) = world.hosts[0].machine(7, 0x10001);
    let (to, _) = world.hosts[1].machine(7, 0x10001);
    move || pings(&from, to)
}

#[test]
fn a_host_that_begins_anew_is_reached_within_seconds() {
    in_world("mesh_restart", 2, |world| {
        let _first = world.start(0);
        let second = world.start(1);
        let pings = machines(world);
        eventually("ping", &pings);
        world.stop(second);
        assert!(!pings());
        let second = world.start(1);
        let begin = Instant::now();
        eventually("ping after the restart", &pings);
        assert!(
            begin.elapsed() < Duration::from_secs(15),
            "{:?}",
            begin.elapsed()
        );
        world.stop(second);
    });
}

#[test]
fn a_host_that_moves_is_followed() {
    in_world("mesh_roaming", 2, |world| {
        let running = world.start_all();
        let pings = machines(world);
        eventually("ping", &pings);
        world.hosts[1].under(|| {
            run("ip address add 2001:db8::99/64 dev uplink nodad");
            run("ip address del 2001:db8::2/64 dev uplink");
        });
        eventually("ping after the move", &pings);
        let moved: SocketAddr = format!("[2001:db8::99]:{PORT}").parse().unwrap();
        let endpoint = || running[0].status().peers[0].endpoint;
        assert_eq!(endpoint(), Some(moved));
        // The directory tells again what it knew: no reason to send it back.
        running[0].mesh.set_hosts(&world.records());
        assert_eq!(endpoint(), Some(moved));
    });
}

#[test]
fn a_mesh_gets_through_loss_and_says_how_much() {
    in_world("mesh_loss", 2, |world| {
        world.hosts[1].under(|| {
            run("nft add table inet loss");
            run("nft add chain inet loss in { type filter hook input priority 0 ; }");
            run(
                "nft add rule inet loss in udp dport 51821 numgen random mod 100 < 30 counter drop",
            );
        });
        let running = world.start_all();
        let pings = machines(world);
        eventually("ping", &pings);
        let (_, from) = world.hosts[0].machine(7, 0x10001);
        let (web, web_at) = world.hosts[1].machine(7, 0x10001);
        serve(&web_at, "[::]:8080");
        eventually("connection", || reach(&from, web, 8080).is_some());
        eventually("loss", || {
            let peer = running[0].status().peers.remove(0);
            peer.loss_percent
                .is_some_and(|loss| (1.0..=99.0).contains(&loss))
        });
    });
}

#[test]
fn hosts_come_and_go() {
    in_world("mesh_hosts", 3, |world| {
        let running = world.start_all();
        let records = world.records();
        let plane = |host: usize| host_addr(HOST_PLANE, world.hosts[host].id);
        let from = world.hosts[0].net.netns();
        for host in [1, 2] {
            eventually("ping", || pings(from, plane(host)));
        }
        running[0].mesh.set_hosts(&records[..2]);
        assert_eq!(running[0].status().peers.len(), 1);
        assert!(!pings(from, plane(2)));
        assert!(pings(from, plane(1)));
        let before = running[0].drops("unknown_peer");
        assert!(before > 0);
        running[0].mesh.set_hosts(&records);
        eventually("ping after the return", || pings(from, plane(2)));
    });
}

#[test]
fn what_is_taken_is_named_and_nothing_is_left_behind() {
    in_world("mesh_taken", 2, |world| {
        let [host, other] = [&world.hosts[0], &world.hosts[1]];
        let address = SocketAddr::from((Ipv6Addr::UNSPECIFIED, PORT));
        let socket = host.under(|| UdpSocket::bind(address).unwrap());
        let error = host.start().unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, Error::PortTaken { .. }), "{error:?}");
        let us = format!("process {}", std::process::id());
        assert!(text.contains("51821") && text.contains(&us) && text.contains("`mesh_listen`"));
        let links = || inside(host.net.netns(), || run("ip -o link"));
        assert!(!links().contains(net::MESH_LINK));
        drop(socket);

        let mesh = host.start().unwrap();
        assert_eq!(mesh.port(), PORT);
        // Another daemon, with an underlay of its own, for the same host.
        let error = other.start_for(&host.net).unwrap_err();
        assert!(matches!(error, Error::TunHeld { .. }), "{error:?}");
        drop(mesh);
        assert!(!links().contains(net::MESH_LINK));
        drop(host.start().unwrap());
    });
}
