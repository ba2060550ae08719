//! What the guards let come from the mesh and the gateway. A veth pair with the tunnel's name
//! plays the tunnel, so that the engine's own policy, which would drop most of this before, does
//! not hide a hole in the guards.

use std::net::{Ipv6Addr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

use net::{
    API_PORT, Attachment, Egress, GATEWAY_LINK, HostNet, MEMBERSHIP_PORT, MESH_LINK, RPC_PORT,
};
use types::sixpn::{HOST_PLANE, RESOLVER, host_addr, network_resolver, peer_addr, vip};
use types::{HostId, SixPn};

use crate::world::{
    SILENCE_MS, World, answer, assert_out_of_reach, eventually, in_world, inside, network, reach,
    run, serve, veth,
};

/// Another host of the fleet.
const OTHER: u16 = 0xfff0;

/// A host with machines of networks 7 and 8, and what is beyond one of its tunnels.
struct Bench {
    host: HostId,
    net: HostNet,
    machine: Attachment,
    beyond: PathBuf,
}

fn bench(world: &mut World, tunnel: &str) -> Bench {
    let (host, net) = world.host_net(Egress::None);
    let machine = veth(&net, host, 7, 0x10001);
    veth(&net, host, 8, 0x10002);
    let beyond = world.namespace("beyond");
    let file = beyond.file_name().unwrap().to_str().unwrap();
    let lo = "ip link set lo up";
    inside(&beyond, || run(lo));
    // Neighbour discovery does not pass a tunnel, so both ends know the other.
    let (near_mac, far_mac) = ("02:00:00:00:00:0a", "02:00:00:00:00:0b");
    inside(net.netns(), || {
        run(&format!(
            "ip link add {tunnel} address {near_mac} type veth peer name far address {far_mac} netns {file}"
        ));
        run(&format!("ip link set {tunnel} up"));
        run(&format!(
            "ip -6 neigh add fe80::b lladdr {far_mac} dev {tunnel} nud permanent"
        ));
        let clients = [7, 8].map(|id| peer_addr(network(id), host, 0));
        for (to, bits) in [
            ("fdaa::".parse().unwrap(), 16),
            (clients[0], 112),
            (clients[1], 112),
        ] {
            let prefix = Ipv6Addr::from(u128::from(to) >> (128 - bits) << (128 - bits));
            run(&format!(
                "ip -6 route add {prefix}/{bits} via fe80::b dev {tunnel} metric 512"
            ));
        }
    });
    inside(&beyond, || {
        run("ip link set far up");
        run(&format!(
            "ip -6 neigh add fe80::a lladdr {near_mac} dev far nud permanent"
        ));
        run("ip -6 route add fdaa::/16 via fe80::a dev far");
    });
    Bench {
        host,
        net,
        machine,
        beyond,
    }
}

impl Bench {
    /// From now on what is sent from beyond comes from `source`, and no other.
    fn speak_as(&self, source: Ipv6Addr) {
        inside(&self.beyond, || {
            run("ip -6 address flush dev lo scope global");
            run(&format!("ip address add {source}/128 dev lo nodad"));
        });
    }

    fn reaches(&self, address: Ipv6Addr, port: u16) -> bool {
        reach(&self.beyond, (address, port)).is_some()
    }

    fn assert_out_of_reach(&self, address: Ipv6Addr, port: u16) {
        assert_out_of_reach(&self.beyond, (address, port));
    }

    fn is_pinged(&self, from: &Path, address: Ipv6Addr, options: &str) -> bool {
        let ping = format!("-6 -n -c 1 -W 1 {options} {address}");
        let output = inside(from, || {
            std::process::Command::new("ping")
                .args(ping.split_whitespace())
                .output()
                .unwrap()
        });
        output.status.success()
    }

    /// Packets that the rule of `chain` with `word` in it has dropped.
    fn dropped(&self, chain: &str, word: &str) -> u32 {
        let rules = inside(self.net.netns(), || {
            run(&format!("nft list chain inet aerostat {chain}"))
        });
        let rule = rules.lines().find(|line| line.contains(word)).unwrap();
        let mut words = rule
            .split_whitespace()
            .skip_while(|word| *word != "packets");
        words.nth(1).unwrap().parse().unwrap()
    }
}

fn machine_of(id: u32, host: HostId, field: u32) -> Ipv6Addr {
    SixPn::of_machine(network(id), host, field).addr()
}

#[test]
fn the_mesh_brings_machines_what_is_of_their_network() {
    in_world("mesh_machines", |world| {
        let bench = bench(world, MESH_LINK);
        let (ours, other) = (bench.machine.ipv6.addr(), HostId::new(OTHER));
        let netns = bench.machine.netns.clone().unwrap();
        serve(&netns, "[::]:8080");
        bench.speak_as(machine_of(7, other, 0x10001));
        assert!(bench.reaches(ours, 8080));
        // And the way back.
        serve(&bench.beyond, "[::]:8081");
        let theirs = machine_of(7, other, 0x10001);
        let seen = reach(&netns, (theirs, 8081));
        assert_eq!(seen, Some(ours.to_string()));

        bench.speak_as(machine_of(8, other, 0x10001));
        bench.assert_out_of_reach(ours, 8080);
        // A network that is not here at all.
        bench.speak_as(machine_of(9, other, 0x10001));
        bench.assert_out_of_reach(ours, 8080);
        bench.speak_as(host_addr(HOST_PLANE, other));
        bench.assert_out_of_reach(ours, 8080);
        bench.speak_as("2001:db8::9".parse().unwrap());
        inside(bench.net.netns(), || {
            run(&format!(
                "ip -6 route add 2001:db8::/64 via fe80::b dev {MESH_LINK}"
            ))
        });
        bench.assert_out_of_reach(ours, 8080);
    });
}

#[test]
fn hosts_and_nobody_else_reach_the_host_plane() {
    in_world("host_plane", |world| {
        let bench = bench(world, MESH_LINK);
        let (other, us) = (HostId::new(OTHER), host_addr(HOST_PLANE, bench.host));
        let ports = [API_PORT, RPC_PORT, 9464];
        for port in ports {
            serve(bench.net.netns(), &format!("[::]:{port}"));
        }
        let membership = inside(bench.net.netns(), || {
            UdpSocket::bind((us, MEMBERSHIP_PORT)).unwrap()
        });
        membership
            .set_read_timeout(Some(Duration::from_millis(SILENCE_MS)))
            .unwrap();
        let tell = || {
            let socket = inside(&bench.beyond, || UdpSocket::bind("[::]:0").unwrap());
            socket.send_to(b"alive", (us, MEMBERSHIP_PORT)).unwrap();
            membership.recv_from(&mut [0; 16]).is_ok()
        };

        bench.speak_as(host_addr(HOST_PLANE, other));
        assert!(bench.reaches(us, API_PORT) && bench.reaches(us, RPC_PORT));
        eventually(tell);
        eventually(|| bench.is_pinged(&bench.beyond, us, ""));
        bench.assert_out_of_reach(us, 9464);
        bench.assert_out_of_reach(RESOLVER, 53);

        let strangers = [
            // Of the host plane, but no host.
            "fdaa:0:0:a7b:fff0:0:1:2".parse().unwrap(),
            machine_of(0, other, 0x10001),
            machine_of(7, other, 0x10001),
            host_addr(network(7), other),
        ];
        for stranger in strangers {
            bench.speak_as(stranger);
            bench.assert_out_of_reach(us, RPC_PORT);
            assert!(!tell(), "{stranger}");
            assert!(!bench.is_pinged(&bench.beyond, us, ""), "{stranger}");
        }
        // The host's own address in a network of machines gives nothing but answers.
        for member in [machine_of(7, other, 0x10001), host_addr(network(7), other)] {
            bench.speak_as(member);
            bench.assert_out_of_reach(host_addr(network(7), bench.host), API_PORT);
        }
        let netns = bench.machine.netns.clone().unwrap();
        for address in [us, host_addr(network(7), bench.host)] {
            assert_out_of_reach(&netns, (address, API_PORT));
            assert!(!bench.is_pinged(&netns, address, ""), "{address}");
        }
        // Nor that of another host, which is beyond the mesh.
        serve(&bench.beyond, &format!("[::]:{API_PORT}"));
        bench.speak_as(host_addr(HOST_PLANE, other));
        assert_out_of_reach(&netns, (host_addr(HOST_PLANE, other), API_PORT));
        // From this host it is reached.
        let seen = reach(bench.net.netns(), (host_addr(HOST_PLANE, other), API_PORT));
        assert_eq!(seen, Some(us.to_string()));
    });
}

#[test]
fn machines_reach_the_vips_of_their_network() {
    in_world("vips", |world| {
        let bench = bench(world, MESH_LINK);
        let netns = bench.machine.netns.clone().unwrap();
        let (ours, theirs) = (vip(network(7), 1), vip(network(8), 0x1_0001));
        for address in [ours, theirs] {
            bench.net.ensure_vip(address).unwrap();
            bench.net.ensure_vip(address).unwrap();
        }
        assert_eq!(bench.net.vips().unwrap(), [ours, theirs]);
        serve(bench.net.netns(), "[::]:80");
        let seen = reach(&netns, (ours, 80));
        assert_eq!(seen, Some(bench.machine.ipv6.to_string()));
        assert!(bench.is_pinged(&netns, ours, ""));
        assert_out_of_reach(&netns, (theirs, 80));
        assert!(!bench.is_pinged(&netns, theirs, ""));
        // VIPs are answered by the host of whoever asks, never over the mesh.
        bench.speak_as(machine_of(7, HostId::new(OTHER), 0x10001));
        bench.assert_out_of_reach(ours, 80);

        // One that is not here is refused, not swallowed.
        let absent = std::net::SocketAddr::from((vip(network(7), 9), 80));
        let timeout = Duration::from_secs(10);
        let refused = inside(&netns, || {
            std::net::TcpStream::connect_timeout(&absent, timeout).unwrap_err()
        });
        assert_ne!(refused.kind(), std::io::ErrorKind::TimedOut, "{refused}");

        for address in [ours, theirs] {
            bench.net.remove_vip(address).unwrap();
            bench.net.remove_vip(address).unwrap();
        }
        assert_eq!(bench.net.vips().unwrap(), Vec::<Ipv6Addr>::new());
        assert_out_of_reach(&netns, (ours, 80));
        assert!(bench.net.ensure_vip(RESOLVER).is_err());
        assert!(
            bench
                .net
                .remove_vip(host_addr(HOST_PLANE, bench.host))
                .is_err()
        );
    });
}

#[test]
fn clients_of_the_gateway_reach_names_vips_and_machines_of_their_network() {
    in_world("clients", |world| {
        let bench = bench(world, GATEWAY_LINK);
        let resolver = network_resolver(network(7));
        let own_vip = vip(network(7), 1);
        bench.net.ensure_resolver(network(7)).unwrap();
        bench.net.ensure_vip(own_vip).unwrap();
        let netns = bench.machine.netns.clone().unwrap();
        serve(&netns, "[::]:8080");
        for address in ["[::]:53", "[::]:80", "[::]:4280", "[::]:4281"] {
            serve(bench.net.netns(), address);
        }
        bench.speak_as(peer_addr(network(7), bench.host, 1));
        assert!(bench.reaches(resolver, 53) && bench.reaches(own_vip, 80));
        assert!(bench.reaches(bench.machine.ipv6.addr(), 8080));
        for address in [resolver, own_vip] {
            eventually(|| bench.is_pinged(&bench.beyond, address, ""));
        }
        bench.assert_out_of_reach(resolver, 80);
        bench.assert_out_of_reach(RESOLVER, 53);
        let hosts = [
            host_addr(HOST_PLANE, bench.host),
            host_addr(network(7), bench.host),
        ];
        for host in hosts {
            bench.assert_out_of_reach(host, 4280);
            bench.assert_out_of_reach(host, 4281);
            assert!(!bench.is_pinged(&bench.beyond, host, ""), "{host}");
        }
        // Also if its engine were wrong about the source.
        bench.speak_as(host_addr(HOST_PLANE, HostId::new(OTHER)));
        bench.assert_out_of_reach(hosts[0], 4281);

        bench.speak_as(peer_addr(network(8), bench.host, 1));
        for (address, port) in [
            (resolver, 53),
            (own_vip, 80),
            (bench.machine.ipv6.addr(), 8080),
        ] {
            bench.assert_out_of_reach(address, port);
        }
        bench.net.remove_resolver(network(7)).unwrap();
        bench.net.remove_resolver(network(7)).unwrap();
        bench.speak_as(peer_addr(network(7), bench.host, 1));
        bench.assert_out_of_reach(resolver, 53);
    });
}

#[test]
fn tunnels_bring_no_fragments_and_no_router_messages() {
    in_world("tunnel_icmp", |world| {
        for tunnel in [MESH_LINK, GATEWAY_LINK] {
            let bench = bench(world, tunnel);
            let target = bench.machine.ipv6.addr();
            bench.speak_as(machine_of(7, HostId::new(OTHER), 0x10001));
            eventually(|| bench.is_pinged(&bench.beyond, target, ""));
            // Two fragments.
            assert!(!bench.is_pinged(&bench.beyond, target, "-s 1800"));
            assert!(bench.dropped("from_tunnel", "ip6 nexthdr") >= 2);
            // Neighbour discovery: nobody on a tunnel has a hardware address.
            let before = bench.dropped("from_tunnel", "nd-router-advert");
            inside(&bench.beyond, || {
                run("ip -6 neigh flush dev far nud permanent");
                run("ip -6 address add fe80::b/64 dev far nodad");
            });
            bench.is_pinged(&bench.beyond, target, "");
            eventually(|| bench.dropped("from_tunnel", "nd-router-advert") > before);
        }
    });
}

#[test]
fn addresses_that_nobody_has_are_refused_at_once() {
    in_world("nowhere", |world| {
        let bench = bench(world, MESH_LINK);
        let netns = bench.machine.netns.clone().unwrap();
        let absent = machine_of(7, bench.host, 0x1_0099);
        let begin = std::time::Instant::now();
        let to = std::net::SocketAddr::from((absent, 80));
        let timeout = Duration::from_secs(10);
        let refused = inside(&netns, || {
            std::net::TcpStream::connect_timeout(&to, timeout).unwrap_err()
        });
        assert_ne!(refused.kind(), std::io::ErrorKind::TimedOut, "{refused}");
        assert!(begin.elapsed() < Duration::from_secs(5));
        // What is answered on this host is answered in the network's own name.
        let listener = inside(&netns, || TcpListener::bind("[::]:8082").unwrap());
        answer(listener);
        let seen = reach(bench.net.netns(), (bench.machine.ipv6.addr(), 8082));
        let us = host_addr(network(7), bench.host).to_string();
        assert_eq!(seen, Some(us));
    });
}
