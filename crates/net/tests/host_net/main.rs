//! A host's network in real namespaces: who reaches whom, what comes and goes, and what is left.

mod frames;
mod guards;
mod lifecycle;
mod tunnels;
mod world;

use std::io::Read;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6, TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

use net::Egress;
use types::sixpn::{GATEWAY, RESOLVER};

use world::{
    answer, assert_out_of_reach, eventually, in_world, inside, network, reach, run, serve, veth,
};

#[test]
fn machines_of_one_network_reach_each_other_and_those_of_two_do_not() {
    in_world("one_network", |world| {
        let (host, net) = world.host_net(Egress::None);
        let web = veth(&net, host, 7, 0x10001);
        let peer = veth(&net, host, 7, 0x10002);
        let stranger = veth(&net, host, 8, 0x10003);
        let (web_ns, peer_ns) = (web.netns.unwrap(), peer.netns.unwrap());
        let stranger_ns = stranger.netns.unwrap();
        serve(&web_ns, "[::]:8080");
        serve(&stranger_ns, "[::]:8080");

        let seen = reach(&peer_ns, (web.ipv6.addr(), 8080));
        assert_eq!(seen, Some(peer.ipv6.to_string()));
        assert_out_of_reach(&peer_ns, (stranger.ipv6.addr(), 8080));
        assert_out_of_reach(&stranger_ns, (web.ipv6.addr(), 8080));
        // Nor by IPv4, which is for the way out only.
        serve(&web_ns, "0.0.0.0:8081");
        assert_out_of_reach(&peer_ns, (web.ipv4, 8081));
    });
}

#[test]
fn a_machine_may_use_all_of_its_own_addresses() {
    in_world("own_addresses", |world| {
        let (host, net) = world.host_net(Egress::None);
        let web = veth(&net, host, 7, 0x10001);
        let peer = veth(&net, host, 7, 0x10002);
        let (web_ns, peer_ns) = (web.netns.unwrap(), peer.netns.unwrap());
        let second = types::SixPn {
            free: 0xbeef,
            ..web.ipv6
        };
        inside(&web_ns, || {
            run(&format!("ip address add {second}/128 dev eth0 nodad"))
        });
        serve(&web_ns, &format!("[{second}]:8080"));
        assert!(reach(&peer_ns, (second.addr(), 8080)).is_some());
    });
}

#[test]
fn a_machine_that_takes_anothers_address_is_not_heard() {
    in_world("taken_address", |world| {
        let (host, net) = world.host_net(Egress::None);
        let web = veth(&net, host, 7, 0x10001);
        let thief = veth(&net, host, 7, 0x10002);
        let victim = veth(&net, host, 7, 0x10003);
        let other_network = veth(&net, host, 8, 0x10004);
        let (web_ns, thief_ns) = (web.netns.unwrap(), thief.netns.unwrap());
        serve(&web_ns, "[::]:8080");
        assert!(reach(&thief_ns, (web.ipv6.addr(), 8080)).is_some());
        for taken in [victim.ipv6, other_network.ipv6] {
            inside(&thief_ns, || {
                run("ip -6 address flush dev eth0 scope global")
            });
            inside(&thief_ns, || {
                run(&format!("ip address add {taken}/128 dev eth0 nodad"))
            });
            assert_out_of_reach(&thief_ns, (web.ipv6.addr(), 8080));
        }
    });
}

#[test]
fn of_its_host_a_machine_reaches_the_resolver_and_nothing_else() {
    in_world("host_services", |world| {
        world.internet();
        let (host, net) = world.host_net(Egress::Nat);
        let machine = veth(&net, host, 7, 0x10001);
        let netns = machine.netns.unwrap();
        for address in ["[::]:4280", "[fdaa::3]:53"] {
            serve(net.netns(), address);
        }
        assert!(reach(&netns, (RESOLVER, 53)).is_some());
        inside(&netns, || {
            run(&format!("busybox ping -6 -c 1 -W 2 {RESOLVER}"))
        });

        let us = types::sixpn::host_addr(network(7), host);
        assert_out_of_reach(&netns, (RESOLVER, 4280));
        assert_out_of_reach(&netns, (us, 4280));
        let eth0 = inside(&netns, || nix::net::if_::if_nametoindex("eth0").unwrap());
        assert_out_of_reach(&netns, SocketAddrV6::new(GATEWAY, 4280, 0, eth0));

        // This thread's namespace plays the server's own.
        answer(TcpListener::bind("[::]:4281").unwrap());
        answer(TcpListener::bind("127.0.0.1:4282").unwrap());
        let own = [
            "203.0.113.2:4281",
            "[2001:db8::2]:4281",
            "198.18.0.0:4281",
            "127.0.0.1:4282",
        ];
        for address in own {
            assert_out_of_reach(&netns, address.parse::<SocketAddr>().unwrap());
        }
        let link = format!("aero{host}");
        for line in run(&format!("ip -o address show dev {link}")).lines() {
            let address = line
                .split_whitespace()
                .nth(3)
                .unwrap()
                .split('/')
                .next()
                .unwrap();
            let address: std::net::IpAddr = address.parse().unwrap();
            assert_out_of_reach(&netns, (address, 4281));
        }
    });
}

#[test]
fn a_machine_cannot_take_all_connections_of_the_resolver() {
    in_world("name_streams", |world| {
        let (host, net) = world.host_net(Egress::None);
        let greedy = veth(&net, host, 7, 0x10001).netns.unwrap();
        let modest = veth(&net, host, 7, 0x10002).netns.unwrap();
        let listener = inside(net.netns(), || TcpListener::bind("[fdaa::3]:53").unwrap());
        std::thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                // As the resolver does: ends when the client does.
                std::thread::spawn(move || stream.read_to_end(&mut Vec::new()));
            }
        });
        let open = |netns: &Path| {
            let timeout = Duration::from_secs(3);
            let to = SocketAddr::from((RESOLVER, 53));
            inside(netns, || TcpStream::connect_timeout(&to, timeout).ok())
        };
        let streams: Vec<_> = std::iter::from_fn(|| open(&greedy)).take(100).collect();
        assert_eq!(streams.len(), 16);
        assert!(open(&modest).is_some());
        drop(streams);
        // What a client ends is free again at once.
        eventually(|| open(&greedy).is_some());
    });
}

#[test]
fn the_host_reaches_its_machines_from_its_address_in_their_network() {
    in_world("host_to_machine", |world| {
        let (host, net) = world.host_net(Egress::None);
        let machine = veth(&net, host, 7, 0x10001);
        serve(&machine.netns.unwrap(), "[::]:8080");
        let seen = reach(net.netns(), (machine.ipv6.addr(), 8080));
        assert_eq!(
            seen,
            Some(types::sixpn::host_addr(network(7), host).to_string())
        );
    });
}

#[test]
fn a_machine_reaches_the_world_behind_its_hosts_address() {
    in_world("egress", |world| {
        let internet = world.internet();
        let (host, net) = world.host_net(Egress::Nat);
        let machine = veth(&net, host, 7, 0x10001);
        let netns = machine.netns.unwrap();
        serve(&internet, "0.0.0.0:80");
        inside(&internet, || answer(v6_only_listener("[2001:db8::1]:80")));
        let seen = reach(&netns, "203.0.113.1:80".parse::<SocketAddr>().unwrap());
        assert_eq!(seen.as_deref(), Some("203.0.113.2"));
        let seen = reach(&netns, "[2001:db8::1]:80".parse::<SocketAddr>().unwrap());
        assert_eq!(seen.as_deref(), Some("2001:db8::2"));

        // The cloud's metadata service would hand out the host's credentials.
        assert_out_of_reach(&netns, "169.254.169.254:80".parse::<SocketAddr>().unwrap());
        // The world does not reach the machine, even if it routes to this server.
        inside(&internet, || {
            run("ip route add 198.18.0.0/15 via 203.0.113.2")
        });
        inside(&internet, || run("ip route add fdaa::/16 via 2001:db8::2"));
        serve(&netns, "[::]:8080");
        assert_out_of_reach(&internet, (machine.ipv6.addr(), 8080));
        inside(&internet, || {
            run("ip route add 172.19.0.0/16 via 203.0.113.2")
        });
        assert_out_of_reach(&internet, (machine.ipv4, 8080));
    });
}

#[test]
fn without_egress_a_machine_stays_inside() {
    in_world("no_egress", |world| {
        let internet = world.internet();
        let (host, net) = world.host_net(Egress::None);
        let machine = veth(&net, host, 7, 0x10001);
        serve(&internet, "0.0.0.0:80");
        let netns = machine.netns.unwrap();
        assert_out_of_reach(&netns, "203.0.113.1:80".parse::<SocketAddr>().unwrap());
        let unknown: Ipv6Addr = "fdaa:0:7:a7b:99:1:2:2".parse().unwrap();
        assert_out_of_reach(&netns, (unknown, 80));
    });
}

fn v6_only_listener(address: &str) -> TcpListener {
    TcpListener::bind(address).unwrap()
}
