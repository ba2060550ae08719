//! What a machine decides, by example. Random histories are in `history`.

mod changes;
mod history;
mod suspend;

use serde_json::json;
use types::guest::{ContainerReport, ContainerReportState};
use types::machine::{ContainerState, MachineState};
use types::{HostId, NetworkId};
use vmm::ReportEvent;

use super::*;
use crate::worker::capacity::Reservation;
use crate::worker::check;
use crate::worker::handle::CreateRequest;

pub(super) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).unwrap()
}

fn checked(config: serde_json::Value) -> CheckedConfig {
    check(serde_json::from_value(config).unwrap()).unwrap()
}

pub(super) fn machine(config: serde_json::Value) -> Machine {
    let class = config["isolation"].as_str().map(|class| class.parse());
    let isolation = class.map_or(IsolationClass::Container, Result::unwrap);
    let request = CreateRequest {
        reservation: Reservation {
            id: ulid::Ulid::nil(),
        },
        id: MachineId::from_bits(1),
        app: "web".parse().unwrap(),
        network: NetworkId::try_from(7).unwrap(),
        name: "one".into(),
        config: checked(config),
        launch: false,
        lease: None,
        cordoned: false,
        placement: None,
        creation_key: None,
        secrets: SecretsWanted::default(),
    };
    let ipv4 = std::net::Ipv4Addr::new(172, 19, 0, 2);
    let allocation = Allocation {
        field: 0x1_0000,
        ipv4,
        uid: 1,
    };
    let host = HostId::new(2);
    let given = New {
        request,
        isolation,
        region: "local".into(),
        host,
        allocation,
    };
    Machine::create(given, at(0)).launch(at(0), false, None).0
}

/// Images as the containers of a machine have them.
fn images(machine: &Machine) -> Vec<ImageIdentity> {
    let images = machine.containers.iter();
    images
        .map(|container| container.image_ref.clone())
        .collect()
}

impl Machine {
    fn then(&mut self, second: i64, event: Event) -> Vec<Effect> {
        let effects = self.apply(at(second), event).unwrap();
        effects
            .into_iter()
            .filter(|effect| !matches!(effect, Effect::Record(_)))
            .collect()
    }

    fn started(mut self) -> Self {
        self.then(1, Event::Start);
        self.runs(1);
        self
    }

    /// Its boot is prepared and becomes ready.
    fn runs(&mut self, second: i64) -> Vec<Effect> {
        let prepared = Event::Prepared {
            boot: BootId(self.boots),
            images: images(self),
            deadline: at(second + 60),
        };
        self.then(second, prepared);
        let effects = self.then(second + 1, ready(self.boots));
        assert_eq!(self.shown_state(), MachineState::Started);
        effects
    }
}

fn report(boot: u64, seq: u64, event: ReportEvent) -> Event {
    Event::Reported {
        boot: BootId(boot),
        report: Report { seq, event },
    }
}

fn ready(boot: u64) -> Event {
    report(boot, 1, ReportEvent::Ready)
}

fn exit(boot: u64, exit_code: i32) -> Event {
    let exit = ExitEvent {
        exit_code,
        ..ExitEvent::default()
    };
    report(boot, 9, ReportEvent::Exited { exit })
}

fn newest(machine: &Machine) -> (&str, &str, &str) {
    let event = &machine.events[0];
    (&event.kind, &event.status, &event.source)
}

#[test]
fn a_machine_is_started_in_steps_and_each_is_told() {
    let mut machine = machine(json!({"image": "x"}));
    assert_eq!(newest(&machine), ("launch", "created", "user"));
    assert_eq!(
        machine.then(1, Event::Start),
        [Effect::Prepare { boot: BootId(1) }]
    );
    assert_eq!(newest(&machine), ("start", "starting", "user"));
    let prepared = Event::Prepared {
        boot: BootId(1),
        images: vec![],
        deadline: at(60),
    };
    assert_eq!(
        machine.then(2, prepared),
        [Effect::Boot { boot: BootId(1) }]
    );
    assert_eq!(machine.shown_state(), MachineState::Starting);
    assert!(machine.then(3, ready(1)).is_empty());
    assert_eq!(newest(&machine), ("start", "started", "flyd"));
    assert_eq!(machine.shown_state(), MachineState::Started);
}

#[test]
fn a_stop_has_a_signal_a_grace_and_then_a_kill() {
    let stop = json!({"signal": "SIGTERM", "timeout": "20s"});
    let mut machine = machine(json!({"image": "x", "stop_config": stop})).started();
    let effects = machine.then(
        10,
        Event::Stop {
            signal: None,
            grace: None,
        },
    );
    let signal = Some("SIGTERM".to_owned());
    let grace = Duration::from_secs(20);
    assert_eq!(
        effects,
        [Effect::Signal {
            boot: BootId(1),
            signal,
            grace
        }]
    );
    assert!(machine.then(34, Event::Tick).is_empty());
    assert_eq!(
        machine.then(35, Event::Tick),
        [Effect::Clear { boot: BootId(1) }]
    );
    machine.then(36, Event::Cleared { boot: BootId(1) });
    assert_eq!(machine.shown_state(), MachineState::Stopped);
    let exit = machine.events[0]
        .request
        .clone()
        .unwrap()
        .exit_event
        .unwrap();
    assert!(exit.requested_stop && exit.exit_code == 137);
}

#[test]
fn a_second_stop_may_only_shorten_the_grace() {
    let mut machine = machine(json!({"image": "x"})).started();
    let stop = |s| Event::Stop {
        signal: None,
        grace: Some(Duration::from_secs(s)),
    };
    machine.then(10, stop(30));
    machine.then(11, stop(0));
    assert_eq!(machine.due(), Some(at(16)));
    machine.then(12, stop(100));
    assert_eq!(machine.due(), Some(at(16)));
}

#[test]
fn a_late_exit_of_an_earlier_boot_is_ignored() {
    let mut machine = machine(json!({"image": "x"})).started();
    machine.then(10, exit(1, 1));
    machine.then(10, Event::Cleared { boot: BootId(1) });
    machine.then(11, Event::Tick);
    let prepared = Event::Prepared {
        boot: BootId(2),
        images: vec![],
        deadline: at(60),
    };
    machine.then(12, prepared);
    machine.then(13, ready(2));
    let before = machine.clone();
    assert!(machine.then(14, exit(1, 1)).is_empty());
    assert!(
        machine
            .then(14, Event::ShimGone { boot: BootId(1) })
            .is_empty()
    );
    assert!(
        machine
            .then(14, Event::Cleared { boot: BootId(1) })
            .is_empty()
    );
    assert_eq!(machine, before);
}

#[test]
fn a_report_that_was_seen_before_a_restart_of_the_worker_is_ignored() {
    let mut machine = machine(json!({"image": "x"})).started();
    let before = machine.clone();
    machine.then(
        9,
        report(
            1,
            1,
            ReportEvent::Failed {
                reason: "again".into(),
            },
        ),
    );
    assert_eq!(machine, before);
}

/// The pauses before the restarts of a machine that always exits with `exit_code`.
fn pauses(restart: serde_json::Value, exit_code: i32) -> Vec<i64> {
    let mut machine = machine(json!({"image": "x", "restart": restart})).started();
    let mut pauses = Vec::new();
    let mut second = 10;
    while pauses.len() < 30 {
        machine.then(second, exit(machine.boots, exit_code));
        machine.then(
            second,
            Event::Cleared {
                boot: BootId(machine.boots),
            },
        );
        let Some(due) = machine.due() else { break };
        pauses.push(due.duration_since(at(second)).as_secs());
        second += pauses[pauses.len() - 1];
        machine.then(second, Event::Tick);
        let boot = BootId(machine.boots);
        machine.then(
            second,
            Event::Prepared {
                boot,
                images: vec![],
                deadline: at(second + 60),
            },
        );
        machine.then(second, ready(boot.0));
    }
    pauses
}

#[test]
fn the_restart_policy_decides_with_a_growing_pause() {
    assert_eq!(pauses(json!({"policy": "no"}), 1), [0; 0]);
    assert_eq!(pauses(json!({"policy": "on-failure"}), 0), [0; 0]);
    let ten = [1, 2, 4, 8, 16, 32, 60, 60, 60, 60];
    assert_eq!(pauses(json!({"policy": "on-failure"}), 1), ten);
    assert_eq!(
        pauses(json!({"policy": "on-failure", "max_retries": 2}), 1),
        [1, 2]
    );
    assert_eq!(pauses(json!({"policy": "always"}), 0).len(), 30);
    assert_eq!(
        pauses(json!({"policy": "always", "max_retries": 3}), 0),
        [1, 2, 4]
    );
}

#[test]
fn a_long_run_makes_earlier_restarts_count_no_more() {
    let mut machine = machine(json!({"image": "x"})).started();
    machine.restarts = 9;
    machine.then(2 + 300, exit(1, 1));
    assert_eq!(machine.restarts, 1);
}

#[test]
fn an_exit_is_told_exactly() {
    let mut machine = machine(json!({"image": "x"})).started();
    machine.then(5, exit(1, 3));
    assert_eq!(newest(&machine), ("exit", "stopped", "flyd"));
    let request = machine.events[0].request.clone().unwrap();
    let exit = request.exit_event.unwrap();
    assert_eq!(
        (exit.exit_code, exit.requested_stop, exit.restarting),
        (3, false, true)
    );
    assert_eq!(request.restart_count, 1);
}

#[test]
fn an_image_that_cannot_be_had_fails_the_machine_and_says_why() {
    let mut machine = machine(json!({"image": "x"}));
    machine.then(1, Event::Start);
    let reason = "cannot get image x: unknown".to_owned();
    let boot = BootId(1);
    machine.then(
        2,
        Event::Unprepared {
            boot,
            container: "app".into(),
            reason: reason.clone(),
        },
    );
    assert_eq!(machine.shown_state(), MachineState::Failed);
    assert_eq!(machine.containers[0].state, ContainerState::Failed);
    assert_eq!(machine.containers[0].message, reason);
    assert_eq!(machine.events[0].request.clone().unwrap().message, reason);
    assert_eq!(
        machine.then(3, Event::Start),
        [Effect::Prepare { boot: BootId(2) }]
    );
}

#[test]
fn a_boot_that_never_becomes_ready_is_ended_and_follows_the_policy() {
    let mut machine = machine(json!({"image": "x", "restart": {"policy": "no"}}));
    machine.then(1, Event::Start);
    let boot = BootId(1);
    machine.then(
        1,
        Event::Prepared {
            boot,
            images: vec![],
            deadline: at(60),
        },
    );
    assert_eq!(machine.then(60, Event::Tick), [Effect::Clear { boot }]);
    machine.then(61, Event::Cleared { boot });
    assert_eq!(machine.shown_state(), MachineState::Failed);
}

#[test]
fn an_update_replaces_the_boot_and_the_version() {
    let mut machine = machine(json!({"image": "x"})).started();
    let old = machine.version.clone();
    let update = |launch, current_version| {
        Event::Update(Box::new(Update {
            config: Arc::new(checked(json!({"image": "y"}))),
            isolation: IsolationClass::Container,
            version: new_version(at(5)),
            launch,
            current_version,
            cordon: false,
            secrets: SecretsWanted::default(),
        }))
    };
    let stale = machine.apply(at(5), update(true, Some(new_version(at(9)))));
    assert!(matches!(stale, Err(Refused::VersionMismatch { .. })));
    let effects = machine.then(5, update(true, Some(old.clone())));
    assert!(matches!(
        &effects[..],
        [Effect::Retire(retired), Effect::Signal { boot: BootId(1), .. }]
            if retired.version == old
    ));
    assert!(machine.version > old);
    assert_eq!(machine.shown_state(), MachineState::Updating);
    assert_eq!(newest(&machine), ("update", "updating", "user"));
    assert_eq!(
        machine.then(6, exit(1, 0)),
        [Effect::Clear { boot: BootId(1) }]
    );
    let cleared = machine.then(6, Event::Cleared { boot: BootId(1) });
    assert_eq!(cleared, [Effect::Prepare { boot: BootId(2) }]);
}

#[test]
fn a_running_machine_is_only_destroyed_by_force() {
    let mut machine = machine(json!({"image": "x"})).started();
    let refused = machine.apply(at(5), Event::Destroy { force: false });
    assert!(matches!(
        refused,
        Err(Refused::WrongState {
            verb: "destroy",
            ..
        })
    ));
    let effects = machine.then(5, Event::Destroy { force: true });
    assert_eq!(effects, [Effect::Clear { boot: BootId(1) }]);
    assert_eq!(
        machine.then(6, Event::Cleared { boot: BootId(1) }),
        [Effect::Forget]
    );
    machine.then(7, Event::Forgotten);
    assert_eq!(newest(&machine), ("destroy", "destroyed", "flyd"));
    assert!(machine.apply(at(8), Event::Start).is_err());
}

#[test]
fn an_auto_destroyed_machine_goes_when_it_has_ended() {
    let mut machine = machine(json!({"image": "x", "auto_destroy": true})).started();
    machine.then(5, exit(1, 0));
    assert_eq!(
        machine.then(6, Event::Cleared { boot: BootId(1) }),
        [Effect::Forget]
    );
}

#[test]
fn containers_show_their_runs() {
    let mut machine = machine(json!({"image": "x"})).started();
    let told = |seq, run, state| {
        let container = "app".to_owned();
        report(
            1,
            seq,
            ReportEvent::Container(ContainerReport {
                container,
                run,
                state,
            }),
        )
    };
    let exit = ExitEvent {
        exit_code: 2,
        ..ExitEvent::default()
    };
    let started = |unix_ms| ContainerReportState::Started { pid: 1, unix_ms };
    machine.then(3, told(2, 0, started(1000)));
    let ended = ContainerReportState::Exited {
        exit: exit.clone(),
        restart_after_ms: Some(10),
    };
    machine.then(4, told(3, 0, ended));
    assert_eq!(machine.containers[0].state, ContainerState::Waiting);
    machine.then(5, told(4, 1, started(2000)));
    let now = &machine.containers[0];
    assert_eq!((now.state, now.restart_count), (ContainerState::Started, 1));
    assert_eq!(now.last_exit.as_ref().unwrap().exit_event, exit);
    // A guest may only speak of what it was given.
    let stranger = ContainerReport {
        container: "x".into(),
        run: 0,
        state: started(1),
    };
    machine.then(6, report(1, 5, ReportEvent::Container(stranger)));
    assert_eq!(machine.containers.len(), 1);
    machine.then(7, Event::ShimGone { boot: BootId(1) });
    assert_eq!(machine.containers[0].state, ContainerState::Stopped);
    assert_eq!(
        machine.containers[0].exit_event.as_ref().unwrap().exit_code,
        137
    );
}
