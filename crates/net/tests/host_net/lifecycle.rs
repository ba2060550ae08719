//! What comes, stays and goes: everything may be repeated, half-done work is repaired, and
//! nothing is left.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use types::HostId;

use net::{AttachKind, Egress, HostNet, HostNetConfig, LinkName};

use crate::world::{in_world, inside, network, reach, request, run, serve, snapshot, sysctl, veth};

#[test]
fn removing_a_host_leaves_this_server_as_it_was() {
    in_world("nothing_left", |world| {
        world.internet();
        let before = snapshot();
        let (host, net) = world.host_net(Egress::Nat);
        veth(&net, host, 7, 0x10001);
        net.attach(&request(
            host,
            7,
            0x10002,
            AttachKind::Tap { owner_uid: 1234 },
        ))
        .unwrap();
        assert_eq!(sysctl("ipv4/ip_forward"), "1");
        assert_ne!(snapshot(), before);
        let inventory = HostNet::inventory(host).unwrap();
        for thing in [
            format!("link aero{host}"),
            format!("link egress in /run/netns/aero-{host}"),
            format!("link m00010001 in /run/netns/aero-{host}"),
            format!("link m00010002 in /run/netns/aero-{host}"),
            format!("netns /run/netns/aero-{host}"),
            format!("netns /run/netns/aero-{host}-00010001"),
            format!("nft table inet aerostat_{host}"),
            format!("note aerostat_{host} restore_ipv4_forwarding"),
        ] {
            assert!(
                inventory.contains(&thing),
                "{thing} is not in {inventory:#?}"
            );
        }
        HostNet::remove(host).unwrap();
        assert_eq!(HostNet::inventory(host).unwrap(), Vec::<String>::new());
        assert_eq!(snapshot(), before);
        HostNet::remove(host).unwrap();
    });
}

#[test]
fn a_host_is_only_removed_as_unused_when_no_machine_is_attached() {
    in_world("unused", |world| {
        let before = snapshot();
        let (host, net) = world.host_net(Egress::None);
        veth(&net, host, 7, 0x10001);
        let ready = snapshot();
        assert!(!HostNet::remove_unused(host).unwrap());
        assert_eq!(snapshot(), ready);
        net.detach(&net.attachments().unwrap()[0]).unwrap();
        assert!(HostNet::remove_unused(host).unwrap());
        assert_eq!(snapshot(), before);
        assert!(HostNet::remove_unused(host).unwrap());
    });
}

#[test]
fn ensuring_again_keeps_machines_and_adds_nothing() {
    in_world("ensure_again", |world| {
        let (host, net) = world.host_net(Egress::Nat);
        let web = veth(&net, host, 7, 0x10001);
        let peer = veth(&net, host, 7, 0x10002);
        let inventory = HostNet::inventory(host).unwrap();
        let outside = snapshot();
        let links = inside(net.netns(), || run("ip -o link"));
        serve(web.netns.as_ref().unwrap(), "[::]:8080");

        let net = HostNet::ensure(&HostNetConfig {
            host,
            egress: Egress::Nat,
        })
        .unwrap();
        veth(&net, host, 7, 0x10001);
        assert_eq!(HostNet::inventory(host).unwrap(), inventory);
        assert_eq!(snapshot(), outside);
        assert_eq!(inside(net.netns(), || run("ip -o link")), links);
        assert!(reach(&peer.netns.unwrap(), (web.ipv6.addr(), 8080)).is_some());

        // The operator may change their mind.
        let net = HostNet::ensure(&HostNetConfig {
            host,
            egress: Egress::None,
        })
        .unwrap();
        assert!(!inside(net.netns(), || run("ip -o link")).contains("egress"));
        assert_eq!(sysctl("ipv4/ip_forward"), "0");
    });
}

#[test]
fn a_machine_can_be_attached_detached_and_attached_again() {
    in_world("attach_again", |world| {
        let (host, net) = world.host_net(Egress::None);
        let name = LinkName::of_machine(0x10001);
        let tap = request(host, 7, 0x10001, AttachKind::Tap { owner_uid: 1234 });
        // Networks stay: their numbers are not given again.
        for id in [7, 8] {
            net.ensure_network(network(id)).unwrap();
        }
        let empty = HostNet::inventory(host).unwrap();
        let rules = inside(net.netns(), || run("nft -s list ruleset"));
        net.detach(&name).unwrap();
        for _ in 0..2 {
            net.attach(&tap).unwrap();
            net.attach(&tap).unwrap();
            assert_eq!(net.attachments().unwrap(), [name]);
            // The same name as another kind, in another network.
            let attached = veth(&net, host, 8, 0x10001);
            assert_eq!(net.attachments().unwrap(), [name]);
            let peer = veth(&net, host, 8, 0x10002);
            serve(&attached.netns.unwrap(), "[::]:8080");
            assert!(reach(&peer.netns.unwrap(), (attached.ipv6.addr(), 8080)).is_some());
            net.detach(&peer.name).unwrap();
            net.attach(&tap).unwrap();
            net.detach(&name).unwrap();
            net.detach(&name).unwrap();
            assert_eq!(HostNet::inventory(host).unwrap(), empty);
            assert_eq!(inside(net.netns(), || run("nft -s list ruleset")), rules);
        }
    });
}

#[test]
fn what_was_lost_half_way_is_repaired() {
    in_world("repair", |world| {
        let internet = world.internet();
        let (host, net) = world.host_net(Egress::Nat);
        let machine = veth(&net, host, 7, 0x10001);
        let peer = veth(&net, host, 7, 0x10002).netns.unwrap();
        let netns = machine.netns.clone().unwrap();
        serve(&internet, "0.0.0.0:80");
        let name = netns.file_name().unwrap().to_str().unwrap();
        let in_host = |command: &str| inside(net.netns(), || run(command));
        let breakages: [&dyn Fn(); 8] = [
            &|| drop(in_host("ip link del m00010001")),
            &|| drop(in_host("ip link set m00010001 down")),
            &|| drop(in_host("nft flush ruleset")),
            &|| drop(in_host("ip link del egress")),
            &|| drop(run(&format!("ip netns del {name}"))),
            &|| drop(run(&format!("nft delete table inet aerostat_{host}"))),
            &|| drop(run(&format!("ip link set aero{host} down"))),
            &|| {
                // A creation of the namespace that was killed before the mount.
                run(&format!("ip netns del {name}"));
                drop(std::fs::File::create(Path::new("/run/netns").join(name)).unwrap());
            },
        ];
        for (number, breakage) in breakages.iter().enumerate() {
            breakage();
            let net = HostNet::ensure(&HostNetConfig {
                host,
                egress: Egress::Nat,
            })
            .unwrap();
            veth(&net, host, 7, 0x10001);
            veth(&net, host, 7, 0x10002);
            serve(&netns, "[::]:8080");
            assert!(
                reach(&peer, (machine.ipv6.addr(), 8080)).is_some(),
                "breakage {number}"
            );
            let world = "203.0.113.1:80".parse::<std::net::SocketAddr>().unwrap();
            assert!(reach(&netns, world).is_some(), "breakage {number}");
        }
    });
}

#[test]
fn the_last_of_two_hosts_restores_forwarding() {
    in_world("two_hosts", |world| {
        let (first, _) = world.host_net(Egress::Nat);
        let (second, _) = world.host_net(Egress::Nat);
        HostNet::remove(first).unwrap();
        assert_eq!(sysctl("ipv4/ip_forward"), "1");
        HostNet::remove(second).unwrap();
        assert_eq!(sysctl("ipv4/ip_forward"), "0");
    });
}

#[test]
fn forwarding_that_was_on_stays_on() {
    in_world("forwarding_on", |world| {
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
        let (host, _) = world.host_net(Egress::Nat);
        HostNet::remove(host).unwrap();
        assert_eq!(sysctl("ipv4/ip_forward"), "1");
    });
}

/// Kills, spread evenly over what the victim does.
const KILLS: u32 = 20;

/// Set in the process that `a_process_killed_anywhere_leaves_nothing_that_is_not_repaired` kills.
const VICTIM: &str = "AEROSTAT_TEST_VICTIM_HOST";

/// No test: what the victim does.
#[test]
fn be_killed() {
    let Ok(number) = std::env::var(VICTIM) else {
        return;
    };
    let host = HostId::new(number.parse().unwrap());
    let net = HostNet::ensure(&HostNetConfig {
        host,
        egress: Egress::Nat,
    })
    .unwrap();
    let tap = request(host, 7, 0x10002, AttachKind::Tap { owner_uid: 1234 });
    veth(&net, host, 7, 0x10001);
    net.attach(&tap).unwrap();
    net.detach(&tap.name).unwrap();
    HostNet::remove(host).unwrap();
}

#[test]
fn a_process_killed_anywhere_leaves_nothing_that_is_not_repaired() {
    in_world("killed", |world| {
        let before = snapshot();
        let host = world.host();
        let victim = |patience: Option<Duration>| {
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "lifecycle::be_killed"])
                .env(VICTIM, (host.bits() & 0xffff).to_string())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let begin = Instant::now();
            if let Some(patience) = patience {
                std::thread::sleep(patience);
                child.kill().unwrap();
            }
            let status = child.wait().unwrap();
            assert!(patience.is_some() || status.success());
            begin.elapsed()
        };
        let whole = victim(None);
        for step in 0..KILLS {
            victim(Some(whole * step / KILLS));
            if step % 2 == 0 {
                let net = HostNet::ensure(&HostNetConfig {
                    host,
                    egress: Egress::Nat,
                })
                .unwrap();
                let machine = veth(&net, host, 7, 0x10001);
                serve(&machine.netns.unwrap(), "[::]:8080");
                assert!(reach(net.netns(), (machine.ipv6.addr(), 8080)).is_some());
                net.detach(&LinkName::of_machine(0x10002)).unwrap();
            }
            HostNet::remove(host).unwrap();
            assert_eq!(HostNet::inventory(host).unwrap(), Vec::<String>::new());
            assert_eq!(snapshot(), before, "killed at step {step}");
        }
    });
}
