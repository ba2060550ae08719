//! A fleet in simulated time, and two hosts over real sockets.

use std::time::{Duration, Instant};

use super::codec::Life;
use super::state::Membership;
use super::*;

/// Hosts 2, 3, … and what is on its way between them.
struct Fleet {
    hosts: BTreeMap<HostId, Membership>,
    all: BTreeSet<HostId>,
    cut: BTreeSet<HostId>,
    begun: Instant,
    now: Instant,
}

impl Fleet {
    fn new(size: u16) -> Self {
        let now = Instant::now();
        let all: BTreeSet<HostId> = (2..2 + size).map(HostId::new).collect();
        let mut fleet = Self {
            hosts: BTreeMap::new(),
            all: all.clone(),
            cut: BTreeSet::new(),
            begun: now,
            now,
        };
        for host in all {
            fleet.start(host, 1);
        }
        fleet
    }

    fn start(&mut self, host: HostId, number: u64) {
        let life = Life {
            host,
            number,
            renewal: 0,
        };
        let mut membership = Membership::new(life, u64::from(host.number()), self.now);
        membership.set_hosts(&self.all, self.now);
        self.hosts.insert(host, membership);
    }

    fn step(&mut self) {
        self.now += Duration::from_millis(10);
        let mut sent = Vec::new();
        for (from, membership) in &mut self.hosts {
            membership.tick(self.now);
            let sends = membership.take_sends().into_iter();
            sent.extend(sends.map(|(to, datagram)| (*from, to, datagram)));
        }
        for (from, to, datagram) in sent {
            if self.cut.contains(&from) || self.cut.contains(&to) {
                continue;
            }
            if let Some(membership) = self.hosts.get_mut(&to) {
                membership.receive(from, &datagram, self.now);
            }
        }
    }

    /// How long it takes until `host` is seen as `status` by all others that are not cut off.
    fn until(&mut self, host: HostId, status: HostStatus) -> Duration {
        let since = self.now;
        loop {
            let seen = self.hosts.iter().all(|(other, membership)| {
                *other == host
                    || self.cut.contains(other)
                    || membership.statuses(self.now).get(&host) == Some(&status)
            });
            if seen {
                return self.now - since;
            }
            assert!(self.now - since < Duration::from_secs(60), "{status:?}");
            self.step();
        }
    }
}

#[test]
fn a_silent_host_is_noticed_in_seconds_and_comes_back() {
    for size in [3, 12] {
        let mut fleet = Fleet::new(size);
        let three = HostId::new(3);
        let joined = fleet.until(three, HostStatus::Ok);
        assert!(joined < Duration::from_secs(5), "{joined:?}");
        fleet.cut.insert(three);
        let noticed = fleet.until(three, HostStatus::Unreachable);
        let bounds = Duration::from_secs(4)..Duration::from_secs(if size == 3 { 9 } else { 14 });
        assert!(bounds.contains(&noticed), "{size}: {noticed:?}");
        fleet.cut.clear();
        let back = fleet.until(three, HostStatus::Ok);
        assert!(back < Duration::from_secs(8), "{back:?}");
        let two = fleet.until(HostId::new(2), HostStatus::Ok);
        assert!(two < Duration::from_secs(8), "{two:?}");
    }
}

#[test]
fn a_host_that_starts_again_is_believed_even_if_it_has_forgotten_its_lives() {
    let mut fleet = Fleet::new(3);
    let three = HostId::new(3);
    fleet.hosts.remove(&three);
    fleet.start(three, 1_000_000);
    fleet.until(three, HostStatus::Ok);
    fleet.hosts.remove(&three);
    fleet.until(three, HostStatus::Unreachable);
    fleet.start(three, 1_000_001);
    assert!(fleet.until(three, HostStatus::Ok) < Duration::from_secs(3));
    fleet.hosts.remove(&three);
    fleet.until(three, HostStatus::Unreachable);
    // Reinstalled, with a clock that is behind.
    fleet.start(three, 900);
    assert!(fleet.until(three, HostStatus::Ok) < Duration::from_secs(60));
}

#[test]
fn a_host_that_never_answered_is_unknown_and_then_unreachable() {
    let mut fleet = Fleet::new(3);
    let three = HostId::new(3);
    fleet.hosts.remove(&three);
    fleet.step();
    let status = fleet.hosts[&HostId::new(2)].statuses(fleet.now)[&three];
    assert_eq!(status, HostStatus::Unknown);
    fleet.until(three, HostStatus::Unreachable);
    assert!(fleet.now - fleet.begun < Duration::from_secs(17));
}

#[test]
fn a_datagram_in_another_hosts_name_is_not_heard() {
    let mut fleet = Fleet::new(3);
    let now = fleet.now;
    let (two, three, four) = (HostId::new(2), HostId::new(3), HostId::new(4));
    let speaker = fleet.hosts.get_mut(&three).unwrap();
    speaker.tick(now);
    let sends = speaker.take_sends();
    let (_, greeting) = sends.iter().find(|(to, _)| *to == two).unwrap();
    let listener = fleet.hosts.get_mut(&two).unwrap();
    listener.receive(four, greeting, now);
    assert_eq!(listener.statuses(now)[&three], HostStatus::Unknown);
    assert_eq!(listener.statuses(now)[&four], HostStatus::Unknown);
    listener.receive(three, greeting, now);
    assert_eq!(listener.statuses(now)[&three], HostStatus::Ok);
}

#[tokio::test]
async fn two_hosts_find_each_other_over_sockets() {
    let record = |number| HostRecord {
        id: HostId::new(number),
        name: String::new(),
        region: String::new(),
        public_key: String::new(),
        endpoint: "[::1]:1".parse().unwrap(),
        gateway: None,
        certificate: String::new(),
        joined_at: jiff::Timestamp::UNIX_EPOCH,
    };
    let records = Arc::new(vec![record(2), record(3)]);
    let (_sender, hosts) = watch::channel(records);
    let mut sockets = Vec::new();
    let mut addresses = BTreeMap::new();
    for number in [2, 3] {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        addresses.insert(HostId::new(number), socket.local_addr().unwrap());
        sockets.push((HostId::new(number), socket));
    }
    let stop = CancellationToken::new();
    let mut catalogs = Vec::new();
    for (host, socket) in sockets {
        let addresses = addresses.clone();
        let config = Config {
            host,
            socket,
            address: Box::new(move |host| addresses[&host]),
            hosts: hosts.clone(),
        };
        let catalog = Catalog::new();
        tokio::spawn(run(config, catalog.clone(), stop.clone()));
        catalogs.push(catalog);
    }
    let deadline = Instant::now() + Duration::from_secs(20);
    while catalogs[0].host_status(HostId::new(3)) != HostStatus::Ok
        || catalogs[1].host_status(HostId::new(2)) != HostStatus::Ok
    {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    stop.cancel();
}
