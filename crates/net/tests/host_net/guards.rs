//! What the guards let through, frame by frame: a tap is written to as a hostile guest would.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv6Addr, UdpSocket};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use net::{AttachKind, Attachment, Egress, HostNet};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use types::HostId;
use types::sixpn::{GATEWAY, RESOLVER};

use crate::frames::{self, NEIGHBOUR_ADVERT, NEIGHBOUR_SOLICIT, ROUTER_ADVERT};
use crate::world::{SILENCE_MS, eventually, in_world, inside, reach, request, run, serve, veth};

const PORT: u16 = 7000;

/// A machine whose tap we hold, and a neighbour that tells what it hears.
struct Bench {
    net: HostNet,
    host: HostId,
    guest: Attachment,
    tap: File,
    neighbour: Attachment,
    ear: UdpSocket,
}

fn bench(net: HostNet, host: HostId) -> Bench {
    let guest = request(host, 7, 0x10001, AttachKind::Tap { owner_uid: 1234 });
    let guest = net.attach(&guest).unwrap();
    assert!(guest.vnet_hdr && guest.netns.is_none());
    let tap = File::from(net.open_tap(guest.name).unwrap());
    let neighbour = veth(&net, host, 7, 0x10002);
    let netns = neighbour.netns.clone().unwrap();
    let ear = inside(&netns, || UdpSocket::bind(("::", PORT)).unwrap());
    ear.set_read_timeout(Some(Duration::from_millis(SILENCE_MS)))
        .unwrap();
    Bench {
        net,
        host,
        guest,
        tap,
        neighbour,
        ear,
    }
}

impl Bench {
    fn send(&self, packet: &[u8]) {
        (&self.tap)
            .write_all(&frames::on_tap(self.guest.mac, packet))
            .unwrap();
    }

    /// Whether the neighbour hears `packet`, a datagram. What it hears late of another is not it.
    fn hears(&self, packet: &[u8]) -> bool {
        self.send(packet);
        let payload = &packet[packet.len() - 4..];
        let mut heard = [0; 64];
        while let Ok((length, _)) = self.ear.recv_from(&mut heard) {
            if heard[..length] == *payload {
                return true;
            }
        }
        false
    }

    /// Fails if the neighbour does not hear `packet` in the end.
    fn assert_hears(&self, packet: &[u8]) {
        eventually(|| self.hears(packet));
    }

    fn neighbours(&self) -> String {
        inside(self.net.netns(), || {
            run(&format!("ip -6 neigh show dev {}", self.guest.name))
        })
    }

    fn own(&self) -> Ipv6Addr {
        self.guest.ipv6.addr()
    }

    fn udp_from(&self, source: Ipv6Addr) -> Vec<u8> {
        frames::udp(source, self.neighbour.ipv6.addr(), PORT)
    }

    /// The first packet of ICMPv6 type `kind` that the guest gets soon.
    fn receives(&self, kind: u8) -> Option<Vec<u8>> {
        let deadline = Instant::now() + Duration::from_millis(SILENCE_MS);
        while Instant::now() < deadline {
            let mut fds = [PollFd::new(self.tap.as_fd(), PollFlags::POLLIN)];
            if poll(&mut fds, PollTimeout::from(50_u8)).unwrap() == 0 {
                continue;
            }
            let mut frame = vec![0; 2048];
            let length = (&self.tap).read(&mut frame).unwrap();
            frame.truncate(length);
            if frames::icmpv6_kind(&frame) == Some(kind) {
                return Some(frame);
            }
        }
        None
    }
}

#[test]
fn a_tap_takes_and_gives_the_machines_own_packets() {
    in_world("tap_own", |world| {
        let (host, net) = world.host_net(Egress::None);
        let bench = bench(net, host);
        bench.assert_hears(&bench.udp_from(bench.own()));
        let second = types::SixPn {
            free: 9,
            ..bench.guest.ipv6
        };
        bench.assert_hears(&bench.udp_from(second.addr()));
    });
}

#[test]
fn the_gateway_answers_neighbour_solicitations() {
    in_world("tap_nd", |world| {
        let (host, net) = world.host_net(Egress::None);
        let bench = bench(net, host);
        let link_local: Ipv6Addr = "fe80::61".parse().unwrap();
        for source in [bench.own(), link_local] {
            let solicited: Ipv6Addr = "ff02::1:ff00:1".parse().unwrap();
            bench.send(&frames::neighbour(
                NEIGHBOUR_SOLICIT,
                source,
                solicited,
                GATEWAY,
            ));
            assert!(bench.receives(NEIGHBOUR_ADVERT).is_some(), "{source}");
        }
    });
}

#[test]
fn packets_that_are_not_the_machines_own_are_dropped() {
    in_world("tap_spoof", |world| {
        let (host, net) = world.host_net(Egress::None);
        let bench = bench(net, host);
        let other = veth(&bench.net, bench.host, 8, 0x10003);
        bench.assert_hears(&bench.udp_from(bench.own()));
        for source in [
            types::SixPn {
                machine: 0x10004,
                ..bench.guest.ipv6
            }
            .addr(),
            other.ipv6.addr(),
            types::sixpn::host_addr(bench.guest.ipv6.network, bench.host),
            RESOLVER,
            GATEWAY,
            Ipv6Addr::LOCALHOST,
            Ipv6Addr::UNSPECIFIED,
            "2001:db8::9".parse().unwrap(),
        ] {
            assert!(!bench.hears(&bench.udp_from(source)), "{source}");
        }
        bench.assert_hears(&bench.udp_from(bench.own()));
    });
}

#[test]
fn extension_headers_and_fragments_are_dropped() {
    in_world("tap_extension", |world| {
        let (host, net) = world.host_net(Egress::None);
        let bench = bench(net, host);
        let plain = bench.udp_from(bench.own());
        bench.assert_hears(&plain);
        for header in frames::EXTENSION_HEADERS {
            // Each with a payload of its own: a late `plain` must not be taken for it.
            let packet = frames::with_extension(&bench.udp_from(bench.own()), header);
            assert!(!bench.hears(&packet), "extension header {header}");
        }
        bench.assert_hears(&plain);
    });
}

#[test]
fn a_machine_cannot_claim_to_be_another_or_the_gateway() {
    in_world("tap_nd_spoof", |world| {
        let (host, net) = world.host_net(Egress::None);
        let bench = bench(net, host);
        let victim = bench.neighbour.ipv6.addr();
        let solicited: Ipv6Addr = "ff02::1:ff00:1".parse().unwrap();
        bench.send(&frames::neighbour(
            NEIGHBOUR_SOLICIT,
            victim,
            solicited,
            GATEWAY,
        ));
        bench.send(&frames::neighbour(
            NEIGHBOUR_ADVERT,
            bench.own(),
            GATEWAY,
            victim,
        ));
        bench.send(&frames::neighbour(
            NEIGHBOUR_ADVERT,
            bench.own(),
            GATEWAY,
            GATEWAY,
        ));
        let all_nodes: Ipv6Addr = "ff02::1".parse().unwrap();
        bench.send(&frames::neighbour(
            NEIGHBOUR_ADVERT,
            victim,
            all_nodes,
            victim,
        ));
        assert!(
            !bench.neighbours().contains(&victim.to_string()),
            "{}",
            bench.neighbours()
        );
        // From beyond the link, as a router would have to have let it through.
        let mut far = frames::neighbour(NEIGHBOUR_SOLICIT, bench.own(), solicited, GATEWAY);
        far[7] = 64;
        bench.send(&far);
        assert_eq!(bench.receives(NEIGHBOUR_ADVERT), None);
    });
}

#[test]
fn a_machine_is_no_router() {
    in_world("tap_ra", |world| {
        let (host, net) = world.host_net(Egress::None);
        let bench = bench(net, host);
        let link_local: Ipv6Addr = "fe80::61".parse().unwrap();
        let all_nodes: Ipv6Addr = "ff02::1".parse().unwrap();
        let dropped = || {
            let chain = run("nft list chain inet aerostat from_machine");
            let rule = chain
                .lines()
                .find(|line| line.contains("nd-router-advert"))
                .unwrap();
            let mut words = rule
                .split_whitespace()
                .skip_while(|word| *word != "packets");
            words.nth(1).unwrap().parse::<u32>().unwrap()
        };
        let before = inside(bench.net.netns(), dropped);
        bench.send(&frames::neighbour(
            ROUTER_ADVERT,
            link_local,
            all_nodes,
            GATEWAY,
        ));
        eventually(|| inside(bench.net.netns(), dropped) == before + 1);
        let routes = inside(bench.net.netns(), || run("ip -6 route show default"));
        assert_eq!(routes, "");
    });
}

#[test]
fn arp_is_answered_for_the_gateway_and_to_the_machines_own_address() {
    in_world("tap_arp", |world| {
        let (host, net) = world.host_net(Egress::None);
        let bench = bench(net, host);
        let ask = |source| frames::arp_request(bench.guest.mac, source, net::GATEWAY_V4);
        let answered = |frame: &[u8]| {
            (&bench.tap).write_all(frame).unwrap();
            let deadline = Instant::now() + Duration::from_millis(SILENCE_MS);
            let mut frame = vec![0; 2048];
            while Instant::now() < deadline {
                let mut fds = [PollFd::new(bench.tap.as_fd(), PollFlags::POLLIN)];
                if poll(&mut fds, PollTimeout::from(50_u8)).unwrap() > 0 {
                    let length = (&bench.tap).read(&mut frame).unwrap();
                    if frames::is_arp_reply(&frame[..length]) {
                        return true;
                    }
                }
            }
            false
        };
        eventually(|| answered(&ask(bench.guest.ipv4)));
        assert!(!answered(&ask(bench.neighbour.ipv4)));
    });
}

#[test]
fn what_machines_say_to_each_other_fills_no_table_of_the_host() {
    in_world("tap_untracked", |world| {
        let (host, net) = world.host_net(Egress::None);
        let bench = bench(net, host);
        bench.assert_hears(&bench.udp_from(bench.own()));
        let (one, other) = (
            veth(&bench.net, host, 7, 0x10004),
            bench.neighbour.ipv6.addr(),
        );
        serve(bench.neighbour.netns.as_deref().unwrap(), "[::]:7001");
        assert!(reach(one.netns.as_deref().unwrap(), (other, 7001)).is_some());
        let tracked =
            || std::fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_count").unwrap();
        assert_eq!(inside(bench.net.netns(), tracked).trim(), "0");
    });
}

#[test]
fn a_machine_asks_for_so_many_names_in_a_second() {
    in_world("tap_names", |world| {
        let (host, net) = world.host_net(Egress::None);
        let bench = bench(net, host);
        let none_is_dropped = || {
            let chain = run("nft list chain inet aerostat input");
            let rule = chain.lines().find(|line| line.contains("@name_queries"));
            rule.unwrap().contains("counter packets 0 ")
        };
        let question = frames::udp(bench.own(), RESOLVER, 53);
        for _ in 0..500 {
            bench.send(&question);
        }
        assert!(inside(bench.net.netns(), none_is_dropped));
        eventually(|| {
            (0..5000).for_each(|_| bench.send(&question));
            !inside(bench.net.netns(), none_is_dropped)
        });
    });
}

#[test]
fn a_tap_outlives_the_process_that_opens_it() {
    in_world("tap_again", |world| {
        let (host, net) = world.host_net(Egress::None);
        let first = bench(net, host);
        let busy = first
            .net
            .open_tap(first.guest.name)
            .map(drop)
            .map_err(|e| e.to_string());
        assert_eq!(busy, Err("cannot open tap m00010001".to_owned()));
        // Repairing an attachment that is in use is no failure.
        let again = request(first.host, 7, 0x10001, AttachKind::Tap { owner_uid: 1234 });
        first.net.attach(&again).unwrap();
        let Bench {
            net,
            host,
            tap,
            ear,
            ..
        } = first;
        drop((tap, ear));
        let second = bench(net, host);
        second.assert_hears(&second.udp_from(second.own()));
    });
}
