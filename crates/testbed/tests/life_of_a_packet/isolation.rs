//! Two networks, a machine of each on every host, all pairs: what is of one network passes, and
//! nothing crosses, whatever root in a guest or on a host makes up.

use std::io;
use std::net::{Ipv6Addr, UdpSocket};
use std::process::Command;
use std::time::Duration;

use client::Client;
use testbed::{Fleet, eventually, resolve, who_answers, who_answers_within, within};
use types::api::{CreateApp, CreateMachine};
use types::machine::{Machine, MachineConfig};
use types::service::{Backend, Service, ServicePort, ServiceSpec, Target};
use types::sixpn::{RESOLVER, host_addr, network_resolver};
use types::{AppName, IsolationClass, NetworkId, SixPn};

use crate::IMAGE;

/// Silence of this length is a no: what passes takes milliseconds.
const SILENCE: Duration = Duration::from_millis(500);
/// Machines of a network that are made until every host has one.
const MACHINES_MAX: usize = 9;

/// A machine, and the namespace in which root of its guest would be.
struct Member {
    app: AppName,
    machine: Machine,
    at: SixPn,
    netns: String,
}

impl Member {
    fn new(app: &AppName, machine: Machine) -> Self {
        let address: Ipv6Addr = machine.private_ip.parse().expect("an address");
        let at = SixPn::from_addr(address).expect("a machine's");
        Self {
            app: app.clone(),
            netns: format!("aero-{}-{:08x}", at.host, at.machine),
            machine,
            at,
        }
    }

    fn name(&self) -> String {
        format!("{}.vm.{}.internal", self.machine.id, self.app)
    }

    fn network(&self) -> NetworkId {
        self.at.network
    }
}

pub(crate) fn all_pairs(fleet: &Fleet) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let client = fleet.host(0).client();
    let mut members = Vec::new();
    let mut services = Vec::new();
    for network in ["one", "two"] {
        let of_this = runtime.block_on(one_on_each_host(&client, fleet, network));
        services.push(runtime.block_on(service(&client, &of_this)));
        members.extend(of_this);
    }
    for from in &members {
        for to in members.iter().filter(|to| to.at != from.at) {
            direct(from, to);
            by_name(from, to);
            spoofed(from, to, &members);
        }
        for service in &services {
            by_service(from, service);
        }
    }
    lying_hosts(&members);
}

async fn one_on_each_host(client: &Client, fleet: &Fleet, network: &str) -> Vec<Member> {
    let body = CreateApp {
        name: network.into(),
        org_slug: "personal".into(),
        network: network.into(),
        ..CreateApp::default()
    };
    let app = client.create_app(&body).await.expect("an app").name;
    let mut members: Vec<Member> = Vec::new();
    for number in 0..MACHINES_MAX {
        let body = CreateMachine {
            name: format!("m{number}"),
            config: MachineConfig {
                image: IMAGE.into(),
                isolation: Some(IsolationClass::Container),
                ..MachineConfig::default()
            },
            ..CreateMachine::default()
        };
        let machine = client.create_machine(&app, &body).await.expect("a machine");
        let member = Member::new(&app, machine);
        if members.iter().all(|other| other.at.host != member.at.host) {
            members.push(member);
        }
        if members.len() == fleet.hosts().len() {
            return members;
        }
    }
    panic!("the market leaves a host without machines of network {network}");
}

async fn service(client: &Client, members: &[Member]) -> Service {
    let backend = |member: &Member| Backend {
        target: Target::Machine(member.machine.id.clone()),
        ports: std::collections::BTreeMap::new(),
        hostname: String::new(),
    };
    let spec = ServiceSpec {
        ports: vec![ServicePort {
            name: String::new(),
            protocol: types::service::Protocol::Tcp,
            port: 80,
            target_port: 8080,
        }],
        backends: members.iter().map(backend).collect(),
        ..ServiceSpec::default()
    };
    let made = client.put_service(&members[0].app, "front", &spec).await;
    made.expect("a service")
}

fn direct(from: &Member, to: &Member) {
    if from.network() == to.network() {
        let answer = eventually("a machine of the same network", || {
            who_answers(&from.netns, to.at.addr(), 8080).map_err(|error| error.to_string())
        });
        assert!(!answer.is_empty());
    } else {
        let answer = who_answers_within(&from.netns, to.at.addr(), 8080, SILENCE);
        assert!(answer.is_err(), "{} reaches {}", from.name(), to.name());
    }
}

fn by_name(from: &Member, to: &Member) {
    let known = eventually("the resolver", || {
        let found = resolve(&from.netns, RESOLVER, &to.name());
        let found = found.map_err(|error| error.to_string())?;
        // The catalog may be late with what is of this network, and is never early.
        match found.is_empty() && from.network() == to.network() {
            true => Err(format!("{} is not known", to.name())),
            false => Ok(found),
        }
    });
    match from.network() == to.network() {
        true => assert_eq!(known, [to.at.addr()]),
        false => assert!(known.is_empty(), "{} knows {}", from.name(), to.name()),
    }
}

fn by_service(from: &Member, service: &Service) {
    let vip = service.vip.expect("a VIP");
    if from.network() == service.network_id {
        eventually("the service", || {
            who_answers(&from.netns, vip, 80).map_err(|error| error.to_string())
        });
        let name = format!("{}.svc.{}.flycast", service.name, service.app);
        let found = resolve(&from.netns, RESOLVER, &name).expect("an answer");
        assert_eq!(found, [vip]);
    } else {
        let answer = who_answers_within(&from.netns, vip, 80, SILENCE);
        assert!(answer.is_err(), "{} reaches {}", from.name(), service.name);
    }
}

/// Root in the guest gives itself `source` and sends from it: whether that arrives.
fn arrives(netns: &str, link: &str, source: Ipv6Addr, to: &Member) -> bool {
    let receiver = within(&to.netns, || UdpSocket::bind("[::]:0")).expect("a port");
    receiver.set_read_timeout(Some(SILENCE)).expect("a timeout");
    let port = receiver.local_addr().expect("an address").port();
    let ip = |words: &str| {
        let words = format!("-n {netns} {words} {source}/128 dev {link}");
        Command::new("ip").args(words.split_whitespace()).output()
    };
    let added = ip("address add").expect("ip runs").status.success();
    let sent = within(netns, || -> io::Result<usize> {
        let socket = UdpSocket::bind((source, 0))?;
        socket.send_to(b"hello", (to.at.addr(), port))
    });
    let arrived = sent.is_ok() && receiver.recv(&mut [0; 16]).is_ok();
    if added {
        let deleted = ip("address del").expect("ip runs");
        assert!(deleted.status.success(), "{deleted:?}");
    }
    arrived
}

fn spoofed(from: &Member, to: &Member, members: &[Member]) {
    if from.network() == to.network() {
        // What is honest passes, or the rest would prove nothing.
        eventually("an honest datagram", || {
            match arrives(&from.netns, "eth0", from.at.addr(), to) {
                true => Ok(()),
                false => Err(format!("{} to {}", from.name(), to.name())),
            }
        });
    }
    let elsewhere = members
        .iter()
        .find(|other| other.at.host != from.at.host && other.at.host != to.at.host)
        .expect("a third host");
    let lies = [
        // The receiver's network.
        SixPn {
            network: to.network(),
            ..from.at
        }
        .addr(),
        // The own network, from another host.
        SixPn {
            host: elsewhere.at.host,
            ..from.at
        }
        .addr(),
        // A machine that there is, elsewhere.
        SixPn {
            network: to.network(),
            ..elsewhere.at
        }
        .addr(),
        // Another machine of this host.
        SixPn {
            machine: from.at.machine + 1,
            network: to.network(),
            ..from.at
        }
        .addr(),
        // The host itself, and the resolvers.
        host_addr(to.network(), from.at.host),
        network_resolver(to.network()),
        RESOLVER,
    ];
    for lie in lies.into_iter().filter(|lie| *lie != from.at.addr()) {
        let arrived = arrives(&from.netns, "eth0", lie, to);
        assert!(!arrived, "{} reaches {} as {lie}", from.name(), to.name());
    }
}

/// Root on a host cannot speak for machines of other hosts.
fn lying_hosts(members: &[Member]) {
    for to in members {
        let liar = format!("aero-{}", other(members, to, to).at.host);
        let victim = other(members, to, other(members, to, to));
        let arrived = arrives(&liar, "lo", victim.at.addr(), to);
        assert!(
            !arrived,
            "{liar} reaches {} as {}",
            to.name(),
            victim.name()
        );
    }
}

/// A member of the same network on a host that is neither's.
fn other<'a>(members: &'a [Member], one: &Member, two: &Member) -> &'a Member {
    let is_it = |member: &&Member| {
        member.network() == one.network()
            && member.at.host != one.at.host
            && member.at.host != two.at.host
    };
    members.iter().find(is_it).expect("three hosts")
}
