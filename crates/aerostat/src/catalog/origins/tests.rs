//! Random histories: copies that read from each other in any order end as the origin is.

use proptest::prelude::*;
use types::machine::MachineState::{Destroyed, Started};

use super::*;
use crate::catalog::codec::{Signed, sign_entry};
use crate::catalog::tests::entry;

const ORIGIN: u16 = 2;
const COPIES: usize = 3;
/// Small, so that a history has many pages.
const PAGE_BYTES: usize = 2000;

#[derive(Debug, Clone)]
enum Step {
    /// The origin says something of a machine.
    Change { machine: u64, ends: bool },
    /// A copy reads some pages from the origin (`None`) or another copy.
    Read {
        by: usize,
        from: Option<usize>,
        pages: usize,
    },
    /// A page that was on its way arrives late, perhaps once more, somewhere else.
    Late { by: usize, which: usize },
    /// What the origin says of how far it goes arrives.
    Head { by: usize },
    /// The origin loses its memory.
    Lose,
    /// The origin forgets the ends of machines.
    Forget,
}

fn step() -> impl Strategy<Value = Step> {
    let from = prop::option::of(0..COPIES);
    prop_oneof![
        6 => (0..8_u64, any::<bool>()).prop_map(|(machine, ends)| Step::Change { machine, ends }),
        4 => (0..COPIES, from, 1..4_usize).prop_map(|(by, from, pages)| Step::Read { by, from, pages }),
        2 => (0..COPIES, any::<prop::sample::Index>())
            .prop_map(|(by, which)| Step::Late { by, which: which.index(1000) }),
        2 => (0..COPIES).prop_map(|by| Step::Head { by }),
        1 => Just(Step::Lose),
        1 => Just(Step::Forget),
    ]
}

/// A page: behind what, the sender's floor, statements.
type Sent = (Position, u64, Vec<Bytes>);

struct World {
    origin: Rows,
    version: u64,
    ended: BTreeSet<u64>,
    copies: Vec<Rows>,
    /// Pages that have been seen on the wire.
    wire: Vec<Sent>,
}

fn host() -> HostId {
    HostId::new(ORIGIN)
}

fn sign(_: &[u8]) -> Vec<u8> {
    vec![0; 64]
}

fn bytes(item: &Item, epoch: u64) -> Bytes {
    match item {
        Item::Signed(bytes) => bytes.clone(),
        Item::Unsigned(entry) => sign_entry(entry, epoch, &sign),
    }
}

fn arrived((after, floor, statements): &Sent, whole: bool) -> Arrived {
    let statements: Vec<_> = statements
        .iter()
        .map(|bytes| {
            let signed = Signed::parse(bytes.clone()).unwrap();
            (signed.entry().unwrap(), signed.bytes)
        })
        .collect();
    Arrived {
        origin: host(),
        after: *after,
        floor: *floor,
        last: statements.last().map(|(entry, _)| entry.machine.revision),
        statements,
        complete: true,
        whole,
    }
}

impl World {
    fn new() -> Self {
        let mut origin = Rows::default();
        origin.resume(host(), 0, 0);
        Self {
            origin,
            version: 0,
            ended: BTreeSet::new(),
            copies: (0..COPIES).map(|_| Rows::default()).collect(),
            wire: Vec::new(),
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Change { machine, ends } => self.change(*machine, *ends),
            Step::Read { by, from, pages } => {
                if from.is_none_or(|from| from != *by) {
                    self.read(*by, *from, *pages);
                }
            }
            Step::Late { by, which } => {
                if !self.wire.is_empty() {
                    let sent = &self.wire[which % self.wire.len()];
                    self.copies[*by].merge(arrived(sent, false));
                }
            }
            Step::Head { by } => {
                let head = self.origin.origins[&host()].position;
                self.copies[*by].hear_head(host(), head);
            }
            Step::Lose => {
                let epoch = self.origin.origins[&host()].position.epoch;
                self.origin = Rows::default();
                self.origin.resume(host(), 0, 0);
                self.origin.renew_epoch(epoch);
                (self.version, self.ended) = (0, BTreeSet::new());
            }
            Step::Forget => {
                let ids = self.origin.machines.iter();
                let gone = ids.filter(|(_, row)| row.entry.machine.state == Destroyed);
                let gone: Vec<_> = gone.map(|(id, _)| id.clone()).collect();
                for id in gone {
                    let version = self.origin.machines[&id].position().version;
                    let origin = self.origin.origins.get_mut(&host()).unwrap();
                    origin.floor = origin.floor.max(version);
                    origin.by_version.remove(&version);
                    self.origin.machines.remove(&id);
                }
            }
        }
    }

    fn change(&mut self, machine: u64, ends: bool) {
        if self.ended.contains(&machine) {
            return;
        }
        if ends {
            self.ended.insert(machine);
        }
        self.version += 1;
        let state = if ends { Destroyed } else { Started };
        let id = self.origin.origins[&host()].position.epoch * 100 + machine;
        self.origin.publish(entry("a", id, self.version, state));
    }

    /// What `replication::exchange` does, without the way in between.
    fn read(&mut self, by: usize, from: Option<usize>, pages: usize) {
        let known = |rows: &Rows| rows.origins.get(&host()).map(|origin| origin.position);
        let start = known(&self.copies[by]).unwrap_or_default();
        let (mut after, mut whole) = (start, None);
        for _ in 0..pages {
            let sender = from.map_or(&self.origin, |from| &self.copies[from]);
            if known(sender).is_none_or(|position| position < start) {
                return;
            }
            let page = sender.page(host(), after, whole.is_some(), PAGE_BYTES);
            let page = page.unwrap();
            let begin = Position {
                epoch: page.epoch,
                version: page.after,
            };
            if begin != after || (begin.version == 0 && whole.is_none()) {
                whole = Some((BTreeSet::new(), page.head));
            }
            let statements: Vec<_> = page.items.iter().map(|i| bytes(i, page.epoch)).collect();
            let sent = (begin, page.floor, statements);
            let arrived = arrived(&sent, whole.is_some());
            self.wire.push(sent);
            let last = arrived.last.unwrap_or(begin.version);
            let ids = arrived.statements.iter().map(|(e, _)| e.machine.id.clone());
            let ids: Vec<_> = ids.collect();
            self.copies[by].merge(arrived);
            if let Some((named, goal)) = &mut whole {
                named.extend(ids);
                if !page.more {
                    let last = Position {
                        version: last,
                        ..begin
                    };
                    self.copies[by].finish_whole(host(), last, *goal, named);
                }
            }
            if !page.more {
                return;
            }
            after = Position {
                version: last,
                ..begin
            };
        }
    }
}

/// Machines that are not destroyed, with their versions.
fn alive(rows: &Rows) -> Vec<(MachineId, Position)> {
    let all = rows.machines.iter();
    let alive = all.filter(|(_, row)| row.entry.machine.state != Destroyed);
    alive
        .map(|(id, row)| (id.clone(), row.position()))
        .collect()
}

proptest! {
    #[test]
    fn copies_end_as_the_origin_is_in_whatever_order_things_arrive(
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
            let origin = world.origin.origins[&host()].position;
            for copy in &world.copies {
                let copy = copy.origins.get(&host()).map(|origin| origin.position);
                prop_assert!(copy.unwrap_or_default() <= origin, "nobody is ahead of the origin");
            }
        }
        let head = world.origin.origins[&host()].position;
        // One reads from the origin, the others from each other.
        for (by, from) in [(0, None), (1, Some(0)), (2, Some(1))] {
            world.copies[by].hear_head(host(), head);
            world.read(by, from, 1000);
            prop_assert_eq!(alive(&world.copies[by]), alive(&world.origin));
            let copy = &world.copies[by];
            prop_assert_eq!(copy.origins[&host()].position, head);
        }
    }
}

#[test]
fn a_machine_stays_with_the_host_that_said_so_first() {
    let mut rows = Rows::default();
    let said = |origin: u16, version| {
        let entry = Entry {
            host: HostId::new(origin),
            ..entry("a", 1, version, Started)
        };
        let bytes = sign_entry(&entry, 0, &sign);
        Arrived {
            origin: entry.host,
            after: Position::default(),
            floor: 0,
            last: Some(version),
            statements: vec![(entry, bytes)],
            complete: true,
            whole: false,
        }
    };
    assert_eq!(rows.merge(said(3, 1)), Merged::default());
    assert_eq!(rows.merge(said(4, 9)).foreign, 1);
    let known = &rows.machines[&MachineId::from_bits(1)];
    assert_eq!(known.entry.host, HostId::new(3));
}

#[test]
fn the_same_machines_in_a_new_epoch_never_look_destroyed() {
    let mut world = World::new();
    world.change(1, false);
    world.change(2, false);
    world.read(0, None, 9);
    world.origin.renew_epoch(7);
    let head = world.origin.origins[&host()].position;
    world.copies[0].hear_head(host(), head);
    assert_eq!(alive(&world.copies[0]).len(), 2);
    world.read(0, None, 1);
    assert_eq!(alive(&world.copies[0]).len(), 2);
    world.read(0, None, 9);
    assert_eq!(alive(&world.copies[0]), alive(&world.origin));
    let destroyed = world.copies[0].machines.values();
    assert!(
        destroyed
            .into_iter()
            .all(|row| row.entry.machine.state == Started)
    );
}

#[test]
fn a_statement_that_is_played_back_does_not_bring_a_machine_back() {
    let mut world = World::new();
    world.change(1, false);
    world.read(0, None, 9);
    let early = world.wire[0].clone();
    world.change(1, true);
    world.change(2, false);
    world.step(&Step::Forget);
    for by in [0, 1] {
        world.step(&Step::Head { by });
        world.read(by, None, 9);
        world.copies[by].merge(arrived(&early, false));
        assert_eq!(alive(&world.copies[by]), alive(&world.origin), "copy {by}");
    }
}

#[test]
fn other_hosts_are_told_of_no_variables_and_files() {
    let mut told = entry("web", 1, 1, Started);
    let signed = |entry: &Entry| Signed::parse(sign_entry(entry, 0, &sign)).unwrap();
    let plain = signed(&told).entry().unwrap().machine.config;
    assert!(!plain.withheld, "nothing was left out");
    told.machine
        .config
        .env
        .insert("KEY".into(), "canary".into());
    told.machine
        .config
        .containers
        .push(types::machine::ContainerConfig {
            name: "a".into(),
            env: [("KEY".to_owned(), "canary".to_owned())].into(),
            files: vec![types::machine::File {
                guest_path: "/f".into(),
                raw_value: Some("canary".into()),
                ..types::machine::File::default()
            }],
            ..types::machine::ContainerConfig::default()
        });
    let bytes = signed(&told);
    let text = String::from_utf8_lossy(&bytes.bytes).into_owned();
    assert!(!text.contains("canary"), "{text}");
    let config = bytes.entry().unwrap().machine.config;
    assert!(config.withheld);
    assert_eq!(config.containers[0].name, "a");
}
