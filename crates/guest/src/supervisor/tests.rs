//! Decisions of the supervisor: by example, and over random histories.

use std::collections::BTreeMap;

use jiff::Timestamp;
use proptest::prelude::*;
use types::guest::{ContainerSpec, Network};
use types::machine::{DependsOn, Restart, RestartPolicy};

use super::container::CANNOT_START;
use super::*;

mod health;

fn now(seconds: u64) -> Now {
    Now {
        elapsed: Duration::from_secs(seconds),
        unix: Timestamp::UNIX_EPOCH,
    }
}

pub(crate) fn container(name: &str, policy: RestartPolicy) -> ContainerSpec {
    ContainerSpec {
        name: name.into(),
        command: vec!["run".into()],
        env: BTreeMap::new(),
        working_dir: "/".into(),
        user: String::new(),
        tty: false,
        stdin: false,
        restart: Restart {
            policy,
            max_retries: None,
        },
        stop_signal: None,
        depends_on: Vec::new(),
        files: Vec::new(),
        mounts: Vec::new(),
        image_disk: String::new(),
        upper_disk: String::new(),
    }
}

fn on(mut spec: ContainerSpec, name: &str, condition: DependsOnCondition) -> ContainerSpec {
    let name = name.into();
    spec.depends_on.push(DependsOn { name, condition });
    spec
}

pub(crate) fn machine(containers: Vec<ContainerSpec>) -> MachineSpec {
    MachineSpec {
        machine_id: "m".into(),
        hostname: "m".into(),
        network: Network {
            ipv6: std::net::Ipv6Addr::LOCALHOST,
            gateway_v6: std::net::Ipv6Addr::LOCALHOST,
            ipv4: std::net::Ipv4Addr::LOCALHOST,
            gateway_v4: std::net::Ipv4Addr::LOCALHOST,
            mtu: 1420,
            nameservers: Vec::new(),
            searches: Vec::new(),
            options: Vec::new(),
            hosts: Vec::new(),
        },
        containers,
        volumes: Vec::new(),
        directories: Vec::new(),
        checks: Vec::new(),
        unix_ms: 0,
    }
}

fn started(container: usize, run: u32) -> Event {
    let pid = 100;
    Event::Started {
        container,
        run,
        pid,
    }
}

fn exited(container: usize, run: u32, code: i32) -> Event {
    Event::Exited {
        container,
        run,
        status: ExitStatus::Code(code),
        oom_killed: false,
    }
}

fn starts(effects: &[Effect]) -> Vec<(usize, u32)> {
    let starts = effects.iter().filter_map(|effect| match effect {
        Effect::Start { container, run } => Some((*container, *run)),
        Effect::Signal { .. }
        | Effect::Kill { .. }
        | Effect::Report(_)
        | Effect::Probe { .. }
        | Effect::Health(_)
        | Effect::End(_) => None,
    });
    starts.collect()
}

fn end(effects: &[Effect]) -> Option<&ExitEvent> {
    match effects.last() {
        Some(Effect::End(exit)) => Some(exit),
        _ => None,
    }
}

use DependsOnCondition::{ExitedSuccessfully, Healthy, Started};
use RestartPolicy::{Always, No, OnFailure};

#[test]
fn a_machine_ends_with_the_exit_of_the_first_container_that_failed() {
    let spec = machine(vec![container("a", No), container("b", No)]);
    let mut machine = Machine::new(&spec).unwrap();
    let effects = machine.apply(now(0), Event::Tick);
    assert_eq!(starts(&effects), [(0, 0), (1, 0)]);
    machine.apply(now(0), started(0, 0));
    machine.apply(now(0), started(1, 0));
    let effects = machine.apply(now(1), exited(1, 0, 3));
    assert!(end(&effects).is_none());
    let effects = machine.apply(now(2), exited(0, 0, 0));
    let exit = end(&effects).unwrap();
    assert_eq!((exit.exit_code, exit.signal), (3, -1));
    assert!(!exit.requested_stop);
}

#[test]
fn containers_start_when_what_they_depend_on_has_started_or_succeeded() {
    let spec = machine(vec![
        on(container("app", No), "init", ExitedSuccessfully),
        container("init", No),
        on(container("side", No), "app", Started),
    ]);
    let mut machine = Machine::new(&spec).unwrap();
    assert_eq!(starts(&machine.apply(now(0), Event::Tick)), [(1, 0)]);
    assert!(starts(&machine.apply(now(0), started(1, 0))).is_empty());
    assert_eq!(starts(&machine.apply(now(1), exited(1, 0, 0))), [(0, 0)]);
    assert_eq!(starts(&machine.apply(now(1), started(0, 0))), [(2, 0)]);
}

#[test]
fn a_container_whose_dependency_failed_for_good_never_starts_and_says_why() {
    let spec = machine(vec![
        on(container("app", Always), "init", ExitedSuccessfully),
        on(container("side", Always), "app", Started),
        container("init", No),
    ]);
    let mut machine = Machine::new(&spec).unwrap();
    machine.apply(now(0), Event::Tick);
    machine.apply(now(0), started(2, 0));
    let effects = machine.apply(now(1), exited(2, 0, 1));
    let failed = effects.iter().filter(|effect| {
        matches!(effect, Effect::Report(report)
            if matches!(report.state, ContainerReportState::Failed { .. }))
    });
    assert_eq!(failed.count(), 2);
    assert_eq!(end(&effects).unwrap().exit_code, 1);
}

#[test]
fn back_off_doubles_from_ten_seconds_to_five_minutes_and_forgets_after_a_long_run() {
    let mut machine = Machine::new(&machine(vec![container("a", Always)])).unwrap();
    machine.apply(now(0), Event::Tick);
    let mut time = 0;
    for (run, back_off) in [10, 20, 40, 80, 160, 300, 300].into_iter().enumerate() {
        let run = u32::try_from(run).unwrap();
        machine.apply(now(time), started(0, run));
        machine.apply(now(time), exited(0, run, 0));
        let due = Duration::from_secs(time + back_off);
        assert_eq!(machine.next_deadline(), Some(due), "run {run}");
        assert!(starts(&machine.apply(now(time + back_off - 1), Event::Tick)).is_empty());
        time += back_off;
        let effects = machine.apply(now(time), Event::Tick);
        assert_eq!(starts(&effects), [(0, run + 1)]);
    }
    machine.apply(now(time), started(0, 7));
    machine.apply(now(time + 600), exited(0, 7, 1));
    assert_eq!(
        machine.next_deadline(),
        Some(Duration::from_secs(time + 610))
    );
}

#[test]
fn on_failure_restarts_failures_only_and_as_often_as_allowed() {
    let mut spec = container("a", OnFailure);
    spec.restart.max_retries = Some(1);
    let mut machine = Machine::new(&machine(vec![spec])).unwrap();
    machine.apply(now(0), Event::Tick);
    let reason = "no such file".to_owned();
    machine.apply(
        now(0),
        Event::StartFailed {
            container: 0,
            run: 0,
            reason,
        },
    );
    assert_eq!(starts(&machine.apply(now(10), Event::Tick)), [(0, 1)]);
    machine.apply(now(10), started(0, 1));
    let effects = machine.apply(now(11), exited(0, 1, 2));
    assert_eq!(end(&effects).unwrap().exit_code, 2);
}

#[test]
fn a_stop_signals_dependents_first_and_kills_at_the_deadline() {
    let mut app = on(container("app", Always), "db", Started);
    app.stop_signal = Some("SIGQUIT".into());
    let mut machine = Machine::new(&machine(vec![container("db", Always), app])).unwrap();
    machine.apply(now(0), Event::Tick);
    machine.apply(now(0), started(0, 0));
    machine.apply(now(0), started(1, 0));
    let stop = Event::Stop {
        signal: None,
        grace: Duration::from_secs(5),
    };
    let signal = |container, signal| Effect::Signal {
        container,
        pid: 100,
        signal,
    };
    assert_eq!(machine.apply(now(1), stop.clone()), [signal(1, 3)]);
    assert!(machine.apply(now(2), stop).is_empty());
    assert_eq!(machine.next_deadline(), Some(Duration::from_secs(6)));
    let effects = machine.apply(now(3), exited(1, 0, 0));
    assert_eq!(effects.last(), Some(&signal(0, 15)));
    let effects = machine.apply(now(6), Event::Tick);
    let kill = Effect::Kill {
        container: 0,
        pid: 100,
    };
    assert_eq!(effects, [kill]);
    assert_eq!(machine.next_deadline(), None);
    let killed = Event::Exited {
        container: 0,
        run: 0,
        status: ExitStatus::Signal(9),
        oom_killed: false,
    };
    let effects = machine.apply(now(6), killed);
    let exit = end(&effects).unwrap();
    assert_eq!(
        (exit.exit_code, exit.signal, exit.requested_stop),
        (137, 9, true)
    );
}

#[test]
fn a_stop_during_the_start_takes_effect_when_it_has_started() {
    let mut machine = Machine::new(&machine(vec![container("a", Always)])).unwrap();
    machine.apply(now(0), Event::Tick);
    let grace = Duration::ZERO;
    let signal = None;
    assert!(
        machine
            .apply(now(1), Event::Stop { signal, grace })
            .is_empty()
    );
    let effects = machine.apply(now(2), started(0, 0));
    assert!(matches!(effects.last(), Some(Effect::Kill { .. })));
}

#[test]
fn specifications_that_cannot_be_carried_out_are_refused_with_the_reason() {
    let refused = |containers| Machine::new(&machine(containers)).unwrap_err();
    assert_eq!(refused(vec![]), Refused::NoContainers);
    let a = || container("a", No);
    assert!(matches!(refused(vec![a(), a()]), Refused::NameTaken { .. }));
    let healthy = refused(vec![on(a(), "b", Healthy), container("b", No)]);
    assert!(healthy.to_string().contains("health checks"), "{healthy}");
    let cycle = refused(vec![
        on(a(), "b", Started),
        on(container("b", No), "a", Started),
    ]);
    assert!(matches!(cycle, Refused::Cycle { .. }));
    assert!(matches!(
        refused(vec![on(a(), "a", Started)]),
        Refused::Cycle { .. }
    ));
    let unknown = refused(vec![on(a(), "c", Started)]);
    assert!(matches!(unknown, Refused::UnknownDependency { .. }));
    let mut signal = a();
    signal.stop_signal = Some("SIGNOPE".into());
    assert!(matches!(refused(vec![signal]), Refused::Signal { .. }));
    let mut command = a();
    command.command.clear();
    assert!(matches!(refused(vec![command]), Refused::NoCommand { .. }));
}

/// What the world does to a machine, in random histories.
#[derive(Debug, Clone)]
enum Step {
    StartSucceeds(usize),
    StartFails(usize),
    Exits(usize, i32),
    /// An event of a run that is over.
    Late(usize),
    TimePasses(u64),
    Stop(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let at = 0..4usize;
    let step = prop_oneof![
        6 => at.clone().prop_map(Step::StartSucceeds),
        1 => at.clone().prop_map(Step::StartFails),
        4 => (at.clone(), 0..2).prop_map(|(at, code)| Step::Exits(at, code)),
        1 => at.prop_map(Step::Late),
        4 => (0..700u64).prop_map(Step::TimePasses),
        1 => (0..20u64).prop_map(Step::Stop),
    ];
    proptest::collection::vec(step, 0..80)
}

fn specs() -> impl Strategy<Value = MachineSpec> {
    let policy = prop_oneof![Just(No), Just(OnFailure), Just(Always)];
    let condition = prop_oneof![Just(Started), Just(ExitedSuccessfully)];
    let dependency = proptest::option::of((0..4usize, condition));
    let one = (policy, proptest::option::of(0..4u32), dependency);
    proptest::collection::vec(one, 1..5).prop_map(|all| {
        let containers = all
            .into_iter()
            .enumerate()
            .map(|(at, (policy, max, dependency))| {
                let mut spec = container(&at.to_string(), policy);
                spec.restart.max_retries = max;
                match dependency {
                    Some((before, condition)) if before < at => {
                        on(spec, &before.to_string(), condition)
                    }
                    _ => spec,
                }
            });
        machine(containers.collect())
    })
}

/// The processes of a machine, as the effects make them.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Process {
    None,
    Starting,
    Alive,
}

struct World {
    machine: Machine,
    time: u64,
    processes: Vec<Process>,
    runs: Vec<Option<u32>>,
    has_stopped: bool,
    has_ended: bool,
}

impl World {
    fn apply(&mut self, event: Event) {
        for effect in self.machine.apply(now(self.time), event) {
            assert!(!self.has_ended, "{effect:?} after the end");
            match effect {
                Effect::Start { container, run } => {
                    assert_eq!(self.processes[container], Process::None, "two runs alive");
                    assert!(!self.has_stopped, "start after a stop");
                    let expected = self.runs[container].map_or(0, |run| run + 1);
                    assert_eq!(run, expected, "runs are counted one by one");
                    self.processes[container] = Process::Starting;
                    self.runs[container] = Some(run);
                }
                Effect::Signal { container, .. } | Effect::Kill { container, .. } => {
                    assert_eq!(self.processes[container], Process::Alive);
                    assert!(self.has_stopped);
                }
                Effect::Report(_) | Effect::Probe { .. } | Effect::Health(_) => {}
                Effect::End(_) => {
                    assert!(
                        self.processes
                            .iter()
                            .all(|process| *process == Process::None)
                    );
                    self.has_ended = true;
                }
            }
        }
    }

    fn step(&mut self, step: &Step) {
        let count = self.processes.len();
        match *step {
            Step::StartSucceeds(at) if self.is(at, Process::Starting) => {
                self.processes[at] = Process::Alive;
                self.apply(started(at, self.runs[at].unwrap()));
            }
            Step::StartFails(at) if self.is(at, Process::Starting) => {
                self.processes[at] = Process::None;
                let run = self.runs[at].unwrap();
                let reason = String::new();
                self.apply(Event::StartFailed {
                    container: at,
                    run,
                    reason,
                });
            }
            Step::Exits(at, code) if self.is(at, Process::Alive) => {
                self.processes[at] = Process::None;
                self.apply(exited(at, self.runs[at].unwrap(), code));
            }
            Step::Late(at) if at < count && self.runs[at].is_some_and(|run| run > 0) => {
                let run = self.runs[at].unwrap() - 1;
                self.apply(exited(at, run, 1));
                self.apply(started(at, run));
            }
            Step::StartSucceeds(_) | Step::StartFails(_) | Step::Exits(..) | Step::Late(_) => {}
            Step::TimePasses(seconds) => {
                self.time += seconds;
                self.apply(Event::Tick);
            }
            Step::Stop(seconds) => {
                self.has_stopped = true;
                let grace = Duration::from_secs(seconds);
                self.apply(Event::Stop {
                    signal: None,
                    grace,
                });
            }
        }
    }

    fn is(&self, at: usize, process: Process) -> bool {
        self.processes.get(at) == Some(&process)
    }
}

proptest! {
    #[test]
    fn at_most_one_run_of_a_container_is_alive_and_a_stop_always_ends_the_machine(
        spec in specs(),
        steps in steps(),
    ) {
        let count = spec.containers.len();
        let mut world = World {
            machine: Machine::new(&spec).unwrap(),
            time: 0,
            processes: vec![Process::None; count],
            runs: vec![None; count],
            has_stopped: false,
            has_ended: false,
        };
        world.apply(Event::Tick);
        for step in &steps {
            world.step(step);
        }
        for (run, container) in world.runs.iter().zip(&spec.containers) {
            match container.restart.policy {
                No => prop_assert!(run.unwrap_or(0) == 0),
                OnFailure | Always => {}
            }
        }
        world.step(&Step::Stop(1));
        world.step(&Step::TimePasses(1));
        for at in 0..count {
            world.step(&Step::StartSucceeds(at));
            world.step(&Step::Exits(at, 0));
        }
        prop_assert!(world.has_ended);
    }

    #[test]
    fn restarts_never_exceed_the_limit_without_a_long_run(
        limit in 0..5u32,
        exits in proptest::collection::vec(0..2i32, 0..20),
    ) {
        let mut spec = container("a", Always);
        spec.restart.max_retries = Some(limit);
        let mut machine = Machine::new(&machine(vec![spec])).unwrap();
        machine.apply(now(0), Event::Tick);
        let mut runs = 0;
        for (time, code) in (0u64..).step_by(400).zip(exits) {
            machine.apply(now(time), started(0, runs));
            machine.apply(now(time), exited(0, runs, code));
            if starts(&machine.apply(now(time + 400), Event::Tick)).is_empty() {
                break;
            }
            runs += 1;
        }
        prop_assert!(runs <= limit);
    }
}
